"""Prometheus, read after the load: raw samples, what its rules wrote, the instants of its scrapes, and its own settings."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from harness.clock import Clock
from harness.collect import series
from harness.collect.naming import OURS, Translator
from harness.measure import flavour
from harness.model import Gap, Observation, Poll, Sample, Source, UnixNs

TIMEOUT_S = 20.0
_QUERIES = (
    # First: of every scrape that is known to have been green the samples were stored when they are read.
    (Source.PROMETHEUS, series.SCRAPES),
    (Source.PROMETHEUS, (*series.AGENT, *series.SFU)),
    (Source.RULES, series.RULES),
)
_CLOCK_TRIES = 5
_REFUSED = re.compile("|".join(series.REFUSALS))
_WINDOW = re.compile(r"\[([0-9a-z]+)\]")
_DURATION = re.compile(r"(\d+)(ms|[smhdwy])")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}


class Prometheus:
    """One server, over its HTTP API."""

    def __init__(self, url: str, *, clock: Clock, client: httpx.Client, names: Translator = OURS) -> None:
        self.url = url.rstrip("/")
        self._names = names
        self._clock = clock
        self._client = client
        self._extra: dict[str, str] = {}
        """Parameters of every query, beyond what Prometheus takes."""
        self._refusals: tuple[Sample, ...] = ()
        """As they stood when the settings were read: before the load."""

    def read(self, since: UnixNs, until: UnixNs) -> tuple[Observation | Gap, ...]:
        """Every raw sample of the window of the series we judge, and every sample that rules wrote; a Gap for each query that failed.

        And what its clock is, as ``clock_offset_s`` and ``clock_doubt_s``.
        """
        asked = tuple(item for source, names in _QUERIES for item in self._read(source, names, since, until))
        return (*self._refusals, *self._refused(), *asked, *self._clock_samples())

    def _clock_samples(self) -> Iterator[Sample]:
        """The server's time less ours in the middle of its quickest answer, and half of what that took. Nothing if it does not say."""
        answers: list[tuple[float, float, UnixNs]] = []
        for _ in range(_CLOCK_TRIES):
            asked_at = self._clock.now()
            answer = self._get("/api/v1/query", {"query": "time()"})
            took_ns = self._clock.now() - asked_at
            if answer is not None and answer.get("resultType") == "scalar":
                offset_s = float(answer["result"][1]) - (asked_at + took_ns / 2) / 1e9
                answers.append((took_ns / 2e9, offset_s, asked_at))
        if answers:
            doubt_s, offset_s, at = min(answers)
            for name, number in (("clock_offset_s", offset_s), ("clock_doubt_s", doubt_s)):
                yield Sample(
                    source=Source.PROMETHEUS, name=name, labels={}, value=number, at=at, request=f"{self.url}/api/v1/query?query=time()"
                )

    def _refused(self) -> tuple[Sample, ...]:
        """What it counts of itself, now, of samples that it did not take."""
        at = self._clock.now()
        try:
            families = tuple(text_string_to_metric_families(self._own_metrics()))
        except ValueError:
            return ()
        lines = (line for family in families for line in family.samples if _REFUSED.fullmatch(line.name) and _is_refusal(line.labels))
        return tuple(
            Sample(source=Source.PROMETHEUS, name=line.name, labels=line.labels, value=line.value, at=at, request=f"{self.url}/metrics")
            for line in lines
        )

    def settings(self) -> Mapping[str, Any]:
        """Version, flavour and intervals in seconds, as far as the server shows them."""
        build = self._get("/api/v1/status/buildinfo", {}) or {}
        config = (self._get("/api/v1/status/config", {}) or {}).get("yaml")
        flags = self._get("/api/v1/status/flags", {}) or {}
        product = flavour.detected(build, flags, self._own_metrics())
        # By default it hides its newest 30 s from whoever asks for now.
        self._extra = {"nocache": "1"} if product == "victoriametrics" else {}
        self._refusals = self._refused()
        return {
            "prometheus_version": str(build.get("version", "unknown")),
            "prometheus_flavour": product,
            **(_scrapes_only(intervals(config), product) if config else self._spacing()),
            **_longest_window(self.rules()),
            **_lookback(flags),
        }

    def _spacing(self) -> dict[str, float]:
        """``scrape_interval_s`` of a server that does not show its configuration: as its samples of ``up`` are spaced."""
        data = self._get("/api/v1/query", {"query": f"{self._names.selector(('up',))}[5m]", **self._extra}) or {}
        series_of = [[float(at) for at, _ in entry.get("values", ())] for entry in data.get("result", ())]
        gaps = sorted(after - before for instants in series_of for before, after in itertools.pairwise(instants))
        return {"scrape_interval_s": round(gaps[len(gaps) // 2], 1)} if gaps else {}

    def _own_metrics(self) -> str:
        """What the server exports of itself: an engine that answers like Prometheus says there that it is another."""
        try:
            return self._client.get(f"{self.url}/metrics", timeout=TIMEOUT_S).raise_for_status().text
        except httpx.HTTPError:
            return ""

    def rules(self) -> str | None:
        """The text of a rule file with those of its recording rules that we judge, in our words. None: it has none, or does not show them."""
        groups = (self._get("/api/v1/rules", {"type": "record"}) or {}).get("groups") or ()
        told = [
            {"record": record, "expr": self._names.expression(rule["query"])}
            for group in groups
            for rule in group.get("rules") or ()
            if rule.get("type") == "recording" and (record := self._record(rule["name"])) is not None
        ]
        return yaml.safe_dump({"groups": [{"name": "theirs", "rules": told}]}, sort_keys=False) if told else None

    def _record(self, theirs: str) -> str | None:
        told = self._names.series(theirs, {}, 0.0)
        return told[0] if told is not None and series.is_recorded(told[0]) else None

    def has_tried_all(self, since: UnixNs) -> bool:
        """Every target has been scraped, or tried in vain, after ``since``. True if the server does not say."""
        answer = self._get("/api/v1/query", {"query": "min(timestamp(up))", **self._extra})
        result = answer.get("result") if answer else None
        return not result or float(result[0]["value"][1]) * 1e9 > since

    def _read(self, source: Source, names: tuple[str, ...], since: UnixNs, until: UnixNs) -> tuple[Observation | Gap, ...]:
        # +1 s: 3.x windows are left-open.
        window_s = math.ceil((until - since) / 1e9) + 1
        query = f"{self._names.selector(names)}[{window_s}s]"
        parameters = {"query": query, "time": f"{until / 1e9:.3f}", **self._extra}
        request = str(httpx.URL(f"{self.url}/api/v1/query", params=parameters))
        at = self._clock.now()
        try:
            response = self._client.get(request, timeout=TIMEOUT_S)
            if response.status_code != httpx.codes.OK:
                return (Gap(source=source, at=at, reason=f"answered {response.status_code}: {response.text[:200]}", request=request),)
            samples = tuple(matrix(response.json(), source=source, request=request, names=self._names))
        except httpx.HTTPError as exc:
            return (Gap(source=source, at=at, reason=f"{type(exc).__name__}: {exc}", request=request),)
        except (ValueError, KeyError, TypeError) as exc:
            return (Gap(source=source, at=at, reason=f"no query result: {exc!r}", request=request),)
        took_s = (self._clock.now() - at) / 1e9
        return (Poll(source=source, at=at, took_s=took_s, count=len(samples), request=request), *samples)

    def _get(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any] | None:
        try:
            response = self._client.get(self.url + path, params=parameters, timeout=TIMEOUT_S)
            response.raise_for_status()
            data = response.json()["data"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None
        return data if isinstance(data, dict) else None


def _is_refusal(labels: Mapping[str, str]) -> bool:
    """Of requests only pushes that were answered with an error."""
    if "code" not in labels:
        return True
    return labels["code"][:1] in "45" and any(path in labels.get("handler", "") for path in ("/otlp/", "/write"))


def _scrapes_only(found: dict[str, Any], product: str) -> dict[str, Any]:
    """VictoriaMetrics evaluates no rules: its configuration is about scrapes, and nobody waits for an evaluation."""
    return {**found, "evaluation_interval_s": found["scrape_interval_s"]} if product == "victoriametrics" else found


def _lookback(flags: Mapping[str, Any]) -> dict[str, float]:
    """``lookback_s``, where the server shows its flags."""
    said = flags.get("query.lookback-delta")
    return {"lookback_s": seconds(str(said))} if said else {}


def _longest_window(rules: str | None) -> dict[str, float]:
    """``rules_window_s``, if there is a rule with a window."""
    windows = [seconds(window) for window in _WINDOW.findall(rules or "")]
    return {"rules_window_s": max(windows)} if windows else {}


def matrix(answer: Mapping[str, Any], *, source: Source, request: str, names: Translator = OURS) -> Iterator[Sample]:
    """The samples of a range selector's answer, by our names. Native histograms have none."""
    for entry in answer["data"]["result"]:
        labels = dict(entry["metric"])
        name = labels.pop("__name__")
        for seconds, number in entry.get("values", ()):
            told = names.series(name, labels, float(number))
            if told is not None:
                at = UnixNs(round(seconds * 1000) * 1_000_000)
                yield Sample(source=source, name=told[0], labels=told[1], value=told[2], at=at, request=request)


def intervals(config: str) -> dict[str, Any]:
    """``scrape_interval_s``, ``evaluation_interval_s``, ``rule_query_offset_s`` and, for jobs that differ, ``scrape_interval_s_by_job``."""
    document = yaml.safe_load(config) or {}
    common = document.get("global") or {}
    scrape_s = seconds(common.get("scrape_interval", "1m"))
    by_job = {job["job_name"]: seconds(job.get("scrape_interval", f"{scrape_s:g}s")) for job in document.get("scrape_configs") or ()}
    different = {job: interval_s for job, interval_s in by_job.items() if interval_s != scrape_s}
    return {
        "scrape_interval_s": scrape_s,
        "scrape_timeout_s": min(seconds(common.get("scrape_timeout", "10s")), scrape_s),
        "evaluation_interval_s": seconds(common.get("evaluation_interval", "1m")),
        **({"rule_query_offset_s": seconds(common["rule_query_offset"])} if "rule_query_offset" in common else {}),
        **({"scrape_interval_s_by_job": different} if different else {}),
    }


def seconds(duration: str) -> float:
    """A Prometheus duration, such as ``1m30s``, in seconds."""
    return sum(int(count) * _SECONDS[unit] for count, unit in _DURATION.findall(duration))
