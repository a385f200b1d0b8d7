"""Our own measurement against its limits: each of them, when it bends, is named with its number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assertions.ruler import straightness
from harness.check import check
from harness.model import Evidence, Status, UnixNs
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


def doubted(late_s: float | None) -> Evidence:
    """An honest run with two void calls of three: our media was so late in the middle of each of their prompts. None: the doubt has no measure."""
    honest = stack.run()
    calls = [replace(call, turns=tuple(replace(turn, void="late") for turn in call.turns)) for call in honest.records[:2]]
    middles = [UnixNs((turn.user_speech_started_at + turn.user_speech_ended_at) // 2) for call in calls for turn in call.turns]
    late = tuple((at, UnixNs(at + round(late_s * 1e9))) for at in middles) if late_s is not None else ()
    return replace(honest, records=(*calls, honest.records[2]), health=(health(late=late),))


@pytest.mark.parametrize("late_s", [0.041, None])
def test_more_void_turns_than_not_bend_it(late_s: float | None) -> None:
    """By more than a jitter buffer hides, or by nobody knows how much."""
    assert straightness(doubted(late_s)).bent == "6 of 9 turns are void by more than 40 ms, or by what has no measure, limit 50%"


def test_void_turns_of_a_few_milliseconds_widen_what_is_admitted() -> None:
    """And bend nothing: each is judged as uncertain as it was. A shift of all turns by 300 ms would still be caught."""
    found = doubted(0.025)
    told = {verdict.claim: verdict for verdict in check(found, control=False).verdicts}

    assert (straightness(found).is_straight, straightness(found).void_turns) == (True, 6)
    assert {told[claim].status for claim in ("turns/rows", "tools/exporter", "ttfw/exporter")} == {Status.PASS}
    assert int(told["ttfw/exporter"].would_catch.removesuffix(" ms").split()[-1]) < 300


def test_nobody_who_tells_is_not_straight() -> None:
    """Silence is no punctuality."""
    assert straightness(stack.run(health=())).bent == "no caller process said how punctual it was"


def test_a_bent_ruler_leaves_what_rests_on_it_undecided() -> None:
    """And says why, in the claim itself. What does not rest on it is decided."""
    told = {verdict.claim: verdict for verdict in check(stack.run(health=(health(loop_p99_ms=400.0),)), control=False).verdicts}

    assert told["ttfw/exporter"].status is Status.INCONCLUSIVE
    assert told["ttfw/exporter"].sentence == "our own measurement is in doubt: callers came to decide 400 ms late at p99, limit 250 ms"
    assert told["calls/rows"].status is Status.PASS
