"""What a reader takes a panel's label to mean, of the raw samples and without its query: the set of numbers that an honest panel may show.

A panel shows what a rule wrote at most one evaluation ago, when the newest sample may not have been stored yet. The window that it is of begins at
the first sample inside and ends at the last one. The set is what the number is over every such window.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from assertions.facts import Facts
from assertions.ledger import Range
from assertions.recomputed import owner
from harness.measure import histogram
from harness.measure.series import Reader, Timeline
from harness.model import Source, UnixNs, value
from harness.rules.panelfile import Computes, Kind

_MOST_WINDOWS = 400
"""Combinations of the windows of several targets that are tried one by one; beyond it their extremes are combined."""
_ROUNDING = 1e-9

Group = tuple[tuple[str, str], ...]


@value
class Meaning:
    """The numbers that are honest, by the labels that a line is split by."""

    numbers: Mapping[Group, Range]
    may_lack: frozenset[Group]


def meaning(computes: Computes, reader: Reader, at: UnixNs, facts: Facts, *, query_offset_s: float = 0.0) -> Meaning:
    """What ``computes`` may be at ``at``. query_offset_s: of the rule that is shown, which may have looked so much earlier."""
    edges = _Edges(at, computes.over_s or 0.0, facts, query_offset_s)
    split = (*computes.by, *computes.worst)
    groups: dict[Group, dict[str, list[Timeline]]] = {}
    for name in _names(computes):
        for timeline in reader.series(Source.PROMETHEUS, name):
            if _is_meant(timeline.labels, computes.where):
                key = tuple((label, timeline.labels[label]) for label in sorted(split) if label in timeline.labels)
                groups.setdefault(key, {}).setdefault(name, []).append(timeline)
    found = {key: number for key, series in groups.items() if (number := _number(computes, series, edges, reader)) is not None}
    return _worst(found, computes)


def _names(computes: Computes) -> Sequence[str]:
    (first, *_) = computes.of
    match computes.kind:
        case Kind.MEAN:
            return (f"{first}_sum", f"{first}_count")
        case Kind.QUANTILE:
            return (f"{first}_bucket",)
        case _:
            return computes.of


def _is_meant(labels: Mapping[str, str], where: Mapping[str, str]) -> bool:
    for name, wanted in where.items():
        found = labels.get(name, "")
        if wanted.startswith("!~"):
            if re.fullmatch(wanted[2:], found):
                return False
        elif (found == wanted[1:]) if wanted.startswith("!") else (found != wanted):
            return False
    return True


@value
class _Number:
    """A set of numbers. is_sure: an honest panel has one of them."""

    span: Range
    is_sure: bool


def _worst(found: Mapping[Group, _Number], computes: Computes) -> Meaning:
    """Of the labels that only the largest is shown of."""
    groups: dict[Group, list[_Number]] = {}
    for key, number in found.items():
        groups.setdefault(tuple(pair for pair in key if pair[0] not in computes.worst), []).append(number)
    numbers: dict[Group, Range] = {}
    for key, each in groups.items():
        sure = [one.span.lo for one in each if one.is_sure]
        low = max(sure) if sure else min(one.span.lo for one in each)
        numbers[key] = _widened(Range(lo=low, hi=max(one.span.hi for one in each)), computes.times)
    lacking = frozenset(key for key, each in groups.items() if not any(one.is_sure for one in each))
    return Meaning(numbers=numbers, may_lack=lacking)


def _widened(span: Range, times: float) -> Range:
    low, high = sorted((span.lo * times, span.hi * times))
    return Range(lo=low - abs(low) * _ROUNDING, hi=high + abs(high) * _ROUNDING)


class _Edges:
    """Where the window of a number that is shown at an instant may begin and end."""

    def __init__(self, at: UnixNs, over_s: float, facts: Facts, query_offset_s: float) -> None:
        self.until = at
        self.since = at - round(1e9 * (facts.setting("evaluation_interval_s", 15.0) + query_offset_s))
        """The earliest that a rule may have looked."""
        self.over_s, self._over_ns = over_s, round(1e9 * over_s)
        self.lookback_ns = round(1e9 * facts.setting("lookback_s", 300.0))

    def newest(self, instants: Sequence[UnixNs]) -> range:
        """Indices of the samples that may have been the newest: that of any look, and the one before it."""
        first, last = (bisect.bisect_right(instants, at) - 1 for at in (self.since, self.until))
        return range(max(first - 1, 0), last + 1)

    def windows(self, instants: Sequence[UnixNs]) -> list[tuple[int, int]]:
        """Indices of the first and of the last sample of each window."""
        starts = range(
            bisect.bisect_left(instants, self.since - self._over_ns), bisect.bisect_right(instants, self.until - self._over_ns) + 1
        )
        return [(first, last) for first in starts for last in self.newest(instants) if first < last]

    def are_sure(self, instants: Sequence[UnixNs]) -> bool:
        """Whatever the window, it holds the two samples that a rate needs."""
        first = bisect.bisect_right(instants, self.until - self._over_ns)
        return first < bisect.bisect_right(instants, self.since) - 2


def _number(computes: Computes, series: Mapping[str, list[Timeline]], edges: _Edges, reader: Reader) -> _Number | None:
    match computes.kind:
        case Kind.MEAN:
            return _mean(series, edges, reader)
        case Kind.QUANTILE:
            return _quantile(computes.q or 0.0, series, edges, reader)
        case Kind.GROWTH:
            return _growth(computes, series, edges, reader)
        case _:
            return _now(computes.kind, series, edges, reader)


@value
class _Window:
    """What the series of one target did from one sample to another. Nothing, if it may not be in the number at all."""

    grown: tuple[float, ...]
    """By column: the caller's own order."""
    stretch: float
    """The most that extrapolation may add, as a factor."""
    is_uneven: bool = False
    """It may add more to one column than to another: it does not reach below zero, and one was nearer to it."""
    is_there: bool = True


