"""The agent's own light: did it answer, how fast, against limits of the user, on what the callers heard."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from assertions.facts import AS_PLANNED, Facts
from harness.measure.histogram import nearest_rank
from harness.model import AgentFigures, CallOutcome, CallRecord, Light, Ruler, Slo, Status, TurnRecord, Verdict

OURS = frozenset({CallOutcome.DROPPED, CallOutcome.CUT, CallOutcome.UDP_BLOCKED})
"""Calls that failed on our side, or on the way: they say nothing about the agent."""
_SAYS = {
    CallOutcome.NO_AGENT: "the agent never joined",
    CallOutcome.SILENT: "the agent joined and was not heard when a reply was due",
    CallOutcome.AGENT_LEFT: "the agent left before the caller hung up",
    CallOutcome.DISCONNECTED: "the media server ended or lost the connection",
    CallOutcome.REFUSED: "the media server did not let the caller in",
    CallOutcome.UDP_BLOCKED: "signalling worked, but no media path was found: is UDP blocked?",
    CallOutcome.DROPPED: "no caller was free when the call was due",
    CallOutcome.CUT: "our caller process ended before the call did",
    CallOutcome.HUNG_UP: "the caller hung up early, as planned",
}


def figures(facts: Facts) -> AgentFigures:
    """How the agent did in the whole run, on the callers' truth."""
    return figures_of(facts.evidence.records, [turn for record in facts.evidence.records for turn in record.turns])


def figures_of(records: Sequence[CallRecord], turns: Sequence[TurnRecord]) -> AgentFigures:
    """How the agent did in these calls and these turns. Void turns count as turns, not as latencies."""
    heard, joined = latencies(turns), joins_s(records)
    return AgentFigures(
        calls=len(records),
        answered=sum(record.is_answered for record in records),
        turns=len(turns),
        missed=sum(turn.first_word_at is None for turn in turns),
        ttfw_p50_s=nearest_rank(0.5, heard),
        ttfw_p95_s=nearest_rank(0.95, heard),
        joined_p50_s=nearest_rank(0.5, joined),
        joined_max_s=max(joined, default=None),
        missing=len(missing(records)),
        doubled=len(doubled(records)),
    )


def latencies(turns: Iterable[TurnRecord]) -> list[float]:
    """Response latencies of the turns that are not void, in seconds."""
    return [latency for turn in turns if turn.void is None and (latency := turn.response_latency_s) is not None]


def joins_s(records: Iterable[CallRecord]) -> list[float]:
    """How long each call waited for its agent to be in the room, in seconds, from its being placed."""
    return [
        (record.agent_joined_at - record.placed_at) / 1e9
        for record in records
        if record.agent_joined_at is not None and record.placed_at is not None
    ]


def missing(records: Iterable[CallRecord]) -> list[CallRecord]:
    """Calls that no agent joined, and that did not end on our side before one could."""
    return [record for record in records if record.joined_at and record.agent_joined_at is None and record.outcome not in OURS]


def doubled(records: Iterable[CallRecord]) -> list[CallRecord]:
    """Calls in whose room two agents were at the same time: both would answer (livekit/agents #4753)."""
    return [
        record
        for record in records
        if any(next_.joined_at < (agent.left_at or math.inf) for agent, next_ in itertools.pairwise(record.agents))
    ]


def verdicts(facts: Facts, ruler: Ruler) -> Iterator[Verdict]:
    """``calls/answered``, and one claim for each limit."""
    yield _answered(facts, ruler)
    slo, found = facts.evidence.info.scenario.slo, figures(facts)
    if slo.ttfw_p50_s is not None:
        yield _latency("slo/ttfw-p50", "TTFW p50 heard", found.ttfw_p50_s, slo.ttfw_p50_s, ruler)
    if slo.ttfw_p95_s is not None:
        yield _latency("slo/ttfw-p95", "TTFW p95 heard", found.ttfw_p95_s, slo.ttfw_p95_s, ruler)
    if slo.missed_turns is not None:
        is_kept = found.missed <= slo.missed_turns
        status = (Status.PASS if is_kept else Status.FAIL) if found.turns else Status.INCONCLUSIVE
        sentence = f"{found.missed} of {found.turns} turns had no reply, limit {slo.missed_turns}"
        yield _verdict(
            "slo/missed-turns", status, sentence, str(found.missed), f"at most {slo.missed_turns}", "1 turn", hop="turns without reply"
        )
    if slo.agent_join_s is not None:
        yield _latency("slo/late-agents", "slowest agent to join", found.joined_max_s, slo.agent_join_s, ruler)
    if slo.missing_agents is not None:
        yield _rooms("slo/missing-agents", "calls without agent", "joined by no agent", missing(facts.records), slo.missing_agents, facts)
    if slo.doubled_agents is not None:
        yield _rooms(
            "slo/doubled-agents",
            "calls with two agents",
            "joined by two agents at a time",
            doubled(facts.records),
            slo.doubled_agents,
            facts,
        )


