"""Virtual nights: other phases accuse nobody, and acquit nobody."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from benchmarks.crowd import crowd
from benchmarks.nights import judged
from benchmarks.resample import night
from harness.check import check
from harness.model import Sample, Source, Status
from harness.rundir import read_evidence

RUNS = Path(__file__).parents[2] / "fixtures" / "runs"
HEALTHY = read_evidence(RUNS / "healthy")


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_stack_stays_green_at_other_phases(seed: int) -> None:
    """Nobody is accused, and what the scenario requires is decided. A thousand of these: docs/proof/nights.md."""
    status, open_claims = judged(RUNS / "healthy", seed)

    assert status == "pass"
    assert [told for told in open_claims.values() if told.startswith("fail")] == []


@pytest.mark.parametrize(
    ("run", "claim"),
    [("ttfw-in-ms", "ttfw/exporter"), ("transcript-row-lost", "turns/rows"), ("call-never-closed", "calls/status")],
)
def test_a_lying_stack_stays_red_at_other_phases(run: str, claim: str) -> None:
    """The same defect at the same hop."""
    verdicts = {verdict.claim: verdict.status for verdict in check(night(read_evidence(RUNS / run), Random(1)), control=False).verdicts}

    assert verdicts[claim] is Status.FAIL


def test_every_phase_is_another(tmp_path: Path) -> None:
    """Neither polls nor scrapes nor evaluations are where they were recorded."""
    instants = [
        {
            source: frozenset(item.at for item in evidence.observations if isinstance(item, Sample) and item.source is source)
            for source in Source
        }
        for evidence in (HEALTHY, night(HEALTHY, Random(1)))
    ]

    for source in (Source.PROMETHEUS, Source.RULES):
        assert instants[0][source]
        assert not instants[0][source] & instants[1][source]
    assert instants[0][Source.AGENT_EXPORTER] != instants[1][Source.AGENT_EXPORTER]


def test_a_crowd_of_a_healthy_run_is_healthy(tmp_path: Path) -> None:
    """Forty times three calls at once."""
    assert crowd(RUNS / "healthy", tmp_path / "run", times=40) == 120
    assert check(read_evidence(tmp_path / "run")).status is Status.PASS
