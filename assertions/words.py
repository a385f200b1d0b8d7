"""How readings are put into words: counts, spans, plurals."""

from __future__ import annotations

import math

from assertions.ledger import Range, Reading, Thing


def whole(number: float) -> str:
    """A count without a fraction it does not have; ``any number`` for an open end."""
    if math.isinf(number):
        return "any number"
    return f"{number:.0f}" if abs(number - round(number)) < 1e-6 else f"{number:.3f}"


def span(thing: Thing | None, unit: str = "", digits: int | None = None) -> str:
    """A range: ``9``, ``8 to 9`` or ``0.61 to 1.02 s``; words: ``completed or failed``. Nothing at all: ``nothing``."""
    if thing is None:
        return "nothing"
    if isinstance(thing, frozenset):
        return " or ".join(sorted(thing))
    low, high = (whole(each) if digits is None else f"{each:.{digits}f}" for each in (thing.lo, thing.hi))
    return (low if low == high else f"{low} to {high}") + unit


def total(reading: Reading, kind: str) -> Range:
    """The sum of the numbers of one kind."""
    found = [thing for key, thing in reading.parts.items() if key[0] == kind and isinstance(thing, Range)]
    lowest = sum(
        thing.lo for key, thing in reading.parts.items() if key[0] == kind and isinstance(thing, Range) and key not in reading.may_lack
    )
    return Range(lo=lowest, hi=sum(thing.hi for thing in found))


def plural(count: float, noun: str) -> str:
    """``1 turn``, ``2 turns``."""
    return f"{whole(count)} {noun}" if count == 1 else f"{whole(count)} {noun}s"


def quoted(thing: Thing | None) -> str:
    """Words in quotes."""
    return f"'{span(thing)}'"
