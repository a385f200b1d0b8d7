"""``make prove``: how small a lie about TTFW is caught, in twenty calls each; docs/proof/power.md says how it went."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.model import Status, value
from harness.run import Finished, run
from harness.stack.breakage import Defect
from harness.verbs.running import order

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parents[2]
SUMMARY = ROOT / "docs" / "proof" / "power.md"
SHIFTS_MS = (0, -50, -100, -150, -300, -600)
ALWAYS_MS = 300
"""A lie this large is caught in twenty calls, whatever else."""


@value
class Power:
    """One run with its shift."""

    shift_ms: int
    finished: Finished
    load: float

    @property
    def would_catch_ms(self) -> float:
        """The smallest shift that the claim says it would have caught, in milliseconds."""
        found = re.search(r"(\d+) ms", self.finished.verdict("ttfw/exporter").would_catch)
        return float(found[1]) if found else float("inf")

    @property
    def row(self) -> str:
        verdict = self.finished.verdict("ttfw/exporter")
        red = ", ".join(each.claim for each in self.finished.findings.verdicts if each.status is Status.FAIL) or "-"
        said = (verdict.says, verdict.may_say, verdict.would_catch, str(verdict.status), red, f"{self.load:.1f}")
        return f"| {self.shift_ms} ms | {' | '.join(said)} |"


@pytest.fixture(scope="module")
def powers() -> Iterator[list[Power]]:
    """Written down at the end, those of a failed proof too."""
    found: list[Power] = []
    yield found
    lines = (
        "# Power\n",
        "Each line is one `voxproof run nightly`: twenty real calls, eighty turns; the agent observes every TTFW longer by the shift.",
        f"{os.cpu_count()} cores, shared with other work (load average before each run in the last column). Made by `make prove`.\n",
        "| shift | says | may say | would catch | ttfw/exporter | red | load |",
        "|---|---|---|---|---|---|---|",
        *(power.row for power in found),
    )
    SUMMARY.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("shift_ms", SHIFTS_MS)
def test_a_lie_about_ttfw_is_caught_from_where_it_says(
    shift_ms: int, powers: list[Power], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No shift never fails, a large one always does at its own hop, and no pass hides a shift beyond the printed "would catch"."""
    monkeypatch.chdir(ROOT)
    load = os.getloadavg()[0]
    environment = {"PYTHONPATH": "{mutants}/agent", "VOXPROOF_MUTANT": "ttfw-shifted", "VOXPROOF_SHIFT_S": shift_ms / 1000}
    defect = Defect(
        name=f"ttfw-shift-{shift_ms}", what="shifted", seam="agent-env", parameters={"environment": environment}, claim="ttfw/exporter"
    )
    asked = replace(order("nightly", target_path=None, argv=("make", "prove")), defect=defect if shift_ms else None, runs=tmp_path)
    power = Power(shift_ms=shift_ms, finished=run(asked, progress=print), load=load)
    powers.append(power)
    verdict = power.finished.verdict("ttfw/exporter")
    red = [each.claim for each in power.finished.findings.verdicts if each.status is Status.FAIL]

    if shift_ms == 0:
        assert verdict.status is not Status.FAIL, verdict.sentence
    if abs(shift_ms) >= ALWAYS_MS:
        assert red == ["ttfw/exporter"], red
    if verdict.status is Status.PASS:
        assert abs(shift_ms) <= power.would_catch_ms
