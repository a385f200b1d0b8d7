"""Tool calls provoked against rows and counters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.check import check
from harness.model import Evidence, Light, Observation, Row, Sample, Source, Status, Verdict
from tests.fakes import stack
from tests.fakes.evidence import TURNS, plan, record


def verdict(evidence: Evidence, claim: str = "tools/rows") -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def with_row(**columns: Any) -> Evidence:
    """An honest run of one call whose tool row says something else."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Row) and item.table == "tool_executions"
        return replace(item, columns={**item.columns, **columns}) if is_it and isinstance(item, Row) else item

    return stack.changed(stack.run([(1.46, 1.08, 1.02)]), change)


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        ({"tool_name": "weather"}, 'lookup_weather {"city": "London"} that succeeded'),
        ({"parameters": {"city": "Paris"}}, 'lookup_weather {"city": "London"} that succeeded'),
        ({"parameters": None}, 'lookup_weather {"city": "London"} that succeeded'),
        ({"success": False}, 'lookup_weather {"city": "London"} that succeeded'),
        ({"call_id": "somebody"}, 'lookup_weather {"city": "London"} that succeeded'),
    ],
)
def test_name_arguments_success_and_call_must_be_those_that_were_provoked(columns: dict[str, Any], missing: str) -> None:
    """A row that says otherwise is not the row that is wanted."""
    found = verdict(with_row(**columns))

    assert (found.status, found.sentence) == (Status.FAIL, f"call-1: tool_executions has no row for {missing}")


def test_a_doubled_row_is_counted() -> None:
    """A retry that was written twice."""
    evidence = with_row()
    row = next(item for item in evidence.observations if isinstance(item, Row) and item.table == "tool_executions")

    found = verdict(replace(evidence, observations=(*evidence.observations, row)))

    assert found.sentence == ('call-1: tool_executions holds 2 rows for lookup_weather {"city": "London"} that succeeded, may hold 1')


def test_an_invented_row_is_told() -> None:
    """No turn provoked it."""
    evidence = with_row()
    row = next(item for item in evidence.observations if isinstance(item, Row) and item.table == "tool_executions")
    more = replace(row, columns={**row.columns, "tool_name": "order_pizza"})

    found = verdict(replace(evidence, observations=(*evidence.observations, more)))

    assert found.sentence == 'call-1: tool_executions holds order_pizza {"city": "London"} that succeeded, which no turn provoked'


def test_open_arguments_are_not_judged() -> None:
    """The plan does not know what a free agent passes."""
    free = (replace(TURNS[0], tool_arguments=None), *TURNS[1:])

    assert verdict(stack.of([record(plan(1, free))])).status is Status.PASS


def test_a_run_that_provokes_no_tool_makes_no_claim_about_tools() -> None:
    """Nothing would be shown by their absence."""
    claims = {verdict.claim for verdict in check(stack.of([record(plan(1, TURNS[1:]), (1.1, 1.2))]), control=False).verdicts}

    assert not any(claim.startswith("tools/") for claim in claims)


def test_a_failure_that_did_not_happen_is_blamed_on_the_exporter() -> None:
    """success="false" of a tool that succeeded."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Sample) and item.name == "voice_agent_tool_calls_total"
        if not is_it or not isinstance(item, Sample) or item.source is Source.RULES:
            return item
        return replace(item, labels={**item.labels, "success": "false" if item.labels["success"] == "true" else "true"})

    found = verdict(stack.changed(stack.run(), change), "tools/exporter")

    assert found.sentence == ("the agent's exporter says 0 calls of lookup_weather that succeeded, may say 3: 3 tool calls too few")


def asked(**columns: Any) -> Evidence:
    """An honest run of one call whose tool asked our endpoint otherwise."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Row) and item.table == "tool-requests"
        return replace(item, columns={**item.columns, **columns}) if is_it and isinstance(item, Row) else item

    return stack.changed(stack.run([(1.46, 1.08, 1.02)]), change)


def test_a_tool_that_never_ran_is_the_agents_fault() -> None:
    """The monitoring is judged by what ran."""
    run = stack.changed(stack.run([(1.46, 1.08, 1.02)]), lambda item: None if getattr(item, "table", "") == "tool-requests" else item)
    found = verdict(run, "tools/endpoint")

    assert (found.status, found.light) == (Status.FAIL, Light.AGENT)
    assert found.sentence == 'call-1: the agent never ran lookup_weather {"city": "London"}: no request came to the tool\'s endpoint'
    assert verdict(run).sentence == 'call-1: tool_executions holds lookup_weather {"city": "London"} that succeeded, which no turn provoked'


def test_rows_are_judged_by_what_ran_not_by_what_was_provoked() -> None:
    """An agent that asks for Paris has a row that says Paris."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Row) and item.table == "tool_executions"
        return replace(item, columns={**item.columns, "parameters": {"city": "Paris"}}) if is_it and isinstance(item, Row) else item

    paris = stack.changed(asked(arguments={"city": "Paris"}), change)

    assert verdict(paris, "tools/endpoint").status is Status.FAIL
    assert verdict(paris).is_faithful


def test_a_latency_in_seconds_is_told() -> None:
    """By the endpoint's own measure."""
    found = verdict(with_row(latency_ms=0))

    assert found.sentence == (
        'call-1: tool_executions says that lookup_weather {"city": "London"} that succeeded took 0.000 s, it really took 0.049 to 0.068 s'
    )
