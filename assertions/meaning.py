"""What a reader takes a panel's label to mean, of the raw samples and without its query: the set of numbers that an honest panel may show.

A panel shows what a rule wrote at most one evaluation ago, of samples at most two scrapes older: the window that it is of may begin and end that much
earlier, and it ends where its samples do. The set is what the number is over every such window.
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


def meaning(computes: Computes, reader: Reader, at: UnixNs, facts: Facts) -> Meaning:
    """What ``computes`` may be at ``at``."""
    edges = _Edges(at, computes.over_s or 0.0, facts)
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

    def __init__(self, at: UnixNs, over_s: float, facts: Facts) -> None:
        scrape_ns = round(1e9 * facts.setting("scrape_interval_s", 15.0))
        evaluation_ns = round(1e9 * facts.setting("evaluation_interval_s", 15.0))
        over_ns = round(1e9 * over_s)
        self.end = (at - evaluation_ns - 2 * scrape_ns, at)
        self.start = (at - evaluation_ns - over_ns, at - over_ns + 2 * scrape_ns)
        self.over_s, self.scrape_s = over_s, scrape_ns / 1e9

    def windows(self, instants: Sequence[UnixNs]) -> list[tuple[int, int]]:
        """Indices of the first and of the last sample of each window."""
        # A target that is lost leaves the window as it was, until it has passed.
        ends = _within(instants, *self.end) or _within(instants, self.start[0], self.end[1])[-1:]
        starts = _within(instants, *self.start) or _within(instants, self.start[1], self.end[1])[:1]
        return [(first, last) for first in starts for last in ends if first < last]

    def are_sure(self, instants: Sequence[UnixNs]) -> bool:
        """Whatever the window, it holds the two samples that a rate needs."""
        return len(_within(instants, self.start[1], self.end[0])) >= 2

    def stretch(self, sampled_s: float) -> float:
        """The most that extrapolation adds, as a factor."""
        return 1 + 2.2 * self.scrape_s / max(sampled_s, self.scrape_s)


def _within(instants: Sequence[UnixNs], after: int, until: int) -> list[int]:
    return list(range(bisect.bisect_right(instants, after), bisect.bisect_right(instants, until)))


def _number(computes: Computes, series: Mapping[str, list[Timeline]], edges: _Edges, reader: Reader) -> _Number | None:
    match computes.kind:
        case Kind.MEAN:
            return _mean(series, edges)
        case Kind.QUANTILE:
            return _quantile(computes.q or 0.0, series, edges)
        case Kind.GROWTH:
            return _growth(computes, series, edges)
        case _:
            return _now(computes.kind, series, edges, reader)


@value
class _Window:
    """What the series of one target did from one sample to another. Nothing, if it may not be in the number at all."""

    grown: tuple[float, ...]
    """By column: the caller's own order."""
    stretch: float
    is_there: bool = True


def _by_target(columns: Sequence[Sequence[Timeline]], edges: _Edges) -> list[list[_Window]]:
    """For each target the windows that may be meant, its series summed by column."""
    targets = sorted({owner(timeline) for column in columns for timeline in column})
    found = []
    for target in targets:
        own = [[timeline for timeline in column if owner(timeline) == target] for column in columns]
        instants = max(([at for at, _ in each.samples] for column in own for each in column), key=len)
        grown = [[_Growing(each) for each in column] for column in own]
        windows = []
        for first, last in edges.windows(instants):
            since, until = instants[first], instants[last]
            sums = tuple(sum(each.between(since, until) for each in column) for column in grown)
            windows.append(_Window(grown=sums, stretch=edges.stretch((until - since) / 1e9)))
        if windows and not edges.are_sure(instants):
            windows.append(_Window(grown=(0.0,) * len(columns), stretch=1.0, is_there=False))
        found.append(windows)
    return found


class _Growing:
    """A counter as if it had never been restarted."""

    def __init__(self, timeline: Timeline) -> None:
        self._instants = [at for at, _ in timeline.samples]
        values = [number for _, number in timeline.samples]
        lost = itertools.accumulate((before if after < before else 0.0 for before, after in itertools.pairwise(values)), initial=0.0)
        self._values = [number + gone for number, gone in zip(values, lost, strict=True)]

    def between(self, since: UnixNs, until: UnixNs) -> float:
        first, last = bisect.bisect_left(self._instants, since), bisect.bisect_right(self._instants, until) - 1
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


