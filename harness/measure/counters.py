"""Growth of counters: what really grew between two instants, and what Prometheus' extrapolation says of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Samples = Sequence[tuple[float, float]]
"""(instant in seconds, value), ascending."""


def growth(values: Sequence[float]) -> float:
    """What a counter grew by between its first and last reading, restarts included: after a drop it began again at 0."""
    return sum(after - before if after >= before else after for before, after in itertools.pairwise(values))


def increase(samples: Samples, start_s: float, end_s: float) -> float:
    """``increase()`` of Prometheus over the left-open window (start_s, end_s]: growth, extrapolated to the window's edges.

    samples: those inside the window, at least two. An edge nearer than 1.1 mean spacings is reached, a farther one by half a spacing; a counter
    is not extrapolated below 0. Source: prometheus promql/functions.go, extrapolatedRate.
    """
    first_at, first = samples[0]
    last_at, last = samples[-1]
    grown = last - first + sum(before for (_, before), (_, after) in itertools.pairwise(samples) if after < before)
    sampled_s = last_at - first_at
    spacing_s = sampled_s / (len(samples) - 1)
    limit_s = 1.1 * spacing_s
    to_start_s, to_end_s = first_at - start_s, end_s - last_at
    if to_start_s >= limit_s:
        to_start_s = spacing_s / 2
    if grown > 0 and first >= 0:
        to_start_s = min(to_start_s, sampled_s * first / grown)
    if to_end_s >= limit_s:
        to_end_s = spacing_s / 2
    return grown * (sampled_s + to_start_s + to_end_s) / sampled_s
