"""Evidence in, findings out: reads every hop, judges it, plants lies to show that each would be caught. No clock, no network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from assertions import (
    active,
    agent,
    alerts,
    availability,
    barge_ins,
    calls,
    effects,
    jitter,
    knee,
    loss,
    others,
    panels,
    pipeline,
    pushed,
    rtt,
    rules,
    sfu,
    stages,
    tools,
    ttfw,
    turns,
)
from assertions.chains import Chains
from assertions.facts import EMBEDDED, Facts
from assertions.ledger import Judgement, Memory, Range, Reading, Step, Tree, differences, judge
from assertions.ruler import straightness
from harness.measure.series import Reader
from harness.model import REAL_FAULTS, Evidence, Findings, Gap, Light, PlantedLie, Ruler, RunInfo, Scenario, Source, Status, UnixNs, Verdict
from harness.rundir import without_collector

_QUANTITIES = (calls, active, turns, barge_ins, tools, ttfw, stages, sfu, loss, jitter, rtt, availability, pipeline)
_OURS = ("spoken", "provoked", "heard", "wire")
"""Roots that rest on our own media being on time."""
_OF_NOBODY = ("availability", "pipeline")
"""Quantities that are the same whoever calls."""
_DEEDS = frozenset({"tools/endpoint"})
"""Hops at which we see what the agent did ourselves: truth to those that tell of it."""
CLAIMS: Mapping[str, tuple[Source, ...]] = {
    "calls/answered": (),
    "slo/ttfw-p50": (),
    "slo/ttfw-p95": (),
    "slo/missed-turns": (),
    "slo/late-agents": (),
    "slo/missing-agents": (),
    "slo/doubled-agents": (),
    "load/knee": (),
    "calls/rows": (Source.ROWS,),
    "calls/status": (Source.ROWS,),
    "calls/duration": (Source.ROWS,),
    "calls/realtime": (Source.ROWS, Source.REALTIME),
    "active/exporter": (Source.AGENT_EXPORTER,),
    "active/samples": (Source.PROMETHEUS,),
    "turns/rows": (Source.ROWS,),
    "turns/exporter": (Source.AGENT_EXPORTER,),
    "turns/samples": (Source.PROMETHEUS,),
    "barge-ins/rows": (Source.ROWS,),
    "tools/endpoint": (Source.TOOL_ENDPOINT,),
    "tools/rows": (Source.ROWS,),
    "tools/exporter": (Source.AGENT_EXPORTER,),
    "tools/samples": (Source.PROMETHEUS,),
    "ttfw/exporter": (Source.AGENT_EXPORTER,),
    "ttfw/samples": (Source.PROMETHEUS,),
    "stt/exporter": (Source.AGENT_EXPORTER, Source.AGENT_RULER),
    "stt/samples": (Source.PROMETHEUS,),
    "llm/exporter": (Source.AGENT_EXPORTER, Source.AGENT_RULER),
    "llm/samples": (Source.PROMETHEUS,),
    "tts/exporter": (Source.AGENT_EXPORTER, Source.AGENT_RULER),
    "tts/samples": (Source.PROMETHEUS,),
    "sfu/rooms": (Source.SFU_EXPORTER, Source.SFU_API),
    "sfu/participants": (Source.SFU_EXPORTER, Source.SFU_API),
    "loss/server-reports": (Source.SFU_REPORTS,),
    "loss/exporter": (Source.SFU_EXPORTER,),
    "loss/samples": (Source.PROMETHEUS,),
    "jitter/server-reports": (Source.SFU_REPORTS,),
    "jitter/exporter": (Source.SFU_EXPORTER,),
    "jitter/samples": (Source.PROMETHEUS,),
    "rtt/exporter": (Source.SFU_EXPORTER,),
    "rtt/samples": (Source.PROMETHEUS,),
    "availability/samples": (Source.PROMETHEUS,),
    "pipeline/scrapes": (Source.PROMETHEUS,),
    "pipeline/rules": (Source.PROMETHEUS,),
    "pipeline/clock": (Source.PROMETHEUS,),
    "pipeline/rows": (Source.ROWS,),
    **{f"{quantity}/rule": (Source.PROMETHEUS, Source.RULES) for quantity in rules.QUANTITIES},
    "alerts/samples": (Source.ALERTS,),
    "alerts/pending": (Source.ALERTS,),
    "alerts/firing": (Source.ALERTS,),
    "alerts/notified": (Source.RECEIVER,),
    "alerts/stored": (Source.ROWS,),
    "alerts/resolved": (Source.RECEIVER, Source.ROWS),
    "alerts/silent": (Source.ALERTS, Source.RECEIVER, Source.ROWS),
    "alerts/real": (Source.ALERTS,),
    **{f"{quantity}/panel": (Source.PANELS,) for quantity in panels.QUANTITIES},
}
"""Every claim, with the sources it needs."""


def check(evidence: Evidence, *, control: bool = True) -> Findings:
    """Every claim about the run, judged; the same findings for the same evidence.

    control: lies are planted, too; most of the time goes into them.
    """
    with without_collector():
        return _findings(evidence, control=control)


def _findings(evidence: Evidence, *, control: bool) -> Findings:
    facts, reader, ruler = Facts.of(evidence), Reader.of(evidence), straightness(evidence)
    is_drill = evidence.info.scenario.drill is not None
    facts = dataclasses.replace(facts, others=None if is_drill else others.why(facts, reader))
    chains = Chains(reader, facts)
    lacking = evidence.info.settings.get("lacking", {})
    found_trees = [tree for quantity in ((alerts,) if is_drill else _QUANTITIES) for tree in quantity.trees(facts)]
    joined = found_trees if is_drill else chains.joined(found_trees)
    trees = [_shared(_blinded(tree, lacking), facts) for tree in joined]
    verdicts = [] if is_drill else [*agent.verdicts(knee.until_the_knee(facts), ruler), *knee.verdicts(evidence, ruler)]
    judgements: list[Judgement] = []
    judged: list[Tree] = []
    memory = Memory()
    for tree in trees:
        try:
            found = tuple(judge(tree, reader, memory))
        except Exception as exc:  # the one broad except: evidence that we cannot judge is undecided, and says so
            verdicts += [_unjudged(step, exc) for step in tree.steps]
            continue
        judged.append(tree)
        judgements += found
        verdicts += [_verdict(judgement, facts, reader, ruler) for judgement in found]
    verdicts += alerts.verdicts(facts, reader) if is_drill else (*rtt.verdicts(reader), *pushed.verdicts(facts, reader))
    verdicts += _not_shown(evidence.info, {verdict.claim for verdict in verdicts}, reader)
    planted = tuple(_planted(judged, judgements, reader, chains, memory)) if control else ()
    return Findings(
        verdicts=tuple(verdicts),
        planted=planted,
        ruler=ruler,
        agent=agent.figures(facts),
        knee=knee.knee(evidence),
        status=_status(evidence.info.scenario, verdicts, planted),
    )


def _not_shown(info: RunInfo, told: Collection[str], reader: Reader) -> Iterator[Verdict]:
    """Required claims that nothing speaks of because the target shows nothing of them: a source that it has not, a rule that it has not."""
    for claim in filter(info.scenario.is_required, CLAIMS):
        if claim in told:
            continue
        gaps = (reader.gap(source) for source in CLAIMS[claim])
        reason = next((gap.reason for gap in gaps if gap is not None and gap.is_blind), None)
        is_asked = claim in (info.scenario.asked or info.scenario.requires)
        if reason is None and claim.endswith("/rule") and info.target != EMBEDDED and not is_asked:
            reason = "absent: the target has no recording rule of it"
        if reason is not None:
            yield Verdict(
                claim=claim,
                light=Light.MONITORING,
                status=Status.INCONCLUSIVE,
                hop=claim.partition("/")[2],
                sentence=f"blind: {reason}",
                says="-",
                may_say="-",
                would_catch="nothing",
                blind=reason,
            )


def _blinded(tree: Tree, lacking: Mapping[str, str]) -> Tree:
    """The tree of a target that has not all of its metrics or tables: its hops show nothing, for the reason that the target gives."""

    def why(step: Step) -> str | None:
        reads = step.reads or tree.reads
        return next(
            (reason for name, reason in lacking.items() if any(read == name or read.startswith(f"{name}_") for read in reads)), None
        )

    def blinded(step: Step) -> Step:
        reason = why(step)
        return step if reason is None else dataclasses.replace(step, read=lambda _: _blind(reason))

    return dataclasses.replace(tree, steps=tuple(blinded(step) for step in tree.steps)) if lacking else tree


def _shared(tree: Tree, facts: Facts) -> Tree:
    """The tree where others' calls are counted with ours: a counter says at least what ours make it say."""
    if facts.others is None:
        return tree
    steps = tuple(
        dataclasses.replace(step, admits=_at_least(step)) if step.source in (tree.root, *_DEEDS) and _is_of_series(step) else step
        for step in tree.steps
    )
    return dataclasses.replace(tree, steps=steps)


