"""A virtual night: a recorded healthy run in which every phase fell otherwise: our polls, Prometheus' scrapes, the rules' evaluations, the clock of
the agent's host. What happened is the same; what each hop says of it follows anew, honestly."""

from __future__ import annotations

import dataclasses
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median

import yaml

from harness.model import Evidence, Observation, Poll, Row, Sample, Source, UnixNs, value
from harness.rules import evaluate
from harness.rules.scale import scaled_rules

RULES = Path(__file__).parents[1] / "deploy" / "monitoring" / "rules" / "recording.yml"
_SCRAPE_NS = 20_000_000
"""The longest that a scrape lasts: the exporter's text is of some instant in it."""
_CLOCK_NS = 5_000_000
"""How far the clock of a host that follows NTP may be off."""
_EXPORTERS = (Source.AGENT_EXPORTER, Source.SFU_EXPORTER)
_OWNER = ("job", "instance")
_STAMPS = ("start_time", "end_time", "timestamp", "executed_at")

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A series as its exporter names it."""


@value
class History:
    """What an exporter's text was, and since when; ascending. What changed between two of our polls changed at one instant between them."""

    since: tuple[UnixNs, ...]
    texts: tuple[tuple[Sample, ...], ...]

    def at(self, instant: int) -> tuple[Sample, ...]:
        """The text at an instant; the first one before its time."""
        return self.texts[max(bisect_right(self.since, instant) - 1, 0)]


def night(evidence: Evidence, chance: Random, rules: Path = RULES) -> Evidence:
    """One virtual night of the run."""
    histories = {source: _history(evidence, source, chance) for source in _EXPORTERS}
    scrape_ns = round(1e9 * float(evidence.info.settings.get("scrape_interval_s", 15.0)))
    later_ns = round(chance.uniform(0, scrape_ns))
    clock_ns = round(chance.uniform(-_CLOCK_NS, _CLOCK_NS))
    kept = [
        _otherwise(item, later_ns, clock_ns)
        for item in evidence.observations
        if not (isinstance(item, Sample | Poll) and item.source in (*_EXPORTERS, Source.RULES))
        and not (isinstance(item, Sample) and item.source is Source.PROMETHEUS)
    ]
    polls = [item for source, history in histories.items() if history for item in _polled(evidence, source, history, chance)]
    samples = list(_scraped(evidence, [history for history in histories.values() if history], later_ns, chance))
    evaluated = list(_evaluated(evidence, samples, rules, chance))
    info = evidence.info
    assert info.read_at is not None
    return dataclasses.replace(
        evidence,
        info=dataclasses.replace(info, read_at=UnixNs(info.read_at + scrape_ns)),
        observations=(*kept, *polls, *samples, *evaluated),
    )


def _history(evidence: Evidence, source: Source, chance: Random) -> History | None:
    polls = [item for item in evidence.observations if isinstance(item, Poll) and item.source is source and item.count]
    texts: dict[UnixNs, list[Sample]] = {}
    for item in evidence.observations:
        if isinstance(item, Sample) and item.source is source:
            texts.setdefault(item.at, []).append(item)
    since: list[UnixNs] = []
    before: UnixNs | None = None
    for poll in sorted(polls, key=lambda poll: poll.at):
        if poll.at in texts:
            since.append(poll.at if before is None else UnixNs(chance.randint(before, poll.at)))
        before = poll.at
    return History(since=tuple(since), texts=tuple(tuple(texts[at]) for at in sorted(texts))) if since else None


def _polled(evidence: Evidence, source: Source, history: History, chance: Random) -> Iterator[Observation]:
    """Our own polls at another phase; the first and the last are where they were, since a run begins and ends with one."""
    recorded = sorted(
        (item for item in evidence.observations if isinstance(item, Poll) and item.source is source), key=lambda poll: poll.at
    )
    every_ns = round(median(after.at - before.at for before, after in itertools.pairwise(recorded)))
    first, last = recorded[0].at, recorded[-1].at
    instants = [first, *range(first + chance.randint(1, every_ns), last, every_ns), last]
    before: tuple[Sample, ...] | None = None
    for at in instants:
        took = chance.choice(recorded)
        text = history.at(at)
        yield dataclasses.replace(took, at=UnixNs(at), count=len(text))
        if text is not before:
            yield from (dataclasses.replace(sample, at=UnixNs(at)) for sample in text)
            before = text


