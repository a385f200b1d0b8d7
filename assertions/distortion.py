"""Lies about a histogram, told by copies of the exporter's text and of all that passes it on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from assertions.ledger import Defect
from harness.measure import histogram
from harness.measure.series import Labels, Reader, Timeline
from harness.model import Source, UnixNs, value

NAME = "voice_agent_ttfw_seconds"


@value
class Histogram:
    """One histogram at one instant."""

    cumulative: Mapping[float, float]
    """Counts at or below each bound."""
    count: float
    total: float


Distortion = Callable[[Histogram, Histogram], Histogram]
"""Of a histogram, given what it is in the end. A growing histogram must go on growing."""


def of_exporter(distortion: Distortion) -> Defect:
    """Told by the exporter; Prometheus stores it."""
    return _told(distortion, (Source.AGENT_EXPORTER, Source.PROMETHEUS))


def of_samples(distortion: Distortion) -> Defect:
    """Told by Prometheus' raw samples."""
    return _told(distortion, (Source.PROMETHEUS,))


def scaled(by: float) -> Distortion:
    """Every observation in another unit."""

    def distortion(honest: Histogram, _: Histogram) -> Histogram:
        moved = histogram.moved(honest.cumulative, lambda number: number * by)
        return Histogram(cumulative=moved, count=honest.count, total=honest.total * by)

    return distortion


def shifted(seconds: float) -> Distortion:
    """Every observation too long, or too short."""

    def distortion(honest: Histogram, _: Histogram) -> Histogram:
        moved = histogram.moved(honest.cumulative, lambda number: number + seconds)
        return Histogram(cumulative=moved, count=honest.count, total=honest.total + seconds * honest.count)

    return distortion


def without_one(honest: Histogram, final: Histogram) -> Histogram:
    """The shortest observation of all is missing from the instant at which it was made."""
    low, high = next(((low, high) for low, high, count in histogram.per_bucket(final.cumulative) if count), (0.0, math.inf))
    if not honest.cumulative.get(high):
        return honest
    cumulative = {bound: count - (bound >= high) for bound, count in honest.cumulative.items()}
    return Histogram(cumulative=cumulative, count=honest.count - 1, total=honest.total - low)


def _told(distortion: Distortion, sources: tuple[Source, ...]) -> Defect:
    def defect(reader: Reader) -> Reader | None:
        if not any(timeline.samples and timeline.samples[-1][1] for timeline in reader.series(sources[0], f"{NAME}_count")):
            return None
        for source in sources:
            reader = _distorted(reader, source, distortion)
        return reader

    return defect


def _distorted(reader: Reader, source: Source, distortion: Distortion) -> Reader:
    changed: dict[tuple[str, Labels], dict[UnixNs, float]] = {}
    for owner in {_owner(timeline) for timeline in reader.series(source, f"{NAME}_count")}:
        buckets = {float(each.labels["le"]): each for each in reader.series(source, f"{NAME}_bucket") if _owner(each) == owner}
        (count,) = (each for each in reader.series(source, f"{NAME}_count") if _owner(each) == owner)
        (total,) = (each for each in reader.series(source, f"{NAME}_sum") if _owner(each) == owner)
        final = _at(buckets, count, total, count.samples[-1][0])
        for at, _ in count.samples:
            lie = distortion(_at(buckets, count, total, at), final)
            for bound, each in buckets.items():
                changed.setdefault(_place(each), {})[at] = lie.cumulative[bound]
            changed.setdefault(_place(count), {})[at] = lie.count
            changed.setdefault(_place(total), {})[at] = lie.total
    for suffix in ("_bucket", "_count", "_sum"):
        reader = reader.with_series(
            source, NAME + suffix, lambda each: each.changed(lambda at, number: changed[_place(each)].get(at, number))
        )
    return reader


def _at(buckets: Mapping[float, Timeline], count: Timeline, total: Timeline, at: UnixNs) -> Histogram:
    return Histogram(
        cumulative={bound: each.at(at) or 0.0 for bound, each in buckets.items()}, count=count.at(at) or 0.0, total=total.at(at) or 0.0
    )


def _owner(timeline: Timeline) -> Labels:
    """Labels of the process that exports it."""
    return tuple(sorted(pair for pair in timeline.labels.items() if pair[0] != "le"))


def _place(timeline: Timeline) -> tuple[str, Labels]:
    return timeline.name, tuple(sorted(timeline.labels.items()))