def broken(slo: Slo, found: AgentFigures) -> tuple[str, ...]:
    """The limits that these figures do not keep, in words. What was not measured breaks no limit on latency."""
    told = []
    if slo.answered_ratio is not None and found.calls and found.answered / found.calls < slo.answered_ratio:
        told.append(f"{found.answered} of {found.calls} calls answered, limit {slo.answered_ratio:.0%}")
    for name, said, most in (
        ("TTFW p50", found.ttfw_p50_s, slo.ttfw_p50_s),
        ("TTFW p95", found.ttfw_p95_s, slo.ttfw_p95_s),
        ("slowest agent to join", found.joined_max_s, slo.agent_join_s),
    ):
        if said is not None and most is not None and said > most:
            told.append(f"{name} {said:.2f} s, limit {most:g} s")
    for count, limit, how in (
        (found.missed, slo.missed_turns, "turns without reply"),
        (found.missing, slo.missing_agents, "calls without agent"),
        (found.doubled, slo.doubled_agents, "calls with two agents"),
    ):
        if limit is not None and count > limit:
            told.append(f"{count} {how}, limit {limit}")
    return tuple(told)


def _answered(facts: Facts, ruler: Ruler) -> Verdict:
    """Every call is answered and every turn replied to, unless the user's limit allows fewer."""
    records = facts.evidence.records
    failed = [record for record in records if record.outcome not in (*AS_PLANNED, *OURS)]
    ours = [record for record in records if record.outcome in OURS]
    answered = sum(record.is_answered for record in records)
    wanted = facts.evidence.info.scenario.slo.answered_ratio
    says = f"{answered}/{len(records)}"
    may = "every call" if wanted is None else f"at least {wanted:.0%}"
    if wanted is not None and records and not ours:
        failed = failed if answered / len(records) < wanted else []
    if failed and not ruler.is_straight and all(record.outcome is CallOutcome.SILENT for record in failed):
        # A caller that stutters is not understood: no answer to it says nothing of the agent.
        status, sentence = Status.INCONCLUSIVE, f"{_names(failed)}: {_SAYS[CallOutcome.SILENT]}, and our own media was late: {ruler.bent}"
    elif failed:
        status, sentence = Status.FAIL, f"{_names(failed)}: {_SAYS[failed[0].outcome]}" + _detail(failed[0])
    elif ours:
        status, sentence = Status.INCONCLUSIVE, f"{_names(ours)}: {_SAYS[ours[0].outcome]}"
    elif not records:
        status, sentence = Status.INCONCLUSIVE, "no call was placed"
    else:
        status, sentence = Status.PASS, f"{answered} of {len(records)} calls were answered"
    return _verdict("calls/answered", status, sentence, says, may, "1 call")


def _names(records: list[CallRecord]) -> str:
    words = ", ".join(f"call-{record.plan.index}" for record in records[:3])
    return words if len(records) <= 3 else f"{words} and {len(records) - 3} more"


def _detail(record: CallRecord) -> str:
    told = (CallOutcome.REFUSED, CallOutcome.DISCONNECTED)
    return f" ({record.error})" if record.error and record.outcome in told else ""


def _latency(claim: str, name: str, found_s: float | None, limit_s: float, ruler: Ruler) -> Verdict:
    if found_s is None:
        return _verdict(claim, Status.INCONCLUSIVE, f"{name}: none was measured", "nothing", f"at most {limit_s:g} s", "nothing", hop=name)
    sentence = f"{name} is {found_s:.3f} s, limit {limit_s:g} s"
    if not ruler.is_straight:
        return _verdict(
            claim, Status.INCONCLUSIVE, f"{sentence}; {ruler.bent}", f"{found_s:.2f} s", f"at most {limit_s:g} s", "nothing", hop=name
        )
    status = Status.PASS if found_s <= limit_s else Status.FAIL
    return _verdict(claim, status, sentence, f"{found_s:.2f} s", f"at most {limit_s:g} s", "5 ms", hop=name)


def _rooms(claim: str, hop: str, how: str, found: list[CallRecord], limit: int, facts: Facts) -> Verdict:
    """A limit on calls whose agents did not come as they should. Calls that ended on our side may hide one more."""
    ours = sum(record.outcome in OURS for record in facts.evidence.records)
    sentence = f"{len(found)} of {len(facts.evidence.records)} calls were {how}, limit {limit}"
    sentence += f": {_names(found)}" if found else ""
    if len(found) > limit:
        status = Status.FAIL
    elif len(found) + ours > limit or not facts.evidence.records:
        status = Status.INCONCLUSIVE
        sentence += f"; {ours} calls ended on our side" if ours else ""
    else:
        status = Status.PASS
    return _verdict(claim, status, sentence, str(len(found)), f"at most {limit}", "1 call", hop=hop)


def _verdict(
    claim: str, status: Status, sentence: str, says: str, may_say: str, would_catch: str, *, hop: str = "heard by the callers"
) -> Verdict:
    return Verdict(
        claim=claim,
        light=Light.AGENT,
        status=status,
        hop=hop,
        sentence=sentence,
        says=says,
        may_say=may_say,
        would_catch=would_catch,
    )