def _mean(series: Mapping[str, list[Timeline]], edges: _Edges) -> _Number | None:
    (sums, counts) = ([each for name, found in series.items() if name.endswith(end) for each in found] for end in ("_sum", "_count"))
    if not sums or not counts:
        return None
    numbers, is_sure = [], True
    are_young = _are_young((*sums, *counts), edges)
    for windows in _together(_by_target((sums, counts), edges)):
        total, count = (sum(window.grown[place] for window in windows) for place in (0, 1))
        if count <= 0:
            is_sure = False
            continue
        # One target: both series are stretched alike, unless they are so young that each is held at its own zero.
        by = max(window.stretch for window in windows) if len(windows) > 1 or are_young else 1.0
        numbers += [total / count / by, total / count * by]
    return _Number(span=Range(lo=min(numbers), hi=max(numbers)), is_sure=is_sure) if numbers else None


def _are_young(timelines: Sequence[Timeline], edges: _Edges) -> bool:
    """Some began, or were still near zero, when the window did; or were below it, where nothing is held."""
    for timeline in timelines:
        before = timeline.at(UnixNs(edges.start[1]))
        final = timeline.samples[-1][1] if timeline.samples else 0.0
        is_below = any(number < 0 for _, number in timeline.samples)
        if before is None or is_below or 0 < before < final * 2.2 * edges.scrape_s / max(edges.over_s, edges.scrape_s):
            return True
    return False


def _quantile(share: float, series: Mapping[str, list[Timeline]], edges: _Edges) -> _Number | None:
    buckets = [each for found in series.values() for each in found if "le" in each.labels]
    bounds = sorted({float(each.labels["le"]) for each in buckets})
    columns = [[each for each in buckets if float(each.labels["le"]) == bound] for bound in bounds]
    if not bounds:
        return None
    spans, is_sure, are_young = [], True, _are_young(buckets, edges)
    for windows in _together(_by_target(columns, edges)):
        counts = [sum(window.grown[place] for window in windows) for place in range(len(bounds))]
        if counts[-1] <= 0:
            is_sure = False
            continue
        by = max(window.stretch for window in windows) if len(windows) > 1 or are_young else 1.0
        spans.append(histogram.quantile_bucket(share, tuple(zip(bounds, counts, strict=True)), stretch=by))
    if not spans:
        return None
    return _Number(span=Range(lo=min(low for low, _ in spans), hi=max(high for _, high in spans)), is_sure=is_sure)


def _growth(computes: Computes, series: Mapping[str, list[Timeline]], edges: _Edges) -> _Number | None:
    """What was counted; at a rate, brought to its time."""
    timelines = [each for found in series.values() for each in found]
    together = list(_together(_by_target((timelines,), edges)))
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
        inside = [number for at, number in timeline.samples if edges.end[0] < at <= edges.end[1]]
        before = timeline.at(UnixNs(edges.end[0]))
        if not inside:
            continue
        numbers = [*inside, *([before] if before is not None else [])]
        is_there = _is_scraped(timeline, edges, reader)
        lows.append(min(numbers) if is_there or kind is Kind.STATE else min(0.0, *numbers))
        highs.append(max(numbers))
        is_sure = is_sure or is_there
    if not highs:
        return None
    span = Range(lo=min(lows), hi=max(highs)) if kind is Kind.STATE else Range(lo=sum(lows), hi=sum(highs))
    return _Number(span=span, is_sure=is_sure)


def _is_scraped(timeline: Timeline, edges: _Edges, reader: Reader) -> bool:
    """At every scrape that may be the newest it was there."""
    there = {at for at, _ in timeline.samples}
    ups = [up for up in reader.series(Source.PROMETHEUS, "up") if owner(up) == owner(timeline)]
    return all(at in there for up in ups for at, _ in up.samples if edges.end[0] < at <= edges.end[1])
