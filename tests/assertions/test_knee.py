"""The system's knee, told apart from our own generator's limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assertions.facts import Facts
from assertions.knee import knee, until_the_knee, verdicts
from assertions.ruler import straightness
from harness.model import CallOutcome, CallRecord, Evidence, KneeSearch, Slo, Status, UnixNs, Verdict
from tests.fakes.evidence import evidence, health, info, plan, record, scenario

EVERY_S = 100.0
"""Longer than a call of the fakes: each turn falls into the step of its call."""
ARRIVAL = {"model": "step", "calls_per_s": 0.5, "add_per_s": 0.5, "every_s": EVERY_S}
LIMIT = Slo(ttfw_p95_s=2.0)


def call(number: int, step: int, latency_s: float, **changes: Any) -> CallRecord:
    """A call that is due in this step, from 0, and waits so long for each reply."""
    due_s = step * EVERY_S + number
    later = round(due_s * 1e9)
    made = record(replace(plan(step * 10 + number + 1), due_s=due_s), [latency_s] * 3)

    def moved(at: UnixNs | None) -> UnixNs | None:
        return None if at is None else UnixNs(at + later)

    turns = tuple(
        replace(
            turn,
            user_speech_started_at=UnixNs(turn.user_speech_started_at + later),
            user_speech_ended_at=UnixNs(turn.user_speech_ended_at + later),
            first_word_at=moved(turn.first_word_at),
            agent_speech_ended_at=moved(turn.agent_speech_ended_at),
        )
        for turn in made.turns
    )
    base = replace(
        made,
        # Of all calls alike: when they are due says when they are placed.
        placed_at=UnixNs(8_000_000_000 + info().started_at + later),
        joined_at=moved(made.joined_at),
        agent_joined_at=moved(made.agent_joined_at),
        greeted_at=moved(made.greeted_at),
        left_at=moved(made.left_at),
        turns=turns,
    )
    return replace(base, **changes)


def stepped(*latencies_s: float, search: KneeSearch | None = None, slo: Slo = LIMIT, **changes: Any) -> Evidence:
    """Two calls a step, each with this latency."""
    calls = tuple(call(number, step, latency_s) for step, latency_s in enumerate(latencies_s) for number in range(2))
    return run(calls, search=search, slo=slo, **changes)


def run(calls: Sequence[CallRecord], *, search: KneeSearch | None = None, slo: Slo = LIMIT, **changes: Any) -> Evidence:
    planned = scenario(arrival=ARRIVAL, slo=slo, knee=search or KneeSearch())
    base = evidence(info=info(scenario=planned), plans=tuple(each.plan for each in calls), records=tuple(calls), observations=())
    return replace(base, **changes)


def judged(found: Evidence) -> Verdict:
    (verdict,) = verdicts(found, straightness(found))
    return verdict


def interval(found: Evidence) -> tuple[float | None, float | None]:
    at = knee(found)
    assert at is not None
    return at.held_per_s, at.broke_per_s


@given(held=st.integers(0, 4), broken=st.integers(0, 3))
def test_the_knee_lies_between_the_last_that_held_and_the_first_that_broke(held: int, broken: int) -> None:
    """Whatever comes after the first breach."""
    found = interval(stepped(*[1.0] * held, *[3.0] * broken, *[1.0] * (broken > 0)))

    if held + broken:
        assert found == (held * 0.5 or None, (held + 1) * 0.5 if broken else None)
    else:
        assert found == (None, None)


@given(slow=st.lists(st.booleans(), min_size=1, max_size=6))
def test_a_shift_of_the_latencies_moves_the_knee_down_never_up(slow: list[bool]) -> None:
    """Making a step slower cannot make the system better."""
    before = [3.0 if each else 1.0 for each in slow]
    after = [3.0, *before[1:]]

    assert (interval(stepped(*after))[1] or 99) <= (interval(stepped(*before))[1] or 99)


def test_the_sentence_has_the_interval_and_what_broke() -> None:
    """With how many calls were in progress then."""
    found = judged(stepped(1.0, 1.0, 3.0))

    assert found.status is Status.PASS
    assert found.sentence == "the slo first breaks between 1 and 1.5 calls/s (2 calls at once): TTFW p95 3.00 s, limit 2 s"
    assert found.because[0] == "step 1, 0.5 calls/s: 2 of 2 calls answered, 2 at once, TTFW p50 1.00 s, p95 1.00 s: held"


@pytest.mark.parametrize(("at_least_per_s", "status"), [(1.5, Status.FAIL), (1.6, Status.FAIL), (1.4, Status.PASS)])
def test_a_knee_below_what_is_wanted_fails(at_least_per_s: float, status: Status) -> None:
    """It broke at 1.5 calls a second."""
    assert judged(stepped(1.0, 1.0, 3.0, search=KneeSearch(at_least_per_s=at_least_per_s))).status is status


def test_a_run_in_which_nothing_broke_found_no_knee() -> None:
    """Undecided; but kept, if what was wanted is reached."""
    assert judged(stepped(1.0, 1.0)).status is Status.INCONCLUSIVE
    assert judged(stepped(1.0, 1.0)).sentence == "the slo held in every step up to 1 calls/s, the knee lies higher; plan more steps"
    assert judged(stepped(1.0, 1.0, search=KneeSearch(at_least_per_s=1.0))).status is Status.PASS


def test_a_first_step_that_breaks_bounds_the_knee_on_one_side_only() -> None:
    """Undecided: begin lower."""
    found = judged(stepped(3.0, 3.0))

    assert (found.status, found.says) == (Status.INCONCLUSIVE, "at or below 0.5 calls/s")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"outcome": CallOutcome.DROPPED, "placed_at": None, "left_at": None, "turns": ()}, "1 call found no free caller, limit 0"),
        ({"outcome": CallOutcome.CUT}, "1 call ended on our side, limit 0"),
    ],
)
def test_a_generator_that_falls_short_first_found_no_knee(changes: dict[str, Any], why: str) -> None:
    """By the step that broke, it was not the load that was planned."""
    calls = (call(0, 0, 1.0), call(0, 1, 1.0), call(1, 1, 1.0, **changes), call(0, 2, 3.0))
    found = judged(run(calls))

    assert found.status is Status.INCONCLUSIVE
    assert found.sentence == (
        f"the generator's own limit, the knee was not reached: step 2: {why}; the slo held in every step up to 1 calls/s"
    )


def test_a_generator_that_falls_short_later_has_found_the_knee() -> None:
    """What happens after the breach takes nothing back."""
    calls = (call(0, 0, 1.0), call(0, 1, 3.0), call(0, 2, 3.0, outcome=CallOutcome.CUT))

    assert judged(run(calls)).status is Status.PASS


def test_void_turns_of_one_step_bend_that_step() -> None:
    """More than half of them."""
    late = call(0, 1, 1.0)
    turns = tuple(replace(turn, void="our media thread ran late") for turn in late.turns)
    found = judged(run((call(0, 0, 1.0), replace(late, turns=turns), call(0, 2, 3.0))))

    assert "step 2: 3 of 3 turns are void, limit 50%" in found.sentence
    assert found.status is Status.INCONCLUSIVE


def test_a_bent_ruler_finds_no_knee() -> None:
    """Pacing is told for the whole run."""
    found = judged(stepped(1.0, 3.0, health=(health(pacing_p99_ms=31.0),)))

    assert found.status is Status.INCONCLUSIVE
    assert "the generator's own limit, the knee was not reached: packets left 31.0 ms late at p99" in found.sentence


@pytest.mark.parametrize(
    ("slo", "changes", "broke"),
    [
        (Slo(answered_ratio=1.0), {"greeted_at": None, "turns": ()}, "1 of 2 calls answered, limit 100%"),
        (Slo(missing_agents=0), {"agent_joined_at": None, "outcome": CallOutcome.NO_AGENT}, "1 calls without agent, limit 0"),
        (Slo(ttfw_p50_s=0.5), {}, "TTFW p50 1.00 s, limit 0.5 s"),
    ],
)
def test_every_limit_can_break_a_step(slo: Slo, changes: dict[str, Any], broke: str) -> None:
    """The words are those of the limit."""
    at = knee(run((call(0, 0, 1.0), call(1, 0, 1.0, **changes)), slo=slo))

    assert at is not None
    assert at.steps[0].broken == (broke,)


def test_other_claims_are_judged_where_the_slo_held() -> None:
    """Calls beyond the knee went unanswered because they were meant to."""
    calls = (call(0, 0, 1.0), call(0, 1, 3.0), call(0, 2, 3.0))

    assert [each.plan.index for each in until_the_knee(Facts.of(run(calls))).records] == [1]


def test_a_turn_belongs_to_the_step_in_which_it_was_spoken() -> None:
    """A call that is still in progress when the next step begins meets that step's load; after the last step there is none."""
    early, late = call(0, 0, 1.0), call(0, 1, 1.0)
    slow = replace(late.turns[0], index=4, first_word_at=UnixNs(late.turns[0].user_speech_ended_at + 3_000_000_000))
    after = replace(slow, user_speech_ended_at=UnixNs(slow.user_speech_ended_at + 200_000_000_000), first_word_at=None)
    found = run((replace(early, turns=(*early.turns, slow, after)), late), slo=Slo(ttfw_p95_s=2.0, missed_turns=0))

    assert interval(found) == (0.5, 1.0)
    assert until_the_knee(Facts.of(found)).records[0].turns == early.turns


def test_a_scenario_without_search_has_no_knee() -> None:
    """And no verdict on one."""
    assert knee(evidence()) is None
    assert list(verdicts(evidence(), straightness(evidence()))) == []
