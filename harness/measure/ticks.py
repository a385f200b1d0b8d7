"""What the media server makes of a track every five seconds of the track's life, when it is not known exactly when that life began.

livekit-server (1.13.5, pkg/sfu/connectionquality/connectionstats.go) looks at each track every 5 s from the track's start, and once more when it
closes. Of each window it observes the packets lost, the highest jitter and the highest round trip. All ways to lay such windows over a life are
tried, a packet apart; what the server says lies between the least and the most of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.model import UnixNs, value

TICK_NS = 5_000_000_000
PACKET_NS = 20_000_000

Floats = NDArray[np.float64]
Instants = NDArray[np.int64]
Trips = Sequence[tuple[int, float, float]]
"""Instants, and the least and the most of something that became known then; ascending."""


@value
class Bounds:
    """The least and the most of a number."""

    lo: float
    hi: float

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(lo=self.lo + other.lo, hi=self.hi + other.hi)


NOTHING = Bounds(lo=0.0, hi=0.0)


@value
class Life:
    """A track as the server knew it: each end between two instants."""

    began: tuple[UnixNs, UnixNs]
    ended: tuple[UnixNs, UnixNs]

    def windows(self, shortest_ns: int) -> Bounds:
        """How many windows hold a packet: surely those that are longer than ``shortest_ns``."""
        least, most = max(0, self.ended[0] - self.began[1]), max(0, self.ended[1] - self.began[0])
        return Bounds(lo=float(least // TICK_NS + (least % TICK_NS > shortest_ns)), hi=float(-(-most // TICK_NS)))

    def whole_windows(self) -> float:
        """How many windows surely are five seconds long and not the first."""
        return float(max(0, (self.ended[0] - self.began[1]) // TICK_NS - 1))


def lost_percent(life: Life, lost: Sequence[tuple[int, float]], packets_per_s: Bounds, unsure: float) -> Bounds:
    """Packets lost of those expected, in per cent, summed up over the windows of a life.

    lost: instants and numbers. unsure: packets by which what was expected may be fewer, or more, than a window's length says.
    """
    if not any(number for _, number in lost):
        return NOTHING
    if not all(math.isfinite(number) for _, number in lost):
        return Bounds(lo=0.0, hi=math.inf)
    ordered = sorted(lost)
    instants = np.array([at for at, _ in ordered], dtype=np.int64)
    so_far = np.concatenate(([0.0], np.cumsum([number for _, number in ordered])))

    def of(begin: Instants, end: Instants) -> tuple[Floats, Floats]:
        number = so_far[np.searchsorted(instants, end)] - so_far[np.searchsorted(instants, begin)]
        length_s = (end - begin) / 1e9
        most = np.maximum(length_s * packets_per_s.hi + unsure, 1.0)
        least = np.maximum(length_s * packets_per_s.lo - unsure, 1.0)
        return 100.0 * number / most, 100.0 * number / least

    return _over(life, of)


def highest(life: Life, seconds: Trips, ends: Sequence[int], less: float, more: float) -> Bounds:
    """The highest of a running value in each window, summed up, of which only the peak of each second is known.

    seconds: their beginnings and peaks; ends: where each ends. At least the peaks of those that lie inside, at most of those that touch, the one
    ``less``, the other ``more``.
    """
    since, until = np.array([at for at, _, _ in seconds], dtype=np.int64), np.array(ends, dtype=np.int64)
    low, high = np.array([lo for _, lo, _ in seconds]), np.array([hi for _, _, hi in seconds])

    def of(begin: Instants, end: Instants) -> tuple[Floats, Floats]:
        inside = _most(low, np.searchsorted(since, begin), np.searchsorted(until, end, "right"))
        touching = _most(high, np.searchsorted(until, begin), np.searchsorted(since, end))
        return np.maximum(inside - less, 0.0), touching + more

    return _over(life, of)


def known(life: Life, certain: Trips, possible: Trips, *, rounded: bool = False) -> tuple[Bounds, Bounds]:
    """Of each window the highest of what became known in it or was known before it, summed up; and in how many windows anything became known.

    Of a window in which nothing did nothing is said. rounded: to whole numbers, up, and at least to 1.
    """
    sure, maybe = _Known(certain), _Known(possible)

    def heights(begin: Instants, end: Instants) -> tuple[Floats, Floats]:
        low, high = sure.most(sure.low, begin, end), maybe.most(maybe.high, begin, end)
        if rounded:
            low, high = np.maximum(np.floor(low), 1.0), np.maximum(np.ceil(high), 1.0)
        return np.where(sure.is_any(begin, end), low, 0.0), np.where(maybe.is_any(begin, end), high, 0.0)

    def windows(begin: Instants, end: Instants) -> tuple[Floats, Floats]:
        return sure.is_any(begin, end).astype(np.float64), maybe.is_any(begin, end).astype(np.float64)

    return _over(life, heights), _over(life, windows)


class _Known:
    """What became known, searchable by time."""

    def __init__(self, trips: Trips) -> None:
        self._at = np.array([at for at, _, _ in trips], dtype=np.int64)
        self.low = np.array([low for _, low, _ in trips])
        self.high = np.array([high for _, _, high in trips])

    def is_any(self, begin: Instants, end: Instants) -> NDArray[np.bool_]:
        return np.searchsorted(self._at, end) > np.searchsorted(self._at, begin)

    def most(self, values: Floats, begin: Instants, end: Instants) -> Floats:
        return _most(values, np.maximum(np.searchsorted(self._at, begin) - 1, 0), np.searchsorted(self._at, end))


def _most(values: Floats, first: NDArray[np.intp], after: NDArray[np.intp]) -> Floats:
    """The highest of ``values[first:after]``, element by element; 0 of none."""
    found = np.zeros(first.shape)
    for offset in range(int(np.max(after - first, initial=0))):
        index = first + offset
        inside = index < after
        found = np.where(inside, np.maximum(found, values[np.where(inside, index, 0)]), found)
    return found


def _over(life: Life, of: Callable[[Instants, Instants], tuple[Floats, Floats]]) -> Bounds:
    """The least and the most of the sum over the windows, over all ways to lay them."""
    first, last = life.began
    starts = np.arange(first, min(last, first + TICK_NS) + 1, PACKET_NS, dtype=np.int64)[:, None]
    least, most = math.inf, 0.0
    for end in life.ended:
        count = max(1, -(-(end - first) // TICK_NS))
        begin = starts + np.arange(count, dtype=np.int64)[None, :] * TICK_NS
        is_there = begin < end
        low, high = of(np.minimum(begin, end), np.minimum(begin + TICK_NS, end))
        least = min(least, float(np.where(is_there, low, 0.0).sum(axis=1).min()))
        most = max(most, float(np.where(is_there, high, 0.0).sum(axis=1).max()))
    return Bounds(lo=least, hi=most)
