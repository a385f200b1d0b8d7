"""Histograms: Prometheus' quantile, nearest-rank truth, and the bucket counts that a set of uncertain values admits."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(wanted: float, buckets: Sequence[tuple[float, float]]) -> float:
    """``histogram_quantile()`` of classic buckets: linear inside the bucket that holds the rank.

    buckets: (upper bound, cumulative count), the last bound +Inf; any order. NaN without observations or without a +Inf bucket. Counts that
    decrease by rounding are raised to the one before, as Prometheus does. Source: prometheus promql/quantile.go, BucketQuantile.
    """
    ordered = sorted(buckets)
    if len(ordered) < 2 or not math.isinf(ordered[-1][0]) or math.isnan(wanted):
        return math.nan
    if wanted < 0:
        return -math.inf
    if wanted > 1:
        return math.inf
    counts = []
    highest = 0.0
    for _, count in ordered:
        highest = max(highest, count)
        counts.append(highest)
    total = counts[-1]
    if total == 0:
        return math.nan
    rank = wanted * total
    at = next(index for index, count in enumerate(counts) if count >= rank)
    if at == len(ordered) - 1:
        return ordered[-2][0]
    if at == 0 and ordered[0][0] <= 0:
        return ordered[0][0]
    low = ordered[at - 1][0] if at else 0.0
    below = counts[at - 1] if at else 0.0
    return low + (ordered[at][0] - low) * (rank - below) / (counts[at] - below)


def nearest_rank(wanted: float, values: Sequence[float]) -> float | None:
    """The smallest value at or above the share ``wanted`` of all: the ceil(q n)-th. None of no values."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(wanted * len(values)) - 1, 0)]


def admitted_counts(values: Sequence[tuple[float, float]], bound: float) -> tuple[int, int]:
    """How many of the uncertain values (lowest, highest) lie at or below ``bound``: surely, and possibly."""
    return sum(high <= bound for _, high in values), sum(low <= bound for low, _ in values)
