"""The pytest plugin, from the outside: what a team's own test file gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest_plugins = ["pytester"]

CLAIMS = """
def test_the_monitoring_tells_the_truth(run):
    assert run.exit_code == 0, run.verdict("ttfw/exporter").sentence

def test_every_call_was_answered(evidence):
    assert all(record.is_answered for record in evidence.records)
"""


def judged(pytester: pytest.Pytester, name: str) -> pytest.RunResult:
    """A team's test file, on a copy of a recorded run."""
    recorded = ROOT / "fixtures" / "runs" / name
    for file in recorded.rglob("*.json*"):
        (pytester.path / name / file.relative_to(recorded)).parent.mkdir(parents=True, exist_ok=True)
        (pytester.path / name / file.relative_to(recorded)).write_bytes(file.read_bytes())
    pytester.makepyfile(CLAIMS)
    return pytester.runpytest_subprocess("--voxproof-run", name, "-p", "no:cacheprovider")


def test_a_recorded_run_is_judged(pytester: pytest.Pytester) -> None:
    """Both fixtures, one judgement."""
    judged(pytester, "healthy").assert_outcomes(passed=2)


def test_a_lie_fails_the_test_with_its_sentence(pytester: pytest.Pytester) -> None:
    """And the table is printed at the end, as `voxproof run` prints it."""
    result = judged(pytester, "lying-agent")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*the agent's exporter has TTFW of 6 turns, callers heard 9*", "*= voxproof =*", "*MONITORING*hop*says*"])


def test_a_missing_scenario_is_a_sentence(pytester: pytest.Pytester) -> None:
    """With both ways out."""
    pytester.makepyfile(CLAIMS)
    result = pytester.runpytest_subprocess()

    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*say which calls to place, --voxproof-scenario NAME, or which run to judge, --voxproof-run RUN*"])


def test_an_ini_key_stands_for_its_option(pytester: pytest.Pytester) -> None:
    """A team writes it down once."""
    pytester.makeini(f"[pytest]\nvoxproof_run = {ROOT / 'fixtures' / 'runs' / 'nowhere'}\n")
    pytester.makepyfile(CLAIMS)

    pytester.runpytest_subprocess().stdout.fnmatch_lines(["*no run '*fixtures/runs/nowhere'*"])


def test_a_project_that_asks_for_nothing_pays_nothing() -> None:
    """Loading the plugin imports nothing else of voxproof."""
    told = "import sys, harness.pytest_plugin; print(sorted(name for name in sys.modules if name.split('.')[0] in ('harness', 'reports')))"
    done = subprocess.run((sys.executable, "-c", told), cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['harness', 'harness.pytest_plugin']"
