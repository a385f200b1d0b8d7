"""The background stack's state, without a stack."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.model import UnixNs
from harness.stack import detached, guard
from harness.stack.detached import Standing
from tests.fakes import targets


def standing(*, pid: int | None = None, start: int | None = None) -> Standing:
    """A stack held by this very process, unless said otherwise."""
    own = guard.start_ticks(os.getpid())
    return Standing(
        pid=os.getpid() if pid is None else pid,
        start=own if start is None else start,
        up_at=UnixNs(1),
        target=targets.target(name="embedded", livekit_url="ws://127.0.0.1:1", livekit_api_key="k", livekit_api_secret="s"),
        parts=(),
        pids={"livekit": 5},
        logs="/logs",
    )


def test_the_state_comes_back(tmp_path: Path) -> None:
    """What was written is what status says."""
    detached._write(tmp_path / "stack.json", standing())

    assert detached.status(tmp_path) == standing()


def test_the_state_is_its_owners_alone(tmp_path: Path) -> None:
    """It holds credentials."""
    detached._write(tmp_path / "stack.json", standing())

    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600


def test_nothing_is_up_without_a_state(tmp_path: Path) -> None:
    """No file, no stack, and nothing to end."""

    assert detached.status(tmp_path) is None
    assert detached.down(tmp_path) is False


def test_another_process_with_the_same_pid_is_no_stack(tmp_path: Path) -> None:
    """A state that outlived its process is not believed, and nobody is killed for it."""
    detached._write(tmp_path / "stack.json", standing(start=1))

    assert detached.status(tmp_path) is None
    assert detached.down(tmp_path) is False


def test_one_stack_at_a_time(tmp_path: Path) -> None:
    """A second start is refused with the way out."""
    detached._write(tmp_path / "stack.json", standing())

    with pytest.raises(UsageError, match=r"a stack is up already \(pid \d+\); try: voxproof stack down"):
        detached.detached_up(home=tmp_path, progress=print)


def test_a_broken_state_is_named(tmp_path: Path) -> None:
    """File, fault and the way out."""
    (tmp_path / "stack.json").write_text("{}")

    with pytest.raises(UsageError, match=r"stack\.json is not the state of a stack: .*; remove it"):
        detached.status(tmp_path)


def test_logs_are_told_by_part(tmp_path: Path) -> None:
    """All parts, or one; an unknown one gets the list."""
    (tmp_path / "stack-logs").mkdir()
    (tmp_path / "stack-logs" / "agent.log").write_text("one\ntwo\n")
    (tmp_path / "stack-logs" / "livekit.log").write_text("three\n")

    assert detached.logs(tmp_path, lines=1) == {"agent": ("two",), "livekit": ("three",)}
    assert detached.logs(tmp_path, "agent") == {"agent": ("one", "two")}
    with pytest.raises(UsageError, match=r"no log of 'sip' in .*; there are agent, livekit"):
        detached.logs(tmp_path, "sip")
