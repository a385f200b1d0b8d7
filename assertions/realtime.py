"""Rows of ``calls`` -> Supabase Realtime: each call's beginning and its end, told once, in time and in order.

Realtime promises no replay: what happened while the subscription was not proven to deliver (before the first canary came back, across a break) is
blamed on nobody.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assertions.facts import Facts, unread
from assertions.ledger import Difference, Key, Kind, Range, Reading, Seen, Step, Thing, exactly
from assertions.words import plural, span, total
from harness.measure.delivery import (
    HEARD,
    PROOFS,
    Break,
    Canary,
    Deaf,
    Heard,
    ServerClock,
    Told,
    call_changes,
    deaf,
    is_excused,
    told_by,
)
from harness.measure.series import Reader
from harness.model import Poll, Row, Source, UnixNs, value

TABLES = frozenset({HEARD, PROOFS})
LATE_S = 5.0
"""The page looks for active calls every 5 s by itself: a call that is told later than this was not shown when it began."""
_BEGINNING = "INSERT"


def step(facts: Facts) -> Step:
    """The hop behind ``calls/rows``."""
    return Step(
        claim="calls/realtime",
        source="calls/rows",
        title="realtime, begin and end",
        admits=lambda given, reader: _admitted(given, facts, reader),
        read=lambda reader: _read(reader, facts),
        defects={
            "a call's beginning is never told": _without(facts, is_beginning=True),
            "a call's end is never told": _without(facts, is_beginning=False),
            "a change is told twice": _twice(facts),
            "a change is told late": _late(facts),
            "an end is told before its beginning": _swapped(facts),
        },
        show=lambda reading: plural_span(total(reading, "told")),
        explain=lambda difference: _explain(difference, facts),
        would_catch=lambda admitted, said: "1 event",
    )


def plural_span(number: Range) -> str:
    """``6 events``."""
    return f"{span(number)} event" + ("" if number.lo == number.hi == 1 else "s")


@value
class _Proven:
    """How the server's clock stands to ours, and when nobody could have heard it."""

    clock: ServerClock | None
    """None: nobody said, and it is another machine's."""
    gaps: tuple[Deaf, ...]
    began_at: UnixNs


def _admitted(given: Reading, facts: Facts, reader: Reader) -> Reading:
    """For each row that is there: that it began, and, if it has ended, that it did."""
    proven = reader.once(_proven, facts, reader.rows.get(PROOFS, ()), reader.polls.get(Source.REALTIME, ()))
    parts = reader.of_calls("calls", _may_be_told, proven, facts)
    may_lack = reader.of_calls("calls", _need_not_be_told, proven, facts)
    for call_id in reader.calls_in("calls"):
        if ("rows", call_id) not in given.parts:
            for key in _may_be_told(call_id, reader.rows_of_call("calls", call_id), proven, facts):
                parts.pop(key, None)
                may_lack.pop(key, None)
    because = [
        "each row that is there began once; one that has ended, ended",
        f"told within {LATE_S:g} s, after which the page has looked itself",
    ]
    if any(key[0] == "told" for key in may_lack):
        because.append("while the subscription was not proven to deliver, nothing need be told: Realtime replays nothing")
    if proven.clock is None:
        because.append("the server does not say its time: how late an event came is not known")
    return Reading(parts=parts, may_lack=frozenset(may_lack), may_add=frozenset({"told", "at", "order"}), because=tuple(because))


def _proven(facts: Facts, proofs: Sequence[Row], polls: Sequence[Poll]) -> _Proven:
    told = [told_by(row) for row in proofs]
    gaps = deaf(
        [each for each in told if isinstance(each, Canary)],
        [each for each in told if isinstance(each, Break)],
        began_at=facts.evidence.info.started_at,
        ended_at=polls[-1].at if polls else facts.evidence.info.read_at or facts.since,
    )
    clock = next((each for each in told if isinstance(each, ServerClock)), None)
    if clock is None and facts.is_ours:
        clock = ServerClock(offset_s=0.0, error_s=0.0)
    return _Proven(clock=clock, gaps=gaps, began_at=facts.evidence.info.started_at)


