"""Rows of calls against what Realtime told of them: each fate told from the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from harness.check import check
from harness.measure.delivery import Break, observed
from harness.model import Evidence, Observation, Row, Status, Verdict
from tests.fakes import stack
from tests.fakes.evidence import after


def verdict(evidence: Evidence) -> Verdict:
    """What became of the claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == "calls/realtime")


def is_told(item: Observation, kind: str) -> bool:
    """The second call's event of this kind."""
    return isinstance(item, Row) and item.table == "realtime" and item.columns["key"].startswith("row-2") and item.columns["kind"] == kind


def told(kind: str, change: Callable[[Row], Sequence[Row]]) -> Evidence:
    """An honest run in which the second call's event of this kind is told otherwise."""
    run = stack.run()
    found: list[Observation] = []
    for item in run.observations:
        found += change(item) if isinstance(item, Row) and is_told(item, kind) else [item]
    return replace(run, observations=tuple(found))


def at(row: Row, moved_s: float) -> Row:
    """Heard so much later."""
    columns: dict[str, Any] = {**row.columns, "at": row.columns["at"] + round(moved_s * 1e9)}
    return replace(row, columns=columns)


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("INSERT", lambda row: [], "call-2: Realtime never told its beginning, although it delivered before and after it"),
        ("UPDATE", lambda row: [], "call-2: Realtime never told its end as completed, although it delivered before and after it"),
        ("INSERT", lambda row: [row, row], "call-2: Realtime told its beginning 2 times, for one change of the row"),
        ("INSERT", lambda row: [at(row, 6)], "call-2: Realtime told its beginning 6.1 s after it was written, may take 5 s"),
        ("UPDATE", lambda row: [at(row, -40)], "call-2: Realtime told a change of the row before its beginning"),
    ],
)
def test_each_fate_has_its_sentence(kind: str, change: Callable[[Row], Sequence[Row]], sentence: str) -> None:
    """Lost, doubled, late and out of order are told apart."""
    found = verdict(told(kind, change))

    assert (found.status, found.sentence) == (Status.FAIL, sentence)


def test_across_a_break_nobody_is_blamed() -> None:
    """Realtime replays nothing; whether it would have told it, this run cannot show."""
    run = told("INSERT", lambda row: [])
    broken = replace(run, observations=(*run.observations, observed(Break(at=after(20), reason="the socket closed"), "")))

    assert verdict(broken).status is Status.INCONCLUSIVE
    assert any("Realtime replays nothing" in reason for reason in verdict(broken).because)


def test_events_of_others_are_nobodys_business() -> None:
    """Another team's call on the same project."""
    other = told("INSERT", lambda row: [row, replace(row, columns={**row.columns, "call_id": "theirs", "key": "row-9"})])

    assert verdict(other).status is Status.PASS


def test_a_call_that_failed_after_it_had_completed_is_told_twice_with_reason() -> None:
    """A later word corrects an earlier one: two changes of the row, each told once."""
    later = told("UPDATE", lambda row: [row, replace(row, columns={**row.columns, "key": "row-2 failed", "commit_timestamp": "later"})])

    assert verdict(later).status is Status.PASS
