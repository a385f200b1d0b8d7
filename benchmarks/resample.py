"""A virtual night: a recorded healthy run in which every phase fell otherwise: our polls, Prometheus' scrapes, the rules' evaluations, the clock of
the agent's host. What happened is the same; what each hop says of it follows anew, honestly."""

from __future__ import annotations

import dataclasses
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from statistics import median

from assertions import panels, rules
from assertions.facts import Facts
from assertions.recomputed import Engine
from harness.measure.series import Reader
from harness.model import Evidence, Observation, Poll, Row, Sample, Source, UnixNs, value
from harness.rules.panelfile import ASKED

_SCRAPE_NS = 20_000_000
"""The longest that a scrape lasts: the exporter's text is of some instant in it."""
_CLOCK_NS = 5_000_000
"""How far the clock of a host that follows NTP may be off."""
_MS = 1_000_000
_GROUP_NS = 50_000_000
"""Rules whose recorded evaluations are no further apart are of one group."""
_EXPORTERS = (Source.AGENT_EXPORTER, Source.SFU_EXPORTER)
_MADE = (Source.PROMETHEUS, Source.RULES, Source.PANELS)
"""Whose samples follow anew."""
_OWNER = ("job", "instance")
_STAMPS = ("start_time", "end_time", "timestamp", "executed_at")

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A series as its exporter names it."""
Owner = tuple[tuple[str, str], ...]
"""Job and instance."""


@value
class History:
    """What an exporter's text was, and since when; ascending. What changed between two of our polls changed at one instant between them."""

    since: tuple[UnixNs, ...]
    texts: tuple[tuple[Sample, ...], ...]

    def at(self, instant: int) -> tuple[Sample, ...]:
        """The text at an instant; the first one before its time."""
        return self.texts[max(bisect_right(self.since, instant) - 1, 0)]


def night(evidence: Evidence, chance: Random) -> Evidence:
    """One virtual night of the run."""
    histories = {source: _history(evidence, source, chance) for source in _EXPORTERS}
    scrape_ns = round(1e9 * float(evidence.info.settings.get("scrape_interval_s", 15.0)))
    later_ns = round(chance.uniform(0, scrape_ns))
    clock_ns = round(chance.uniform(-_CLOCK_NS, _CLOCK_NS))
    kept = [
        _otherwise(item, later_ns, clock_ns)
        for item in evidence.observations
        if not (isinstance(item, Sample | Poll) and item.source in _EXPORTERS) and not (isinstance(item, Sample) and item.source in _MADE)
    ]
    polls = [item for source, history in histories.items() if history for item in _polled(evidence, source, history, chance)]
    samples = list(_scraped(evidence, [history for history in histories.values() if history], later_ns, chance))
    info = evidence.info
    assert info.read_at is not None
    scraped = dataclasses.replace(
        evidence,
        info=dataclasses.replace(info, read_at=UnixNs(info.read_at + scrape_ns)),
        observations=(*kept, *polls, *samples),
    )
    evaluated = _with(scraped, _evaluated(evidence, scraped, chance))
    return _with(evaluated, _drawn(evaluated))


def _with(evidence: Evidence, more: Iterable[Observation]) -> Evidence:
    return dataclasses.replace(evidence, observations=(*evidence.observations, *more))


def _history(evidence: Evidence, source: Source, chance: Random) -> History | None:
    polls = [item for item in evidence.observations if isinstance(item, Poll) and item.source is source and item.count]
    texts: dict[UnixNs, list[Sample]] = {}
    for item in evidence.observations:
        if isinstance(item, Sample) and item.source is source:
            texts.setdefault(item.at, []).append(item)
    since: list[UnixNs] = []
    before: UnixNs | None = None
    heard, turned = _certain(evidence)
    for poll in sorted(polls, key=lambda poll: poll.at):
        if poll.at in texts:
            # A call whose agent was heard had been counted by then; one that was not yet placed, or not yet over, had not been.
            earliest = max((at for at in turned if before is not None and before < at < poll.at), default=before)
            latest = min((at for at in heard if before is not None and before < at < poll.at), default=poll.at)
            since.append(poll.at if earliest is None else UnixNs(chance.randint(min(earliest, latest), latest)))
        before = poll.at
    return History(since=tuple(since), texts=tuple(tuple(texts[at]) for at in sorted(texts))) if since else None


