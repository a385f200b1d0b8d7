"""What was said of alerts, read after the drill: states as Prometheus stored them, what the expressions yielded, deliveries, rows."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import promql_parser as pp

from harness.clock import Clock
from harness.model import Gap, Observation, Poll, Row, Source, Target, UnixNs
from harness.rules.alerts import AlertRule
from harness.rules.windows import compared

_TIMEOUT_S = 30.0
_MOST_POINTS = 10_000
"""Of a range query; the server's limit is 11000."""
_GONE_SCRAPES = 1.1
"""Prometheus waits for two scrapes and a tenth before it marks the series of a target that left as stale, and stamps the mark with the first."""
_GONE_EVALUATIONS = 2.0
"""And two evaluations before it marks those of a group of rules that is no longer loaded, stamped with the reload."""
_RECORDED = re.compile(r"\w:\w")
"""A name with a colon is a recording rule's."""
_EVALUATING = "prometheus_rule_group_last_duration_seconds"
_SENDING = "prometheus_notifications_latency_seconds_sum"
_NOTIFYING = "alertmanager_notification_latency_seconds_sum"
_CONTROLS = (
    "prometheus_notifications_errors_total",
    "prometheus_notifications_dropped_total",
    "alertmanager_notifications_failed_total",
)
Found = tuple[Source, tuple[Observation | Gap, ...]]


