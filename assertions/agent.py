"""The agent's own light: did it answer, how fast, against limits of the user, on what the callers heard."""

from __future__ import annotations

from collections.abc import Iterator

from assertions.facts import Facts
from harness.measure.histogram import nearest_rank
from harness.model import AgentFigures, CallOutcome, CallRecord, Light, Ruler, Status, Verdict

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
}


def figures(facts: Facts) -> AgentFigures:
    """How the agent did, on the callers' truth. Void turns count as turns, not as latencies."""
    turns = [turn for record in facts.evidence.records for turn in record.turns]
    heard = latencies(facts)
    return AgentFigures(
        calls=len(facts.evidence.plans),
        answered=sum(record.is_answered for record in facts.evidence.records),
        turns=len(turns),
        missed=sum(turn.first_word_at is None for turn in turns),
        ttfw_p50_s=nearest_rank(0.5, heard),
        ttfw_p95_s=nearest_rank(0.95, heard),
    )


def latencies(facts: Facts) -> list[float]:
    """Response latencies of the turns that are not void, in seconds."""
    return [
        latency
        for record in facts.evidence.records
        for turn in record.turns
        if turn.void is None and (latency := turn.response_latency_s) is not None
    ]


def verdicts(facts: Facts, ruler: Ruler) -> Iterator[Verdict]:
    """``calls/answered``, and one claim a limit."""
    yield _answered(facts, ruler)
    slo, found = facts.evidence.info.scenario.slo, figures(facts)
    if slo.ttfw_p50_s is not None:
        yield _latency("slo/ttfw-p50", "TTFW p50", found.ttfw_p50_s, slo.ttfw_p50_s, ruler)
    if slo.ttfw_p95_s is not None:
        yield _latency("slo/ttfw-p95", "TTFW p95", found.ttfw_p95_s, slo.ttfw_p95_s, ruler)
    if slo.missed_turns is not None:
        is_kept = found.missed <= slo.missed_turns
        status = (Status.PASS if is_kept else Status.FAIL) if found.turns else Status.INCONCLUSIVE
        sentence = f"{found.missed} of {found.turns} turns had no reply, limit {slo.missed_turns}"
        yield _verdict("slo/missed-turns", status, sentence, str(found.missed), f"at most {slo.missed_turns}", "1 turn")


def _answered(facts: Facts, ruler: Ruler) -> Verdict:
    """Every call is answered and every turn replied to, unless the user's limit allows fewer."""
    records = facts.evidence.records
    failed = [record for record in records if record.outcome is not CallOutcome.COMPLETED and record.outcome not in OURS]
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
        return _verdict(claim, Status.INCONCLUSIVE, f"{name}: no reply was measured", "nothing", f"at most {limit_s:g} s", "nothing")
    sentence = f"{name} heard is {found_s:.3f} s, limit {limit_s:g} s"
    if not ruler.is_straight:
        return _verdict(claim, Status.INCONCLUSIVE, f"{sentence}; {ruler.bent}", f"{found_s:.2f} s", f"at most {limit_s:g} s", "nothing")
    status = Status.PASS if found_s <= limit_s else Status.FAIL
    return _verdict(claim, status, sentence, f"{found_s:.2f} s", f"at most {limit_s:g} s", "5 ms")


def _verdict(claim: str, status: Status, sentence: str, says: str, may_say: str, would_catch: str) -> Verdict:
    return Verdict(
        claim=claim,
        light=Light.AGENT,
        status=status,
        hop="heard by the callers",
        sentence=sentence,
        says=says,
        may_say=may_say,
        would_catch=would_catch,
    )
