"""Calls placed -> rows of ``calls``: that each call has one, that it says how the call ended, and how long it was."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from assertions import answers, realtime
from assertions.facts import AS_PLANNED, WHOLE, Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree, exactly
from assertions.words import plural, span, total
from harness.measure.series import Reader
from harness.model import CallOutcome, CallRecord, Row, Source, UnixNs

TABLE = "calls"
MARK = "/calls?"
"""What the requests for this table hold."""
DEAD_S = 60.0
"""A job that died without a word is noticed by its silence (``end_dead_calls``) this long after its last heartbeat."""


def trees(facts: Facts) -> Iterator[Tree]:
    """One: rows, and of the rows that are there what they say."""
    steps = (
        Step(
            claim="calls/rows",
            source="placed",
            title="rows",
            admits=lambda given, _: given,
            read=lambda reader: _read(reader, _count),
            defects={
                "a call's row is lost": _without_last,
                "a call's row is doubled": _doubled,
                "a row of no call": _phantom,
                "a call is deleted with all its lines": _deleted,
                **answers.defects(TABLE, MARK),
            },
            show=lambda reading: span(total(reading, "rows")),
            explain=lambda difference: _explain_rows(difference, facts),
            would_catch=lambda admitted, said: "1 call",
        ),
        Step(
            claim="calls/status",
            source="calls/rows",
            title="rows, status",
            admits=lambda given, reader: _admitted_status(given, facts, reader),
            read=lambda reader: _read(reader, _status),
            defects={
                "a call is never closed": _set(facts, status="active", end_time=None, duration_seconds=None),
                "a call that ended well is said to have failed": _ended_as(facts, "failed"),
                "a call that ended well is said to be transferred": _ended_as(facts, "transferred"),
            },
            show=_show_status,
            explain=lambda difference: _explain_status(difference, facts),
            would_catch=lambda admitted, said: "1 call",
        ),
        Step(
            claim="calls/duration",
            source="calls/status",
            title="rows, duration",
            admits=lambda given, reader: _admitted_duration(given, facts, reader),
            read=lambda reader: _read(reader, _duration),
            defects={
                "in milliseconds": _scaled(facts, 1000),
                "in minutes": _scaled(facts, 1 / 60),
                "never written": _set(facts, duration_seconds=None),
            },
            show=_show_duration,
            explain=lambda difference: _explain_duration(difference, facts),
            would_catch=_would_catch_duration,
        ),
        realtime.step(facts),
    )
    yield Tree(root="placed", truth=_placed(facts), steps=steps, reads=frozenset({TABLE, *realtime.TABLES}))


def _placed(facts: Facts) -> Reading:
    """One row a call that reached an agent; one that did not may have a row."""
    parts: dict[Key, Thing] = dict(answers.WHOLE)
    may_lack: set[Key] = set(answers.NOT_TOLD)
    for record in facts.records:
        if record.placed_at is None:
            continue
        key = ("rows", record.plan.call_id)
        is_sure = record.agent_joined_at is not None and record.outcome in WHOLE
        parts[key] = exactly(1) if is_sure else Range(lo=0, hi=1)
        if not is_sure:
            may_lack.add(key)
    because = ["one row a call that reached an agent"]
    if may_lack > answers.NOT_TOLD:
        because.append("a call that no agent joined, or that was cut, may have a row or none")
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=tuple(because))


def _read(reader: Reader, of: Callable[[Row], Thing | None]) -> Seen:
    """The rows of the table, each at its call; what is counted adds up."""
    if gap := unread(reader, Source.ROWS, MARK):
        return gap
    parts: dict[Key, Thing] = answers.said(reader, MARK) if of is _count else {}
    kind = {_count: "rows", _status: "status", _duration: "duration"}[of]
    for row in reader.rows.get(TABLE, ()):
        key = (kind, str(row.columns.get("call_id")))
        thing, before = of(row), parts.get(key)
        if thing is None:
            continue
        if kind == "rows" and isinstance(before, Range):
            thing = exactly(before.lo + 1)
        parts[key] = thing
    return Reading(parts=parts)


def _count(_: Row) -> Thing:
    return exactly(1)


def _status(row: Row) -> Thing:
    return frozenset({str(row.columns.get("status"))})


def _duration(row: Row) -> Thing | None:
    seconds = row.columns.get("duration_seconds")
    return None if seconds is None else exactly(float(seconds))


def _with_row(given: Reading, facts: Facts) -> Iterator[CallRecord]:
    """Calls of which the hop before holds a row, or may hold one."""
    by_id = {record.plan.call_id: record for record in facts.records}
    for key in given.parts:
        if len(key) > 1 and (record := by_id.get(key[1])) is not None:
            yield record


def _admitted_status(given: Reading, facts: Facts, reader: Reader) -> Reading:
    parts: dict[Key, Thing] = {}
    because: list[str] = []
    for record in _with_row(given, facts):
        admitted = {"completed"}
        if record.outcome not in AS_PLANNED:
            admitted |= {"failed", "transferred"}
            if _may_be_open(record, facts):
                admitted.add("active")
                because.append(f"a dead job's call is closed {DEAD_S:g} s after its last sign of life, or when the agent ends it")
        parts["status", record.plan.call_id] = frozenset(admitted)
    may_lack = frozenset(("status", key[1]) for key in given.may_lack if len(key) > 1)
    words = ("the caller hung up, and the stack came to rest", *dict.fromkeys(because))
    return Reading(parts=parts, may_lack=may_lack, may_add=frozenset({"status"}), because=words)


def _may_be_open(record: CallRecord, facts: Facts) -> bool:
    """Nobody can know yet that the call is over: the caller vanished without a leave, or the agent with its job."""
    last = max((turn.user_speech_ended_at for turn in record.turns), default=record.greeted_at or record.agent_joined_at)
    read_at = facts.evidence.info.read_at
    if record.left_at is None or last is None or read_at is None:
        return True
    return record.outcome not in AS_PLANNED and (read_at - last) / 1e9 < DEAD_S


def _admitted_duration(given: Reading, facts: Facts, reader: Reader) -> Reading:
    """Whole seconds between the agent's beginning, which lies between our dial and its first sign, and its notice of our leave."""
    parts: dict[Key, Thing] = {}
    for record in _with_row(given, facts):
        if record.outcome not in AS_PLANNED or None in (record.left_at, record.placed_at, record.agent_joined_at):
            continue
        assert record.left_at is not None
        assert record.placed_at is not None
        assert record.agent_joined_at is not None
        shortest_s = (record.left_at - record.agent_joined_at) / 1e9
        longest_s = (record.left_at - record.placed_at) / 1e9 + notice_s(record.left_at, facts, reader)
        parts["duration", record.plan.call_id] = Range(lo=math.floor(shortest_s), hi=math.ceil(longest_s))
    # A call that is said to go on has no duration yet: whoever says so is the one to blame.
    is_open = {key for key, thing in given.parts.items() if isinstance(thing, frozenset) and "active" in thing}
    may_lack = frozenset(("duration", key[1]) for key in given.may_lack | is_open if len(key) > 1)
    because = (
        "the agent's call begins between our dial and the agent's joining",
        "it ends between our leave and our next look at the media server",
        "whole seconds, rounded either way",
    )
    return Reading(parts=parts, may_lack=may_lack, may_add=frozenset({"duration"}), because=because)


