"""Calls placed -> rows of ``calls``: that there is one each, that it says how the call ended, and how long it was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

from assertions.facts import Facts, plural, replaced
from assertions.ledger import Difference, Key, Kind, Range, Reading, Step, Thing, Tree, exactly
from harness.model import CallOutcome, CallRecord, Gap, Row, Source

HANGUP_S = 1.5
"""Longest time between our leave and the agent noticing it. Measured on the embedded stack: 0.02 s; the rest is for a busy machine."""
JOB_START_S = 1.0
"""The agent's call may begin before we see the agent in the room: the job starts first."""
_ANSWERED = frozenset({CallOutcome.COMPLETED, CallOutcome.SILENT})


def trees(facts: Facts) -> Iterator[Tree]:
    """One tree a claim: each row is judged against the call it speaks of."""
    rows = _rows(facts)
    yield _tree(facts, rows, "calls/rows", "rows", _expected_rows, _said_rows)
    yield _tree(facts, rows, "calls/status", "rows, status", _expected_status, _said_status)
    yield _tree(facts, rows, "calls/duration", "rows, duration", _expected_duration, _said_duration)


def _rows(facts: Facts) -> list[Row] | Gap:
    gap = facts.unread(Source.ROWS)
    return gap if gap else list(facts.reader.rows.get("calls", ()))


def _tree(facts: Facts, rows: list[Row] | Gap, claim: str, title: str, expected, said) -> Tree:  # type: ignore[no-untyped-def]
    truth = expected(facts)
    calls = {record.plan.call_id: record.plan.index for record in facts.evidence.records}
    step = Step(
        claim=claim,
        source="placed",
        title=title,
        admits=lambda given: given,
        defects=_DEFECTS[claim],
        show=_SHOW[claim],
        explain=lambda difference: _explain(difference, calls),
        resolution=lambda admitted, found: _RESOLUTION[claim](admitted, found),
    )
    seen: Reading | Gap = rows if isinstance(rows, Gap) else said(rows)
    return Tree(root="placed", truth=truth, steps=(step,), seen={claim: seen})


def _expected_rows(facts: Facts) -> Reading:
    answered = {record.plan.call_id for record in facts.evidence.records if record.agent_joined_at is not None}
    keys = {("rows", record.plan.call_id): record for record in facts.evidence.records}
    return Reading(
        parts={key: exactly(1) if record.plan.call_id in answered else Range(lo=0, hi=1) for key, record in keys.items()},
        may_lack=frozenset(key for key, record in keys.items() if record.plan.call_id not in answered),
        because=("one row a call that reached an agent",),
    )


def _said_rows(rows: list[Row]) -> Reading:
    counts: dict[Key, float] = {}
    for row in rows:
        key = ("rows", str(row.columns.get("call_id")))
        counts[key] = counts.get(key, 0) + 1
    return Reading(parts={key: exactly(count) for key, count in counts.items()})


def _expected_status(facts: Facts) -> Reading:
    parts: dict[Key, Thing] = {}
    for record in _with_row(facts):
        ended = frozenset({"completed"}) if record.outcome in _ANSWERED else frozenset({"completed", "failed", "transferred"})
        parts["status", record.plan.call_id] = ended
    return Reading(parts=parts, may_lack=frozenset(parts), may_add=True, because=("the caller hung up, and the stack came to rest",))


def _said_status(rows: list[Row]) -> Reading:
    return Reading(parts={("status", str(row.columns.get("call_id"))): frozenset({str(row.columns.get("status"))}) for row in rows})


def _expected_duration(facts: Facts) -> Reading:
    parts: dict[Key, Thing] = {}
    for record in _with_row(facts):
        if record.left_at is None or record.agent_joined_at is None or record.placed_at is None or record.outcome not in _ANSWERED:
            continue
        shortest = (record.left_at - record.agent_joined_at) / 1e9
        longest = (record.left_at - max(record.placed_at, record.agent_joined_at - round(JOB_START_S * 1e9))) / 1e9 + HANGUP_S
        parts["duration", record.plan.call_id] = Range(lo=math.floor(shortest), hi=math.ceil(longest))
    because = (
        f"the agent's call begins up to {JOB_START_S:g} s before we see the agent",
        f"it ends up to {HANGUP_S:g} s after our leave",
        "whole seconds",
    )
    return Reading(parts=parts, may_lack=frozenset(parts), may_add=True, because=because)


