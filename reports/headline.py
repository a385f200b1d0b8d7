"""The sentences that open every report: what was run, and what the two lights show."""

from __future__ import annotations

from harness.model import Evidence, Findings, Light, Status
from reports import ledger
from reports.words import plural, seconds, since

AGENT_LIMITS = frozenset({"slo/late-agents", "slo/missing-agents", "slo/doubled-agents"})


def headline(evidence: Evidence) -> str:
    """Version, scenario, size, seed, run and duration in one line."""
    info = evidence.info
    parts = [f"voxproof {info.harness_version}", info.scenario.name, size(evidence), f"seed {info.scenario.seed}", f"run {info.run_id}"]
    if (took := duration(evidence)) is not None:
        parts.append(took)
    if info.defect is not None:
        parts.append(f"seeded on purpose: {info.defect}")
    return " · ".join(parts)


def size(evidence: Evidence) -> str:
    """``3 calls x 3 turns``, or ``6 cycles of every alert``."""
    scenario = evidence.info.scenario
    if scenario.drill is not None:
        return f"{plural(scenario.drill.cycles, 'cycle')} of every alert"
    return f"{plural(scenario.calls, 'call')} x {plural(len(scenario.turns), 'turn')}"


def duration(evidence: Evidence) -> str | None:
    """From the start of the run to the end of reading. None if it never got there."""
    info = evidence.info
    return None if info.read_at is None else f"{since(info.started_at, info.read_at):.0f} s"


def agent_line(findings: Findings) -> str:
    """How the agent did, on what callers heard."""
    agent = findings.agent
    heard = f"TTFW heard p50 {seconds(agent.ttfw_p50_s)}  p95 {seconds(agent.ttfw_p95_s)}"
    missed = f" · {plural(agent.missed, 'turn')} without reply" if agent.missed else ""
    return f"answered {agent.answered}/{agent.calls} · {heard}{missed}{_agents(findings)}"


def _agents(findings: Findings) -> str:
    """Agents that were missing, doubled or slowest, where a limit asks for it, or one was missing or doubled."""
    agent = findings.agent
    is_asked = any(verdict.claim in AGENT_LIMITS for verdict in findings.verdicts)
    told = [f"joined by {seconds(agent.joined_max_s)}"] if is_asked and agent.joined_max_s is not None else []
    told += [f"{count} {how}" for count, how in ((agent.missing, "missing"), (agent.doubled, "doubled")) if count or is_asked]
    return f" · agents {', '.join(told)}" if told else ""


def slo_words(findings: Findings) -> str:
    """Whether the user's limits on the agent were kept."""
    limits = [verdict for verdict in findings.verdicts if verdict.claim.startswith("slo/")]
    if not limits:
        return "slo: none set"
    kept = sum(verdict.status is Status.PASS for verdict in limits)
    return f"slo: {kept} of {len(limits)} kept"


def agent_shown(evidence: Evidence, findings: Findings) -> str:
    """What the agent's light shows, in words that stand for themselves."""
    agent = findings.agent
    match ledger.light_status(evidence, findings, Light.AGENT):
        case Status.INCONCLUSIVE:
            return "undecided"
        case Status.PASS:
            return "answered every call" if slo_words(findings) == "slo: none set" else "keeps its limits"
        case Status.FAIL:
            return (
                f"left {plural(agent.calls - agent.answered, 'call')} unanswered" if agent.answered < agent.calls else "breaks its limits"
            )


def monitoring_shown(evidence: Evidence, findings: Findings) -> str:
    """What the monitoring's light shows."""
    match ledger.light_status(evidence, findings, Light.MONITORING):
        case Status.INCONCLUSIVE:
            return "undecided"
        case Status.PASS:
            return "tells the truth"
        case Status.FAIL:
            return "does not tell the truth"
