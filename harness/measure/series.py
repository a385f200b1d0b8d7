"""Observations of one run, put in order: by source, by series, in time; and copies of them in which one thing is otherwise."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.measure import reports
from harness.measure.counters import growth
from harness.model import Evidence, Gap, Observation, Poll, Row, Sample, Source, UnixNs, value

Labels = tuple[tuple[str, str], ...]


@value
class Timeline:
    """One series as one source said it."""

    name: str
    labels: Mapping[str, str]
    samples: tuple[tuple[UnixNs, float], ...]
    """Ascending."""
    request: str

    def at(self, instant: UnixNs) -> float | None:
        """The value last said at or before ``instant``. None: nothing was said yet."""
        index = bisect.bisect_right(self.samples, instant, key=lambda sample: sample[0])
        return self.samples[index - 1][1] if index else None

    def changed(self, change: Callable[[UnixNs, float], float | None]) -> Timeline:
        """A copy with every value put through ``change``; None leaves the sample out."""
        kept = ((at, change(at, number)) for at, number in self.samples)
        return dataclasses.replace(self, samples=tuple((at, number) for at, number in kept if number is not None))


@value
class Reader:
    """What the sources of a run said, indexed."""

    timelines: Mapping[Source, Mapping[str, tuple[Timeline, ...]]]
    polls: Mapping[Source, tuple[Poll, ...]]
    rows: Mapping[str, tuple[Row, ...]]
    gaps: Mapping[Source, tuple[Gap, ...]]

    @staticmethod
    def of(evidence: Evidence) -> Reader:
        """The index of ``evidence``, what the media server reported to our callers included."""
        said = (*evidence.observations, *reports.observations(evidence.records))
        return Reader(
            timelines=_timelines(said),
            polls=_by_source(item for item in said if isinstance(item, Poll)),
            rows=_by_table(item for item in evidence.observations if isinstance(item, Row)),
            gaps=_gaps(evidence.gaps),
        )

    def gap(self, source: Source, mark: str = "") -> Gap | None:
        """Why ``source`` could not be read to the end. None: its last reading succeeded.

        mark: only readings whose request contains it count, for a source that is read by several requests.
        """
        found = [gap for gap in self.gaps.get(source, ()) if gap.is_blind or _has(gap, mark)]
        if not found:
            return None
        polls = [poll for poll in self.polls.get(source, ()) if _has(poll, mark)]
        if polls and polls[-1].at > found[-1].at and not found[-1].is_blind:
            return None
        return found[-1]

    def is_read(self, source: Source, mark: str = "") -> bool:
        """Something was read of ``source`` at least once."""
        return any(_has(poll, mark) for poll in self.polls.get(source, ()))

    def series(self, source: Source, name: str) -> tuple[Timeline, ...]:
        """The series called ``name``."""
        return self.timelines.get(source, {}).get(name, ())

    def grown(self, timeline: Timeline, source: Source, since: UnixNs, until: UnixNs | None = None) -> float:
        """What a counter grew by after ``since``, up to ``until``. One that was not there when the source was read before began at 0."""
        before = timeline.at(since)
        after = [number for at, number in timeline.samples if at > since and (until is None or at <= until)]
        if before is not None:
            return growth([before, *after])
        if not after:
            return 0.0
        was_read = any(poll.at <= since for poll in self.polls.get(source, ())) or source is Source.PROMETHEUS
        return growth([0.0 if was_read else after[0], *after])

    def with_series(self, source: Source, name: str, change: Callable[[Timeline], Timeline | None]) -> Reader:
        """A copy in which ``source`` says the series called ``name`` otherwise; None takes one away."""
        changed = tuple(told for timeline in self.series(source, name) if (told := change(timeline)) is not None)
        names = {**self.timelines.get(source, {}), name: changed}
        return dataclasses.replace(self, timelines={**self.timelines, source: names})

    def with_rows(self, table: str, rows: Sequence[Row]) -> Reader:
        """A copy in which ``table`` holds ``rows``."""
        return dataclasses.replace(self, rows={**self.rows, table: tuple(rows)})

    def touched(self, other: Reader) -> frozenset[str]:
        """Names of the series and tables that ``other``, a copy, says otherwise."""
        tables = {name for name in self.rows.keys() | other.rows.keys() if self.rows.get(name) is not other.rows.get(name)}
        sources = self.timelines.keys() | other.timelines.keys()
        ours, theirs = ({source: each.timelines.get(source, {}) for source in sources} for each in (self, other))
        names = {
            name
            for source in sources
            for name in ours[source].keys() | theirs[source].keys()
            if ours[source].get(name) is not theirs[source].get(name)
        }
        return frozenset(tables | names)


def _has(item: Poll | Gap, mark: str) -> bool:
    return mark in (item.ours or item.request)


def _timelines(observations: Iterable[Observation]) -> dict[Source, dict[str, tuple[Timeline, ...]]]:
    found: dict[Source, dict[str, dict[Labels, list[Sample]]]] = {}
    for item in observations:
        if isinstance(item, Sample):
            labels = tuple(sorted(item.labels.items()))
            found.setdefault(item.source, {}).setdefault(item.name, {}).setdefault(labels, []).append(item)
    return {
        source: {name: tuple(_timeline(name, samples) for samples in series.values()) for name, series in names.items()}
        for source, names in found.items()
    }


def _timeline(name: str, samples: list[Sample]) -> Timeline:
    ordered = sorted(samples, key=lambda sample: sample.at)
    return Timeline(
        name=name,
        labels=ordered[0].labels,
        samples=tuple((sample.at, sample.value) for sample in ordered),
        request=ordered[-1].request,
    )


def _by_source(polls: Iterable[Poll]) -> dict[Source, tuple[Poll, ...]]:
    found: dict[Source, list[Poll]] = {}
    for poll in sorted(polls, key=lambda poll: poll.at):
        found.setdefault(poll.source, []).append(poll)
    return {source: tuple(entries) for source, entries in found.items()}


def _by_table(rows: Iterable[Row]) -> dict[str, tuple[Row, ...]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.table, []).append(row)
    return {table: tuple(entries) for table, entries in found.items()}


def _gaps(gaps: Iterable[Gap]) -> dict[Source, tuple[Gap, ...]]:
    found: dict[Source, list[Gap]] = {}
    for gap in sorted(gaps, key=lambda gap: gap.at):
        found.setdefault(gap.source, []).append(gap)
    return {source: tuple(entries) for source, entries in found.items()}
