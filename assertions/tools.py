"""Tool calls provoked -> run at an endpoint of ours -> rows of ``tool_executions``; -> the agent's counter -> Prometheus' raw samples."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from assertions import answers, counted
from assertions.facts import USER, Facts, rowless, unread
from assertions.ledger import Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree, exactly
from assertions.words import plural, span, total
from harness.measure.series import Reader, Timeline
from harness.model import Light, Row, Source, TurnPlan, value

TABLE = "tool_executions"
MARK = "/tool_executions?"
COUNTER = "voice_agent_tool_calls_total"
NAMES = {COUNTER: lambda timeline: ("tool", timeline.labels.get("tool", "?"), timeline.labels.get("success", "?"))}
ANY = "any arguments"
REQUESTS = "tool-requests"
"""Table of what came to our endpoint."""
TOOK = "took"
"""Kind of the keys that hold seconds."""
HTTP_OK = 200
MS = 0.001


@value
class Provoked:
    """A turn that makes the agent call a tool."""

    call_id: str
    plan: TurnPlan
    is_sure: bool
    """Its reply was heard, and it was heard as it was said: the tool was called."""


def trees(facts: Facts) -> Iterator[Tree]:
    """One, that forks where the tool ran. Nothing if no turn provokes a tool."""
    if not any(turn.tool for plan in facts.evidence.plans for turn in plan.turns):
        return
    steps = (_endpoint_step(facts), _rows_step(facts), *_counter_steps(facts))
    yield Tree(root="provoked", truth=_truth(facts), steps=steps, reads=frozenset({TABLE, "calls", REQUESTS, *NAMES}))


def provoked(facts: Facts) -> tuple[Provoked, ...]:
    """Every tool call that was provoked, or may have been."""
    plans = {plan.call_id: plan for plan in facts.evidence.plans}
    return tuple(
        Provoked(call_id=line.call_id, plan=plan, is_sure=line.is_sure and line.text is not None)
        for line in facts.lines
        if line.role == USER and (plan := plans[line.call_id].turns[line.turn - 1]).tool is not None
    )


def _endpoint_step(facts: Facts) -> Step:
    return Step(
        claim="tools/endpoint",
        reads=frozenset({REQUESTS}),
        source="provoked",
        title="tool's own endpoint",
        admits=lambda given, _: dataclasses.replace(given, may_add=frozenset({TOOK})),
        read=lambda reader: _requests(reader, facts),
        defects={
            "a tool never ran": lambda reader: _asked(reader, facts, lambda row: [], -1),
            "a tool ran twice": lambda reader: _asked(reader, facts, lambda row: [row, row], 1),
            "a tool ran with other arguments": lambda reader: _with_other_arguments(reader, facts),
        },
        show=lambda reading: span(total(reading, "tool")),
        explain=lambda difference: _explain_request(difference, facts),
        would_catch=lambda admitted, said: "1 tool call",
        light=Light.AGENT,
    )


def _rows_step(facts: Facts) -> Step:
    return Step(
        claim="tools/rows",
        reads=frozenset({TABLE}),
        source="tools/endpoint",
        title="tool_executions rows",
        admits=lambda given, reader: _rows_admitted(given, facts, reader),
        read=lambda reader: _executions(reader, facts),
        defects={
            "a tool's row is lost": lambda reader: _changed(reader, lambda rows: rows[:-1]),
            "a tool's row is doubled": lambda reader: _changed(reader, lambda rows: [*rows, rows[-1]]),
            "a tool is said to have failed": lambda reader: _changed(reader, lambda rows: [*rows[:-1], _with(rows[-1], success=False)]),
            "arguments are lost": lambda reader: _without_arguments(reader, facts),
            "latency in seconds": _in_seconds,
            **answers.defects(TABLE, MARK),
        },
        show=lambda reading: span(total(reading, "tool")),
        explain=lambda difference: _explain(difference, facts),
        would_catch=lambda admitted, said: "1 row",
    )


def _truth(facts: Facts) -> Reading:
    sure: dict[Key, int] = {}
    possible: dict[Key, int] = {}
    for each in provoked(facts):
        assert each.plan.tool is not None
        key = _key(each.call_id, each.plan.tool, each.plan.tool_arguments, is_success=True)
        sure[key] = sure.get(key, 0) + each.is_sure
        possible[key] = possible.get(key, 0) + 1
    parts: dict[Key, Thing] = {key: Range(lo=sure[key], hi=possible[key]) for key in possible}
    because = ["each such turn calls its tool once, with success"]
    if any(sure[key] != possible[key] for key in possible):
        because.append("a turn that was not answered, or that our own late media may have garbled, may have called it or not")
    return Reading(parts=parts, may_lack=frozenset(key for key in parts if not sure[key]), because=tuple(because))


def _key(call_id: str, tool: str, arguments: Mapping[str, Any] | None, *, is_success: bool) -> Key:
    words = ANY if arguments is None else json.dumps(arguments, sort_keys=True)
    return ("tool", call_id, tool, words, "succeeded" if is_success else "failed")


def _requests(reader: Reader, facts: Facts) -> Seen:
    """What tools asked of our endpoint, counted by call, tool and arguments; and the seconds each took, seen by us and by the agent."""
    if gap := unread(reader, Source.TOOL_ENDPOINT):
        return gap
    rooms = {plan.room: plan.call_id for plan in facts.evidence.plans}
    outside, free = _outside(reader), reader.once(_free, facts)
    parts: dict[Key, Thing] = {}
    places: dict[str, int] = {}
    for row in sorted(reader.rows.get(REQUESTS, ()), key=lambda row: row.at):
        room = str(row.columns["room"])
        place = places[room] = places.get(room, 0) + 1
        key = _written(
            rooms[room], str(row.columns["tool_name"]), row.columns["arguments"], free, is_success=row.columns["status"] == HTTP_OK
        )
        _add(parts, key, exactly(1))
        longest_s = outside[room][place - 1] if place <= len(outside.get(room, ())) else math.inf
        _add(parts, (TOOK, *key[1:]), Range(lo=float(row.columns["took_s"]), hi=max(longest_s, float(row.columns["took_s"]))))
    return Reading(parts=parts)


def _outside(reader: Reader) -> Mapping[str, Sequence[float]]:
    """By room, in order, the longest that an honest telemetry may say a tool took: a turn of the event loop before it, and two after it."""
    found: dict[str, list[float]] = {}
    for row in reader.rows.get("stages", ()):
        if row.columns["stage"] == "TOOL":
            found.setdefault(str(row.columns["room"]), []).append(float(row.columns["took_s"]) + 3 * float(row.columns["turn_s"]))
    return found


def _rows_admitted(given: Reading, facts: Facts, reader: Reader) -> Reading:
    """A row for each time that the tool ran; a call without a row of its own cannot have any."""
    parts: dict[Key, Thing] = {}
    for key, thing in given.parts.items():
        if key[0] == TOOK and isinstance(thing, Range):
            # Whole milliseconds, rounded either way.
            parts[key] = Range(lo=max(thing.lo - MS, 0.0), hi=thing.hi + MS)
        else:
            parts[key] = thing
    gone = rowless(reader, facts)
    may_lack = given.may_lack | {key for key in parts if key[1] in gone} | answers.NOT_TOLD
    parts = {**answers.WHOLE, **parts}
    is_timed = any(key[0] == TOOK for key in parts)
    because = (*given.because, "latency: as long as our endpoint took, and what the agent needed around it") if is_timed else given.because
    may_add = frozenset[str]() if is_timed else frozenset({TOOK})
    return Reading(parts=parts, may_lack=frozenset(may_lack), may_add=may_add, because=because)


def _executions(reader: Reader, facts: Facts) -> Seen:
    """The rows, counted by call, tool, arguments and success, and how long they say that it took."""
    if gap := unread(reader, Source.ROWS, MARK):
        return gap
    return Reading(parts={**answers.said(reader, MARK), **reader.of_calls(TABLE, _of_call, reader.once(_free, facts))})


def _of_call(call_id: str, rows: Sequence[Row], free: frozenset[tuple[str, str | None]]) -> dict[Key, Thing]:
    parts: dict[Key, Thing] = {}
    for row in rows:
        tool = str(row.columns.get("tool_name"))
        key = _written(call_id, tool, row.columns.get("parameters") or {}, free, is_success=row.columns.get("success") is True)
        _add(parts, key, exactly(1))
        if row.columns.get("latency_ms") is not None:
            _add(parts, (TOOK, *key[1:]), exactly(float(row.columns["latency_ms"]) / 1000))
    return parts


def _free(facts: Facts) -> frozenset[tuple[str, str | None]]:
    """Calls and tools of which the plan leaves the arguments open."""
    return frozenset((each.call_id, each.plan.tool) for each in provoked(facts) if each.plan.tool_arguments is None)


def _written(call_id: str, tool: str, arguments: Mapping[str, Any], free: frozenset[tuple[str, str | None]], *, is_success: bool) -> Key:
    """The key of a call with these arguments, or with any where the plan leaves them open."""
    return _key(call_id, tool, None if (call_id, tool) in free else arguments, is_success=is_success)


def _add(parts: dict[Key, Thing], key: Key, more: Range) -> None:
    before = parts.get(key)
    parts[key] = Range(lo=before.lo + more.lo, hi=before.hi + more.hi) if isinstance(before, Range) else more


def _explain_request(difference: Difference, facts: Facts) -> str:
    _, call_id, tool, arguments, _ = difference.key
    call, what = facts.named(call_id), f"{tool} {arguments}"
    match difference.kind:
        case Kind.LACKS:
            return f"{call}: the agent never ran {what}: no request came to the tool's endpoint"
        case Kind.EXTRA:
            return f"{call}: the agent ran {what}, which no turn provoked"
        case Kind.OTHER:
            return f"{call}: the agent ran {what} {span(difference.said)} times, was provoked to {span(difference.admitted)} times"


def _explain(difference: Difference, facts: Facts) -> str:
    if words := answers.explained(difference, TABLE):
        return words
    kind, call_id, tool, arguments, end = difference.key
    call, what = facts.named(call_id), f"{tool} {arguments} that {end}"
    if kind == TOOK:
        said = "nothing" if difference.said is None else span(difference.said, " s", 3)
        return f"{call}: tool_executions says that {what} took {said}, it really took {span(difference.admitted, ' s', 3)}"
    match difference.kind:
        case Kind.LACKS:
            return f"{call}: tool_executions has no row for {what}"
        case Kind.EXTRA:
            return f"{call}: tool_executions holds {what}, which no turn provoked"
        case Kind.OTHER:
            assert isinstance(difference.said, Range)
            return f"{call}: tool_executions holds {plural(difference.said.lo, 'row')} for {what}, may hold {span(difference.admitted)}"


def _asked(reader: Reader, facts: Facts, change: Callable[[Row], list[Row]], by: float) -> Reader | None:
    """The last thing that was asked of the endpoint was asked otherwise; so is what the agent tells of it.

    change: of the request, and of its row. by: what the counter moves by.
    """
    rows, rooms = list(reader.rows.get(REQUESTS, ())), {plan.room: plan.call_id for plan in facts.evidence.plans}
    if not rows:
        return None
    last = rows[-1].columns
    reader = reader.with_rows(REQUESTS, [*rows[:-1], *change(rows[-1])])
    told = list(reader.rows.get(TABLE, ()))
    wanted = (rooms[last["room"]], last["tool_name"])
    places = [place for place, row in enumerate(told) if (row.columns.get("call_id"), row.columns.get("tool_name")) == wanted]
    if places:
        reader = reader.with_rows(TABLE, [*told[: places[-1]], *change(told[places[-1]]), *told[places[-1] + 1 :]])
    return counted.moved(NAMES, by)(reader) or reader


def _with_other_arguments(reader: Reader, facts: Facts) -> Reader | None:
    if not any(each.plan.tool_arguments for each in provoked(facts)):
        return None
    return _asked(reader, facts, lambda row: [_with(row, **({"arguments": {}} if "arguments" in row.columns else {"parameters": {}}))], 0)


def _in_seconds(reader: Reader) -> Reader | None:
    """``latency_ms`` holds seconds. Not told where nobody knows how long it took."""
    if unread(reader, Source.TOOL_ENDPOINT):
        return None
    return _changed(reader, lambda rows: [_with(row, latency_ms=float(row.columns.get("latency_ms") or 0) / 1000) for row in rows])


def _changed(reader: Reader, change: Callable[[list[Row]], list[Row]]) -> Reader | None:
    rows = list(reader.rows.get(TABLE, ()))
    return reader.with_rows(TABLE, change(rows)) if rows else None


def _without_arguments(reader: Reader, facts: Facts) -> Reader | None:
    """Not told by a plan that leaves the arguments open."""
    if not any(each.plan.tool_arguments for each in provoked(facts)):
        return None
    return _changed(reader, lambda rows: [_with(row, parameters=None) for row in rows])


def _with(row: Row, **columns: Any) -> Row:
    return dataclasses.replace(row, columns={**row.columns, **columns})


def _counted(given: Reading) -> Reading:
    """How often each tool ran, by success."""
    parts: dict[Key, Thing] = {}
    for key, thing in given.parts.items():
        if key[0] == "tool" and isinstance(thing, Range):
            lowest = 0.0 if key in given.may_lack else thing.lo
            _add(parts, ("tool", key[2], "true" if key[4] == "succeeded" else "false"), Range(lo=lowest, hi=thing.hi))
    may_lack = frozenset(key for key, thing in parts.items() if isinstance(thing, Range) and not thing.lo)
    return Reading(parts=parts, may_lack=may_lack, because=given.because)


def _counter_steps(facts: Facts) -> tuple[Step, Step]:
    def explain(hop: str) -> Callable[[Difference], str]:
        return lambda difference: counted.explained(difference, facts, hop, f"calls of {_words(difference.key)}", "tool call")

    exporter = Step(
        claim="tools/exporter",
        reads=frozenset(NAMES),
        source="tools/endpoint",
        title="agent /metrics",
        admits=lambda given, reader: counted.counts(_counted(given), reader, NAMES),
        read=lambda reader: counted.exported(reader, NAMES, facts),
        defects={
            "a tool call is not counted": counted.moved(NAMES, -1),
            "a tool call is counted twice": counted.moved(NAMES, 1),
            "success is counted as failure": _relabelled,
        },
        show=_show,
        explain=explain("the agent's exporter"),
        would_catch=lambda admitted, said: "1 tool call",
    )
    samples = Step(
        claim="tools/samples",
        reads=frozenset(NAMES),
        source="tools/exporter",
        title="prometheus samples",
        admits=lambda given, reader: counted.scraped(given, reader, NAMES, facts),
        read=lambda reader: counted.stored(reader, NAMES, facts),
        defects={
            "a tool call is not stored": counted.moved(NAMES, -1, sources=(Source.PROMETHEUS,)),
            "samples end in the middle of the load": counted.ended_early(NAMES, facts),
        },
        show=_show,
        explain=explain("Prometheus"),
        would_catch=lambda admitted, said: "1 tool call",
    )
    return exporter, samples


def _words(key: Key) -> str:
    return f"{key[-2]} that {'succeeded' if key[-1] == 'true' else 'failed'}"


def _relabelled(reader: Reader) -> Reader | None:
    """The values of success="true" and "false" change places."""
    if counted.moved(NAMES, 0)(reader) is None:
        return None
    other = {"true": "false", "false": "true"}

    def change(timeline: Timeline) -> Timeline:
        success = timeline.labels.get("success", "")
        return dataclasses.replace(timeline, labels={**timeline.labels, "success": other.get(success, success)})

    for source in counted.BOTH:
        reader = reader.with_series(source, COUNTER, change)
    return reader


def _show(reading: Reading) -> str:
    counts = [f"{span(thing)}{'' if key[-1] == 'true' else ' failed'}" for key, thing in reading.parts.items() if _is_shown(key, thing)]
    return " + ".join(counts) or "0"


def _is_shown(key: Key, thing: Thing) -> bool:
    return key[0] == "tool" and thing != exactly(0)
