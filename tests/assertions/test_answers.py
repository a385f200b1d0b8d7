"""Whether an answer of a table was the whole of it, and what became of rows that are not in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.check import check
from harness.model import Evidence, Observation, Poll, Row, Source, Status, Verdict
from tests.fakes import stack


def verdict(evidence: Evidence, claim: str) -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def answered(table: str, **counts: int | None) -> Evidence:
    """An honest run in which the last line of a table is not in the answer, which is counted so."""
    run = stack.run()
    last = [item for item in run.observations if isinstance(item, Row) and item.table == table][-1]

    def change(item: Observation) -> Observation | None:
        if isinstance(item, Poll) and item.source is Source.ROWS and f"/{table}?" in item.request:
            return replace(item, **counts)  # type: ignore[arg-type]
        return None if item is last else item

    return stack.changed(run, change)


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (
            {"count": 20, "total": 21, "total_by_key": 21},
            "an answer holds 20 of 21 rows of transcripts: the server cuts answers off without a word, and whoever does not count sees no more",
        ),
        (
            {"count": 20, "total": 20, "total_by_key": 21},
            "the role that reads sees 20 of 21 rows of transcripts: row level security hides the others from it",
        ),
        (
            {"count": 20, "total": 20, "total_by_key": 20},
            "call-3: what the assistant said as their line 4 has no row in transcripts: 'we are open from nine to five'",
        ),
        (
            {"count": 20, "total": None, "total_by_key": None},
            "call-3: what the assistant said as their line 4 has no row in transcripts: 'we are open from nine to five'",
        ),
    ],
    ids=["cut", "hidden", "lost", "not counted"],
)
def test_cut_hidden_and_lost_are_told_apart(counts: dict[str, int | None], sentence: str) -> None:
    """By what the server counts, and by what another key sees."""
    found = verdict(answered("transcripts", **counts), "turns/rows")

    assert (found.status, found.sentence) == (Status.FAIL, sentence)


def without(call_id: str, *tables: str) -> Evidence:
    """A run in which these tables hold nothing of one call."""

    def change(item: Observation) -> Observation | None:
        is_gone = isinstance(item, Row) and item.table in tables and item.columns["call_id"] == call_id
        return None if is_gone else item

    return stack.changed(stack.run(), change)


def test_a_call_that_was_deleted_is_blamed_once() -> None:
    """What was said in it went with it (on delete cascade); that it was there, Realtime told."""
    found = without("voxproof-k3f9-2", "calls", "transcripts", "tool_executions")

    assert verdict(found, "calls/rows").sentence == (
        "call-2 was answered and has no row in the table calls: it was written, Realtime told it, and it has been deleted since, "
        "with its transcripts and tool calls"
    )
    assert {verdict(found, claim).status for claim in ("turns/rows", "tools/rows", "calls/realtime")} == {Status.PASS}


def test_a_call_that_was_never_written_is_not_said_to_be_deleted() -> None:
    """Nobody told of it."""
    found = without("voxproof-k3f9-2", "calls", "transcripts", "tool_executions", "realtime")

    assert verdict(found, "calls/rows").sentence == "call-2 was answered and has no row in the table calls"
