"""``make prove``: every defect seeded live turns its own claim red, a healthy stack is green thirty times; docs/proof/spine.md says how it went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import rundir
from harness.clock import Clock
from harness.model import value
from harness.stack.breakage import Defect, catalogue
from tests.stack.proofs import Table, written

pytestmark = pytest.mark.soak

NOTES = """\
Each line is one `voxproof run smoke`, of a defect of the media server's exporter `voxproof run impaired-small`: real calls on the real
stack, the defect seeded from outside."""
HEALTHY = 30


@value
class Proof:
    """One run, and what it concluded."""

    seeded: str
    must: str
    exit_code: int
    red: tuple[str, ...]
    undecided: tuple[str, ...]
    took_s: float
    said: str
    """What the run printed."""
    load: float
    """Load average of one minute before it began: these machines do other work, too."""

    @property
    def row(self) -> tuple[str, ...]:
        said = (str(self.exit_code), ", ".join(self.red) or "-", ", ".join(self.undecided) or "-", f"{self.took_s:.0f}", f"{self.load:.1f}")
        return (self.seeded, self.must, *said)


@pytest.fixture(scope="module")
def proofs() -> Iterator[list[Proof]]:
    """Written down at the end, those of a failed proof too."""
    found: list[Proof] = []
    yield found
    table = Table(heads=("seeded", "must be red", "exit", "was red", "undecided", "s", "load"), rows=[proof.row for proof in found])
    written("spine", "Proof", NOTES, table)


def prove(directory: Path, *arguments: str, seeded: str, must: str, scenario: str = "smoke") -> Proof:
    """One run in a directory of its own."""
    clock = Clock.start()
    began, load = clock.now(), os.getloadavg()[0]
    command = (sys.executable, "-m", "harness.cli", "run", scenario, *arguments)
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr
    verdicts = json.loads((rundir.find("latest", directory / rundir.RUNS) / "verdicts.json").read_text())["verdicts"]
    judged = [each for each in verdicts if each["blind"] is None]
    by_status = {status: tuple(each["claim"] for each in judged if each["status"] == status) for status in ("fail", "inconclusive")}
    return Proof(
        seeded=seeded,
        must=must,
        exit_code=done.returncode,
        red=by_status["fail"],
        undecided=by_status["inconclusive"],
        took_s=(clock.now() - began) / 1e9,
        said=done.stdout,
        load=load,
    )


@pytest.mark.parametrize("defect", catalogue(), ids=lambda defect: defect.name)
def test_a_defect_is_caught_where_it_was_seeded(defect: Defect, tmp_path: Path, proofs: list[Proof]) -> None:
    """Exit code 1, and its own claim is the first red one: no earlier hop is blamed."""
    proof = prove(tmp_path, "--defect", defect.name, seeded=defect.name, must=defect.claim, scenario=defect.scenario)
    proofs.append(proof)

    assert proof.exit_code == 1, proof.said
    assert defect.claim in proof.red
    hops = [claim for claim in proof.red if claim.partition("/")[0] == defect.claim.partition("/")[0]]
    assert hops[0] == defect.claim


@pytest.mark.parametrize("number", range(1, HEALTHY + 1))
def test_a_healthy_stack_is_green(number: int, tmp_path: Path, proofs: list[Proof]) -> None:
    """As often in a row, with a different seed each."""
    proof = prove(tmp_path, "--seed", str(number), seeded=f"nothing ({number} of {HEALTHY})", must="-")
    proofs.append(proof)

    assert proof.exit_code == 0, proof.said
    assert proof.red == ()
