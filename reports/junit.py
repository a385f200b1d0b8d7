"""JUnit XML: one class for each light, so that CI shows which of the two questions went red.

A claim that the scenario requires and that could not be decided is an ``error``: CI systems paint ``skipped`` green or grey, and a night
on which nothing was shown must not look like a night on which all was well. An undecided claim that nobody requires, and a blind one,
lie outside the exit code and are ``skipped``, with their reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from harness.model import Evidence, Findings, Light, Verdict
from reports import ledger, steps
from reports.words import since as elapsed_s
from reports.words import word

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml(evidence: Evidence, findings: Findings, *, since: Mapping[str, str] | None = None) -> str:
    """The whole run as ``<testsuites>``, ending in a newline. since: by claim that failed, see ``ledger.Run``."""
    info = evidence.info
    root = ET.Element("testsuites", name=f"voxproof {info.scenario.name}")
    for light in Light:
        suite = ET.SubElement(root, "testsuite", name=f"voxproof.{light}")
        suite.set("timestamp", datetime.fromtimestamp(info.started_at / 1e9, tz=UTC).isoformat(timespec="seconds"))
        if info.read_at is not None:
            suite.set("time", f"{elapsed_s(info.started_at, info.read_at):.3f}")
        _properties(suite, evidence)
        for verdict in ledger.of_light(findings, light):
            _judged(suite, evidence, verdict, (since or {}).get(verdict.claim))
        if light is Light.AGENT:
            _steps(suite, findings)
        if light is Light.MONITORING:
            _unjudged(suite, evidence, findings)
            _early(suite, evidence)
            _control(suite, findings)
        _count(suite)
    _count(root)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _properties(suite: ET.Element, evidence: Evidence) -> None:
    info = evidence.info
    properties = ET.SubElement(suite, "properties")
    told = {"run": info.run_id, "scenario": info.scenario.name, "seed": str(info.scenario.seed), "target": info.target}
    told |= {f"part.{part.name}": part.version for part in info.parts}
    if info.defect is not None:
        told["seeded_defect"] = info.defect
    for name, text in told.items():
        ET.SubElement(properties, "property", name=name, value=_clean(text))


def _judged(suite: ET.Element, evidence: Evidence, verdict: Verdict, since: str | None) -> None:
    case = _case(suite, verdict.claim)
    match word(verdict):
        case "FAIL":
            _say(case, "failure", f"{verdict.sentence}; {since}" if since else verdict.sentence, "differs", _details(verdict))
        case "blind":
            _say(case, "skipped", f"blind: {verdict.blind}")
        case "undecided" if ledger.is_required(evidence, verdict.claim):
            _say(case, "error", verdict.sentence, "undecided", _details(verdict))
        case "undecided":
            _say(case, "skipped", f"undecided, not required: {verdict.sentence}")
        case said:
            out = ET.SubElement(case, "system-out")
            out.text = _clean(f"{said}: {verdict.sentence}\n{_details(verdict)}")


def _steps(suite: ET.Element, findings: Findings) -> None:
    """Each step of a search for the knee: what it showed. That one broke a limit is what was looked for, and no failure."""
    for row in steps.rows(findings.knee) if findings.knee else ():
        out = ET.SubElement(_case(suite, f"load/step {row[0]}: {row[1]} calls/s"), "system-out")
        out.text = _clean("\n".join(f"{name}: {cell}" for name, cell in zip(steps.HEAD, row, strict=True)))


def _unjudged(suite: ET.Element, evidence: Evidence, findings: Findings) -> None:
    for claim in ledger.unjudged(evidence, findings):
        _say(_case(suite, claim), "error", "the scenario requires it and nothing judged it", "undecided")


def _early(suite: ET.Element, evidence: Evidence) -> None:
    """A run that ended early is not green, whatever it judged until then."""
    if evidence.info.interrupted is not None:
        _say(_case(suite, "run/complete"), "error", f"ended early: {evidence.info.interrupted}", "interrupted", evidence.info.note)


def _control(suite: ET.Element, findings: Findings) -> None:
    """Planted lies: one that was not caught at its own hop is an error, since the green of its claim then shows nothing."""
    for lie in findings.planted:
        case = _case(suite, f"control/{lie.claim}: {lie.defect}")
        if not lie.is_caught:
            where = ", ".join(lie.caught_at) or "no claim"
            _say(case, "error", f"planted at {lie.claim}, turned red: {where}", "control")


def _case(suite: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=suite.get("name", ""), name=name)


def _say(case: ET.Element, kind: str, message: str, type_: str | None = None, text: str | None = None) -> None:
    element = ET.SubElement(case, kind, message=_clean(message))
    if type_ is not None:
        element.set("type", type_)
    if text is not None:
        element.text = _clean(text)


def _details(verdict: Verdict) -> str:
    lines = [f"says {verdict.says}", f"may say {verdict.may_say}", f"would catch {verdict.would_catch}", f"at {verdict.hop}"]
    lines += [f"because {reason}" for reason in verdict.because]
    if verdict.effect is not None:
        lines.append(f"effect: {verdict.effect}")
    lines += verdict.evidence
    return "\n".join(lines)


def _count(element: ET.Element) -> None:
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(kind) is not None for case in cases)))


def _clean(text: str) -> str:
    """Without the characters that XML 1.0 forbids."""
    return _NOT_XML.sub("�", text)
