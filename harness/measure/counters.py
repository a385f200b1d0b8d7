"""Growth of counters: what really grew between two instants, and what an engine says of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from harness.model import value

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
    return extrapolated(_grown(samples), Window.of(samples, start_ms, end_ms))


def rate(samples: Samples, start_ms: int, end_ms: int) -> float:
    """``rate()`` of Prometheus, a second; see `increase`."""
    return extrapolated_rate(_grown(samples), Window.of(samples, start_ms, end_ms))


@value
class Window:
    """What the extrapolation has to know of a window and of the samples in it."""

    first_ms: int
    first: float
    """Value of the first sample."""
    last_ms: int
    count: int
    start_ms: int
    end_ms: int

    @staticmethod
    def of(samples: Samples, start_ms: int, end_ms: int) -> Window:
        """The window around ``samples``."""
        (first_ms, first), (last_ms, _) = samples[0], samples[-1]
        return Window(first_ms=first_ms, first=first, last_ms=last_ms, count=len(samples), start_ms=start_ms, end_ms=end_ms)

    def stretch(self, grown: float) -> float:
        """How much longer the extrapolated span is than the sampled one.

        An edge nearer than 1.1 mean spacings is reached, a farther one by half a spacing; a counter is not extrapolated below 0. The order of
        the operations is that of prometheus promql/functions.go, extrapolatedRate.
        """
        sampled_s = (self.last_ms - self.first_ms) / 1000
        spacing_s = sampled_s / (self.count - 1)
        limit_s = spacing_s * 1.1
        to_start_s, to_end_s = (self.first_ms - self.start_ms) / 1000, (self.end_ms - self.last_ms) / 1000
        if to_start_s >= limit_s:
            to_start_s = spacing_s / 2
        if grown > 0 and self.first >= 0:
            to_start_s = min(to_start_s, sampled_s * (self.first / grown))
        if to_end_s >= limit_s:
            to_end_s = spacing_s / 2
        return (sampled_s + to_start_s + to_end_s) / sampled_s


def extrapolated(grown: float, window: Window) -> float:
    """The increase over a window whose samples grew by ``grown``."""
    return grown * window.stretch(grown)


def extrapolated_rate(grown: float, window: Window) -> float:
    """The same, a second."""
    return grown * (window.stretch(grown) / ((window.end_ms - window.start_ms) / 1000))


def _grown(samples: Samples) -> float:
    """As the engine adds it up, which rounds otherwise than `growth` does."""
    before = samples[0][1]
    grown = samples[-1][1] - before
    for _, number in samples:
        if number < before:
            grown += before
        before = number
    return grown


def unextrapolated_increase(samples: Samples, first: int, start_ms: int, following: float | None = None) -> float | None:
    """``increase()`` of VictoriaMetrics: from the last sample before the window to the last one in it. None: no series there.

    samples: all up to the window's end. first: index of the first one inside. following: value of the sample after the window. The order of the
    decisions is that of VictoriaMetrics app/vmselect/promql/rollup.go, rollupDelta.
    """
    known = _continued(samples)
    inside = known[first:]
    if not inside:
        return None if _before(samples, first, start_ms) is None else 0.0
    if first:
        return inside[-1][1] - known[first - 1][1]
    # Born inside: at 0, unless its first value is far more than it grows by.
    after = inside[1][1] if len(inside) > 1 else following
    step = 10.0 if after is None else abs(after - inside[0][1])
    is_new = abs(inside[0][1]) < 10 * (step + 1)
    return inside[-1][1] - (0.0 if is_new else inside[0][1])


def unextrapolated_rate(samples: Samples, first: int, start_ms: int) -> float | None:
    """``rate()`` of VictoriaMetrics, a second; see `unextrapolated_increase`. None: no series, or one sample without one before it."""
    known = _continued(samples)
    inside = known[first:]
    before = _before(samples, first, start_ms)
    if before is not None:
        inside = [known[before], *inside]
        if len(inside) == 1:
            return 0.0
    if len(inside) < 2:
        return None
    (first_ms, low), (last_ms, high) = inside[0], inside[-1]
    return (high - low) / ((last_ms - first_ms) / 1000)


def _continued(samples: Samples) -> list[tuple[int, float]]:
    """As if no restart had taken anything away. A fall by less than an eighth is none: it is taken back."""
    lost, found, before = 0.0, [], -math.inf
    for at, number in samples:
        if number < before:
            lost += before - number if 8 * (before - number) < before else before
        before = number
        found.append((at, number + lost))
    return found


def _before(samples: Samples, first: int, start_ms: int) -> int | None:
    """Index of the sample that a window goes on from: the one before it, unless it is older than a gap is taken to be."""
    if not first:
        return None
    spacings = sorted(after - before for (before, _), (after, _) in itertools.pairwise(samples[-_SPACINGS - 1 :]))
    usual_ms = spacings[round(0.6 * (len(spacings) - 1))] if spacings else 0
    longest_ms = usual_ms + next((usual_ms * times for limit_ms, times in _PATIENCE if usual_ms <= limit_ms), usual_ms / 8)
    return first - 1 if samples[first - 1][0] > start_ms - longest_ms else None


_SPACINGS = 20
_PATIENCE = ((2_000, 4.0), (4_000, 2.0), (8_000, 1.0), (16_000, 0.5), (32_000, 0.25))
"""Up to which usual spacing a gap of how many more of it is bridged: getMaxPrevInterval of VictoriaMetrics' rollup.go."""