def _may_be_told(call_id: str, rows: Sequence[Row], proven: _Proven, facts: Facts) -> dict[Key, Thing]:
    """Of one call what may be told of it."""
    parts: dict[Key, Thing] = {}
    if call_id not in facts.indices:
        return parts
    for change in call_changes([row.columns for row in rows], proven.clock):
        key = ("told", call_id, _what(change.kind, change.key))
        parts[key] = Range(lo=0, hi=1) if is_excused(change, proven.gaps) else exactly(1)
        if change.at is not None:
            at_s = (change.at - proven.began_at) / 1e9
            parts["at", *key[1:]] = Range(lo=at_s - change.error_s, hi=at_s + change.error_s + LATE_S)
    parts["order", call_id] = frozenset({"in order"})
    return parts


def _need_not_be_told(call_id: str, rows: Sequence[Row], proven: _Proven, facts: Facts) -> dict[Key, None]:
    """What of that may be missing: all but that a change was told which somebody must have heard."""
    parts = _may_be_told(call_id, rows, proven, facts)
    return {key: None for key, thing in parts.items() if key[0] != "told" or thing != exactly(1)}


def _read(reader: Reader, facts: Facts) -> Seen:
    """What was heard of our own calls. A row's heartbeats change nothing that is claimed."""
    if gap := unread(reader, Source.REALTIME):
        return gap
    parts = reader.of_calls(HEARD, _of_call, facts)
    for call_id, heard in _heard_by_row(reader, facts).items():
        parts.update(_was_told(call_id, heard, facts))
    return Reading(parts=parts)


def _of_call(call_id: str, rows: Sequence[Row], facts: Facts) -> Mapping[Key, Thing]:
    return _was_told(call_id, heard, facts) if call_id in facts.indices and (heard := _of_calls(rows)) else {}


def _was_told(call_id: str, heard: Sequence[Heard], facts: Facts) -> Mapping[Key, Thing]:
    by_what: dict[str, list[Heard]] = {}
    for each in heard:
        by_what.setdefault(_what(each.kind, each.key), []).append(each)
    parts: dict[Key, Thing] = {}
    first = {what: min(each.at for each in found) for what, found in by_what.items()}
    for what, found in by_what.items():
        if what != "active":
            parts["told", call_id, what] = exactly(max(Counter(each.commit_timestamp for each in found).values()))
            parts["at", call_id, what] = exactly((first[what] - facts.evidence.info.started_at) / 1e9)
    began_at = first.pop(_BEGINNING, None)
    is_in_order = began_at is None or all(began_at <= at for at in first.values())
    parts["order", call_id] = frozenset({"in order" if is_in_order else "out of order"})
    return parts


def _heard_by_row(reader: Reader, facts: Facts) -> Mapping[str, Sequence[Heard]]:
    """By our own calls what an older run heard, which knows them by the ids of their rows."""
    found: dict[str, list[Heard]] = {}
    if nameless := _of_calls(reader.rows_of_call(HEARD, str(None))):
        by_row = {str(row.columns.get("id")): str(row.columns.get("call_id")) for row in reader.rows.get("calls", ())}
        for each in nameless:
            call_id = by_row.get(each.key.partition(" ")[0], "")
            if call_id in facts.indices:
                found.setdefault(call_id, []).append(each)
    return found


def _heard_of(call_id: str, reader: Reader, facts: Facts) -> Sequence[Heard]:
    return _of_calls(reader.rows_of_call(HEARD, call_id)) or _heard_by_row(reader, facts).get(call_id, ())


def _of_calls(rows: Sequence[Row]) -> tuple[Heard, ...]:
    told = (told_by(row) for row in rows if row.columns.get("table") == "calls")
    return tuple(each for each in told if isinstance(each, Heard))


def is_heard(call_id: str, reader: Reader, facts: Facts) -> bool:
    """Something was heard of it."""
    return bool(_heard_of(call_id, reader, facts))


