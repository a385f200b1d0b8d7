"""How late the media thread's ticks were: a histogram that costs one increment a tick."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable

EDGES_MS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)
"""Of the histogram that is told; 10 ms void a turn."""
_FINE_NS, _FINE = 10_000, 2_000
"""10 us steps below 20 ms: well under the 1 ms that is judged."""
_COARSE_NS, _COARSE = 1_000_000, 2_000
"""1 ms steps below 2 s."""


class Lateness:
    """Counts of ticks by lateness. One writer; readers may be anywhere."""

    def __init__(self, counts: Iterable[int] = (0,) * (_FINE + _COARSE + 1), max_ns: int = 0) -> None:
        """counts, max_ns: what was counted before."""
        self._counts = array("Q", counts)
        self.max_ns = max_ns

    def __add__(self, other: Lateness) -> Lateness:
        return Lateness(map(sum, zip(self._counts, other._counts, strict=True)), max(self.max_ns, other.max_ns))

    def since(self, before: Lateness) -> Lateness:
        """What was counted after ``before``, an earlier copy. Its maximum is of all."""
        return Lateness((now - then for now, then in zip(self._counts, before._counts, strict=True)), self.max_ns)

    def add(self, late_ns: int) -> None:
        """One tick. An early one counts as on time."""
        if late_ns < _FINE * _FINE_NS:
            self._counts[late_ns // _FINE_NS if late_ns > 0 else 0] += 1
        else:
            self._counts[_FINE + min(late_ns // _COARSE_NS, _COARSE)] += 1
        if late_ns > self.max_ns:
            self.max_ns = late_ns

    @property
    def ticks(self) -> int:
        """How many were counted."""
        return sum(self._counts)

    def histogram(self) -> tuple[tuple[float, int], ...]:
        """Ticks at most so many ms late, and later than the edge before; what is later than the last edge is missing from the sum."""
        edges_ns, counts = [round(edge_ms * 1e6) for edge_ms in EDGES_MS], [0] * len(EDGES_MS)
        for index, count in enumerate(self._counts):
            if count and (place := bisect.bisect_left(edges_ns, _edge_ns(index))) < len(counts):
                counts[place] += count
        return tuple(zip(EDGES_MS, counts, strict=True))

    def quantile_ms(self, q: float) -> float:
        """Nearest-rank quantile, rounded up to the bin's edge and never above the maximum. 0 if nothing was counted."""
        total = self.ticks
        rank = max(1, -int(-q * total // 1))
        passed = 0
        for index, count in enumerate(self._counts):
            passed += count
            if passed >= rank and count:
                return min(_edge_ns(index), self.max_ns) / 1e6
        return 0.0


def _edge_ns(index: int) -> int:
    if index < _FINE:
        return (index + 1) * _FINE_NS
    if index < _FINE + _COARSE:
        return (index - _FINE + 1) * _COARSE_NS
    return 1 << 62
