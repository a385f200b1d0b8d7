"""Histograms: Prometheus' quantile, nearest-rank truth, and the bucket counts that a set of uncertain values admits."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

_SMALL_DELTA = 1e-12
"""Counts that differ by less than this share are one count to Prometheus 3: smallDeltaTolerance of promql/quantile.go."""


def quantile(wanted: float, buckets: Sequence[tuple[float, float]]) -> float:
    """``histogram_quantile()`` of classic buckets: linear inside the bucket that holds the rank.

    buckets: (upper bound, cumulative count), the last bound +Inf; any order. NaN without observations or without a +Inf bucket. The order of
    the operations is that of prometheus promql/quantile.go, BucketQuantile.
    """
    if math.isnan(wanted):
        return math.nan
    if not 0 <= wanted <= 1:
        return math.copysign(math.inf, wanted)
    ordered = sorted(buckets)
    if len(ordered) < 2 or not math.isinf(ordered[-1][0]):
        return math.nan
    bounds = [bound for bound, _ in ordered]
    counts = _monotonic([count for _, count in ordered])
    total = counts[-1]
    if total == 0 or math.isnan(total):
        return math.nan
    rank = wanted * total
    last = len(ordered) - 1
    at = next((index for index in range(last) if counts[index] >= rank), last)
    if at == last:
        return bounds[-2]
    if at == 0 and bounds[0] <= 0:
        return bounds[0]
    low, below = (bounds[at - 1], counts[at - 1]) if at else (0.0, 0.0)
    if counts[at] == below:  # share 0 and an empty first bucket: 0 / 0
        return math.nan
    return low + (bounds[at] - low) * ((rank - below) / (counts[at] - below))


def _monotonic(counts: Sequence[float]) -> list[float]:
    """Cumulative counts that never fall: rounding errors are evened out, and a count below the one before is raised to it."""
    raised: list[float] = []
    for count in counts:
        if raised and (count < raised[-1] or _almost_equal(raised[-1], count)):
            count = raised[-1]
        raised.append(count)
    return raised


def _almost_equal(one: float, other: float) -> bool:
    """util/almost/almost.go of Prometheus."""
    if one == other:
        return True
    if one == 0 or other == 0:
        return abs(one - other) < _SMALL_DELTA * 2.2250738585072014e-308
    return abs(one - other) / min(abs(one) + abs(other), 1.7976931348623157e308) < _SMALL_DELTA


def nearest_rank(wanted: float, values: Sequence[float]) -> float | None:
    """The smallest value at or above the share ``wanted`` of all: the ceil(q n)-th, numpy's ``inverted_cdf``. None of no values."""
    if not values:
        return None
    # A product such as 0.07 * 100 is a hair above 7; the rank that was meant is the whole number.
    rank = math.ceil(wanted * len(values) - 1e-9)
    return sorted(values)[max(rank, 1) - 1]


def quantile_bucket(wanted: float, buckets: Sequence[tuple[float, float]], *, stretch: float = 1.0) -> tuple[float, float]:
    """The edges between which ``histogram_quantile()`` of these buckets lies, whatever it interpolates: those of the bucket that holds the rank.

    buckets: (upper bound, cumulative count), ascending, the last bound +Inf. stretch: the most by which one bucket's count may have been stretched
    against another's. A rank on the edge of a bucket may fall to either side; beyond the last finite bound the quantile is that bound.
    """
    rank, most = wanted * buckets[-1][1], stretch * (1 + 1e-9)
    low = next(index for index, (_, count) in enumerate(buckets) if count * most >= rank)
    high = next((index for index, (_, count) in enumerate(buckets) if count > 0 and count >= rank * most), len(buckets) - 1)
    last = len(buckets) - 2
    return (buckets[min(low, last + 1) - 1][0] if low else 0.0), buckets[min(high, last)][0]


def admitted_counts(values: Sequence[tuple[float, float]], bounds: Sequence[float]) -> Iterator[tuple[int, int]]:
    """How many of the uncertain values (lowest, highest) lie at or below each of ``bounds``: surely, and possibly."""
    lows, highs = sorted(low for low, _ in values), sorted(high for _, high in values)
    for bound in bounds:
        yield bisect.bisect_right(highs, bound), bisect.bisect_right(lows, bound)


def per_bucket(cumulative: Mapping[float, float]) -> Iterator[tuple[float, float, float]]:
    """(lower bound, upper bound, count of it alone), ascending, of cumulative counts by upper bound. The first lower bound is 0."""
    low, below = 0.0, 0.0
    for bound in sorted(cumulative):
        yield low, bound, cumulative[bound] - below
        low, below = bound, cumulative[bound]


def moved(cumulative: Mapping[float, float], change: Callable[[float], float]) -> dict[float, float]:
    """The same histogram if each observation, taken from the middle of its bucket, had been put through ``change`` (which keeps their order)."""
    moved_to: list[tuple[float, float]] = []
    for low, high, count in per_bucket(cumulative):
        middle = math.nextafter(low, math.inf) if math.isinf(high) else (low + high) / 2
        moved_to.append((change(middle), count))
    return {bound: sum(count for number, count in moved_to if number <= bound) for bound in cumulative}
