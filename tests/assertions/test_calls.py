"""Calls placed against rows of ``calls``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness.check import check
from harness.model import CallOutcome, Evidence, Observation, Row, Status, Verdict
from tests.fakes import stack
from tests.fakes.evidence import LATENCIES_S, after, info, plan, record


def verdict(evidence: Evidence, claim: str) -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def with_row(index: int, **columns: Any) -> Evidence:
    """An honest run in which one call's row says something else."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Row) and item.table == "calls" and item.columns["call_id"] == f"voxproof-k3f9-{index}"
        return replace(item, columns={**item.columns, **columns}) if is_it and isinstance(item, Row) else item

    return stack.changed(stack.run(), change)


@pytest.mark.parametrize(
    ("claim", "columns", "sentence"),
    [
        (
            "calls/rows",
            {"call_id": "somebody"},
            "call-2 was answered and has no row in the table calls, although its transcripts are there",
        ),
        ("calls/rows", {"call_id": "voxproof-k3f9-1"}, "call-1 has 2 rows in the table calls, may have 1"),
        ("calls/status", {"status": "active"}, "the row of call-2 says active after the call was over, may say completed"),
        ("calls/duration", {"duration_seconds": 13000}, "the row of call-2 says 13000 s, may say 20 to 22 s by the caller's own clock"),
        ("calls/duration", {"duration_seconds": None}, "the row of call-2 says no duration, may say 20 to 22 s by the caller's own clock"),
    ],
)
def test_a_row_that_lies_is_told_in_a_sentence(claim: str, columns: Mapping[str, Any], sentence: str) -> None:
    """What is wrong, with both sides."""
    found = verdict(with_row(2, **columns), claim)

    assert (found.status, found.sentence) == (Status.FAIL, sentence)


def test_a_call_that_is_never_closed_is_blamed_on_its_status_alone() -> None:
    """That it has no duration follows from that."""
    evidence = with_row(2, status="active", duration_seconds=None)

    assert verdict(evidence, "calls/status").status is Status.FAIL
    assert verdict(evidence, "calls/duration").is_faithful
    assert verdict(evidence, "calls/status").effect == "the dashboard shows 1 calls in progress, and none is"


def test_durations_say_what_they_would_catch() -> None:
    """Whole seconds between what the caller saw first and last."""
    found = verdict(stack.run(), "calls/duration")

    assert (found.status, found.would_catch) == (Status.PASS, "3 s")


def test_a_row_of_nobody_is_an_invention() -> None:
    """Nobody placed that call."""
    evidence = stack.run()
    row = next(item for item in evidence.observations if isinstance(item, Row) and item.table == "calls")
    phantom = replace(row, columns={**row.columns, "call_id": "phantom"})

    assert verdict(replace(evidence, observations=(*evidence.observations, phantom)), "calls/rows").sentence == (
        "the table calls holds a row of phantom, which nobody placed"
    )


def test_a_call_that_no_agent_joined_may_have_no_row() -> None:
    """And the others must."""
    missed = record(plan(2, ()), (), outcome=CallOutcome.NO_AGENT, agent_joined_at=None, greeted_at=None)
    evidence = stack.of([record(plan(1)), missed])

    assert verdict(evidence, "calls/rows").may_say == "1 to 2"
    assert verdict(evidence, "calls/rows").status is Status.PASS


def test_a_dead_jobs_call_may_be_open_for_a_minute() -> None:
    """Nobody can know earlier; a call that was hung up in peace must be closed."""
    died = record(plan(1), (1.1, 1.2, None), outcome=CallOutcome.SILENT)
    evidence = stack.of([died, record(plan(2), LATENCIES_S[1])])

    def opened(item: Observation) -> Observation:
        is_it = isinstance(item, Row) and item.table == "calls" and item.columns["call_id"] == died.plan.call_id
        return (
            replace(item, columns={**item.columns, "status": "active", "duration_seconds": None})
            if is_it and isinstance(item, Row)
            else item
        )

    soon, late = (replace(stack.changed(evidence, opened), info=info(read_at=after(seconds))) for seconds in (45, 300))

    assert verdict(soon, "calls/status").status is Status.PASS
    assert verdict(late, "calls/status").status is Status.FAIL


def hung_up(**columns: Any) -> Evidence:
    """A run whose second call was ended by its caller before its last turn."""
    calls = [record(plan(index), latencies) for index, latencies in enumerate(LATENCIES_S, start=1)]
    early = replace(calls[1], outcome=CallOutcome.HUNG_UP, turns=calls[1].turns[:2], left_at=after(22.5))

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Row) and item.table == "calls" and item.columns["call_id"] == early.plan.call_id
        return replace(item, columns={**item.columns, **columns}) if is_it and isinstance(item, Row) else item

    return stack.changed(stack.of([calls[0], early, calls[2]]), change)


def test_a_caller_who_hangs_up_early_completes_its_call() -> None:
    """Nobody failed it: the row says completed, and how long it really was; the agent is not blamed."""
    assert {verdict(hung_up(), claim).status for claim in ("calls/answered", "calls/status", "calls/duration")} == {Status.PASS}
    assert verdict(hung_up(status="failed"), "calls/status").sentence == (
        "the row of call-2 says failed after the call was over, may say completed"
    )


def test_what_was_being_said_when_the_caller_hung_up_may_be_told_or_not() -> None:
    """Only a part of the sentence was heard."""
    assert verdict(hung_up(), "turns/rows").status is Status.PASS