def notice_s(left_at: UnixNs, facts: Facts, reader: Reader) -> float:
    """Longest time between a leave and its being known: until our next look at the media server, which passes a leave on at once.

    Without that look, the stack's own patience with a participant that vanished is all that bounds it.
    """
    polls = reader.polls.get(Source.SFU_EXPORTER, ())
    index = bisect.bisect_right(polls, left_at, key=lambda poll: poll.at)
    return (polls[index].at - left_at) / 1e9 if index < len(polls) else facts.setting("departure_timeout_s", 20.0)


def _show_status(reading: Reading) -> str:
    counts: dict[str, int] = {}
    for key, thing in reading.parts.items():
        if key not in reading.may_lack:
            counts[span(thing)] = counts.get(span(thing), 0) + 1
    return ", ".join(f"{count} {words}" for words, count in sorted(counts.items())) or "nothing"


def _show_duration(reading: Reading) -> str:
    ranges = [thing for thing in reading.parts.values() if isinstance(thing, Range)]
    if not ranges:
        return "nothing"
    return span(Range(lo=min(thing.lo for thing in ranges), hi=max(thing.hi for thing in ranges)), " s")


def _would_catch_duration(admitted: Reading, _: Reading) -> str:
    widths = [thing.hi - thing.lo for thing in admitted.parts.values() if isinstance(thing, Range)]
    return f"{max(widths) + 1:g} s" if widths else "nothing"


