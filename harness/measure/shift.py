"""Two groups of few measurements: how far one lies from the other, and what of it chance explains. Permutation only, no distribution is assumed."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from harness.model import value

Numbers = NDArray[np.float64]
_MOST_EXACT = 20_000
_DRAWS = 20_000
_SAME = 1e-9
"""Differences closer than this are ties: a nanosecond."""
_MANY = 100
"""Measurements of one stratum above which its rank sum is as good as normal."""
_MOST_EACH = 500
"""Measurements of one side whose differences are taken; of more, evenly spaced quantiles stand for them."""
_SEED = 1


@value
class Shift:
    """By how much the second group lies above the first."""

    by: float
    """Hodges-Lehmann: the median of all differences of two measurements of one stratum."""
    lo: float
    """Both inclusive: the shifts that a two-sided permutation test at ``alpha`` does not reject."""
    hi: float
    p: float
    """Probability of ranks at least as far apart if nothing differs."""
    alpha: float
    pairs: int
    """Differences that it rests on."""

    @property
    def is_decided(self) -> bool:
        """The groups differ by more than chance explains."""
        return not self.lo <= 0.0 <= self.hi


Strata = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Before and after, by what makes measurements alike: turns with one prompt are compared with each other only."""


def shift(strata: Strata, *, alpha: float, spread: float = 0.0) -> Shift | None:
    """How far "after" lies above "before". None: no stratum has measurements of both, or so few that no difference could be shown at ``alpha``.

    The statistic is the sum of the ranks of "after" inside its stratum (van Elteren, weighted by 1/(n + m + 1)); its distribution is that of all
    ways to divide each stratum's measurements: all of them where they are few, else drawn with a fixed seed. ``lo`` and ``hi`` invert the test.

    spread: standard deviation of what moves all measurements of one group together (another load of the machine, another phase); it widens both ends
    by what the difference of two such moves exceeds with probability ``alpha``, assuming it is normal.
    """
    both = [_Stratum.of(before, after) for before, after in strata.values() if before and after]
    if not both:
        return None
    null = _null([(stratum.before, stratum.after) for stratum in both])
    if _tail(null, null[-1]) > alpha:
        return None
    differences = np.sort(np.concatenate([stratum.differences for stratum in both]))
    wider = spread * math.sqrt(2) * NormalDist().inv_cdf(1 - alpha / 2) if spread else 0.0
    return Shift(
        by=float(np.median(differences)),
        lo=_edge(both, null, differences, alpha) - wider,
        hi=_edge(both, null, differences[::-1], alpha) + wider,
        p=_tail(null, _statistic(both, 0.0)),
        alpha=alpha,
        pairs=len(differences),
    )


def at_least(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Fisher's exact test, one-sided: the probability of as many failures in "after", or more, if nothing differs.

    Each: failures and how many were tried.
    """
    failures = before[0] + after[0]
    tried = before[1] + after[1]
    ways = math.comb(tried, after[1])
    return (
        sum(math.comb(failures, n) * math.comb(tried - failures, after[1] - n) for n in range(after[0], min(failures, after[1]) + 1)) / ways
    )


@value
class _Stratum:
    """What the test needs of one stratum."""

    before: int
    after: int
    differences: Numbers
    """After less before, each with each, ascending."""

    @staticmethod
    def of(before: Sequence[float], after: Sequence[float]) -> _Stratum:
        differences = np.subtract.outer(_few(np.asarray(after, float)), _few(np.asarray(before, float)))
        return _Stratum(before=len(before), after=len(after), differences=np.sort(differences.ravel()))

    def excess(self, moved: float) -> float:
        """Rank sum of "after", moved down by ``moved``, less its expectation; ties count half."""
        above = len(self.differences) - np.searchsorted(self.differences, moved + _SAME, "left")
        tied = len(self.differences) - above - np.searchsorted(self.differences, moved - _SAME, "left")
        share = float(above + tied / 2) / len(self.differences)
        return (share - 0.5) * self.before * self.after


def _statistic(both: Sequence[_Stratum], moved: float) -> float:
    return sum(stratum.excess(moved) / (stratum.before + stratum.after + 1) for stratum in both)


def _null(sizes: Sequence[tuple[int, int]]) -> Numbers:
    """The statistic's distribution if nothing differs, ascending."""
    if math.prod(math.comb(n + m, m) for n, m in sizes) <= _MOST_EXACT:
        sums = np.zeros(1)
        for n, m in sizes:
            sums = np.add.outer(sums, _rank_sums(n, m)).ravel()
        return np.sort(sums)
    chance = np.random.default_rng(_SEED)
    sums = np.zeros(_DRAWS)
    for n, m in sizes:
        if n + m > _MANY:
            sums += chance.standard_normal(_DRAWS) * math.sqrt(n * m * (n + m + 1) / 12) / (n + m + 1)
            continue
        ranks = np.argsort(chance.random((_DRAWS, n + m)), axis=1)[:, :m]
        sums += (ranks.sum(axis=1) - m * (n + m - 1) / 2) / (n + m + 1)
    return np.sort(sums)


def _rank_sums(n: int, m: int) -> Numbers:
    """One for each way to choose the ``m`` ranks of "after"."""
    counts: dict[tuple[int, int], int] = {(0, 0): 1}
    for rank in range(n + m):
        for (chosen, total), ways in list(counts.items()):
            if chosen < m:
                counts[chosen + 1, total + rank] = counts.get((chosen + 1, total + rank), 0) + ways
    full = [(total, ways) for (chosen, total), ways in counts.items() if chosen == m]
    return np.repeat([(total - m * (n + m - 1) / 2) / (n + m + 1) for total, _ in full], [ways for _, ways in full])


def _few(numbers: Numbers) -> Numbers:
    if len(numbers) <= _MOST_EACH:
        return numbers
    return np.quantile(numbers, np.linspace(0, 1, _MOST_EACH), method="inverted_cdf")


def _tail(null: Numbers, said: float) -> float:
    """Two-sided."""
    far = abs(said) - 1e-9
    beyond = bisect.bisect_right(null, -far) + len(null) - bisect.bisect_left(null, far)
    return min(1.0, beyond / len(null))


def _edge(both: Sequence[_Stratum], null: Numbers, inwards: Numbers, alpha: float) -> float:
    """The first of the differences, looked at from one end, that is not rejected as a shift: all those before it are."""
    low, high = 0, len(inwards) // 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _tail(null, _statistic(both, float(inwards[middle]))) > alpha else (middle + 1, high)
    return float(inwards[low])
