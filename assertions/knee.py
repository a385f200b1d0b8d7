"""The system's knee: the arrival rate at which the ``slo`` first breaks, told apart from the limit of our own generator. Pure.

The scenario raises its rate step by step. Each step is judged by itself on what callers heard; the knee lies between the highest rate up to which
all steps held and the one that broke first. Where our own side fell short by then (no free caller, void turns, a bent ruler), what broke may be
ours: undecided.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from assertions import agent
from assertions.facts import Facts
from assertions.ruler import VOID_RATIO
from assertions.words import plural
from harness.model import (
    CallOutcome,
    CallPlan,
    CallRecord,
    Evidence,
    Knee,
    KneeSearch,
    Light,
    LoadStep,
    Ruler,
    Slo,
    Status,
    UnixNs,
    Verdict,
)

CLAIM = "load/knee"


def knee(evidence: Evidence) -> Knee | None:
    """What each step showed, and where the limits broke. None: the scenario looks for no knee."""
    scenario = evidence.info.scenario
    if scenario.knee is None:
        return None
    return found(scenario.arrival, scenario.slo, evidence.records)


def found(arrival: Mapping[str, Any], slo: Slo, records: Sequence[CallRecord]) -> Knee:
    """arrival: of the model ``step``. records: of calls that have ended; steps of which there are none yet are left out."""
    steps = tuple(_steps(arrival, slo, records))
    first = next((number for number, step in enumerate(steps) if step.broken), len(steps))
    return Knee(
        steps=steps,
        held_per_s=steps[first - 1].per_s if first else None,
        broke_per_s=steps[first].per_s if first < len(steps) else None,
    )


def step_of(plan: CallPlan, arrival: Mapping[str, Any]) -> int:
    """Number of the step in which a call is due, from 0."""
    # A call that is due when a step begins is due there, whatever floats say.
    return int(plan.due_s / arrival["every_s"] + 1e-9)


def verdicts(evidence: Evidence, ruler: Ruler) -> Iterator[Verdict]:
    """One, if the scenario looks for the knee."""
    search, at = evidence.info.scenario.knee, knee(evidence)
    if search is None or at is None:
        return
    status, sentence = _decided(at, search, ruler, evidence.info.interrupted)
    yield Verdict(
        claim=CLAIM,
        light=Light.AGENT,
        status=status,
        hop="arrival rate that breaks the slo",
        sentence=sentence,
        says=_interval(at),
        may_say="any" if search.at_least_per_s is None else f"above {_rate(search.at_least_per_s)}",
        would_catch="nothing" if search.at_least_per_s is None else f"a knee at or below {_rate(search.at_least_per_s)}",
        because=tuple(told(step) for step in at.steps),
    )


def until_the_knee(facts: Facts) -> Facts:
    """Calls and turns of the steps that held: what is judged beside the knee itself is judged there. All of them if no knee is looked for."""
    at, arrival, began_at = knee(facts.evidence), facts.evidence.info.scenario.arrival, _began_at(facts.records)
    if at is None or began_at is None:
        return facts
    held = sum(1 for _ in itertools.takewhile(lambda step: not step.broken, at.steps))
    until = began_at + round(held * arrival["every_s"] * 1e9)
    records = tuple(
        dataclasses.replace(record, turns=tuple(turn for turn in record.turns if turn.user_speech_ended_at < until))
        for record in facts.records
        if step_of(record.plan, arrival) < held
    )
    plans = tuple(record.plan for record in records)
    return dataclasses.replace(facts, evidence=dataclasses.replace(facts.evidence, records=records, plans=plans))


def told(step: LoadStep) -> str:
    """One step as a line."""
    seen = step.figures
    latency = "no reply measured" if seen.ttfw_p95_s is None else f"TTFW p50 {seen.ttfw_p50_s:.2f} s, p95 {seen.ttfw_p95_s:.2f} s"
    how = "; ".join(step.broken) if step.broken else "held"
    bent = f"; our own load bent: {step.bent}" if step.bent else ""
    calls = f"{seen.answered} of {plural(seen.calls, 'call')} answered, {step.at_once} at once"
    return f"step {step.number}, {_rate(step.per_s)}: {calls}, {latency}: {how}{bent}"


def _decided(at: Knee, search: KneeSearch, ruler: Ruler, interrupted: str | None) -> tuple[Status, str]:
    passed = tuple(step for step in at.steps if at.broke_per_s is None or step.per_s <= at.broke_per_s)
    bent = next((f"step {step.number}: {step.bent}" for step in passed if step.bent), ruler.bent)
    held = "no step" if at.held_per_s is None else f"every step up to {_rate(at.held_per_s)}"
    if bent is not None:
        return Status.INCONCLUSIVE, f"the generator's own limit, the knee was not reached: {bent}; the slo held in {held}"
    if at.broke_per_s is None:
        if search.at_least_per_s is not None and at.held_per_s is not None and at.held_per_s >= search.at_least_per_s:
            return Status.PASS, f"the slo held in {held}, wanted {_rate(search.at_least_per_s)}; the knee lies higher"
        early = f"; the run ended early: {interrupted}" if interrupted else "; plan more steps"
        return Status.INCONCLUSIVE, f"the slo held in {held}, the knee lies higher{early}"
    broke = next(step for step in at.steps if step.per_s == at.broke_per_s)
    sentence = f"the slo first breaks {_interval(at)} ({broke.at_once} calls at once): {'; '.join(broke.broken)}"
    if search.at_least_per_s is not None and at.broke_per_s <= search.at_least_per_s:
        return Status.FAIL, f"{sentence}; it must hold up to {_rate(search.at_least_per_s)}"
    if at.held_per_s is None:
        return Status.INCONCLUSIVE, f"{sentence}; that was the first step: begin lower"
    return Status.PASS, sentence


def _steps(arrival: Mapping[str, Any], slo: Slo, records: Sequence[CallRecord]) -> Iterator[LoadStep]:
    began_at = _began_at(records)
    by_step = {step: tuple(calls) for step, calls in itertools.groupby(records, key=lambda record: step_of(record.plan, arrival))}
    if began_at is None or not by_step:
        return
    every_ns = round(arrival["every_s"] * 1e9)
    for step in range(max(by_step) + 1):
        since = UnixNs(began_at + step * every_ns)
        until = UnixNs(since + every_ns)
        calls = by_step.get(step, ())
        turns = [turn for record in records for turn in record.turns if since <= turn.user_speech_ended_at < until]
        figures, void = agent.figures_of(calls, turns), sum(turn.void is not None for turn in turns)
        yield LoadStep(
            number=step + 1,
            per_s=round(arrival["calls_per_s"] + step * arrival["add_per_s"], 9),
            at_once=_at_once(records, since, until),
            figures=figures,
            void=void,
            broken=agent.broken(slo, figures),
            bent=_bent(calls, void, len(turns)),
        )


def _began_at(records: Sequence[CallRecord]) -> UnixNs | None:
    """When the load began: no call was placed before it was due."""
    return min(
        (UnixNs(record.placed_at - round(record.plan.due_s * 1e9)) for record in records if record.placed_at is not None), default=None
    )


def _at_once(records: Sequence[CallRecord], since: UnixNs, until: UnixNs) -> int:
    spans = [(record.placed_at, record.left_at or until) for record in records if record.placed_at is not None]
    moments = [since, *(placed_at for placed_at, _ in spans if since <= placed_at < until)]
    return max(sum(placed_at <= moment < left_at for placed_at, left_at in spans) for moment in moments)


def _bent(calls: Sequence[CallRecord], void: int, turns: int) -> str | None:
    dropped = sum(record.outcome is CallOutcome.DROPPED for record in calls)
    if dropped:
        return f"{plural(dropped, 'call')} found no free caller, limit 0"
    if cut := sum(record.outcome in agent.OURS for record in calls):
        return f"{plural(cut, 'call')} ended on our side, limit 0"
    if void > VOID_RATIO * turns:
        return f"{void} of {turns} turns are void, limit {VOID_RATIO:.0%}"
    return None


def _interval(at: Knee) -> str:
    if at.broke_per_s is None:
        return "nowhere" if at.held_per_s is None else f"above {_rate(at.held_per_s)}"
    if at.held_per_s is None:
        return f"at or below {_rate(at.broke_per_s)}"
    return f"between {at.held_per_s:g} and {_rate(at.broke_per_s)}"


def _rate(per_s: float) -> str:
    return f"{per_s:g} calls/s"
