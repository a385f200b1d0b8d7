"""Evidence in, findings out: reads every hop, judges it, plants lies to show that each would be caught. No clock, no network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from assertions import agent, calls, sfu, tools, ttfw, turns
from assertions.facts import Facts
from assertions.ledger import Judgement, Reading, Tree, judge, lies
from harness.model import (
    Evidence,
    Findings,
    GeneratorHealth,
    Light,
    PlantedLie,
    Ruler,
    Scenario,
    Source,
    Status,
    Verdict,
)

PACING_P99_MS = 10.0
"""A generator that sends later than this cannot vouch for when it spoke: half a packet."""
VOID_RATIO = 0.01
"""Share of turns that may be void; at least one always may."""
_QUANTITIES = (calls, turns, tools, ttfw, sfu)
_SPOKEN = ("spoken", "provoked", "heard")
"""Roots that rest on our own media being on time."""
CLAIMS: Mapping[str, tuple[Source, ...]] = {
    "calls/answered": (),
    "calls/rows": (Source.ROWS,),
    "calls/status": (Source.ROWS,),
    "calls/duration": (Source.ROWS,),
    "turns/rows": (Source.ROWS,),
    "turns/exporter": (Source.AGENT_EXPORTER,),
    "turns/samples": (Source.PROMETHEUS,),
    "tools/rows": (Source.ROWS,),
    "tools/exporter": (Source.AGENT_EXPORTER,),
    "tools/samples": (Source.PROMETHEUS,),
    "ttfw/exporter": (Source.AGENT_EXPORTER,),
    "ttfw/samples": (Source.PROMETHEUS,),
    "ttfw/rule": (Source.PROMETHEUS, Source.RULES),
    "sfu/rooms": (Source.SFU_EXPORTER, Source.SFU_API),
    "sfu/participants": (Source.SFU_EXPORTER, Source.SFU_API),
    "slo/ttfw-p50": (),
    "slo/ttfw-p95": (),
    "slo/missed-turns": (),
}
"""Every claim, with the sources it needs."""
RTT_FIRST_BUCKET_MS = 50
"""Smallest bound of livekit_rtt_ms: nothing below it can be told apart."""


def check(evidence: Evidence) -> Findings:
    """Every claim about the run, judged; the same findings for the same evidence."""
    facts = Facts.of(evidence)
    ruler = straightness(evidence)
    verdicts = list(agent.verdicts(facts, ruler))
    planted: list[PlantedLie] = []
    for quantity in _QUANTITIES:
        for tree in quantity.trees(facts):
            judgements = tuple(judge(tree))
            verdicts += [_verdict(facts, judgement, ruler) for judgement in judgements]
            planted += _plant(tree, judgements)
    verdicts += _blind_rtt(facts)
    return Findings(
        verdicts=tuple(verdicts),
        planted=tuple(planted),
        ruler=ruler,
        agent=agent.figures(facts),
        status=_status(evidence.info.scenario, verdicts, planted),
    )


def undecidable(scenario: Scenario, blind: Mapping[str, str]) -> list[str]:
    """Why a plan can never decide what it requires; empty if it can."""
    reasons = []
    for claim in scenario.requires:
        if claim not in CLAIMS:
            reasons.append(f"{claim}: there is no such claim; see voxproof list claims")
            continue
        if not scenario.turns and claim.partition("/")[0] in ("turns", "ttfw", "tools"):
            reasons.append(f"{claim}: the scenario has no turns")
        if claim.startswith("tools/") and scenario.turns and not any(turn.tool for turn in scenario.turns):
            reasons.append(f"{claim}: no turn of the scenario provokes a tool; give one a `tool`")
        limit = {
            "slo/ttfw-p50": scenario.slo.ttfw_p50_s,
            "slo/ttfw-p95": scenario.slo.ttfw_p95_s,
            "slo/missed-turns": scenario.slo.missed_turns,
        }
        if claim in limit and limit[claim] is None:
            reasons.append(f"{claim}: the scenario's slo sets no such limit")
        reasons += [f"{claim}: the target declares {source} blind: {blind[source]}" for source in CLAIMS[claim] if source in blind]
    return reasons


def straightness(evidence: Evidence) -> Ruler:
    """Whether our own measurement can be trusted; on our own evidence only."""
    all_turns = [turn for record in evidence.records for turn in record.turns]
    void = sum(turn.void is not None for turn in all_turns)
    last: dict[str, GeneratorHealth] = {line.process: line for line in evidence.health}
    p99 = max((line.pacing_p99_ms for line in last.values()), default=None)
    bent = None
    if p99 is None:
        bent = "no caller process said how punctual it was"
    elif p99 > PACING_P99_MS:
        bent = f"packets left {p99:.1f} ms late at p99, limit {PACING_P99_MS:g} ms"
    elif void > max(1, VOID_RATIO * len(all_turns)):
        bent = f"{void} of {len(all_turns)} turns are void, limit {max(1, int(VOID_RATIO * len(all_turns)))}"
    return Ruler(is_straight=bent is None, bent=bent, pacing_p99_ms=p99, void_turns=void, turns=len(all_turns))


def _verdict(facts: Facts, judgement: Judgement, ruler: Ruler) -> Verdict:
    step = judgement.step
    status, sentence, blind = judgement.status, "", None
    may_say = step.show(judgement.admitted)
    if judgement.gap is not None and judgement.gap.is_blind:
        blind, sentence = judgement.gap.reason, f"blind: {judgement.gap.reason}"
    elif judgement.said is None:
        reason = judgement.gap.reason if judgement.gap else "it was never read"
        sentence = f"{judgement.gap.source if judgement.gap else 'the source'} could not be read: {reason}"
    elif judgement.difference is not None:
        sentence = step.explain(judgement.difference)
        if judgement.since != step.source:
            sentence += f" (somewhere after {judgement.since}: {step.source} could not be read)"
    elif judgement.admitted_defects:
        sentence = f"this run would not have shown: {', '.join(judgement.admitted_defects)}; more calls or turns would"
    elif judgement.is_faithful:
        sentence = "it passed on, correctly, what an earlier hop got wrong"
    else:
        sentence = f"says {step.show(judgement.said)}, as it must"
    if status is Status.PASS and facts.broken:
        status = Status.INCONCLUSIVE
        sentence = f"{len(facts.broken)} calls were cut: what the stack should say of them is not known"
    if status is not Status.INCONCLUSIVE and not ruler.is_straight and _rests_on_us(judgement):
        status, sentence = Status.INCONCLUSIVE, f"our own measurement is in doubt: {ruler.bent}"
    return Verdict(
        claim=step.claim,
        light=Light.MONITORING,
        status=status,
        hop=step.title,
        sentence=sentence,
        says=step.show(judgement.said) if judgement.said is not None else "-",
        may_say=may_say,
        would_catch=step.resolution(judgement.admitted, judgement.said) if judgement.said is not None else "nothing",
        is_faithful=judgement.is_faithful and status is Status.PASS,
        blind=blind,
        because=judgement.admitted.because,
        effect=_effect(facts) if status is Status.FAIL and step.claim.startswith("ttfw/") else None,
        evidence=_evidence(facts, judgement),
        alpha=judgement.admitted.alpha,
    )


def _rests_on_us(judgement: Judgement) -> bool:
    """The step is held against what callers spoke and heard, not against another hop: a caller that stutters is misheard, too."""
    return judgement.since in _SPOKEN


def _effect(facts: Facts) -> str | None:
    """What the dashboard shows beside what callers heard."""
    heard = agent.figures(facts).ttfw_p95_s
    said = [
        number
        for timeline in facts.reader.series(Source.RULES, ttfw.RULE)
        for at, number in timeline.samples
        if at > facts.since and number == number
    ]
    if heard is None:
        return None
    return (
        f"rule p95 {max(said):.2f} s, callers heard {heard:.2f} s" if said else f"the rule shows nothing, callers heard p95 {heard:.2f} s"
    )


def _evidence(facts: Facts, judgement: Judgement) -> tuple[str, ...]:
    """Where to hear and to ask again."""
    quantity = judgement.step.claim.partition("/")[0]
    metric = {"turns": turns.COUNTER, "tools": tools.COUNTER, "ttfw": f"{ttfw.NAME}_count"}.get(quantity)
    table = {"calls": "calls", "turns": "transcripts", "tools": "tool_executions"}.get(quantity)
    found = []
    if judgement.status is Status.FAIL and quantity in ("turns", "tools", "ttfw"):
        found += list(_sounds(facts, judgement))
    for source in CLAIMS[judgement.step.claim]:
        if source is Source.ROWS and table:
            found += [row.request for row in facts.reader.rows.get(table, ())[:1]]
        elif source is Source.RULES:
            found.append(facts.request(source, ttfw.RULE))
        elif source is Source.SFU_EXPORTER:
            found.append(facts.request(source, "livekit_room_total"))
        elif metric:
            found.append(facts.request(source, metric))
    return tuple(dict.fromkeys(request for request in found if request))


def _sounds(facts: Facts, judgement: Judgement) -> Iterator[str]:
    """The turn to listen to: the one that the difference names, else the slowest (a tool turn first)."""
    candidates = []
    for record in facts.evidence.records:
        if record.audio is None or record.audio_started_at is None:
            continue
        named = judgement.difference is not None and record.plan.call_id in judgement.difference.key
        for turn in record.turns:
            if turn.first_word_at is not None:
                seconds = (turn.user_speech_ended_at - record.audio_started_at) / 1e9
                rank = (not named, turn.tool is None, -(turn.response_latency_s or 0.0))
                candidates.append((rank, f"{record.audio}#t={max(seconds, 0):.2f}"))
    if candidates:
        yield min(candidates)[1]


def _plant(tree: Tree, judgements: tuple[Judgement, ...]) -> Iterator[PlantedLie]:
    """Each defect of each hop that passed, told by a copy of that hop; hops behind it are left out, as they would pass the lie on."""
    for judgement in judgements:
        if judgement.said is None or judgement.status is not Status.PASS or judgement.is_faithful:
            continue
        for name, lie in lies(judgement.step, judgement.said):
            yield PlantedLie(claim=judgement.step.claim, defect=name, caught_at=_caught(tree, judgement.step.claim, lie))


def _caught(tree: Tree, claim: str, lie: Reading) -> tuple[str, ...]:
    behind = {claim}
    steps = []
    for step in tree.steps:
        if step.source in behind:
            behind.add(step.claim)
            continue
        steps.append(step)
    liar = dataclasses.replace(tree, steps=tuple(steps), seen={**tree.seen, claim: lie})
    return tuple(judgement.step.claim for judgement in judge(liar) if judgement.status is Status.FAIL)


def _blind_rtt(facts: Facts) -> list[Verdict]:
    """The server's round trip cannot be checked on a fast network: shown, so that nobody takes it for proven."""
    sums = facts.reader.series(Source.SFU_EXPORTER, "livekit_rtt_ms_sum")
    counts = facts.reader.series(Source.SFU_EXPORTER, "livekit_rtt_ms_count")
    total = sum(timeline.samples[-1][1] for timeline in counts)
    if not total:
        return []
    mean = sum(timeline.samples[-1][1] for timeline in sums) / total
    if mean >= RTT_FIRST_BUCKET_MS:
        return []
    reason = f"first bucket {RTT_FIRST_BUCKET_MS} ms"
    return [
        Verdict(
            claim="rtt/exporter",
            light=Light.MONITORING,
            status=Status.INCONCLUSIVE,
            hop="SFU histogram",
            sentence=f"blind: {reason}, and samples of zero are dropped",
            says=f"{mean:.0f} ms",
            may_say="-",
            would_catch="nothing",
            blind=reason,
            evidence=(sums[0].request,),
        )
    ]


def _status(scenario: Scenario, verdicts: list[Verdict], planted: list[PlantedLie]) -> Status:
    """FAIL if anything failed; else what the required claims are, and no better than undecided if a planted lie escaped."""
    if any(verdict.status is Status.FAIL and verdict.blind is None for verdict in verdicts):
        return Status.FAIL
    by_claim = {verdict.claim: verdict.status for verdict in verdicts}
    required = [by_claim.get(claim, Status.INCONCLUSIVE) for claim in scenario.requires]
    if not all(lie.is_caught for lie in planted):
        required.append(Status.INCONCLUSIVE)
    return Status.worst(required)
