"""Recorded runs of the real stack, judged again: each defect is red at its hop, a healthy run is green."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from harness import rundir
from harness.check import check
from harness.model import Findings, Status
from harness.stack import breakage

RUNS = Path(__file__).parents[1] / "fixtures/runs"
SEEDED = sorted(path.parent.name for path in RUNS.glob("*/run.json") if rundir.read_info(path.parent).defect)


@cache
def judged(name: str) -> Findings:
    """The findings of a recorded run, without lies planted."""
    return check(rundir.read_evidence(RUNS / name), control=False)


def red(findings: Findings) -> set[str]:
    """The claims that failed."""
    return {verdict.claim for verdict in findings.verdicts if verdict.status is Status.FAIL}


def test_every_defect_is_recorded() -> None:
    """A defect without a recorded run is judged by no gate."""
    assert {rundir.read_info(RUNS / name).defect for name in SEEDED} == {defect.name for defect in breakage.catalogue()}


@pytest.mark.parametrize("name", SEEDED)
def test_a_defect_is_red_at_its_hop(name: str) -> None:
    """The run fails, and the hop that the defect was seeded into is among the culprits of its own quantity."""
    defect = rundir.read_info(RUNS / name).defect
    assert defect is not None
    findings = judged(name)

    assert findings.status is Status.FAIL
    assert breakage.load(defect).claim in red(findings)


@pytest.mark.parametrize("name", SEEDED)
def test_no_other_quantity_is_blamed(name: str) -> None:
    """A defect of one hop accuses no hop before it."""
    defect = rundir.read_info(RUNS / name).defect
    assert defect is not None
    claim = breakage.load(defect).claim
    spread = {"multiproc-dir-missing", "exporter-stopped"}  # the whole exporter is gone: every counter of it is

    assert red(judged(name)) == {claim} or name in spread


def test_a_healthy_run_is_green() -> None:
    """Every claim that the scenario requires passed, every planted lie was caught."""
    findings = check(rundir.read_evidence(RUNS / "healthy"))

    assert findings.status is Status.PASS
    assert all(lie.is_caught for lie in findings.planted)
    assert findings.planted


def test_what_is_pushed_is_told_by_its_three_weaknesses() -> None:
    """Count and mean are proven all the same."""
    found = {verdict.claim: verdict for verdict in judged("pushed-by-otlp").verdicts}

    assert found["ttfw/samples"].status is Status.PASS
    assert (found["ttfw/layout"].blind, found["ttfw/flush"].blind) == ("all in one bucket, 0 to 5 s", "recorded at the end of a session")
    assert red(judged("pushed-by-otlp")) == {"ttfw/refused"}


def test_judging_again_says_the_same() -> None:
    """The same evidence gives the same findings."""
    first, second = (check(rundir.read_evidence(RUNS / "lying-agent")) for _ in range(2))

    assert first == second
