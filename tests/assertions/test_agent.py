"""The agent's own light, on what callers heard."""

from __future__ import annotations

from typing import Any

import pytest

from assertions.agent import figures, verdicts
from assertions.facts import Facts
from assertions.ruler import straightness
from harness.model import AgentStay, CallOutcome, CallRecord, Evidence, Slo, Status, UnixNs, Verdict
from tests.fakes.evidence import evidence, health, info, plan, record, records, scenario


def run(*calls: CallRecord, slo: Slo | None = None, **changes: Any) -> Evidence:
    """A run of these calls; what the stack says of them does not matter."""
    base = evidence(
        info=info(scenario=scenario(slo=slo or Slo())), plans=tuple(call.plan for call in calls), records=calls, observations=()
    )
    return base if not changes else type(base)(**{**{name: getattr(base, name) for name in base.__dataclass_fields__}, **changes})


def judged(found: Evidence) -> dict[str, Verdict]:
    """Verdicts by claim."""
    return {verdict.claim: verdict for verdict in verdicts(Facts.of(found), straightness(found))}


def ended(outcome: CallOutcome, index: int = 1) -> CallRecord:
    """A call that ended otherwise than planned."""
    return record(plan(index), (1.2, 1.1, None), outcome=outcome, error="an error")


@pytest.mark.parametrize(
    "outcome", [CallOutcome.NO_AGENT, CallOutcome.SILENT, CallOutcome.AGENT_LEFT, CallOutcome.DISCONNECTED, CallOutcome.REFUSED]
)
def test_a_call_that_was_not_carried_through_fails(outcome: CallOutcome) -> None:
    """Whoever let it down."""
    assert judged(run(ended(outcome), *records()[1:]))["calls/answered"].status is Status.FAIL


@pytest.mark.parametrize("outcome", [CallOutcome.DROPPED, CallOutcome.CUT, CallOutcome.UDP_BLOCKED])
def test_a_call_that_failed_on_our_side_says_nothing_of_the_agent(outcome: CallOutcome) -> None:
    """Undecided, and named."""
    found = judged(run(ended(outcome), *records()[1:]))["calls/answered"]

    assert found.status is Status.INCONCLUSIVE
    assert found.sentence.startswith("call-1: ")


def test_a_run_without_calls_shows_nothing() -> None:
    """Not green."""
    assert judged(run())["calls/answered"].status is Status.INCONCLUSIVE


def test_the_users_limit_may_allow_unanswered_calls() -> None:
    """Two of three is two thirds."""
    calls = (ended(CallOutcome.NO_AGENT, 4), *records())

    assert judged(run(*calls, slo=Slo(answered_ratio=0.7)))["calls/answered"].status is Status.PASS
    assert judged(run(*calls))["calls/answered"].status is Status.FAIL


def test_quantiles_are_nearest_ranks_of_turns_that_are_not_void() -> None:
    """Of nine latencies the fifth and the ninth."""
    found = figures(Facts.of(run(*records())))

    assert [found.ttfw_p50_s, found.ttfw_p95_s] == pytest.approx([1.12, 1.46])
    assert (found.calls, found.answered, found.turns, found.missed) == (3, 3, 9, 0)


@pytest.mark.parametrize(("limit_s", "status"), [(1.5, Status.PASS), (1.4, Status.FAIL)])
def test_a_limit_on_ttfw_is_kept_or_broken(limit_s: float, status: Status) -> None:
    """On what callers heard, whatever the dashboard says."""
    assert judged(run(*records(), slo=Slo(ttfw_p95_s=limit_s)))["slo/ttfw-p95"].status is status


def test_a_bent_ruler_keeps_no_limit_and_breaks_none() -> None:
    """What we cannot vouch for is undecided."""
    late = run(*records(), slo=Slo(ttfw_p95_s=1.4), health=(health(pacing_p99_ms=30.0),))

    assert judged(late)["slo/ttfw-p95"].status is Status.INCONCLUSIVE


