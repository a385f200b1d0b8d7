"""``voxproof run`` on the real stack: real calls, one honest verdict, and what happens when a part dies or a person loses patience."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import rundir
from harness.model import CallOutcome, Evidence

MINI = """\
summary: one call whose turns use a tool
agent: {agent}
greeting: Hello, how can I help?
calls: 1
answer_timeout_s: 5
turns:
{turns}requires: [calls/*, turns/*, tools/*, ttfw/exporter, ttfw/samples, sfu/*]
"""
TURN = """\
  - prompt: weather
    reply: The weather is sunny in London. Can I help with more?
    tool: {name: lookup_weather, arguments: {city: London}}
"""
IMPATIENT = """\
summary: one caller who talks the agent down, and one who hangs up while it speaks
agent: ref-agent
greeting: Hello, how can I help?
calls: 2
hang_up: {every: 2, after_s: 5}
turns:
  - prompt: weather
    reply: The weather is sunny in London. Can I help with more?
    tool: {name: lookup_weather, arguments: {city: London}}
  - prompt: opening-hours
    reply: We are open from nine to five.
    barge_in_after_s: 0.4
  - prompt: goodbye
    reply: Goodbye.
requires: [calls/*, active/exporter, active/samples, turns/rows, turns/samples, barge-ins/*]
"""


class Voxproof:
    """One command in a directory of its own, and what it left there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.err = directory / "stderr.txt"
        self.out = directory / "stdout.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen((sys.executable, "-m", "harness.cli", *arguments), cwd=self.directory, stdout=out, stderr=err)

    def wait_for(self, words: str) -> None:
        """Returns when it has said these words on the way."""
        until = time.monotonic() + 90
        assert self.process is not None
        while words not in self.err.read_text():
            assert time.monotonic() < until, self.err.read_text()
            assert self.process.poll() is None, self.err.read_text()
            time.sleep(0.1)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(150)

    @property
    def run(self) -> Path:
        return rundir.find("latest", self.directory / rundir.RUNS)

    def verdicts(self) -> dict[str, str]:
        said = json.loads((self.run / "verdicts.json").read_text())
        return {verdict["claim"]: verdict["status"] for verdict in said["verdicts"]}

    def evidence(self) -> Evidence:
        return rundir.read_evidence(self.run)


@pytest.fixture
def voxproof(tmp_path: Path) -> Voxproof:
    return Voxproof(tmp_path)


@pytest.fixture
def mini(tmp_path: Path) -> Callable[..., str]:
    def write(agent: str = "ref-agent", turns: int = 1) -> str:
        path = tmp_path / "mini.yaml"
        path.write_text(MINI.format(agent=agent, turns=TURN * turns))
        return str(path)

    return write


@pytest.mark.stack
def test_smoke_is_green_and_repeats_offline(voxproof: Voxproof) -> None:
    """Three calls, every claim decided; `check` says the same bytes; no credential in the run directory; nothing left running."""
    voxproof.start("run", "smoke")
    code = voxproof.wait()

    assert code == 0, voxproof.out.read_text() + voxproof.err.read_text()
    assert [record.outcome for record in voxproof.evidence().records] == [CallOutcome.COMPLETED] * 3
    _assert_no_credentials(voxproof.run)
    assert (voxproof.run / "report.html").stat().st_size > 100_000

    before = (voxproof.run / "verdicts.json").read_bytes()
    (voxproof.run / "verdicts.json").unlink()
    checked = subprocess.run((sys.executable, "-m", "harness.cli", "check", str(voxproof.run)), capture_output=True, check=False)
    assert (checked.returncode, (voxproof.run / "verdicts.json").read_bytes()) == (0, before)


@pytest.mark.stack
def test_callers_who_interrupt_or_hang_up_are_told_as_they_were(voxproof: Voxproof) -> None:
    """The reply that was talked down is a row of what had been spoken; the call that its caller ended is completed, and short."""
    (voxproof.directory / "impatient.yaml").write_text(IMPATIENT)
    voxproof.start("run", "impatient.yaml")

    assert voxproof.wait() == 0, voxproof.out.read_text() + voxproof.err.read_text()
    assert [record.outcome for record in voxproof.evidence().records] == [CallOutcome.COMPLETED, CallOutcome.HUNG_UP]
    assert {voxproof.verdicts()[claim] for claim in ("barge-ins/rows", "calls/status", "calls/duration")} == {"pass"}


@pytest.mark.stack
def test_a_seeded_defect_turns_its_claim_red(voxproof: Voxproof, mini: Callable[..., str]) -> None:
    """TTFW missing for tool turns: caught live, at the exporter, even if a busy machine voids one turn."""
    voxproof.start("run", mini(turns=2), "--defect", "ttfw-missing-for-tools")

    assert voxproof.wait() == 1, voxproof.out.read_text() + voxproof.err.read_text()
    assert voxproof.verdicts()["ttfw/exporter"] == "fail"


@pytest.mark.stack
def test_the_death_of_the_media_server_is_said_while_it_happens(voxproof: Voxproof, mini: Callable[..., str]) -> None:
    """With its last log lines; the calls fail, and nothing else is decided."""
    voxproof.start("run", mini())
    voxproof.wait_for("1 answered")
    _kill_part(voxproof, "livekit-server")
    voxproof.wait_for("livekit died (killed by SIGKILL); its last lines:")

    assert voxproof.wait() == 1, voxproof.out.read_text() + voxproof.err.read_text()
    verdicts = voxproof.verdicts()
    assert verdicts.pop("calls/answered") == "fail"
    assert "fail" not in verdicts.values()
    assert "Traceback" not in voxproof.err.read_text()


@pytest.mark.stack
def test_ctrl_c_keeps_what_was_measured(voxproof: Voxproof, mini: Callable[..., str]) -> None:
    """The callers leave, the run is judged, the stack is gone, the exit code is not green."""
    voxproof.start("run", mini())
    voxproof.wait_for("1 answered")
    assert voxproof.process is not None
    parts = _parts(voxproof)
    voxproof.process.send_signal(signal.SIGINT)

    assert voxproof.wait() in (1, 3)
    evidence = voxproof.evidence()
    assert evidence.info.interrupted == "Ctrl-C"
    assert [record.left_at is not None for record in evidence.records] == [True]
    assert not [pid for pid in parts if Path(f"/proc/{pid}").exists()]


@pytest.mark.soak
@pytest.mark.parametrize(("agent", "outcome"), [("nobody", CallOutcome.NO_AGENT)])
def test_an_agent_that_never_joins_fails_the_call(voxproof: Voxproof, mini: Callable[..., str], agent: str, outcome: CallOutcome) -> None:
    """Nobody takes the dispatch."""
    voxproof.start("run", mini(agent))

    assert voxproof.wait() == 1, voxproof.out.read_text() + voxproof.err.read_text()
    assert [record.outcome for record in voxproof.evidence().records] == [outcome]
    assert voxproof.verdicts()["calls/answered"] == "fail"


@pytest.mark.soak
@pytest.mark.parametrize(("part", "claim"), [("agent.py", "calls/answered")])
def test_an_agent_that_dies_fails_the_call(voxproof: Voxproof, mini: Callable[..., str], part: str, claim: str) -> None:
    """It answered, and then it was gone."""
    voxproof.start("run", mini())
    voxproof.wait_for("1 answered")
    _kill_part(voxproof, part)

    assert voxproof.wait() == 1, voxproof.out.read_text() + voxproof.err.read_text()
    assert voxproof.verdicts()[claim] == "fail"


@pytest.mark.soak
def test_a_prometheus_that_dies_leaves_its_claims_undecided(voxproof: Voxproof, mini: Callable[..., str]) -> None:
    """A source that was lost is a Gap, not a failure."""
    voxproof.start("run", mini())
    voxproof.wait_for("1 answered")
    _kill_part(voxproof, "prometheus")

    assert voxproof.wait() == 3, voxproof.out.read_text() + voxproof.err.read_text()
    verdicts = voxproof.verdicts()
    assert verdicts["ttfw/samples"] == "inconclusive"
    assert "fail" not in verdicts.values()


def _parts(voxproof: Voxproof) -> list[int]:
    """Process ids of its children."""
    assert voxproof.process is not None
    return [int(pid) for pid in Path(f"/proc/{voxproof.process.pid}/task/{voxproof.process.pid}/children").read_text().split()]


def _kill_part(voxproof: Voxproof, name: str) -> None:
    (pid,) = (pid for pid in _parts(voxproof) if name in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
    os.kill(pid, signal.SIGKILL)


def _assert_no_credentials(run: Path) -> None:
    """Signed keys begin with eyJ; so does nothing that we write."""
    for path in run.rglob("*"):
        if path.is_file() and path.suffix != ".wav":
            text = path.read_text(errors="replace")
            assert "eyJhbGciOi" not in text, path
            assert "LIVEKIT_API_SECRET=" not in text, path