def _explain_rows(difference: Difference, facts: Facts) -> str:
    if words := answers.explained(difference, TABLE):
        return words
    call = facts.named(difference.key[1])
    if difference.kind is Kind.LACKS:
        return f"{call} was answered and has no row in the table calls" + _why_gone(difference.key[1], facts)
    if difference.kind is Kind.EXTRA:
        return f"the table calls holds a row of {call}, which nobody placed"
    said = difference.said
    assert isinstance(said, Range)
    return f"{call} has {plural(said.lo, 'row')} in the table calls, may have {span(difference.admitted)}"


def _why_gone(call_id: str, facts: Facts) -> str:
    """What tells a row that was deleted from one that was never written."""
    reader = Reader.of(facts.evidence)
    if any(row.columns.get("call_id") == call_id for row in reader.rows.get("transcripts", ())):
        return ", although its transcripts are there"
    if realtime.is_heard(call_id, reader, facts):
        return ": it was written, Realtime told it, and it has been deleted since, with its transcripts and tool calls"
    return ""


def _explain_status(difference: Difference, facts: Facts) -> str:
    said = "nothing" if difference.said is None else span(difference.said)
    return f"the row of {facts.named(difference.key[1])} says {said} after the call was over, may say {span(difference.admitted)}"


def _explain_duration(difference: Difference, facts: Facts) -> str:
    said = "no duration" if difference.said is None else span(difference.said, " s")
    return f"the row of {facts.named(difference.key[1])} says {said}, may say {span(difference.admitted, ' s')} by the caller's own clock"


def _without_last(reader: Reader) -> Reader | None:
    rows = reader.rows.get(TABLE, ())
    return reader.with_rows(TABLE, rows[:-1]) if rows else None


def _deleted(reader: Reader) -> Reader | None:
    """``on delete cascade``: what was said in it goes, too."""
    lie = _without_last(reader)
    if lie is None:
        return None
    gone = reader.rows[TABLE][-1].columns.get("call_id")
    for table in ("transcripts", "tool_executions"):
        if table in lie.rows:
            lie = lie.with_rows(table, [row for row in lie.rows[table] if row.columns.get("call_id") != gone])
    return lie


def _doubled(reader: Reader) -> Reader | None:
    rows = reader.rows.get(TABLE, ())
    return reader.with_rows(TABLE, (*rows, rows[-1])) if rows else None


def _phantom(reader: Reader) -> Reader | None:
    rows = reader.rows.get(TABLE, ())
    if not rows:
        return None
    return reader.with_rows(TABLE, (*rows, _with(rows[-1], {"call_id": f"{rows[-1].columns.get('call_id')}-again"})))


def _completed(reader: Reader, facts: Facts) -> tuple[Sequence[Row], int] | None:
    """The table's rows, and the place of one whose call ended as calls do. None: there is none."""
    completed = {record.plan.call_id for record in facts.records if record.outcome is CallOutcome.COMPLETED}
    rows = reader.rows.get(TABLE, ())
    places = [place for place, row in enumerate(rows) if row.columns.get("call_id") in completed]
    return (rows, places[-1]) if places else None


def _set(facts: Facts, **columns: Any) -> Defect:
    """One call's row says something else."""

    def defect(reader: Reader) -> Reader | None:
        if (found := _completed(reader, facts)) is None:
            return None
        rows, place = found
        return reader.with_rows(TABLE, (*rows[:place], _with(rows[place], columns), *rows[place + 1 :]))

    return defect


def _ended_as(facts: Facts, status: str) -> Defect:
    """One call's row says that it ended otherwise, and Realtime tells the row as it is."""

    def defect(reader: Reader) -> Reader | None:
        if (lie := _set(facts, status=status)(reader)) is None:
            return None
        (call_id,) = (new.columns["call_id"] for old, new in zip(reader.rows[TABLE], lie.rows[TABLE], strict=True) if old is not new)
        return realtime.ended_as(lie, str(call_id), status, facts)

    return defect


def _scaled(facts: Facts, by: float) -> Defect:
    """Every duration is in another unit."""

    def defect(reader: Reader) -> Reader | None:
        rows = reader.rows.get(TABLE, ())
        if not any(row.columns.get("duration_seconds") for row in rows):
            return None
        return reader.with_rows(TABLE, [_with(row, {"duration_seconds": _times(row.columns.get("duration_seconds"), by)}) for row in rows])

    return defect


def _times(seconds: Any, by: float) -> float | None:
    return None if seconds is None else round(float(seconds) * by)


def _with(row: Row, columns: Mapping[str, Any]) -> Row:
    return dataclasses.replace(row, columns={**row.columns, **columns})
