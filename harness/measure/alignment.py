"""Two sequences of sentences side by side: which belong together, which are missing, which are extra."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Mapping, Sequence

from harness.model import value


@value
class Pair:
    """Places in both sequences that belong together. None: nothing there belongs to the other."""

    wanted: int | None
    found: int | None


@functools.lru_cache(maxsize=4096)
def words_of(text: str) -> str:
    """Words alone: case, punctuation and spacing do not count."""
    return " ".join(re.sub(r"[^\w\s']", " ", text.lower()).split())


def aligned(wanted: Sequence[str | None], found: Sequence[str]) -> tuple[Pair, ...]:
    """Every sentence with its partner, in the order of ``wanted``, then what is extra; None in ``wanted`` goes with anything.

    Equal sentences first, in order as far as they go, then wherever they stand: one that is lost, doubled or out of its place moves no other. Of
    what is left, sentences between the same neighbours belong together: altered, not lost and invented.
    """
    if len(wanted) == len(found) and all(one == other for one, other in zip(wanted, found, strict=True)):
        return tuple(Pair(wanted=place, found=place) for place in range(len(wanted)))
    partners = dict(_common(wanted, found))
    anchors = sorted(partners.items())
    for place, words in enumerate(wanted):
        if place not in partners and words is not None:
            elsewhere = (other for other, said in enumerate(found) if said == words and other not in partners.values())
            if (other := next(elsewhere, None)) is not None:
                partners[place] = other
    partners |= dict(_between(wanted, found, partners, anchors))
    extra = [other for other in range(len(found)) if other not in partners.values()]
    pairs = [Pair(wanted=place, found=partners.get(place)) for place in range(len(wanted))]
    return (*pairs, *(Pair(wanted=None, found=other) for other in extra))


def _common(wanted: Sequence[str | None], found: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The longest common subsequence, as places."""
    rows, columns = len(wanted), len(found)
    longest = [[0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            is_equal = wanted[row] == found[column]
            longest[row][column] = 1 + longest[row + 1][column + 1] if is_equal else max(longest[row + 1][column], longest[row][column + 1])
    row = column = 0
    while row < rows and column < columns:
        if wanted[row] == found[column]:
            yield row, column
            row, column = row + 1, column + 1
        elif longest[row + 1][column] >= longest[row][column + 1]:
            row += 1
        else:
            column += 1


def _between(
    wanted: Sequence[str | None], found: Sequence[str], partners: Mapping[int, int], anchors: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Sentences without an equal partner that stand between the same two that have one."""
    gaps: dict[int, list[int]] = {}
    for other in range(len(found)):
        if other not in partners.values():
            gaps.setdefault(bisect.bisect(sorted(place for _, place in anchors), other), []).append(other)
    for place in range(len(wanted)):
        here = gaps.get(bisect.bisect([before for before, _ in anchors], place))
        if place not in partners and here:
            yield place, here.pop(0)