def _by_target(columns: Sequence[Sequence[Timeline]], edges: _Edges, reader: Reader) -> list[list[_Window]]:
    """For each target the windows that may be meant, its series summed by column."""
    targets = sorted({owner(timeline) for column in columns for timeline in column})
    found = []
    for target in targets:
        own = [[timeline for timeline in column if owner(timeline) == target] for column in columns]
        grown = [[reader.once(_Growing, each) for each in column] for column in own]
        instants = max((each.instants for column in grown for each in column), key=len)
        windows = []
        for first, last in edges.windows(instants):
            since, until = instants[first], instants[last]
            sums = tuple(sum(each.between(since, until) for each in column) for column in grown)
            # An edge is reached if it is nearer than 1.1 mean spacings.
            reach = 1.1 / (last - first)
            begun = [(each.at(since), each.between(since, until)) for column in grown for each in column]
            is_held = any(low < reach * more for low, more in begun) and any(low for low, _ in begun)
            is_uneven = is_held or any(min(low, more) < 0 for low, more in begun)
            windows.append(_Window(grown=sums, stretch=1 + 2 * reach, is_uneven=is_uneven))
        if windows and not edges.are_sure(instants):
            windows.append(_Window(grown=(0.0,) * len(columns), stretch=1.0, is_there=False))
        found.append(windows)
    return found


class _Growing:
    """A counter as if it had never been restarted."""

    def __init__(self, timeline: Timeline) -> None:
        self.instants = [at for at, _ in timeline.samples]
        self._raw = values = [number for _, number in timeline.samples]
        lost = itertools.accumulate((before if after < before else 0.0 for before, after in itertools.pairwise(values)), initial=0.0)
        # Of a series without samples there is one loss too many: none.
        self._values = [number + gone for number, gone in zip(values, lost, strict=bool(values))]

    def at(self, instant: UnixNs) -> float:
        """As it was scraped. 0 before the first sample."""
        index = bisect.bisect_right(self.instants, instant) - 1
        return self._raw[index] if index >= 0 else 0.0

    def between(self, since: UnixNs, until: UnixNs) -> float:
        first, last = bisect.bisect_left(self.instants, since), bisect.bisect_right(self.instants, until) - 1
        return self._values[last] - self._values[first] if first < last else 0.0


def _together(targets: Sequence[Sequence[_Window]]) -> Iterator[tuple[_Window, ...]]:
    """One window of each target, in every combination, or in the extremes of each if those are too many."""
    there = [windows for windows in targets if windows]
    if not there:
        return
    if math.prod(len(windows) for windows in there) > _MOST_WINDOWS:
        there = [
            [windows[0], windows[-1], min(windows, key=lambda one: one.grown), max(windows, key=lambda one: one.grown)] for windows in there
        ]
    yield from itertools.islice(itertools.product(*there), 4 * _MOST_WINDOWS)


