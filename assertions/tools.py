"""Tool calls provoked -> rows of ``tool_executions``; -> the agent's counter -> Prometheus' raw samples."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from assertions import counted
from assertions.facts import USER, Facts, unread
from assertions.ledger import Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree, exactly
from assertions.words import plural, span, total
from harness.measure.series import Reader, Timeline
from harness.model import Row, Source, TurnPlan, value

TABLE = "tool_executions"
MARK = "/tool_executions?"
COUNTER = "voice_agent_tool_calls_total"
NAMES = {COUNTER: lambda timeline: ("tool", timeline.labels.get("tool", "?"), timeline.labels.get("success", "?"))}
ANY = "any arguments"


@value
class Provoked:
    """A turn that makes the agent call a tool."""

    call_id: str
    plan: TurnPlan
    is_sure: bool
    """Its reply was heard, and it was heard as it was said: the tool was called."""


def trees(facts: Facts) -> Iterator[Tree]:
    """The rows, and the counter with its samples. Nothing if no turn provokes a tool."""
    if not any(turn.tool for plan in facts.evidence.plans for turn in plan.turns):
        return
    yield Tree(root="provoked", truth=_rows_truth(facts), steps=(_rows_step(facts),), reads=frozenset({TABLE}))
    yield Tree(root="provoked", truth=_counter_truth(facts), steps=_counter_steps(facts), reads=frozenset(NAMES))


def provoked(facts: Facts) -> tuple[Provoked, ...]:
    """Every tool call that was provoked, or may have been."""
    plans = {plan.call_id: plan for plan in facts.evidence.plans}
    return tuple(
        Provoked(call_id=line.call_id, plan=plan, is_sure=line.is_sure and line.text is not None)
        for line in facts.lines
        if line.role == USER and (plan := plans[line.call_id].turns[line.turn - 1]).tool is not None
    )


def _rows_step(facts: Facts) -> Step:
    return Step(
        claim="tools/rows",
        source="provoked",
        title="tool_executions rows",
        admits=lambda given, _: given,
        read=lambda reader: _executions(reader, facts),
        defects={
            "a tool's row is lost": lambda reader: _changed(reader, lambda rows: rows[:-1]),
            "a tool's row is doubled": lambda reader: _changed(reader, lambda rows: [*rows, rows[-1]]),
            "a tool is said to have failed": lambda reader: _changed(reader, lambda rows: [*rows[:-1], _with(rows[-1], success=False)]),
            "arguments are lost": lambda reader: _without_arguments(reader, facts),
        },
        show=lambda reading: span(total(reading, "tool")),
        explain=lambda difference: _explain(difference, facts),
        would_catch=lambda admitted, said: "1 row",
    )


def _rows_truth(facts: Facts) -> Reading:
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


def _executions(reader: Reader, facts: Facts) -> Seen:
    """The rows, counted by call, tool, arguments and success."""
    if gap := unread(reader, Source.ROWS, MARK):
        return gap
    free = {(each.call_id, each.plan.tool) for each in provoked(facts) if each.plan.tool_arguments is None}
    counts: dict[Key, int] = {}
    for row in reader.rows.get(TABLE, ()):
        call_id, tool = str(row.columns.get("call_id")), str(row.columns.get("tool_name"))
        arguments = None if (call_id, tool) in free else row.columns.get("parameters") or {}
        key = _key(call_id, tool, arguments, is_success=row.columns.get("success") is True)
        counts[key] = counts.get(key, 0) + 1
    return Reading(parts={key: exactly(count) for key, count in counts.items()})


def _explain(difference: Difference, facts: Facts) -> str:
    _, call_id, tool, arguments, end = difference.key
    call, what = facts.named(call_id), f"{tool} {arguments} that {end}"
    match difference.kind:
        case Kind.LACKS:
            return f"{call}: tool_executions has no row for {what}"
        case Kind.EXTRA:
            return f"{call}: tool_executions holds {what}, which no turn provoked"
        case Kind.OTHER:
            assert isinstance(difference.said, Range)
            return f"{call}: tool_executions holds {plural(difference.said.lo, 'row')} for {what}, may hold {span(difference.admitted)}"


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


def _counter_truth(facts: Facts) -> Reading:
    sure: dict[Key, int] = {}
    possible: dict[Key, int] = {}
    for each in provoked(facts):
        key = ("tool", str(each.plan.tool), "true")
        sure[key] = sure.get(key, 0) + each.is_sure
        possible[key] = possible.get(key, 0) + 1
    parts: dict[Key, Thing] = {key: Range(lo=sure[key], hi=possible[key]) for key in possible}
    return Reading(
        parts=parts,
        may_lack=frozenset(key for key in parts if not sure[key]),
        because=("each such turn calls its tool once, with success",),
    )


def _counter_steps(facts: Facts) -> tuple[Step, Step]:
    def explain(hop: str) -> Callable[[Difference], str]:
        return lambda difference: counted.explained(difference, facts, hop, f"calls of {_words(difference.key)}", "tool call")

    exporter = Step(
        claim="tools/exporter",
        source="provoked",
        title="agent /metrics",
        admits=lambda given, reader: counted.counts(given, reader, NAMES),
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
