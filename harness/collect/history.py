"""The stored window of any Prometheus, read-only, within a budget of time: series that match, and expressions over the window."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from harness.errors import UsageError
from harness.rules.audit import Matrix, Points, Unanswered
from harness.rules.evaluate import Labels

_MOST_SERIES = 500
"""Enough to see which labels there are."""
_PATIENCE_S = 10.0
"""For one request; the server is told to give up then, too."""


class History:
    """One server. Asked by several threads at once; answers are remembered."""

    def __init__(self, url: str, *, window_s: float, budget_s: float, end_s: float | None = None) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(base_url=self.url, timeout=_PATIENCE_S)
        self._until = time.monotonic() + budget_s
        self._budget_s = budget_s
        self._known: dict[tuple[str, str], Any] = {}
        self.end_s = self._now() if end_s is None else end_s
        self.start_s = self.end_s - window_s

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def names(self) -> frozenset[str]:
        """Every metric of the window."""
        window = {"start": f"{self.start_s:.3f}", "end": f"{self.end_s:.3f}"}
        return frozenset(self._wanted("/api/v1/label/__name__/values", window))

    @property
    def rules(self) -> Sequence[Mapping[str, Any]]:
        """The groups of rules that the server runs."""
        return tuple(self._wanted("/api/v1/rules", {})["groups"])

    @property
    def interval_s(self) -> float:
        """The evaluation interval of groups that name none. 60 s, Prometheus' default, if the server does not show its configuration."""
        return float(self._configured.get("evaluation_interval_s", 60.0))

    @property
    def query_offset_s(self) -> float:
        """How long ago the queries of rules ask for whose groups do not say. 0 if the server does not show its configuration."""
        return float(self._configured.get("rule_query_offset_s", 0.0))

    @functools.cached_property
    def _configured(self) -> Mapping[str, Any]:
        from harness.collect.prometheus import intervals

        try:
            return intervals(self._get("/api/v1/status/config", {})["yaml"])
        except (Unanswered, KeyError, TypeError):
            return {}

    def matching(self, selector: str) -> Sequence[Mapping[str, str]]:
        """Labels of up to 500 series."""
        window = {"start": f"{self.start_s:.3f}", "end": f"{self.end_s:.3f}", "limit": str(_MOST_SERIES)}
        return tuple(self._remembered("/api/v1/series", selector, {"match[]": selector, **window}))

    def over_time(self, expression: str, step_s: float) -> Matrix:
        """A range query over the window."""
        window = {"start": f"{self.start_s:.3f}", "end": f"{self.end_s:.3f}", "step": f"{step_s:.3f}", "timeout": f"{_PATIENCE_S:g}s"}
        answer = self._remembered("/api/v1/query_range", f"{step_s} {expression}", {"query": expression, **window})
        return dict(_series(entry) for entry in answer["result"] if entry.get("values"))

    def _now(self) -> float:
        """The server's own clock, to a millisecond."""
        return float(self._wanted("/api/v1/query", {"query": "time()"})["result"][1])

    def _remembered(self, path: str, key: str, parameters: Mapping[str, str]) -> Any:
        if (path, key) not in self._known:
            self._known[path, key] = self._get(path, parameters)
        return self._known[path, key]

    def _wanted(self, path: str, parameters: Mapping[str, str]) -> Any:
        try:
            return self._get(path, parameters)
        except Unanswered as exc:
            raise UsageError(f"prometheus at {self.url}: {exc}; is it up?") from exc

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            msg = f"not asked: the {self._budget_s:g} s were over"
            raise Unanswered(msg)
        try:
            response = self._client.get(path, params=dict(parameters), timeout=min(_PATIENCE_S, left_s) + 0.5)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as exc:
            msg = f"{path} gave no answer: {type(exc).__name__} {exc}".rstrip()
            raise Unanswered(msg) from exc
        if not isinstance(answer, dict) or answer.get("status") != "success":
            said = answer.get("error", response.text[:200]) if isinstance(answer, dict) else response.text[:200]
            msg = f"{path} answered {response.status_code}: {said}"
            raise Unanswered(msg)
        return answer["data"]


def _series(entry: Mapping[str, Any]) -> tuple[Labels, Points]:
    return tuple(sorted(entry["metric"].items())), tuple((float(at_s), float(number)) for at_s, number in entry["values"])
