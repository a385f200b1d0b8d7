"""Tool calls provoked -> rows of ``tool_executions``; -> the agent's counter -> Prometheus' raw samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from assertions.facts import Facts, count_words, replaced, shifted
from assertions.ledger import Difference, Key, Kind, Range, Reading, Step, Thing, Tree, exactly
from assertions.turns import explain_count
from harness.measure.series import Timeline
from harness.model import Gap, Row, Source

COUNTER = "voice_agent_tool_calls_total"
_ANY = "any arguments"


def trees(facts: Facts) -> Iterator[Tree]:
    """The rows, and the counter with its samples. Nothing if the scenario provokes no tool."""
    if not any(turn.tool for record in facts.evidence.records for turn in record.plan.turns):
        return
    yield _rows_tree(facts)
    yield _counter_tree(facts)


def _rows_tree(facts: Facts) -> Tree:
    calls = {record.plan.call_id: record.plan.index for record in facts.evidence.records}
    truth = _provoked(facts)
    gap = facts.unread(Source.ROWS)
    said: Reading | Gap = gap or _executions(facts.reader.rows.get("tool_executions", ()), truth)
    step = Step(
        claim="tools/rows",
        source="provoked",
        title="tool_executions rows",
        admits=lambda given: given,
        defects={"a tool's row is lost": _lose, "a tool is said to have failed": _fail},
        show=lambda reading: str(len(reading.parts)),
        explain=lambda difference: _explain(difference, calls),
        resolution=lambda admitted, found: "1 row",
    )
    return Tree(root="provoked", truth=truth, steps=(step,), seen={"tools/rows": said})


def _provoked(facts: Facts) -> Reading:
    """One execution for each turn that provokes a tool, in order. The reply to such a turn was heard, so the tool was done."""
    parts: dict[Key, Thing] = {}
    may_lack: set[Key] = set()
    for record in facts.whole:
        place = 0
        for turn in record.turns:
            plan = record.plan.turns[turn.index - 1]
            if plan.tool is None:
                continue
            place += 1
            key = ("tool", record.plan.call_id, str(place))
            parts[key] = frozenset({_execution(plan.tool, plan.tool_arguments, success=True)})
            if turn.first_word_at is None or turn.void is not None:
                may_lack.add(key)
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=("each such turn calls its tool once",))


def _execution(name: str, arguments: Mapping[str, Any] | None, *, success: bool) -> str:
    words = _ANY if arguments is None else json.dumps(arguments, sort_keys=True)
    return f"{name} {words} {'success' if success else 'failed'}"


def _executions(rows: tuple[Row, ...], truth: Reading) -> Reading:
    places: dict[str, int] = {}
    parts: dict[Key, Thing] = {}
    for row in sorted(rows, key=lambda row: (str(row.columns.get("executed_at")), str(row.columns.get("id")))):
        call_id = str(row.columns.get("call_id"))
        places[call_id] = places.get(call_id, 0) + 1
        key = ("tool", call_id, str(places[call_id]))
        wanted = truth.parts.get(key)
        is_any = isinstance(wanted, frozenset) and any(_ANY in words for words in wanted)
        arguments = None if is_any else row.columns.get("parameters") or {}
        parts[key] = frozenset({_execution(str(row.columns.get("tool_name")), arguments, success=bool(row.columns.get("success")))})
    return Reading(parts=parts)


def _explain(difference: Difference, calls: Mapping[str, int]) -> str:
    call = f"call-{calls.get(difference.key[1], 0)}"
    admitted = " or ".join(sorted(difference.admitted)) if isinstance(difference.admitted, frozenset) else "nothing"
    said = " or ".join(sorted(difference.said)) if isinstance(difference.said, frozenset) else "nothing"
    match difference.kind:
        case Kind.LACKS:
            return f"{call}: no row in tool_executions for {admitted}"
        case Kind.EXTRA:
            return f"{call}: tool_executions holds {said}, which no turn provoked"
        case Kind.OTHER:
            return f"{call}: tool_executions says {said}, provoked was {admitted}"


def _lose(said: Reading) -> Reading | None:
    return replaced(said, {list(said.parts)[-1]: None}) if said.parts else None


def _fail(said: Reading) -> Reading | None:
    for key, thing in said.parts.items():
        if isinstance(thing, frozenset) and any(words.endswith(" success") for words in thing):
            return replaced(said, {key: frozenset(words.removesuffix("success") + "failed" for words in thing)})
    return None


def _counter_tree(facts: Facts) -> Tree:
    truth = _counted(facts)
    first = next((key for key, thing in truth.parts.items() if isinstance(thing, Range) and thing.lo), ("",))
    defects = {"one tool call is not counted": shifted(first, -1)}
    steps = tuple(
        Step(
            claim=claim,
            source=source,
            title=title,
            admits=lambda given: given,
            defects=defects,
            show=_show,
            explain=lambda difference, hop=hop: explain_count(difference, hop, "calls of {key}"),  # type: ignore[misc]
            resolution=lambda admitted, said: "1 tool call",
        )
        for claim, source, title, hop in (
            ("tools/exporter", "provoked", "agent /metrics", "the agent's exporter"),
            ("tools/samples", "tools/exporter", "prometheus samples", "Prometheus"),
        )
    )
    seen = {
        "tools/exporter": _without_zeros(facts.counters(Source.AGENT_EXPORTER, COUNTER, _tool)),
        "tools/samples": _without_zeros(facts.counters(Source.PROMETHEUS, COUNTER, _tool)),
    }
    return Tree(root="provoked", truth=truth, steps=steps, seen=seen)


def _tool(timeline: Timeline) -> Key | None:
    return (timeline.labels.get("tool", "?"), "success" if timeline.labels.get("success") == "true" else "failed")


def _without_zeros(reading: Reading | Gap) -> Reading | Gap:
    """A counter that stands at 0 says nothing happened, as one that is not there does."""
    if isinstance(reading, Gap):
        return reading
    return Reading(parts={key: thing for key, thing in reading.parts.items() if thing != exactly(0)})


def _counted(facts: Facts) -> Reading:
    low: dict[Key, int] = {}
    high: dict[Key, int] = {}
    for record in facts.whole:
        for turn in record.turns:
            if turn.tool is not None:
                key = (turn.tool, "success")
                low[key] = low.get(key, 0) + (turn.first_word_at is not None and turn.void is None)
                high[key] = high.get(key, 0) + 1
    for record in facts.broken:
        for plan in record.plan.turns:
            if plan.tool is not None:
                key = (plan.tool, "success")
                low.setdefault(key, 0)
                high[key] = high.get(key, 0) + 1
    parts: dict[Key, Thing] = {key: Range(lo=low[key], hi=high[key]) for key in high}
    return Reading(parts=parts, may_lack=frozenset(key for key in parts if not low[key]), because=("each such turn calls its tool once",))


def _show(reading: Reading) -> str:
    return ", ".join(f"{count_words(thing).strip('{}')} {' '.join(key)}" for key, thing in reading.parts.items()) or "0"
