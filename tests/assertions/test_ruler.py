"""Our own measurement against its limits: each of them, when it bends, is named with its number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assertions.ruler import straightness
from harness.check import check
from harness.model import Status
from tests.fakes import stack
from tests.fakes.evidence import health

BENT = [
    ({"pacing_p99_ms": 10.1}, "packets left 10.1 ms late at p99, limit 10 ms"),
    ({"loop_p99_ms": 251.0}, "callers came to decide 251 ms late at p99, limit 250 ms"),
    ({"cpu_s": 19.0, "wall_s": 20.0}, "a caller process used 95% of a core, limit 90%"),
    ({"receive_drops": 2}, "the kernel dropped 2 datagrams at our sockets, limit 0"),
    ({"clock_steps": 1}, "the wall clock stepped 1 times while calls were in progress, limit 0"),
]


@pytest.mark.parametrize(("changes", "said"), BENT)
def test_each_limit_is_named_when_it_bends(changes: dict[str, Any], said: str) -> None:
    """By whichever caller process it was."""
    found = straightness(stack.run(health=(health(), health(process="caller-2", **changes))))

    assert (found.is_straight, found.bent) == (False, said)


@pytest.mark.parametrize(
    "changes",
    [{"pacing_p99_ms": 10.0}, {"loop_p99_ms": 250.0}, {"cpu_s": 18.0, "wall_s": 20.0}, {"loop_p99_ms": None, "wall_s": None}],
)
def test_a_limit_that_holds_is_none_of_them(changes: dict[str, Any]) -> None:
    """On the limit, and where it was never measured."""
    assert straightness(stack.run(health=(health(**changes),))).is_straight


def test_more_void_turns_than_not_bend_it() -> None:
    """Each is as uncertain as our media was late; together they stand for nothing."""
    honest = stack.run()
    records = [replace(call, turns=tuple(replace(turn, void="late") for turn in call.turns)) for call in honest.records[:2]]
    found = straightness(replace(honest, records=(*records, honest.records[2])))

    assert found.bent == "6 of 9 turns are void, limit 50%"


def test_nobody_who_tells_is_not_straight() -> None:
    """Silence is no punctuality."""
    assert straightness(stack.run(health=())).bent == "no caller process said how punctual it was"


def test_a_bent_ruler_leaves_what_rests_on_it_undecided() -> None:
    """And says why, in the claim itself. What does not rest on it is decided."""
    told = {verdict.claim: verdict for verdict in check(stack.run(health=(health(loop_p99_ms=400.0),))).verdicts}

    assert told["ttfw/exporter"].status is Status.INCONCLUSIVE
    assert told["ttfw/exporter"].sentence == "our own measurement is in doubt: callers came to decide 400 ms late at p99, limit 250 ms"
    assert told["calls/rows"].status is Status.PASS
