"""One clock per process: Unix nanoseconds derived from one monotonic anchor, so that a step of the wall clock moves no measurement."""

from __future__ import annotations

import time

from harness.model import UnixNs, value

STEP_NS = 1_000_000
"""A change of the wall clock against the monotonic one above this is a step, not drift between two readings."""
_TRIES = 6
_BRACKET_NS = 2_000


def offset_ns() -> int:
    """Wall clock less monotonic clock, in nanoseconds.

    Bracketed by two monotonic readings, because a preemption between the readings would put milliseconds into it; the tightest of six.
    """
    best_width, best = 1 << 62, 0
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        wall = time.time_ns()  # noqa: TID251 - the one place
        after = time.monotonic_ns()
        if after - before < best_width:
            best_width, best = after - before, wall - ((before + after) >> 1)
        if best_width < _BRACKET_NS:
            break
    return best


@value
class Clock:
    """Anchored once; later instants are the anchor plus monotonic time."""

    anchor_ns: int
    """``offset_ns()`` when the clock was made."""

    @staticmethod
    def start() -> Clock:
        """A clock anchored now."""
        return Clock(anchor_ns=offset_ns())

    def now(self) -> UnixNs:
        """The instant now."""
        return UnixNs(time.monotonic_ns() + self.anchor_ns)

    def at_monotonic(self, monotonic_ns: int) -> UnixNs:
        """The instant of a ``CLOCK_MONOTONIC`` reading."""
        return UnixNs(monotonic_ns + self.anchor_ns)

    def at_wall(self, wall_ns: int, offset_now_ns: int) -> UnixNs:
        """The instant of a wall-clock stamp (a kernel SO_TIMESTAMPNS), given the offset measured near it."""
        return UnixNs(wall_ns - offset_now_ns + self.anchor_ns)

    def step_ns(self) -> int:
        """How far the wall clock has moved against this clock since its anchor; NTP slew included."""
        return offset_ns() - self.anchor_ns
