"""Observations of one run, put in order: by source, by series, in time; and copies of them in which one thing is otherwise."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar

from harness.measure import reports
from harness.measure.counters import growth
from harness.model import CallRecord, Evidence, Gap, Observation, Poll, Row, Sample, Source, UnixNs, value

Labels = tuple[tuple[str, str], ...]
Looked = dict[tuple[str, ...], object]
"""What was looked at, by its place, as it was."""
K = TypeVar("K")
V = TypeVar("V")


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
    """By `series` and `all_of` it is noted what was looked at of them."""
    polls: Mapping[Source, tuple[Poll, ...]]
    rows: Mapping[str, tuple[Row, ...]]
    gaps: Mapping[Source, tuple[Gap, ...]]
    looked: Looked | None = None
    """Where it is noted what was looked at. None: it is not."""
    known: dict[tuple[Hashable, ...], tuple[Any, object]] = field(default_factory=dict, compare=False)
    """What was calculated of objects that copies share."""

    @staticmethod
    def of(evidence: Evidence) -> Reader:
        """The index of ``evidence``, what the media server reported to our callers included."""
        polls = (item for item in evidence.observations if isinstance(item, Poll))
        return Reader(
            timelines={**_timelines(evidence.observations), **_reported(evidence.records)},
            polls=_by_source((*polls, *reports.polls(evidence.records))),
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
        found = self._families(source).get(name, ())
        if self.looked is not None:
            self.looked.setdefault(("series", source, name), found)
        return found

    def all_of(self, source: Source) -> Mapping[str, tuple[Timeline, ...]]:
        """Every series of a source, by name."""
        found = self._families(source)
        if self.looked is not None:
            self.looked.setdefault(("source", source), found)
        return found

    def _families(self, source: Source) -> Mapping[str, tuple[Timeline, ...]]:
        return self.timelines.get(source, _NOTHING)

    def watched(self) -> tuple[Reader, Looked]:
        """The same, and where it will be noted what was looked at."""
        looked: Looked = {}
        watched = dataclasses.replace(
            self,
            polls=_Watched("polls", self.polls, looked),
            rows=_Watched("rows", self.rows, looked),
            gaps=_Watched("gaps", self.gaps, looked),
            looked=looked,
        )
        return watched, looked

    def shows(self, looked: Looked) -> bool:
        """Everything that was looked at is here as it was there: whatever was calculated of it is the same."""
        return all(self._at(place) is found for place, found in looked.items())

    def _at(self, place: tuple[str, ...]) -> object:
        match place:
            case ("series", source, name):
                return self._families(Source(source)).get(name, ())
            case ("source", source):
                return self._families(Source(source))
            case ("polls", source):
                return self.polls.get(Source(source))
            case ("rows", table):
                return self.rows.get(table)
            case ("gaps", source):
                return self.gaps.get(Source(source))
        return None

    def once(self, of: Callable[..., V], *pieces: Any) -> V:
        """``of(*pieces)``, calculated once for these very objects; a text, or a frozen set of them, is the same as another that is equal."""
        key = (of, *[piece if piece.__class__ in (str, frozenset) else id(piece) for piece in pieces])
        if key not in self.known:
            self.known[key] = (of(*pieces), pieces)  # kept, so that their identity stays theirs
        found: V = self.known[key][0]
        return found

    def of_calls(self, table: str, of: Callable[..., Mapping[K, V]], *more: Any) -> dict[K, V]:
        """``of(call_id, rows, *more)`` for every call that has rows in ``table``, put together; its keys are the call's own.

        A copy is asked only for the calls of which it has other rows.
        """
        first = self._first(table)
        whole, by_call = self.once(_of_all, first, of, *more)
        found: dict[K, V] = dict(whole)
        for call_id, rows in self._changed(table).items():
            for key in by_call.get(call_id, ()):
                del found[key]
            found.update(of(call_id, rows, *more) if rows else {})
        return found

    def calls_in(self, table: str) -> list[str]:
        """Every ``call_id`` of ``table``."""
        changed = self._changed(table)
        return [*(call_id for call_id in self._first(table).places if call_id not in changed), *(each for each in changed if changed[each])]

    def rows_of_call(self, table: str, call_id: str) -> tuple[Row, ...]:
        """The rows of one call, in their order."""
        first, changed = self._first(table), self._changed(table)
        return changed[call_id] if call_id in changed else tuple(first.rows[place] for place in first.places.get(call_id, ()))

    def _first(self, table: str) -> _Calls:
        """The first that was asked for."""
        rows = self.rows.get(table, ())
        if (_CALLS, table) not in self.known:
            self.known[_CALLS, table] = _Calls.of(rows), None
        found: _Calls = self.known[_CALLS, table][0]
        return found

    def _changed(self, table: str) -> Mapping[str, tuple[Row, ...]]:
        """The rows of the calls that have others than there were first."""
        return self.once(_changed, self._first(table), self.rows.get(table, ()))

    def forget(self, least: int) -> None:
        """What was calculated last is not kept, but for so much that was calculated before it."""
        while len(self.known) > least:
            self.known.popitem()

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
        return self.telling(source, name, [told for timeline in self.series(source, name) if (told := change(timeline)) is not None])

    def telling(self, source: Source, name: str, timelines: Sequence[Timeline]) -> Reader:
        """A copy in which these are what ``source`` says of the series called ``name``."""
        self.series(source, name)
        names = {**self._families(source), name: tuple(timelines)}
        return dataclasses.replace(self, timelines={**self.timelines, source: names})

    def with_rows(self, table: str, rows: Sequence[Row]) -> Reader:
        """A copy in which ``table`` holds ``rows``."""
        assert self.looked is None, "what is watched is read"
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


_NOTHING: Mapping[str, tuple[Timeline, ...]] = {}
_CALLS = "rows by call"


@value
class _Calls:
    """The rows of one table, and where those of each call are."""

    rows: tuple[Row, ...]
    places: Mapping[str, Sequence[int]]

    @staticmethod
    def of(rows: tuple[Row, ...]) -> _Calls:
        places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(_call_of(row), []).append(place)
        return _Calls(rows=rows, places=places)


def _call_of(row: Row) -> str:
    return str(row.columns.get("call_id"))


def _of_all(first: _Calls, of: Callable[..., Mapping[K, V]], *more: Any) -> tuple[dict[K, V], dict[str, Sequence[K]]]:
    found: dict[K, V] = {}
    by_call: dict[str, Sequence[K]] = {}
    for call_id, places in first.places.items():
        told = of(call_id, tuple([first.rows[place] for place in places]), *more)
        by_call[call_id] = tuple(told)
        found.update(told)
    return found, by_call


def _changed(first: _Calls, rows: tuple[Row, ...]) -> Mapping[str, tuple[Row, ...]]:
    wanted = frozenset(map(_call_of, _unlike(first.rows, rows)))
    found: dict[str, list[Row]] = {call_id: [] for call_id in wanted}
    for row in rows if wanted else ():
        if (call_id := _call_of(row)) in wanted:
            found[call_id].append(row)
    return {call_id: tuple(of_call) for call_id, of_call in found.items()}


def _unlike(before: Sequence[Row], after: Sequence[Row]) -> Iterator[Row]:
    """Rows that are not in both, one after the other; where more than one in a row is not, all that follow."""
    place, other = 0, 0
    while before is not after and place < len(before) and other < len(after):
        if before[place] is after[other]:
            place, other = place + 1, other + 1
            continue
        following, others = before[place + 1 : place + 2], after[other + 1 : other + 2]
        is_gone = bool(following) and following[0] is after[other]
        is_new = not is_gone and bool(others) and others[0] is before[place]
        is_other = bool(following) and bool(others) and following[0] is others[0]
        if not (is_gone or is_new or is_other):
            break
        if not is_new:
            yield before[place]
            place += 1
        if is_new or not is_gone:
            yield after[other]
            other += 1
    if before is not after:
        yield from before[place:]
        yield from after[other:]


class _Watched(Mapping[K, V]):
    """A mapping that notes which of its entries were looked at."""

    def __init__(self, kind: str, inner: Mapping[K, V], looked: Looked) -> None:
        self._kind, self._inner, self._looked = kind, inner, looked

    def __getitem__(self, key: K) -> V:
        self._looked.setdefault((self._kind, str(key)), self._inner.get(key))
        return self._inner[key]

    def __iter__(self) -> Iterator[K]:
        for key in self._inner:
            self._looked.setdefault((self._kind, str(key)), self._inner[key])
            yield key

    def __len__(self) -> int:
        return len(self._inner)


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


def _reported(records: Sequence[CallRecord]) -> dict[Source, dict[str, tuple[Timeline, ...]]]:
    """What the media server's reports said to our callers."""
    families: dict[str, list[Timeline]] = {}
    for name, call_id, samples, request in reports.series(records):
        families.setdefault(name, []).append(Timeline(name=name, labels={"call": call_id}, samples=samples, request=request))
    return {Source.SFU_REPORTS: {name: tuple(found) for name, found in families.items()}} if families else {}


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