def _said_duration(rows: list[Row]) -> Reading:
    parts: dict[Key, Thing] = {}
    for row in rows:
        seconds = row.columns.get("duration_seconds")
        if seconds is not None:
            parts["duration", str(row.columns.get("call_id"))] = exactly(float(seconds))
        elif row.columns.get("end_time"):
            begin, end = (datetime.fromisoformat(str(row.columns[name])) for name in ("start_time", "end_time"))
            parts["duration", str(row.columns.get("call_id"))] = exactly((end - begin).total_seconds())
    return Reading(parts=parts)


def _with_row(facts: Facts) -> tuple[CallRecord, ...]:
    return tuple(record for record in facts.whole if record.agent_joined_at is not None)


def _explain(difference: Difference, calls: dict[str, int]) -> str:
    quantity, call_id = difference.key[0], difference.key[1]
    call = f"call-{calls[call_id]}" if call_id in calls else call_id
    match quantity, difference.kind:
        case "rows", Kind.LACKS:
            return f"{call} has no row in the table calls"
        case "rows", _:
            assert isinstance(difference.said, Range)
            return f"{call} has {plural(difference.said.lo, 'row')} in the table calls, wanted 1"
        case "status", _:
            said = ", ".join(sorted(difference.said)) if isinstance(difference.said, frozenset) else "nothing"
            wanted = " or ".join(sorted(difference.admitted)) if isinstance(difference.admitted, frozenset) else "nothing"
            return f"the row of {call} says {said} after the caller hung up, wanted {wanted}"
        case _:
            assert isinstance(difference.said, Range)
            assert isinstance(difference.admitted, Range)
            return (
                f"the row of {call} says {difference.said.lo:g} s; the caller's own clock admits"
                f" {difference.admitted.lo:g} to {difference.admitted.hi:g} s"
            )


def _show_rows(reading: Reading) -> str:
    lo = sum(thing.lo for thing in reading.parts.values() if isinstance(thing, Range))
    hi = sum(thing.hi for thing in reading.parts.values() if isinstance(thing, Range))
    return f"{lo:g}" if lo == hi else f"{lo:g}..{hi:g}"


def _show_status(reading: Reading) -> str:
    counts: dict[str, int] = {}
    for thing in reading.parts.values():
        if isinstance(thing, frozenset):
            words = "|".join(sorted(thing))
            counts[words] = counts.get(words, 0) + 1
    return ", ".join(f"{count} {words}" for words, count in sorted(counts.items())) or "nothing"


def _show_duration(reading: Reading) -> str:
    ranges = [thing for thing in reading.parts.values() if isinstance(thing, Range)]
    if not ranges:
        return "nothing"
    lo, hi = sum(thing.lo for thing in ranges) / len(ranges), sum(thing.hi for thing in ranges) / len(ranges)
    return f"mean {lo:.1f} s" if lo == hi else f"mean {lo:.1f}..{hi:.1f} s"


def _catch_duration(admitted: Reading, _: Reading) -> str:
    widths = [thing.hi - thing.lo for thing in admitted.parts.values() if isinstance(thing, Range)]
    return f"{max(widths) + 1:g} s" if widths else "nothing"


def _first(reading: Reading, quantity: str) -> Key | None:
    return next((key for key in reading.parts if key[0] == quantity), None)


def _lost(said: Reading) -> Reading | None:
    key = _first(said, "rows")
    return replaced(said, {key: None}) if key else None


def _doubled(said: Reading) -> Reading | None:
    key = _first(said, "rows")
    return replaced(said, {key: exactly(2)}) if key else None


def _never_closed(said: Reading) -> Reading | None:
    key = _first(said, "status")
    return replaced(said, {key: frozenset({"active"})}) if key else None


def _in_ms(said: Reading) -> Reading | None:
    key = _first(said, "duration")
    found = said.parts[key] if key else None
    return replaced(said, {key: exactly(found.lo * 1000)}) if key and isinstance(found, Range) and found.lo else None


_DEFECTS = {
    "calls/rows": {"a call's row is lost": _lost, "a call's row is doubled": _doubled},
    "calls/status": {"a call is never closed": _never_closed},
    "calls/duration": {"duration in milliseconds": _in_ms},
}
_SHOW = {"calls/rows": _show_rows, "calls/status": _show_status, "calls/duration": _show_duration}
_RESOLUTION = {
    "calls/rows": lambda admitted, said: "1 call",
    "calls/status": lambda admitted, said: "1 call",
    "calls/duration": _catch_duration,
}
