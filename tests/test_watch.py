"""What is said on the way of a run: log lines for people, deaths once, progress only when it moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import codec
from harness.model import CallEvent, UnixNs
from harness.rundir import RunDir
from harness.stack.supervise import Death
from harness.watch import Watch, plain


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
