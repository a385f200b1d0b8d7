"""What is said on the way of a run: log lines for people, deaths once, progress only when it moved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import codec
from harness.model import CallEvent, CallPlan, KneeSearch, Slo, UnixNs
from harness.rundir import STOP, RunDir
from harness.stack.supervise import Death
from harness.watch import Breach, Watch, plain
from tests.fakes.evidence import plan, scenario


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"level":"info","ts":1.5,"msg":"room closed","caller":"/src/room.go:1"}', "info room closed"),
        ('{"message": "registered worker", "level": "INFO", "code.file.path": "/x/agent.py", "cut of', "INFO registered worker"),
        ("ts=2026-11-23 level=error msg=boom", "ts=2026-11-23 level=error msg=boom"),
        ('{"level":"info"}', '{"level":"info"}'),
    ],
)
def test_log_lines_are_shortened_for_people(line: str, said: str) -> None:
    """Paths of this machine do not travel into reports."""
    assert plain(line) == said


def test_a_death_is_said_once_and_noted(tmp_path: Path) -> None:
    """With the last lines of its log; that of the media server ends the calls."""
    said: list[str] = []
    death = Death(name="livekit", at=UnixNs(1), returncode=-9, last_lines=("one", "two"))
    watch = Watch(RunDir.create(tmp_path), lambda: (death,), said.append)

    watch.look()
    watch.look()

    sentence = "livekit died (killed by SIGKILL); its last lines:\n    one\n    two"
    assert said == ["calls: 0 placed, 0 answered, 0 ended; 0 replies heard", sentence]
    assert (watch.note, watch.fatal) == (sentence, "the media server died while calls were in progress")


def test_the_death_of_another_part_ends_no_call(tmp_path: Path) -> None:
    """Its sources become Gaps; the calls go on."""
    death = Death(name="prometheus", at=UnixNs(1), returncode=1, last_lines=())
    watch = Watch(RunDir.create(tmp_path), lambda: (death,), lambda _: None)

    watch.look()

    assert watch.fatal is None


def test_each_event_is_read_once_and_whole(tmp_path: Path) -> None:
    """Five minutes of a hundred calls are not read anew twice a second; a line that is being written is read when it is whole."""
    said: list[str] = []
    run = RunDir.create(tmp_path)
    watch = Watch(run, tuple, said.append)
    lines = "".join(
        codec.line(CallEvent(at=UnixNs(1), call_id="a", kind=kind, fields={})) for kind in ("placed", "greeted", "reply", "reply", "left")
    )

    for part in (lines[:200], lines[200:-5], lines[-5:]):
        with (run.events / "caller-1.jsonl").open("a") as out:
            out.write(part)
        watch.look()

    assert said[-1] == "calls: 1 placed, 1 answered, 1 ended; 2 replies heard"
    assert "calls: 1 placed, 1 answered, 0 ended; 2 replies heard" in said


def ended(run: RunDir, *plans: CallPlan, latency_s: float) -> set[str]:
    """Calls of one turn that are over; the reply took so long. Returns their ids."""
    for call in plans:
        said_at = UnixNs(1_000_000_000 + round(call.due_s * 1e9))
        fields: dict[str, dict[str, Any]] = {
            "placed": {"process": "caller-1"},
            "speech": {"index": 1, "prompt": "weather", "started_at": said_at, "ended_at": said_at},
            "reply": {"index": 1, "first_word_at": said_at + round(latency_s * 1e9)},
            "ended": {"outcome": "completed", "error": None},
        }
        with (run.events / "caller-1.jsonl").open("a") as out:
            out.write(
                "".join(codec.line(CallEvent(at=said_at, call_id=call.call_id, kind=kind, fields=each)) for kind, each in fields.items())
            )
    return {call.call_id for call in plans}


@pytest.mark.parametrize("aborts", [True, False])
def test_a_step_that_breaks_a_limit_ends_the_placing_of_calls_if_asked(tmp_path: Path, aborts: bool) -> None:
    """As soon as all its calls are over, not before; each step is told."""
    said: list[str] = []
    run = RunDir.create(tmp_path)
    search = scenario(
        arrival={"model": "step", "calls_per_s": 0.1, "add_per_s": 0.1, "every_s": 20.0},
        slo=Slo(ttfw_p95_s=2.0),
        knee=KneeSearch(abort_on_breach=aborts),
    )
    calls = tuple(replace(plan(number + 1), due_s=due_s) for number, due_s in enumerate((0.0, 10.0, 20.0, 25.0, 40.0)))
    breach = Breach(run, search, calls, said.append)

    over = ended(run, calls[0], calls[1], latency_s=1.0)
    breach.look(over)
    over |= ended(run, calls[2], latency_s=3.0)
    breach.look(over)
    assert not breach.has_stopped
    over |= ended(run, calls[3], latency_s=3.0)
    breach.look(over)

    assert (breach.has_stopped, (run.path / STOP).exists()) == (aborts, aborts)
    assert [line.split(":")[0] for line in said[:2]] == ["step 1, 0.1 calls/s", "step 2, 0.2 calls/s"]
    assert said[1].endswith("TTFW p95 3.00 s, limit 2 s")
