"""Locust's side, each time in a process of its own: importing locust patches the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness import codec
from harness.load.launch import LOCUSTFILE
from tests.fakes.evidence import healthy

ROOT = Path(__file__).parents[2]


def locust(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


@pytest.mark.parametrize("flag", ["-u", "-r"])
def test_users_and_rate_are_refused_with_a_sentence(tmp_path: Path, flag: str) -> None:
    """The plan sets arrivals; a flag that would be ignored is refused."""
    codec.write_lines(tmp_path / "plans.jsonl", healthy()[0].plans)

    ended = locust("--run-dir", str(tmp_path), flag, "4")

    assert ended.returncode == 2
    assert "-u and -r are refused: the scenario's arrival model sets when calls are placed" in ended.stderr


def test_processes_of_locust_are_refused_with_a_sentence(tmp_path: Path) -> None:
    """Two schedulers would each place every plan; calls are carried by caller processes already."""
    codec.write_lines(tmp_path / "plans.jsonl", healthy()[0].plans)

    ended = locust("--run-dir", str(tmp_path), "--processes", "2")

    assert ended.returncode == 2
    assert "--processes, --master and --worker are refused: caller processes carry the calls" in ended.stderr


def test_locust_writes_its_own_tables_of_a_run_directory(tmp_path: Path) -> None:
    """--csv and --html, without voxproof run; here nothing listens where the calls go, so each of them fails."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "events").mkdir()
    codec.write_lines(tmp_path / "plans.jsonl", healthy()[0].plans)
    nowhere = {"LIVEKIT_URL": "ws://127.0.0.1:9", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 32}

    ended = locust(
        *("--run-dir", str(tmp_path), "--csv", str(tmp_path / "own"), "--html", str(tmp_path / "own.html")), env={**os.environ, **nowhere}
    )

    assert ended.returncode == 0
    assert (tmp_path / "own_stats.csv").is_file()
    assert (tmp_path / "own.html").is_file()


def test_a_run_directory_without_plans_is_refused(tmp_path: Path) -> None:
    """Nothing to place is a mistake, not a success."""
    ended = locust("--run-dir", str(tmp_path))

    assert ended.returncode == 2
    assert f"{tmp_path}: no plans.jsonl with plans in it" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_plan_that_finds_no_free_caller_is_dropped_and_counted() -> None:
    """Two users, three plans: the third is dropped, never delayed."""
    ended = subprocess.run(
        (sys.executable, "-m", "tests.load.dispatch_probe"), cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert json.loads(ended.stdout) == {"handed": ["a", "b"], "dropped": 1, "waiting": 2, "finished": True}
    assert "c: dropped, all 2 callers are busy" in ended.stderr
