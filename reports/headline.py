"""The sentences that open every report: what was run, and how the agent did."""

from __future__ import annotations

from harness.model import Evidence, Findings, Status
from reports.words import plural, seconds, since


def headline(evidence: Evidence) -> str:
    """Version, scenario, size, seed, run and duration in one line."""
    info = evidence.info
    turns = len(info.scenario.turns)
    parts = [
        f"voxproof {info.harness_version}",
        info.scenario.name,
        f"{plural(info.scenario.calls, 'call')} x {plural(turns, 'turn')}",
        f"seed {info.scenario.seed}",
        f"run {info.run_id}",
    ]
    if info.read_at is not None:
        parts.append(f"{since(info.started_at, info.read_at):.0f} s")
    if info.defect is not None:
        parts.append(f"seeded on purpose: {info.defect}")
    return " · ".join(parts)


def agent_line(evidence: Evidence, findings: Findings) -> str:
    """How the agent did, on what callers heard."""
    agent = findings.agent
    heard = f"TTFW heard p50 {seconds(agent.ttfw_p50_s)}  p95 {seconds(agent.ttfw_p95_s)}"
    missed = f" · {plural(agent.missed, 'turn')} without reply" if agent.missed else ""
    return f"answered {agent.answered}/{agent.calls} · {heard}{missed}"


def slo_words(evidence: Evidence, findings: Findings) -> str:
    """Whether the user's limits on the agent were kept."""
    limits = [verdict for verdict in findings.verdicts if verdict.claim.startswith("slo/")]
    if not limits:
        return "slo: none set"
    kept = sum(verdict.status is Status.PASS for verdict in limits)
    return f"slo: {kept} of {len(limits)} kept"