def _is_of_series(step: Step) -> bool:
    """It is judged on the agent's series, which do not say whose calls they count."""
    return step.claim.partition("/")[0] not in _OF_NOBODY and bool(
        {Source.AGENT_EXPORTER, Source.PROMETHEUS} & set(CLAIMS.get(step.claim, ()))
    )


def _at_least(step: Step) -> Callable[[Reading, Reader], Reading]:
    def admits(given: Reading, reader: Reader) -> Reading:
        admitted = step.admits(given, reader)
        parts = {key: Range(lo=thing.lo, hi=math.inf) if isinstance(thing, Range) else thing for key, thing in admitted.parts.items()}
        kinds = frozenset(key[0] for key in parts)
        return dataclasses.replace(admitted, parts=parts, may_add=admitted.may_add | kinds)

    return admits


def _blind(reason: str) -> Gap:
    return Gap(source=Source.PROMETHEUS, at=UnixNs(0), reason=reason, request="", is_blind=True)


def undecidable(scenario: Scenario, blind: Mapping[str, str]) -> tuple[str, ...]:
    """Why a plan can never decide what it requires; empty if it can."""
    reasons: list[str] = []
    limits = {
        "slo/ttfw-p50": scenario.slo.ttfw_p50_s,
        "slo/ttfw-p95": scenario.slo.ttfw_p95_s,
        "slo/missed-turns": scenario.slo.missed_turns,
        "slo/late-agents": scenario.slo.agent_join_s,
        "slo/missing-agents": scenario.slo.missing_agents,
        "slo/doubled-agents": scenario.slo.doubled_agents,
    }
    # A pattern asks for what this drill can show; a name asks for itself.
    if REAL_FAULTS in (scenario.asked or scenario.requires) and not scenario.is_required(REAL_FAULTS):
        reasons.append(f"{REAL_FAULTS}: only with --real-faults, which asks for it by itself")
    for claim in filter(scenario.is_required, CLAIMS):
        quantity = claim.partition("/")[0]
        if (quantity == "alerts") is not (scenario.drill is not None):
            reasons.append(
                f"{claim}: " + ("a drill places no calls" if scenario.drill else "only a drill breaks things; give the scenario one")
            )
            continue
        if claim == alerts.SILENT and scenario.drill is not None and not scenario.drill.near_misses:
            reasons.append(f"{claim}: the drill has no near misses")
        if not scenario.turns and quantity in ("turns", "ttfw", "tools"):
            reasons.append(f"{claim}: the scenario has no turns; give it one")
        elif quantity == "barge-ins" and not any(turn.barge_in_after_s for turn in scenario.turns):
            reasons.append(f"{claim}: no turn of the scenario barges in; give one barge_in_after_s")
        elif quantity == "tools" and not any(turn.tool for turn in scenario.turns):
            reasons.append(f"{claim}: no turn of the scenario provokes a tool; give one a tool")
        if claim in limits and limits[claim] is None:
            reasons.append(f"{claim}: the scenario's slo sets no such limit")
        if claim == knee.CLAIM and scenario.knee is None:
            reasons.append(f"{claim}: the scenario does not look for the knee; give it the key knee")
        # A pattern asks for what the target can show; a name asks for itself.
        if claim in (scenario.asked or scenario.requires):
            reasons += [f"{claim}: the target declares {source} blind: {blind[source]}" for source in CLAIMS[claim] if source in blind]
    return tuple(reasons)