class Alerts:
    """Prometheus, the receiver's log and the table of one embedded stack. A context manager: it keeps a connection."""

    def __init__(self, target: Target, log: Path, *, clock: Clock) -> None:
        self._target, self._log, self._clock = target, log, clock
        self._client = httpx.Client(timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Alerts:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def read(self, since: UnixNs, until: UnixNs, rules: Sequence[AlertRule], *, lookback_s: float, scrape_s: float) -> Iterator[Found]:
        """Everything of the window. lookback_s: how long before it states are read, so that an episode's beginning is seen."""
        yield Source.ALERTS, self._guarded(Source.ALERTS, lambda: self._states(since, until, rules, lookback_s, scrape_s))
        yield Source.RECEIVER, self._guarded(Source.RECEIVER, self._deliveries)
        yield Source.ROWS, self._guarded(Source.ROWS, self._rows)

    def _guarded(self, source: Source, read: Any) -> tuple[Observation | Gap, ...]:
        at = self._clock.now()
        try:
            found = tuple(read())
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as exc:
            return (Gap(source=source, at=at, reason=f"{type(exc).__name__}: {exc}", request=str(source)),)
        poll = Poll(source=source, at=at, took_s=(self._clock.now() - at) / 1e9, count=len(found), request=str(source))
        return (poll, *found)

    def _states(self, since: UnixNs, until: UnixNs, rules: Sequence[AlertRule], lookback_s: float, scrape_s: float) -> Iterator[Row]:
        window_s = math.ceil((until - since) / 1e9 + lookback_s)
        at_s = until / 1e9
        states = self._matrix(f"ALERTS[{window_s}s]", at_s)
        for labels, points in states:
            yield self._row("alert_states", {"labels": _nameless(labels), "at_s": [at for at, _ in points]})
        latency_s = self._latency(window_s, at_s)
        yield self._row("ingest", {"latency_s": latency_s, **self._requests(window_s, at_s)})
        for labels, points in self._matrix(f"up[{window_s}s]", at_s):
            if missed := [at for at, number in points if number == 0]:
                yield self._row("missed", {"labels": _nameless(labels), "at_s": missed})
        for metric in _CONTROLS:
            for labels, points in self._matrix(f"{metric}[{window_s}s]", at_s):
                yield self._row("controls", {"metric": metric, "labels": _nameless(labels), "first": points[0][1], "last": points[-1][1]})
        for rule in rules:
            # From before the drill, where the first episodes may have begun.
            grid = _grid(states, rule, since / 1e9 - lookback_s, at_s)
            # Without those that were still on their way; what tells that a target has left comes later than any sample.
            late_s = latency_s + max(
                _GONE_SCRAPES * scrape_s if "absent(" in rule.expression else 0.0,
                _GONE_EVALUATIONS * rule.interval_s if _RECORDED.search(rule.expression) else 0.0,
            )
            for shift_s in (0.0, round(late_s, 3)):
                for labels, points in self._range(rule.expression, grid, -shift_s):
                    columns = {"alert": rule.name, "labels": _nameless(labels), "shift_s": shift_s}
                    yield self._row("alert_truth", {**columns, "at_s": [round(at + shift_s, 3) for at, _ in points]})
            if (signal := _signal(rule)) is not None:
                for labels, points in self._range(signal, grid, 0.0):
                    columns = {"alert": rule.name, "labels": _nameless(labels), "at_s": [at for at, _ in points]}
                    yield self._row("signals", {**columns, "values": [float(f"{number:.6g}") for _, number in points]})

    def _latency(self, window_s: int, at_s: float) -> float:
        """The longest scrape: a sample bears the instant at which its scrape began, and is seen when it has ended."""
        found = self._get("/api/v1/query", {"query": f"max(max_over_time(scrape_duration_seconds[{window_s}s]))", "time": f"{at_s:.3f}"})
        return round(float(found["result"][0]["value"][1]) + 0.005, 3)

    def _requests(self, window_s: int, at_s: float) -> dict[str, float]:
        """The longest that an alert took from its evaluation to Alertmanager, and a notification to the receiver: each sender's own clock."""
        evaluated = self._get("/api/v1/query", {"query": f"max(max_over_time({_EVALUATING}[{window_s}s]))", "time": f"{at_s:.3f}"})
        evaluated_s = float(evaluated["result"][0]["value"][1])
        return {
            "sent_s": round(evaluated_s + self._longest(_SENDING, window_s, at_s), 4),
            "notified_s": round(self._longest(_NOTIFYING, window_s, at_s), 4),
        }

    def _longest(self, metric: str, window_s: int, at_s: float) -> float:
        """What a sum of latencies grew by from one scrape to the next, at most: no single one of them was longer."""
        found = [0.0]
        for _, points in self._matrix(f"{metric}[{window_s}s]", at_s):
            found += [after - before if after >= before else after for (_, before), (_, after) in itertools.pairwise(points)]
        return max(found)

    def _matrix(self, selector: str, at_s: float) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        return _series(self._get("/api/v1/query", {"query": selector, "time": f"{at_s:.3f}"}))

    def _range(
        self, expression: str, grid: tuple[float, float, float], shift_s: float
    ) -> Iterator[tuple[dict[str, str], list[tuple[float, float]]]]:
        """The expression at every evaluation of the grid (first, last, step), each asked ``shift_s`` later."""
        first, last, step_s = grid
        while first <= last:
            end = min(last, first + (_MOST_POINTS - 1) * step_s)
            asked = {"start": f"{first + shift_s:.3f}", "end": f"{end + shift_s:.3f}", "step": f"{step_s:g}s", "query": expression}
            yield from _series(self._get("/api/v1/query_range", asked))
            first = end + step_s

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        answer = self._client.get(f"{self._target.prometheus_url}{path}", params=parameters)
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"{path}?query={parameters['query'][:80]} answered {answer.status_code}: {answer.text[:200]}")
        return answer.json()["data"]

    def _deliveries(self) -> Iterator[Row]:
        for line in self._log.read_text().splitlines():
            told = json.loads(line)
            if "alerts" in told:
                yield self._row("deliveries", told, Source.RECEIVER)

    def _rows(self) -> Iterator[Row]:
        """All of them: the table is the stack's own, and judged whole."""
        key = str(self._target.supabase_key)
        headers = {"apikey": key, "authorization": f"Bearer {self._target.supabase_token or key}"}
        start, page = 0, list[Any]([None])
        while page:
            query = f"select=*&order=starts_at,id&offset={start}&limit=500"
            answer = self._client.get(f"{self._target.supabase_url}/rest/v1/alerts_history?{query}", headers=headers)
            page = answer.raise_for_status().json()
            start += len(page)
            for row in page:
                yield self._row("alerts_history", row, Source.ROWS)

    def _row(self, table: str, columns: Mapping[str, Any], source: Source = Source.ALERTS) -> Row:
        return Row(source=source, table=table, columns=columns, at=self._clock.now(), request=f"{table} of the embedded stack")


def _grid(states: Sequence[Any], rule: AlertRule, since_s: float, until_s: float) -> tuple[float, float, float]:
    """First and last evaluation of the window, and their distance: by the phase that states show. Without any, the window's own start."""
    instants = sorted(at for _, points in states for at, _ in points)
    phase_s = instants[-1] if instants else since_s
    step_s = rule.interval_s
    first = phase_s - math.floor((phase_s - since_s) / step_s) * step_s
    return first, first + math.floor((until_s - first) / step_s) * step_s, step_s


def _signal(rule: AlertRule) -> str | None:
    """What the rule compares, as an expression. None: it compares nothing."""
    tree = pp.parse(rule.expression)
    side = compared(tree)
    return None if side is tree or isinstance(side, pp.NumberLiteral) else str(side)


def _series(data: Any) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    return [(dict(entry["metric"]), [(float(at), float(number)) for at, number in entry.get("values", ())]) for entry in data["result"]]


def _nameless(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in labels.items() if name != "__name__"}
