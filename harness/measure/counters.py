"""Growth of counters: what really grew between two instants, and what Prometheus' extrapolation says of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Samples = Sequence[tuple[int, float]]
"""(instant in milliseconds, value), ascending. Milliseconds are Prometheus' own resolution: with them the results are the same to the last bit."""


def growth(values: Sequence[float]) -> float:
    """What a counter grew by between its first and last reading, restarts included: after a drop it began again at 0.

    Last less first, plus what restarts took away: two readers of one counter who read it at different instants get the same to the last bit.
    """
    lost = sum(before for before, after in itertools.pairwise(values) if after < before)
    return values[-1] - values[0] + lost


def increase(samples: Samples, start_ms: int, end_ms: int) -> float:
    """``increase()`` of Prometheus over a window: growth, extrapolated to the window's edges.

    samples: those inside the window, at least two. Prometheus 3 leaves the window's start out, Prometheus 2 took it in.
    """
    grown = _grown(samples)
    return grown * _factor(samples, grown, start_ms, end_ms)


def rate(samples: Samples, start_ms: int, end_ms: int) -> float:
    """``rate()`` of Prometheus, a second; see `increase`."""
    grown = _grown(samples)
    return grown * (_factor(samples, grown, start_ms, end_ms) / ((end_ms - start_ms) / 1000))


def _grown(samples: Samples) -> float:
    """As the engine adds it up, which rounds otherwise than `growth` does."""
    before = samples[0][1]
    grown = samples[-1][1] - before
    for _, number in samples:
        if number < before:
            grown += before
        before = number
    return grown


def _factor(samples: Samples, grown: float, start_ms: int, end_ms: int) -> float:
    """How much longer the extrapolated span is than the sampled one.

    An edge nearer than 1.1 mean spacings is reached, a farther one by half a spacing; a counter is not extrapolated below 0. The order of the
    operations is that of prometheus promql/functions.go, extrapolatedRate.
    """
    (first_ms, first), (last_ms, _) = samples[0], samples[-1]
    sampled_s = (last_ms - first_ms) / 1000
    spacing_s = sampled_s / (len(samples) - 1)
    limit_s = spacing_s * 1.1
    to_start_s, to_end_s = (first_ms - start_ms) / 1000, (end_ms - last_ms) / 1000
    if to_start_s >= limit_s:
        to_start_s = spacing_s / 2
    if grown > 0 and first >= 0:
        to_start_s = min(to_start_s, sampled_s * (first / grown))
    if to_end_s >= limit_s:
        to_end_s = spacing_s / 2
    return (sampled_s + to_start_s + to_end_s) / sampled_s
