"""JUnit XML."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from harness.model import Status
from reports.junit import xml
from tests.fakes.evidence import evidence, findings, healthy, info, lying, undecided, verdict


def cases(text: str) -> dict[str, str]:
    """Outcome of each test case: the name of its first child that is not output."""
    outcomes = {}
    for case in ET.fromstring(text).iter("testcase"):
        kinds = [child.tag for child in case if child.tag != "system-out"]
        outcomes[f"{case.get('classname')}/{case.get('name')}"] = kinds[0] if kinds else "passed"
    return outcomes


def test_the_two_lights_are_two_classes() -> None:
    """CI shows which of the two questions went red."""
    assert {name.split("/")[0] for name in cases(xml(*healthy()))} == {"voxproof.agent", "voxproof.monitoring"}


def test_a_failed_claim_is_a_failure_and_the_faithful_ones_pass() -> None:
    """One defect, one red line."""
    outcomes = cases(xml(*lying()))

    assert [name for name, outcome in outcomes.items() if outcome == "failure"] == ["voxproof.monitoring/ttfw/exporter"]
    assert outcomes["voxproof.monitoring/ttfw/rule"] == "passed"


def test_a_required_claim_that_is_undecided_is_an_error() -> None:
    """A skipped test would look green."""
    assert cases(xml(*undecided()))["voxproof.monitoring/ttfw/samples"] == "error"


def test_what_lies_outside_the_exit_code_is_skipped() -> None:
    """Blind, and undecided without being required."""
    outcomes = cases(xml(evidence(), findings([verdict("sfu/rooms", Status.INCONCLUSIVE)])))

    assert outcomes["voxproof.monitoring/sfu/rooms"] == "skipped"
    assert cases(xml(*healthy()))["voxproof.monitoring/rtt/exporter"] == "skipped"


def test_a_planted_lie_that_was_not_caught_is_an_error() -> None:
    """The green of its claim shows nothing."""
    evidence_, found = healthy()
    missed = replace(found.planted[0], caught_at=())

    assert cases(xml(evidence_, replace(found, planted=(missed,))))["voxproof.monitoring/control/calls/rows: row lost"] == "error"


def test_counts_are_of_the_cases() -> None:
    """On the suites and on the whole."""
    root = ET.fromstring(xml(*lying()))

    assert root.get("tests") == str(len(list(root.iter("testcase"))))
    assert (root.get("failures"), root.get("errors"), root.get("skipped")) == ("1", "0", "1")


def test_what_xml_forbids_is_replaced() -> None:
    """A control character from a row does not break the file."""
    text = xml(evidence(), findings([verdict("turns/rows", Status.FAIL, says="\x00\x1b[31m")]))

    assert cases(text)["voxproof.monitoring/turns/rows"] == "failure"


def test_a_run_that_ended_early_is_an_error() -> None:
    """Whatever it had judged until then."""
    _, found = healthy()

    assert cases(xml(evidence(info=info(interrupted="Ctrl-C")), found))["voxproof.monitoring/run/complete"] == "error"
