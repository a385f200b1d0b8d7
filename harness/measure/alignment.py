"""Two sequences of sentences side by side: which belong together, which are missing, which are extra."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.model import value

_ALTERED = 1.0
"""Cost of a pair of different sentences: less than one missing and one extra, so a garbled sentence is altered, not lost and invented."""
_ALONE = 0.75


@value
class Pair:
    """Places in both sequences that belong together. None: nothing there belongs to the other."""

    wanted: int | None
    found: int | None


def words_of(text: str) -> str:
    """Words alone: case, punctuation and spacing do not count."""
    return " ".join(re.sub(r"[^\w\s']", " ", text.lower()).split())


def aligned(wanted: Sequence[str | None], found: Sequence[str]) -> tuple[Pair, ...]:
    """The cheapest pairing that keeps both orders; None in ``wanted`` goes with anything.

    A sentence that is lost or doubled moves no other out of its place.
    """
    rows, columns = len(wanted), len(found)
    cost = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows, -1, -1):
        for column in range(columns, -1, -1):
            ways = []
            if row < rows and column < columns:
                ways.append(_cost(wanted[row], found[column]) + cost[row + 1][column + 1])
            if row < rows:
                ways.append(_ALONE + cost[row + 1][column])
            if column < columns:
                ways.append(_ALONE + cost[row][column + 1])
            cost[row][column] = min(ways, default=0.0)
    pairs: list[Pair] = []
    row = column = 0
    while row < rows or column < columns:
        here = cost[row][column]
        if row < rows and column < columns and here == _cost(wanted[row], found[column]) + cost[row + 1][column + 1]:
            pairs.append(Pair(wanted=row, found=column))
            row, column = row + 1, column + 1
        elif row < rows and here == _ALONE + cost[row + 1][column]:
            pairs.append(Pair(wanted=row, found=None))
            row += 1
        else:
            pairs.append(Pair(wanted=None, found=column))
            column += 1
    return tuple(pairs)


def _cost(wanted: str | None, found: str) -> float:
    return 0.0 if wanted is None or wanted == found else _ALTERED