@pytest.mark.parametrize(
    ("changes", "bent"),
    [
        ({"pacing_p99_ms": 12.0}, "packets left 12.0 ms late at p99, limit 10 ms"),
        ({"receive_drops": 3}, "the kernel dropped 3 datagrams at our sockets, limit 0"),
        ({"clock_steps": 1}, "the wall clock stepped 1 times while calls were in progress, limit 0"),
    ],
)
def test_the_limit_that_bent_is_named(changes: dict[str, Any], bent: str) -> None:
    """With its number."""
    assert straightness(run(*records(), health=(health(**changes),))).bent == bent


def test_callers_that_say_nothing_of_themselves_are_not_straight() -> None:
    """Nothing was shown."""
    assert straightness(run(*records(), health=())).bent == "no caller process said how punctual it was"


def test_of_a_process_its_last_word_counts() -> None:
    """A new line every five seconds."""
    early, last = health(pacing_p99_ms=40.0), health(pacing_p99_ms=0.6)

    assert straightness(run(*records(), health=(early, last))).pacing_p99_ms == 0.6


def joined(index: int, *stays: tuple[float, float | None], **changes: Any) -> CallRecord:
    """A call whose agents came and left so many seconds after it was placed."""
    base = record(plan(index))
    assert base.placed_at is not None
    at = [
        (UnixNs(base.placed_at + round(came * 1e9)), None if left is None else UnixNs(base.placed_at + round(left * 1e9)))
        for came, left in stays
    ]
    agents = tuple(AgentStay(identity=f"agent-{number}", joined_at=came, left_at=left) for number, (came, left) in enumerate(at))
    return record(plan(index), agents=agents, agent_joined_at=agents[0].joined_at if agents else None, **changes)


def test_an_agent_that_joins_late_breaks_its_limit() -> None:
    """As late as in livekit/agents #4753: 90 s."""
    limit = Slo(agent_join_s=10)
    late, punctual = joined(1, (90.0, None)), joined(2, (0.6, None))

    assert judged(run(late, punctual, slo=limit))["slo/late-agents"].status is Status.FAIL
    assert judged(run(punctual, slo=limit))["slo/late-agents"].status is Status.PASS
    assert judged(run(late, punctual, slo=limit))["slo/late-agents"].sentence == "slowest agent to join is 90.000 s, limit 10 s"


def test_two_agents_in_one_room_break_their_limit() -> None:
    """Both would answer; one that takes over from another is none too many."""
    limit = Slo(doubled_agents=0)
    doubled, followed = joined(1, (0.6, None), (0.8, 3.0)), joined(2, (0.6, 3.0), (4.0, None))

    assert judged(run(doubled, followed, slo=limit))["slo/doubled-agents"].status is Status.FAIL
    assert judged(run(doubled, followed, slo=limit))["slo/doubled-agents"].sentence.endswith("at a time, limit 0: call-1")
    assert judged(run(followed, slo=limit))["slo/doubled-agents"].status is Status.PASS


def test_a_room_without_agent_breaks_its_limit() -> None:
    """Livekit/agents #4331: silent beyond a few sessions."""
    limit = Slo(missing_agents=0)
    alone = joined(1, outcome=CallOutcome.NO_AGENT)

    assert judged(run(alone, *records()[1:], slo=limit))["slo/missing-agents"].status is Status.FAIL
    assert judged(run(*records(), slo=limit))["slo/missing-agents"].status is Status.PASS


@pytest.mark.parametrize("claim", ["slo/missing-agents", "slo/doubled-agents"])
def test_a_call_that_we_cut_may_hide_what_a_limit_forbids(claim: str) -> None:
    """Undecided, not kept."""
    found = judged(run(ended(CallOutcome.CUT), *records()[1:], slo=Slo(missing_agents=0, doubled_agents=0)))

    assert found[claim].status is Status.INCONCLUSIVE