def ended_as(reader: Reader, call_id: str, status: str, facts: Facts) -> Reader:
    """A copy in which Realtime passed on, correctly, that the call's row ended as ``status``."""
    ends = {(each.key, each.at) for each in _heard_of(call_id, reader, facts) if _is_end(each)}

    def told(row: Row) -> Row:
        if (row.columns.get("key"), row.columns.get("at")) not in ends:
            return row
        return dataclasses.replace(row, columns={**row.columns, "key": f"{row.columns['key'].partition(' ')[0]} {status}"})

    return reader.with_rows(HEARD, [told(row) for row in reader.rows.get(HEARD, ())]) if ends else reader


def _what(kind: str, key: str) -> str:
    """``INSERT``, or the status that an UPDATE left the row in."""
    return kind if kind == _BEGINNING else key.partition(" ")[2]


def _event(key: Key) -> str:
    return "beginning" if key[2] == _BEGINNING else f"end as {key[2]}"


def _explain(difference: Difference, facts: Facts) -> str:
    key, said, admitted = difference.key, difference.said, difference.admitted
    call = facts.named(key[1])
    if key[0] == "order":
        return f"{call}: Realtime told a change of the row before its beginning"
    if difference.kind is Kind.LACKS:
        return f"{call}: Realtime never told its {_event(key)}, although it delivered before and after it"
    assert isinstance(said, Range)
    assert isinstance(admitted, Range)
    if key[0] == "at":
        written_s = admitted.hi - LATE_S
        return f"{call}: Realtime told its {_event(key)} {said.lo - written_s:.1f} s after it was written, may take {LATE_S:g} s"
    return f"{call}: Realtime told its {_event(key)} {plural(said.lo, 'time')}, for one change of the row"


Change = Callable[[list[Row]], Sequence[Row]]


def _told_otherwise(
    facts: Facts, wanted: Callable[[Heard], bool], change: Callable[[Row], Sequence[Row]]
) -> Callable[[Reader], Reader | None]:
    """Of the last call whose events hold one that is wanted, every such event becomes ``change`` of it."""

    def defect(reader: Reader) -> Reader | None:
        call_ids = (call_id for call_id in reversed((*_heard_by_row(reader, facts), *reader.calls_in(HEARD))) if call_id in facts.indices)
        heard = next((heard for call_id in call_ids if any(map(wanted, heard := _heard_of(call_id, reader, facts)))), None)
        if heard is None:
            return None
        ours = {(each.key, each.at) for each in heard if wanted(each)}
        rows: list[Row] = []
        for row in reader.rows.get(HEARD, ()):
            is_it = (row.columns.get("key"), row.columns.get("at")) in ours
            rows += change(row) if is_it else (row,)
        return reader.with_rows(HEARD, rows)

    return defect


def _is_beginning(told: Told) -> bool:
    return isinstance(told, Heard) and told.table == "calls" and told.kind == _BEGINNING


def _is_end(told: Told) -> bool:
    return isinstance(told, Heard) and told.table == "calls" and not _is_beginning(told) and not told.key.endswith(" active")


def _without(facts: Facts, *, is_beginning: bool) -> Callable[[Reader], Reader | None]:
    return _told_otherwise(facts, _is_beginning if is_beginning else _is_end, lambda row: ())


def _twice(facts: Facts) -> Callable[[Reader], Reader | None]:
    return _told_otherwise(facts, _is_beginning, lambda row: (row, row))


def _late(facts: Facts) -> Callable[[Reader], Reader | None]:
    return _told_otherwise(facts, _is_beginning, lambda row: (_at(row, row.columns["at"] + round((LATE_S + 1) * 1e9)),))


def _swapped(facts: Facts) -> Callable[[Reader], Reader | None]:
    """The end comes before everything."""
    return _told_otherwise(facts, _is_end, lambda row: (_at(row, facts.evidence.info.started_at),))


def _at(row: Row, at: Any) -> Row:
    return dataclasses.replace(row, columns={**row.columns, "at": at}, at=UnixNs(at))