def _mean(series: Mapping[str, list[Timeline]], edges: _Edges, reader: Reader) -> _Number | None:
    (sums, counts) = ([each for name, found in series.items() if name.endswith(end) for each in found] for end in ("_sum", "_count"))
    if not sums or not counts:
        return None
    numbers, is_sure = [], True
    for windows in _together(_by_target((sums, counts), edges, reader)):
        total, count = (sum(window.grown[place] for window in windows) for place in (0, 1))
        if count <= 0:
            is_sure = False
            continue
        by = _uneven(windows)
        numbers += [total / count / by, total / count * by]
    return _Number(span=Range(lo=min(numbers), hi=max(numbers)), is_sure=is_sure) if numbers else None


def _uneven(windows: Sequence[_Window]) -> float:
    """The most by which one column may be stretched against another, as a factor. One target stretches all alike, but for zeros."""
    is_uneven = len(windows) > 1 or any(window.is_uneven for window in windows)
    return max(window.stretch for window in windows) if is_uneven else 1.0


def _quantile(share: float, series: Mapping[str, list[Timeline]], edges: _Edges, reader: Reader) -> _Number | None:
    buckets = [each for found in series.values() for each in found if "le" in each.labels]
    bounds = sorted({float(each.labels["le"]) for each in buckets})
    columns = [[each for each in buckets if float(each.labels["le"]) == bound] for bound in bounds]
    if not bounds:
        return None
    spans, is_sure = [], True
    for windows in _together(_by_target(columns, edges, reader)):
        # As the engine does: a restart that the count of all hides may show in a bucket.
        counts = list(itertools.accumulate((sum(window.grown[place] for window in windows) for place in range(len(bounds))), max))
        if counts[-1] <= 0:
            is_sure = False
            continue
        by = _uneven(windows)
        spans.append(histogram.quantile_bucket(share, tuple(zip(bounds, counts, strict=True)), stretch=by))
    if not spans:
        return None
    return _Number(span=Range(lo=min(low for low, _ in spans), hi=max(high for _, high in spans)), is_sure=is_sure)


def _growth(computes: Computes, series: Mapping[str, list[Timeline]], edges: _Edges, reader: Reader) -> _Number | None:
    """What was counted; at a rate, brought to its time."""
    timelines = [each for found in series.values() for each in found]
    together = list(_together(_by_target((timelines,), edges, reader)))
    numbers = [
        (sum(window.grown[0] for window in windows), max(window.stretch for window in windows))
        for windows in together
        if any(window.is_there for window in windows)
    ]
    if not numbers:
        return None
    is_sure = all(any(window.is_there for window in windows) for windows in together)
    by = computes.per_s / edges.over_s if computes.per_s is not None else 1.0
    return _Number(
        span=Range(lo=min(grown for grown, _ in numbers) * by, hi=max(grown * stretch for grown, stretch in numbers) * by), is_sure=is_sure
    )


def _now(kind: Kind, series: Mapping[str, list[Timeline]], edges: _Edges, reader: Reader) -> _Number | None:
    """A gauge at any scrape that may be the newest. One whose target was lost is not there, or still is."""
    lows, highs, is_sure = [], [], False
    for timeline in (each for found in series.values() for each in found):
        instants = [at for at, _ in timeline.samples]
        numbers = [timeline.samples[index][1] for index in edges.newest(instants)]
        if not numbers or edges.since - instants[edges.newest(instants)[-1]] > edges.lookback_ns:
            continue
        is_there = _is_scraped(timeline, instants[edges.newest(instants)[0]], edges, reader)
        lows.append(min(numbers) if is_there or kind is Kind.STATE else min(0.0, *numbers))
        highs.append(max(numbers))
        is_sure = is_sure or is_there
    if not highs:
        return None
    span = Range(lo=min(lows), hi=max(highs)) if kind is Kind.STATE else Range(lo=sum(lows), hi=sum(highs))
    return _Number(span=span, is_sure=is_sure)


def _is_scraped(timeline: Timeline, since: UnixNs, edges: _Edges, reader: Reader) -> bool:
    """At every scrape that may be the newest it was there. Of ``up`` no other series tells: a target that is not scraped any more has gone."""
    there = {at for at, _ in timeline.samples}
    if timeline.name == "up":
        instants = sorted(there)
        spacings = sorted(after - before for before, after in itertools.pairwise(instants))
        return bool(spacings) and edges.until - instants[-1] <= 2 * spacings[len(spacings) // 2]
    ups = [up for up in reader.series(Source.PROMETHEUS, "up") if owner(up) == owner(timeline)]
    return all(at in there for up in ups for at, _ in up.samples if since < at <= edges.until)
