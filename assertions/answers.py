"""Whether an answer of a table was the whole of it: cut by the server's cap, or hidden from the role that reads."""

from __future__ import annotations

import dataclasses

from assertions.ledger import Defect, Difference, Key, Thing
from harness.measure.series import Reader
from harness.model import Poll, Source

CUT, EYES = "cut", "eyes"
"""Kinds of the keys that hold it."""
KINDS = frozenset({CUT, EYES})
WHOLE: dict[Key, Thing] = {(CUT,): frozenset({"no"}), (EYES,): frozenset({"all"})}
"""What an honest answer is. It stands before the rows: what it lacks, they lack."""
NOT_TOLD = frozenset(WHOLE)
"""A server need not count, and we need not have a key that sees everything."""


def said(reader: Reader, mark: str) -> dict[Key, Thing]:
    """Of the last answer whose request holds ``mark``."""
    poll = _last(reader, mark)
    if poll is None:
        return {}
    parts: dict[Key, Thing] = {}
    if poll.total is not None:
        parts[(CUT,)] = frozenset({"no" if poll.count >= poll.total else f"{poll.count} of {poll.total}"})
    if poll.total_by_key is not None:
        seen = max(poll.count, poll.total or 0)
        parts[(EYES,)] = frozenset({"all" if seen >= poll.total_by_key else f"{seen} of {poll.total_by_key}"})
    return parts


def explained(difference: Difference, table: str) -> str | None:
    """None: it is about something else."""
    kind = difference.key[0]
    if kind not in KINDS:
        return None
    numbers = " or ".join(difference.said) if isinstance(difference.said, frozenset) else "?"
    if kind == CUT:
        return f"an answer holds {numbers} rows of {table}: the server cuts answers off without a word, and whoever does not count sees no more"
    return f"the role that reads sees {numbers} rows of {table}: row level security hides the others from it"


def defects(table: str, mark: str) -> dict[str, Defect]:
    """The last row is there, and not in the answer."""
    return {
        f"an answer of {table} is cut off": lambda reader: _without_last(reader, table, mark, is_hidden=False),
        f"a row of {table} is hidden from the reader": lambda reader: _without_last(reader, table, mark, is_hidden=True),
    }


def _last(reader: Reader, mark: str) -> Poll | None:
    polls = [poll for poll in reader.polls.get(Source.ROWS, ()) if mark in (poll.ours or poll.request)]
    return polls[-1] if polls else None


def _without_last(reader: Reader, table: str, mark: str, *, is_hidden: bool) -> Reader | None:
    poll, rows = _last(reader, mark), reader.rows.get(table, ())
    if poll is None or not rows or (poll.total_by_key if is_hidden else poll.total) is None:
        return None
    less = dataclasses.replace(poll, count=poll.count - 1, total=poll.count - 1 if is_hidden else poll.total)
    polls = tuple(less if each is poll else each for each in reader.polls[Source.ROWS])
    lie = reader.with_rows(table, rows[:-1])
    return dataclasses.replace(lie, polls={**lie.polls, Source.ROWS: polls})