def _certain(evidence: Evidence) -> tuple[list[UnixNs], list[UnixNs]]:
    """When the agent of each call was first heard; when it was placed, and when its caller left."""
    words = [[record.greeted_at, *(turn.first_word_at for turn in record.turns)] for record in evidence.records]
    heard = [min(at for at in each if at is not None) for each in words if any(each)]
    return heard, [at for record in evidence.records for at in (record.placed_at, record.left_at) if at is not None]


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
    """Prometheus' raw samples: every scrape as much later, of what the exporter said while it lasted; of what we did not read, what it was."""
    stored: dict[Owner, dict[str, dict[Key, Sample]]] = {}
    instants: dict[Owner, set[UnixNs]] = {}
    recorded = [item for item in evidence.observations if isinstance(item, Sample) and item.source is Source.PROMETHEUS]
    for item in recorded:
        stored.setdefault(_owner(item), {}).setdefault(item.name, {}).setdefault(_key(item), item)
        instants.setdefault(_owner(item), set()).add(item.at)
    anew: set[tuple[Owner, Key]] = set()
    for owner, series in stored.items():
        for history in histories:
            exported = {_key(sample): sample for text in history.texts for sample in text}
            like = {key: found for key, sample in exported.items() if (found := _like(sample, series.get(sample.name, {}))) is not None}
            anew.update((owner, _key(found)) for found in like.values())
            for at in sorted(instants[owner]) if like else ():
                scraped_at = UnixNs(at + later_ns)
                for sample in history.at(scraped_at + chance.randint(0, _SCRAPE_NS)):
                    if (found := like.get(_key(sample))) is not None:
                        yield dataclasses.replace(found, at=scraped_at, value=sample.value)
    yield from (dataclasses.replace(item, at=UnixNs(item.at + later_ns)) for item in recorded if (_owner(item), _key(item)) not in anew)


def _owner(sample: Sample) -> Owner:
    return tuple((name, sample.labels[name]) for name in _OWNER if name in sample.labels)


def _like(exported: Sample, series: Mapping[Key, Sample]) -> Sample | None:
    """The series of Prometheus that an exported one is stored as: relabelling may have dropped labels."""
    labels = set(_key(exported)[1])
    return next((found for (_, own), found in series.items() if labels.issuperset(own)), None)


def _evaluated(recorded: Evidence, scraped: Evidence, chance: Random) -> Iterator[Sample]:
    """What the rules write at another phase of their own, of the samples as they are now; one that is fresh may not be stored yet."""
    facts, reader = Facts.of(scraped), Reader.of(scraped)
    engine, every_ns = Engine(facts), round(1e9 * facts.setting("evaluation_interval_s", 15.0))
    phases: dict[int, int] = {}
    told: dict[str, list[Sample]] = {}
    for item in recorded.observations:
        if isinstance(item, Sample) and item.source is Source.RULES:
            told.setdefault(item.name, []).append(item)
    for rule in rules.shipped(reader, facts):
        if not (before := told.get(rule.record)):
            continue
        instants = [sample.at for sample in before]
        first, last = min(instants), max(instants)
        # Rules of one group are evaluated together.
        phase_ns = phases.setdefault(first % every_ns // _GROUP_NS, chance.randint(0, every_ns))
        stored = engine.stored(rule.expression, reader)
        # From before the run on: where its samples came earlier than they did, it speaks earlier.
        earlier = -(-(first + phase_ns - recorded.info.started_at) // every_ns) * every_ns
        for instant in range(first + phase_ns - earlier, last + every_ns, every_ns):
            at = UnixNs(instant // _MS * _MS)
            hidden = chance.choice(tuple(stored.not_yet_stored(at, at)))
            for labels, number in stored.vector(rule.expression, at, hidden).items():
                plain = {name: text for name, text in labels if name != "__name__"}
                yield dataclasses.replace(before[0], labels=plain, value=number, at=at)


def _drawn(evidence: Evidence) -> Iterator[Sample]:
    """What the panels that were asked of Prometheus show, at the instants of which they were asked."""
    facts, reader = Facts.of(evidence), Reader.of(evidence)
    engine = Engine(facts)
    queries = {each.line.name: each.line.query for each in panels.drawn(reader, facts) if each.line.query is not None}
    for row in reader.rows.get(ASKED, ()):
        name = row.columns["line"]
        for at in row.columns["at"]:
            for labels, number in engine.vector(queries[name], reader, at).items():
                plain = {label: text for label, text in labels if label != "__name__"}
                yield Sample(source=Source.PANELS, name=name, labels=plain, value=number, at=UnixNs(at), request=row.request)


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