def _scraped(evidence: Evidence, histories: Sequence[History], later_ns: int, chance: Random) -> Iterator[Sample]:
    """Prometheus' raw samples: every scrape as much later, of what the exporter said while it lasted."""
    stored: dict[tuple[tuple[str, str], ...], dict[Key, Sample]] = {}
    instants: dict[tuple[tuple[str, str], ...], set[UnixNs]] = {}
    for item in evidence.observations:
        if isinstance(item, Sample) and item.source is Source.PROMETHEUS:
            owner = tuple((name, item.labels[name]) for name in _OWNER if name in item.labels)
            stored.setdefault(owner, {}).setdefault(_key(item), item)
            instants.setdefault(owner, set()).add(item.at)
            if item.name in ("up", "scrape_samples_scraped"):
                yield dataclasses.replace(item, at=UnixNs(item.at + later_ns))
    for owner, series in stored.items():
        for history in histories:
            if not any(_key(sample) in series for text in history.texts for sample in text):
                continue
            for at in sorted(instants[owner]):
                scraped_at = UnixNs(at + later_ns)
                for sample in history.at(scraped_at + chance.randint(0, _SCRAPE_NS)):
                    if (like := series.get(_key(sample))) is not None:
                        yield dataclasses.replace(like, at=scraped_at, value=sample.value)


def _evaluated(evidence: Evidence, samples: Sequence[Sample], rules: Path, chance: Random) -> Iterator[Observation]:
    """What the rules write at another phase of their own, of the samples as they are now."""
    told = [item for item in evidence.observations if isinstance(item, Sample | Poll) and item.source is Source.RULES]
    recorded = [item for item in told if isinstance(item, Sample)]
    yield from (item for item in told if isinstance(item, Poll))
    if not recorded:
        return
    factor = float(evidence.info.settings.get("time_scale", 1.0))
    every_ns = round(1e9 * float(evidence.info.settings.get("evaluation_interval_s", 15.0)))
    phase_ns = chance.randint(0, every_ns)
    lookback_s = float(evidence.info.settings.get("lookback_s", 300.0))
    instants = sorted({sample.at for sample in recorded})
    database = _database(samples)
    names = {sample.name for sample in recorded}
    for group in scaled_rules(yaml.safe_load(rules.read_text()), factor)["groups"]:
        for rule in group["rules"]:
            if rule.get("record") not in names:
                continue
            for at in range(instants[0] + phase_ns, instants[-1] + every_ns, every_ns):
                at_ms = at // 1_000_000
                for labels, number in evaluate.vector(rule["expr"], database, at_ms / 1000, lookback_s=lookback_s).items():
                    plain = {name: text for name, text in labels if name != "__name__"}
                    yield Sample(
                        source=Source.RULES,
                        name=rule["record"],
                        labels={**plain, **rule.get("labels", {})},
                        value=number,
                        at=UnixNs(at_ms * 1_000_000),
                        request=recorded[0].request,
                    )


def _database(samples: Sequence[Sample]) -> evaluate.Database:
    found: dict[str, dict[tuple[tuple[str, str], ...], list[tuple[float, float | None]]]] = {}
    for sample in samples:
        found.setdefault(sample.name, {}).setdefault(tuple(sorted(sample.labels.items())), []).append(
            (round(sample.at / 1_000_000) / 1000, sample.value)
        )
    return {
        name: [evaluate.series(name, sorted(points, key=lambda point: point[0]), **dict(labels)) for labels, points in series.items()]
        for name, series in found.items()
    }


def _otherwise(item: Observation, later_ns: int, clock_ns: int) -> Observation:
    """Prometheus was asked after the last scrape; rows carry the instants of the agent's own clock."""
    if isinstance(item, Row):
        columns = {
            name: _moved(text, clock_ns) if name in _STAMPS and isinstance(text, str) else text for name, text in item.columns.items()
        }
        return dataclasses.replace(item, columns=columns)
    return dataclasses.replace(item, at=UnixNs(item.at + later_ns)) if item.source is Source.PROMETHEUS else item


def _moved(stamp: str, by_ns: int) -> str:
    return (datetime.fromisoformat(stamp) + timedelta(microseconds=by_ns / 1000)).isoformat()


def _key(sample: Sample) -> Key:
    labels: Mapping[str, str] = sample.labels
    plain = {name: _bound(text) if name == "le" else text for name, text in labels.items() if name not in _OWNER}
    return sample.name, tuple(sorted(plain.items()))


def _bound(text: str) -> str:
    """Prometheus 3 stores ``1`` as ``1.0``."""
    return f"{float(text):g}" if not math.isnan(float(text)) else text
