"""One self-contained HTML file of a run: no request leaves it, recordings included."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from harness.model import (
    CallOutcome,
    CallRecord,
    Evidence,
    Findings,
    Light,
    Status,
    Verdict,
    WireStats,
)
from reports import ledger, network, steps
from reports.alerts import drawings
from reports.cost import costs
from reports.distribution import distribution
from reports.headline import agent_shown, duration, monitoring_shown, size, slo_words
from reports.timeline import drawing
from reports.words import instant, milliseconds, offset, plural, quantity, seconds, word

MOST_CALLS = 40
"""Calls drawn in one page: beyond, those that a claim points to or that went wrong come first."""
_TONES = {"ok": "good", "FAIL": "bad", "faithful": "unsure", "undecided": "unsure", "blind": "blind", "truth": "good"}
_LIGHT_TONES = {Status.PASS: "good", Status.FAIL: "bad", Status.INCONCLUSIVE: "unsure"}
_ICON_COLORS = {Status.PASS: "17734a", Status.FAIL: "b92d17", Status.INCONCLUSIVE: "8f5c00"}
_DERIVED = (
    *("scrape_interval_s", "scrape_interval_s_by_job", "evaluation_interval_s", "lookback_s", "time_scale", "changes"),
    *("prometheus_version", "prometheus_flavour", "rules_window_s", "lacking", "protocol"),
)
"""Settings that ``changes`` tells already, or that the judgement alone needs."""


def page(
    evidence: Evidence,
    findings: Findings,
    audio: Mapping[str, bytes] | None = None,
    *,
    run: str | None = None,
    since: Mapping[str, str] | None = None,
) -> str:
    """The page as text.

    audio: Ogg/Opus bytes by ``CallRecord.audio``; a recording without bytes becomes a link beside the page.
    run: how a person names the run on the command line. since: see ``ledger.Run``.
    """
    info, named = evidence.info, ledger.Run.of(evidence, run, since)
    status = ledger.outcome(evidence, findings)
    wrong = ledger.failed(findings)
    unsure = tuple(one for one in ledger.undecided(findings) if ledger.is_required(evidence, one.claim))
    carded = {one.claim for one in (*wrong, *unsure)}
    calls = _calls_to_draw(evidence, (*wrong, *unsure))
    budget = evidence.calibration
    return _template().render(
        css=_file("page.css"),
        js=_file("page.js"),
        info=info,
        findings=findings,
        run=named,
        size=size(evidence),
        started=instant(info.started_at),
        duration=duration(evidence),
        status_word={Status.PASS: "ok", Status.FAIL: "FAIL", Status.INCONCLUSIVE: "undecided"}[status],
        icon_color=_ICON_COLORS[status],
        exit_code=ledger.exit_code(evidence, findings),
        exit_tone=_LIGHT_TONES[status],
        agent=_agent(evidence, findings),
        monitoring=_monitoring(evidence, findings, carded),
        ruler=_ruler(evidence, findings),
        control=_control(findings),
        wrong=[_card(one, evidence, findings, named) for one in wrong],
        open_claims=[_card(one, evidence, findings, named) for one in unsure],
        unjudged=ledger.unjudged(evidence, findings),
        groups=[
            {"title": group.title, "claims": [_claim(one, carded) for one in group.verdicts]} for group in ledger.groups(findings.verdicts)
        ],
        steps=None if findings.knee is None else {"head": steps.HEAD, "rows": steps.rows(findings.knee)},
        distribution=distribution(evidence, findings.agent.ttfw_p95_s),
        budget=None if budget is None else f"{budget.lo_s * 1000:.0f} to {budget.hi_s * 1000:.0f} ms",
        alerts=drawings(evidence),
        calls=_calls(evidence, calls, (*wrong, *unsure), audio or {}),
        calls_left_out=_left_out(evidence, calls),
        settings=_settings(info.settings),
        costs=costs(evidence),
        losses=ledger.losses(evidence),
        blind=ledger.blind(findings),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)
    return environment.from_string((resources.files("reports") / "page" / "page.html.j2").read_text(encoding="utf-8"))


@cache
def _file(name: str) -> Any:
    """A file of the page, put in as it is: ours, so it needs no escaping."""
    from markupsafe import Markup

    return Markup((resources.files("reports") / "page" / name).read_text(encoding="utf-8"))


def _anchor(claim: str) -> str:
    return claim.replace("/", "-").replace(" ", "-")


def _agent(evidence: Evidence, findings: Findings) -> dict[str, Any]:
    agent = findings.agent
    figures = [
        ("calls answered", f"{agent.answered}/{agent.calls}"),
        ("TTFW heard, p50", seconds(agent.ttfw_p50_s)),
        ("p95", seconds(agent.ttfw_p95_s)),
    ]
    if agent.missed:
        figures.append(("turns without reply", f"{agent.missed}/{agent.turns}"))
    return {
        "tone": _LIGHT_TONES[ledger.light_status(evidence, findings, Light.AGENT)],
        "shown": agent_shown(evidence, findings),
        "figures": figures,
        "told": f"What callers heard. {slo_words(findings).removeprefix('slo: ').capitalize()} of the limits you set."
        if any(one.claim.startswith("slo/") for one in findings.verdicts)
        else "What callers heard. No limits are set (slo: in the scenario).",
    }


def _monitoring(evidence: Evidence, findings: Findings, carded: set[str]) -> dict[str, Any]:
    judged = [one for one in ledger.of_light(findings, Light.MONITORING) if one.blind is None]
    kinds = [word(one) for one in judged]
    lines: list[dict[str, str | None]] = []
    wrong = [one for one in judged if word(one) == "FAIL"] or [one for one in judged if one.claim in carded]
    for one in wrong[:3]:
        place = f"{quantity(one.claim)} at {one.hop}: " + (
            f"says {one.says}, may say {one.may_say}" if word(one) == "FAIL" else "undecided"
        )
        lines.append({"anchor": _anchor(one.claim), "text": place, "effect": one.effect})
    told = [f"{plural(len(judged), 'claim')} judged", f"{kinds.count('FAIL')} failed"]
    if faithful := kinds.count("faithful"):
        told.append(f"{faithful} faithful to a false input")
    if unsure := kinds.count("undecided"):
        told.append(f"{unsure} undecided")
    lines.append({"anchor": None, "effect": None, "text": ", ".join(told) + "."})
    return {
        "tone": _LIGHT_TONES[ledger.light_status(evidence, findings, Light.MONITORING)],
        "shown": monitoring_shown(evidence, findings),
        "lines": lines,
    }


def _ruler(evidence: Evidence, findings: Findings) -> dict[str, Any]:
    ruler = findings.ruler
    lines = [f"{ruler.void_turns} of {plural(ruler.turns, 'turn')} void"]
    for one in evidence.health:
        late = f", {plural(len(one.late), 'late interval')}" if one.late else ""
        lines.append(
            f"{one.process}: pacing p99 {one.pacing_p99_ms:.1f} ms, worst {one.pacing_max_ms:.1f} ms{late}; {one.priority}; "
            f"{one.engine} engine; {one.cpu_s:.1f} s CPU; {one.receive_drops} datagrams dropped; {plural(one.clock_steps, 'clock step')}"
        )
    if (calibration := evidence.calibration) is not None:
        lines.append(
            f"TTFW heard - reported: {milliseconds(calibration.lo_s)} to {milliseconds(calibration.hi_s)}, "
            f"calibrated {calibration.made_at} ({calibration.method}; sha256:{calibration.digest[:12]})"
        )
        lines += [f"{part.name}: {milliseconds(part.lo_s)} to {milliseconds(part.hi_s)}, {part.because}" for part in calibration.parts]
    return {"tone": "good" if ruler.is_straight else "unsure", "shown": "straight" if ruler.is_straight else "bent", "lines": lines}


def _control(findings: Findings) -> dict[str, str]:
    if not findings.planted:
        return {"tone": "unsure", "shown": "none planted"}
    tone = {"ok": "good", "not localised": "unsure", "NOT SHOWN": "bad"}[ledger.control(findings.planted)]
    return {"tone": tone, "shown": f"{len(findings.planted)} planted, {ledger.planted_sentence(findings.planted)}"}


def _claim(verdict: Verdict, carded: set[str]) -> dict[str, Any]:
    said = word(verdict)
    return {
        "verdict": verdict,
        "word": said,
        "tone": _TONES[said],
        "anchor": _anchor(verdict.claim) if verdict.claim in carded else None,
    }


def _card(verdict: Verdict, evidence: Evidence, findings: Findings, run: ledger.Run) -> dict[str, Any]:
    heard = []
    for moment in ledger.moments(verdict):
        record = ledger.call_of(evidence, moment.path)
        if record is not None:
            index = record.plan.index
            heard.append({"anchor": f"call-{index}", "at_s": moment.at_s, "label": f"call-{index} at {offset(moment.at_s)}"})
    return _claim(verdict, {verdict.claim}) | {
        "path": [
            {"name": step.name, "word": step.word, "says": step.says, "is_judged_here": step.is_judged_here, "tone": _TONES[step.word]}
            for step in ledger.path_of(findings, verdict)
        ],
        "moments": heard,
        "requests": ledger.requests(verdict),
        "repeat": run.explain(verdict.claim),
        "since": run.since.get(verdict.claim),
    }


def _calls_to_draw(evidence: Evidence, told: Iterable[Verdict]) -> tuple[CallRecord, ...]:
    pointed = {moment.path for verdict in told for moment in ledger.moments(verdict)}

    def rank(record: CallRecord) -> tuple[bool, int]:
        return (record.audio not in pointed and record.outcome is CallOutcome.COMPLETED, record.plan.index)

    chosen = sorted(evidence.records, key=rank)[:MOST_CALLS]
    return tuple(sorted(chosen, key=lambda record: record.plan.index))


def _calls(
    evidence: Evidence, records: tuple[CallRecord, ...], told: Iterable[Verdict], audio: Mapping[str, bytes]
) -> list[dict[str, Any]]:
    marks: dict[str, list[tuple[float, str]]] = {}
    for verdict in told:
        for moment in ledger.moments(verdict):
            marks.setdefault(moment.path, []).append((moment.at_s, verdict.claim))
    shown = []
    for number, record in enumerate(records):
        here = marks.get(record.audio or "", [])
        opus = audio.get(record.audio or "")
        shown.append(
            {
                "index": record.plan.index,
                "tone": "good" if record.outcome is CallOutcome.COMPLETED else "bad",
                "outcome": record.outcome.value,
                "told": _told(record),
                "error": record.error,
                "is_open": bool(here) or record.outcome is not CallOutcome.COMPLETED or (number == 0 and not marks),
                "drawing": drawing(evidence, record, here),
                "audio": None if opus is None else "data:audio/ogg;base64," + base64.b64encode(opus).decode("ascii"),
                "recording": record.audio,
                "wire": [*network.of_call(record), *(_wire(one) for one in record.wire)],
            }
        )
    return shown


def _told(record: CallRecord) -> str:
    heard = [turn.response_latency_s for turn in record.turns]
    latencies = ", ".join(seconds(one, missing="no reply") for one in heard)
    return f"{len(heard)} of {plural(len(record.plan.turns), 'turn')} spoken" + (f" · TTFW heard {latencies}" if heard else "")


def _wire(stats: WireStats) -> str:
    name = {"up": "caller to SFU", "down": "SFU to caller"}.get(stats.direction, stats.direction)
    told = [f"{stats.packets} packets", f"{stats.lost} lost"]
    if stats.jitter_s is not None:
        told.append(f"jitter {stats.jitter_s * 1000:.1f} ms")
    if stats.rtt_s:
        told.append(f"RTT {min(stats.rtt_s) * 1000:.1f} to {max(stats.rtt_s) * 1000:.1f} ms")
    return f"{name}: {', '.join(told)}"


def _left_out(evidence: Evidence, drawn: tuple[CallRecord, ...]) -> str | None:
    left = len(evidence.records) - len(drawn)
    return f"{plural(left, 'call')} more in the run directory; none of them went wrong." if left > 0 else None


def _settings(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """What differs from production: ``changes`` as ``setting: production -> here``, then whatever else the stack says of itself."""
    rows = []
    for change in settings.get("changes", ()):
        name, _, values = str(change).rpartition(": ")
        production, _, here = values.partition(" -> ")
        rows.append({"name": name, "production": production, "here": here})
    rows += [{"name": name, "production": "-", "here": str(entry)} for name, entry in settings.items() if name not in _DERIVED]
    return rows