def _verdict(judgement: Judgement, facts: Facts, reader: Reader, ruler: Ruler) -> Verdict:
    step, said = judgement.step, judgement.said
    status, sentence = _decided(judgement, facts, ruler)
    is_open = status is Status.INCONCLUSIVE
    return Verdict(
        claim=step.claim,
        light=step.light,
        status=status,
        hop=step.title,
        sentence=sentence,
        says="-" if said is None else step.show(said),
        may_say=step.show(judgement.admitted),
        would_catch="nothing" if said is None or is_open or judgement.admitted_defects else step.would_catch(judgement.admitted, said),
        is_faithful=judgement.is_faithful and status is Status.PASS,
        blind=judgement.gap.reason if judgement.gap is not None and judgement.gap.is_blind else None,
        because=judgement.admitted.because,
        effect=effects.effect(judgement, facts, reader) if status is Status.FAIL else None,
        evidence=tuple(effects.evidence(judgement, facts, reader, CLAIMS.get(step.claim, (Source.PANELS,)))),
        alpha=judgement.admitted.alpha,
    )


def _decided(judgement: Judgement, facts: Facts, ruler: Ruler) -> tuple[Status, str]:
    """The status of a claim, and why, in words."""
    step, said = judgement.step, judgement.said
    if said is None:
        assert judgement.gap is not None
        return Status.INCONCLUSIVE, _unread(judgement.gap)
    if not ruler.is_straight and judgement.since in _OURS:
        return Status.INCONCLUSIVE, f"our own measurement is in doubt: {ruler.bent}"
    if judgement.difference is not None:
        span = f" (somewhere between {judgement.since} and here: {step.source} could not be read)" if judgement.since != step.source else ""
        return Status.FAIL, _explained(judgement, said) + span
    # Theirs may stand in for one of ours that was lost.
    if facts.others is not None and _is_of_series(step) and judgement.since not in CLAIMS.keys() - _DEEDS:
        return Status.INCONCLUSIVE, facts.others
    if judgement.admitted_defects and not judgement.is_faithful:
        needs = f"; to decide it: {step.needs}" if step.needs else ""
        return Status.INCONCLUSIVE, f"this run would not have shown: {', '.join(judgement.admitted_defects)}{needs}"
    if facts.evidence.info.interrupted is not None:
        return Status.INCONCLUSIVE, f"nothing is wrong as far as the run went; it ended early: {facts.evidence.info.interrupted}"
    passed_on = "passed on, correctly, what an earlier hop got wrong: " if judgement.is_faithful else ""
    return Status.PASS, f"{passed_on}says {step.show(said)}, may say {step.show(judgement.admitted)}"


