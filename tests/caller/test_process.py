"""What a caller process says when it cannot start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.caller.__main__ import main


def exit_code(monkeypatch: pytest.MonkeyPatch, run_dir: Path, **environment: str) -> int:
    """The exit code of a process started with nothing but this environment."""
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(sys, "argv", ["harness.caller", "--run-dir", str(run_dir), "--name", "caller-1"])
    return main()


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, exit code 2, no traceback."""
    assert exit_code(monkeypatch, tmp_path, LIVEKIT_URL="ws://127.0.0.1:1") == 2
    assert capsys.readouterr().err == (
        "caller-1: the environment lacks LIVEKIT_API_KEY; callers want LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET\n"
    )


def test_an_address_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was got and what was wanted."""
    assert exit_code(monkeypatch, tmp_path, LIVEKIT_URL="localhost", LIVEKIT_API_KEY="key", LIVEKIT_API_SECRET="secret") == 2
    assert capsys.readouterr().err == "caller-1: LIVEKIT_URL is 'localhost'; wanted something like ws://127.0.0.1:7880\n"
