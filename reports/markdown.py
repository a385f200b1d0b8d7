"""``summary.md``: what a run showed, for the page of a CI job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.model import Evidence, Findings, Light, Status, Verdict
from reports import ledger, steps
from reports.cost import costs
from reports.headline import agent_line, agent_shown, headline, monitoring_shown, slo_words
from reports.words import offset, quantity, word

_SIGNS = {Status.PASS: "🟢", Status.FAIL: "🔴", Status.INCONCLUSIVE: "🟡"}


def summary(evidence: Evidence, findings: Findings, *, run: str | None = None, since: Mapping[str, str] | None = None) -> str:
    """GitHub-flavoured Markdown, ending in a newline. run: how a person names the run on the command line. since: see ``ledger.Run``."""
    named = ledger.Run.of(evidence, run, since)
    agent = ledger.light_status(evidence, findings, Light.AGENT)
    monitoring = ledger.light_status(evidence, findings, Light.MONITORING)
    lines = [
        f"## {_SIGNS[ledger.outcome(evidence, findings)]} {_cell(headline(evidence))}",
        "",
        "| light | | |",
        "|---|---|---|",
        *(
            ()
            if evidence.info.scenario.drill is not None
            else (
                f"| {_SIGNS[agent]} **agent** | {agent_shown(evidence, findings)} | {_cell(agent_line(findings))} · {slo_words(findings)} |",
            )
        ),
        f"| {_SIGNS[monitoring]} **monitoring** | {monitoring_shown(evidence, findings)} | {_judged(evidence, findings)} |",
        "",
        *_early(evidence),
        *_steps(findings),
        *_told(evidence, findings, named),
        *_ledger(findings),
        *_gaps(evidence),
        *((_text(f"Collecting cost {' · '.join(asked)}."), "") if (asked := costs(evidence)) else ()),
        f"Exit code {ledger.exit_code(evidence, findings)}. Check again: `voxproof check {named.name}`",
    ]
    return "\n".join(lines) + "\n"


def _judged(evidence: Evidence, findings: Findings) -> str:
    ruler = "ruler straight" if findings.ruler.is_straight else f"ruler bent: {findings.ruler.bent}"
    if evidence.info.scenario.drill is not None:
        ruler = "no caller"
    control = ledger.planted_sentence(findings.planted) if findings.planted else "none"
    return _cell(f"{ruler} · {len(findings.planted)} planted lies: {control}")


def _early(evidence: Evidence) -> Iterable[str]:
    for words in (evidence.info.interrupted and f"Ended early: {evidence.info.interrupted}", evidence.info.note):
        if words:
            yield _text(words)
            yield ""


def _steps(findings: Findings) -> Iterable[str]:
    if findings.knee is None:
        return
    yield "| " + " | ".join(steps.HEAD) + " |"
    yield "|" + "---|" * len(steps.HEAD)
    for row in steps.rows(findings.knee):
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"
    yield ""


def _told(evidence: Evidence, findings: Findings, run: ledger.Run) -> Iterable[str]:
    unsure = [one for one in ledger.undecided(findings) if ledger.is_required(evidence, one.claim)]
    for verdict in (*ledger.failed(findings), *unsure):
        yield f"### {word(verdict)} `{verdict.claim}`"
        yield ""
        yield _text(verdict.sentence)
        yield ""
        yield f"- says **{_text(verdict.says)}** at {_text(verdict.hop)}, may say **{_text(verdict.may_say)}**"
        if verdict.effect is not None:
            yield f"- effect: {_text(verdict.effect)}"
        if told := run.since.get(verdict.claim):
            yield f"- since: {_text(told)}"
        if heard := ledger.moments(verdict):
            yield f"- hear: `{heard[0].path}` at {offset(heard[0].at_s)}"
        yield f"- repeat: `{run.explain(verdict.claim)}`"
        yield ""
    for claim in ledger.unjudged(evidence, findings):
        yield f"### undecided `{claim}`"
        yield ""
        yield "The scenario requires it and nothing judged it."
        yield ""


def _ledger(findings: Findings) -> Iterable[str]:
    yield f"<details><summary>The ledger: {len(findings.verdicts)} claims</summary>"
    yield ""
    yield "| quantity | hop | says | may say | would catch | verdict |"
    yield "|---|---|---|---|---|---|"
    for verdict in findings.verdicts:
        yield _row(verdict)
    yield ""
    yield "</details>"
    yield ""


def _row(verdict: Verdict) -> str:
    said = word(verdict)
    shown = {"FAIL": "**FAIL**", "blind": f"blind: {verdict.blind}"}.get(said, said)
    cells = (quantity(verdict.claim), verdict.hop, verdict.says, verdict.may_say, verdict.would_catch, shown)
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _gaps(evidence: Evidence) -> Iterable[str]:
    for lost in ledger.losses(evidence):
        yield f"- not read {lost.when}: {lost.source}, {_text(lost.reason)}"
    if evidence.gaps:
        yield ""


def _text(text: str) -> str:
    """As it is, in Markdown: no tag, no table, no emphasis by accident."""
    for character in "\\`*_<>[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def _cell(text: str) -> str:
    if text.startswith("**"):
        return text
    return _text(text).replace("|", "\\|")