def _explained(judgement: Judgement, said: Reading) -> str:
    """The difference as a sentence; of alerts the first difference of each, since one alert is no likelier than the next to be the cause."""
    step, first = judgement.step, judgement.difference
    assert first is not None
    if not step.claim.startswith("alerts/"):
        return step.explain(first)
    by_alert = {each.key[1]: each for each in reversed(tuple(differences(judgement.admitted, said)))}
    return "; ".join(step.explain(each) for each in sorted(by_alert.values(), key=lambda each: each is not first))


def _unread(gap: Gap) -> str:
    return f"blind: {gap.reason}" if gap.is_blind else f"{gap.source} could not be read: {gap.reason}"


def _unjudged(step: Step, exc: Exception) -> Verdict:
    return Verdict(
        claim=step.claim,
        light=step.light,
        status=Status.INCONCLUSIVE,
        hop=step.title,
        sentence=f"voxproof itself failed over this evidence ({type(exc).__name__}: {exc}); please report it with the run directory",
        says="-",
        may_say="-",
        would_catch="nothing",
    )


def _planted(
    trees: Sequence[Tree], judgements: Sequence[Judgement], reader: Reader, chains: Chains, memory: Memory
) -> Iterator[PlantedLie]:
    """Each defect of each hop that passed, told by a copy of the observations: what turns red that was not red before."""
    red = {judgement.step.claim for judgement in judgements if judgement.status is Status.FAIL}
    for judgement in judgements:
        if judgement.status is not Status.PASS or judgement.is_faithful:
            continue
        for name in judgement.defects:
            so_far = len(reader.known)
            told = judgement.step.defects[name](reader)
            assert told is not None
            lie = chains.passed_on(reader, told)
            touched = reader.touched(lie)
            again = (each for tree in trees if tree.reads & touched for each in judge(tree, lie, memory, with_defects=False))
            caught = [each.step.claim for each in again if each.status is Status.FAIL and each.step.claim not in red]
            memory.forget()
            reader.forget(so_far)
            yield PlantedLie(claim=judgement.step.claim, defect=name, caught_at=tuple(caught))


def _status(scenario: Scenario, verdicts: Sequence[Verdict], planted: Sequence[PlantedLie]) -> Status:
    """FAIL if anything failed; else what the required claims are, and no better than undecided if a planted lie escaped its hop."""
    told = {verdict.claim: verdict for verdict in verdicts if verdict.blind is None}
    if any(verdict.status is Status.FAIL for verdict in told.values()):
        return Status.FAIL
    blind = {verdict.claim for verdict in verdicts if verdict.blind is not None}
    # Whoever gave no panels has none that could lie.
    has_panels = any(claim.endswith("/panel") for claim in told)
    required = [
        claim for claim in filter(scenario.is_required, CLAIMS) if claim not in blind and (has_panels or not claim.endswith("/panel"))
    ]
    statuses = [told[claim].status if claim in told else Status.INCONCLUSIVE for claim in required]
    if not all(lie.is_localised for lie in planted):
        statuses.append(Status.INCONCLUSIVE)
    return Status.worst(statuses)
