"""``make prove``: twenty smoke runs without priority, half of each core burnt by others: none fails, nearly all are decided; docs/proof/load.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import rundir
from harness.model import value

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parents[2]
SUMMARY = ROOT / "docs" / "proof" / "load.md"
SCRIPT = Path(__file__).with_name("decisive.py")
RUNS, DECIDED, SHARE = 20, 18, 0.5


@value
class Night:
    """One run, and what it concluded."""

    number: int
    exit_code: int
    red: tuple[str, ...]
    undecided: tuple[str, ...]
    limit: str | None
    """What left it undecided, in its own words. None: it was decided."""
    pacing_p99_ms: float | None
    void: str
    took_s: float
    load: float

    @property
    def row(self) -> str:
        pacing = "-" if self.pacing_p99_ms is None else f"{self.pacing_p99_ms:.1f}"
        red, limit = ", ".join(self.red) or "-", self.limit or "-"
        return f"| {self.number} | {self.exit_code} | {red} | {limit} | {pacing} | {self.void} | {self.took_s:.0f} | {self.load:.1f} |"


@pytest.fixture
def burners() -> Iterator[None]:
    """Half of each core is somebody else's."""
    started = [
        subprocess.Popen((sys.executable, "-I", "-S", str(SCRIPT), "burn", str(core), str(SHARE)))
        for core in sorted(os.sched_getaffinity(0))
    ]
    yield
    for process in started:
        process.kill()
        process.wait()


def night(number: int, directory: Path) -> Night:
    """One smoke run in a directory of its own, with a seed of its own."""
    directory.mkdir()
    began, load = time.monotonic(), os.getloadavg()[0]
    command = (sys.executable, "-m", "harness.cli", "run", "smoke", "--seed", str(number))
    done = subprocess.run(
        (sys.executable, "-I", "-S", str(SCRIPT), "without-priority", *command),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr
    path = rundir.find("latest", directory / rundir.RUNS)
    assert {health.priority for health in rundir.read_health(path)} == {"normal"}
    findings = json.loads((path / "verdicts.json").read_text())
    judged = [each for each in findings["verdicts"] if each["blind"] is None]
    undecided = [each for each in judged if each["status"] == "inconclusive"]
    ruler = findings["ruler"]
    limit = (ruler["bent"] or next((each["sentence"] for each in undecided), None)) if done.returncode == 3 else None
    return Night(
        number=number,
        exit_code=done.returncode,
        red=tuple(each["claim"] for each in judged if each["status"] == "fail"),
        undecided=tuple(each["claim"] for each in undecided),
        limit=limit,
        pacing_p99_ms=ruler["pacing_p99_ms"],
        void=f"{ruler['void_turns']}/{ruler['turns']}",
        took_s=time.monotonic() - began,
        load=load,
    )


def test_a_run_without_priority_is_decided_or_says_which_limit_bent(tmp_path: Path, burners: None) -> None:
    """Whatever happens to our own media, an honest stack is never accused."""
    nights: list[Night] = []
    try:
        for number in range(1, RUNS + 1):
            nights.append(night(number, tmp_path / str(number)))
    finally:
        _write(nights)

    assert [each for each in nights if each.exit_code == 1] == []
    assert [each for each in nights if each.exit_code == 3 and not each.limit] == []
    assert sum(each.exit_code == 0 for each in nights) >= DECIDED


def _write(nights: list[Night]) -> None:
    describe = subprocess.run(("git", "describe", "--always", "--dirty"), cwd=ROOT, capture_output=True, text=True, check=False)
    lines = (
        "# Proof: decisive without priority\n",
        f"Made by `make prove` at {describe.stdout.strip()}: {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}.",
        f"Each line is one `voxproof run smoke` without `CAP_SYS_NICE`, with {SHARE:.0%} of each core burnt by others: a process pinned to each core",
        "from before the first run to after the last. Load is the average of one minute before each run, the burners' own included.\n",
        "| run | exit | was red | the limit that left it undecided | pacing p99, ms | void turns | s | load |",
        "|---|---|---|---|---|---|---|---|",
        *(each.row for each in nights),
    )
    SUMMARY.parent.mkdir(exist_ok=True)
    SUMMARY.write_text("\n".join(lines) + "\n")
