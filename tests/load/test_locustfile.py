"""Locust's side, each time in a process of its own: importing locust patches the process."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from harness import codec
from harness.load.launch import LOCUSTFILE
from tests.fakes.evidence import healthy

ROOT = Path(__file__).parents[2]


def locust(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=env, cwd=cwd)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def answers(page: httpx.Client) -> None:
    """Returns when the page is there."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            page.get("/")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return


@pytest.mark.parametrize("flag", ["-u", "-r"])
def test_users_and_rate_are_refused_with_a_sentence(tmp_path: Path, flag: str) -> None:
    """The plan sets arrivals; a flag that would be ignored is refused."""
    codec.write_lines(tmp_path / "plans.jsonl", healthy()[0].plans)

    ended = locust("--run-dir", str(tmp_path), flag, "4")

    assert ended.returncode == 2
    assert "-u and -r are refused: the scenario's arrival model sets when calls are placed" in ended.stderr


def test_a_master_of_ones_own_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """Who shares the plans has to know how many share them."""
    ended = locust("--run-dir", str(tmp_path), "--master")

    assert ended.returncode == 2
    assert (
        "--master and --worker are refused: the plans of a run are shared by the processes of one machine; use --processes N"
        in ended.stderr
    )


def nowhere(directory: Path) -> dict[str, str]:
    """A run directory with plans, and an environment in which nothing listens where the calls go: each of them fails."""
    (directory / "logs").mkdir()
    (directory / "events").mkdir()
    codec.write_lines(directory / "plans.jsonl", healthy()[0].plans)
    return {**os.environ, "LIVEKIT_URL": "ws://127.0.0.1:9", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 32}


def placed(directory: Path) -> dict[str, set[str]]:
    """Calls by the caller process that placed them."""
    files = sorted((directory / "events").glob("*.jsonl"))
    return {file.stem: {json.loads(line)["call_id"] for line in file.read_text().splitlines()} for file in files}


def test_processes_share_the_plans_and_their_statistics_add_up(tmp_path: Path) -> None:
    """Two workers, three plans: every second one each, through caller processes of their own; one table of all."""
    env = nowhere(tmp_path)
    first, second, third = (plan.call_id for plan in healthy()[0].plans)

    ended = locust("--run-dir", str(tmp_path), "--processes", "2", "--csv", str(tmp_path / "own"), env=env)

    assert ended.returncode == 0, ended.stderr
    assert sorted(placed(tmp_path).values(), key=len) == [{second}, {first, third}]
    rows = csv.DictReader((tmp_path / "own_stats.csv").read_text().splitlines())
    assert [row["Request Count"] for row in rows if row["Name"] == "call"] == ["3"]


def test_the_page_starts_the_load_once_and_takes_no_users(tmp_path: Path) -> None:
    """On loopback; users and rate are refused with a sentence, and so is a second start."""
    env, port = nowhere(tmp_path), free_port()
    command = (sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--run-dir", str(tmp_path), "--web-port", str(port))
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as page:
            answers(page)
            refused = page.post("/swarm", data={"user_count": "4", "spawn_rate": "1"}).json()
            started = page.post("/swarm", data={"host": ""}).json()
            again = page.post("/swarm", data={"host": ""}).json()
            until = time.monotonic() + 120
            while len(placed(tmp_path).get("caller-1", ())) < 3 and time.monotonic() < until:
                time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)

    assert (refused["success"], started["success"], again["success"]) == (False, True, False)
    assert refused["message"].startswith("-u and -r are refused: the scenario's arrival model sets when calls are placed")
    assert again["message"].startswith("the plans of this run directory were placed")
    assert placed(tmp_path) == {"caller-1": {plan.call_id for plan in healthy()[0].plans}}, said


def test_a_scenario_is_planned_and_placed_without_voxproof_run(tmp_path: Path) -> None:
    """Nothing but a name is needed; --csv and --html are Locust's own."""
    env = {**nowhere(tmp_path), "PYTHONPATH": str(ROOT)}

    ended = locust("--scenario", "smoke", "--csv", "own", "--html", "own.html", env=env, cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    (run,) = (tmp_path / "reports" / "runs").iterdir()
    assert f"planned in reports/runs/{run.name}" in ended.stderr
    assert [len(calls) for calls in placed(run).values()] == [3]
    assert (tmp_path / "own_stats.csv").is_file()
    assert (tmp_path / "own.html").is_file()


def test_a_run_directory_without_plans_is_refused(tmp_path: Path) -> None:
    """Nothing to place is a mistake, not a success."""
    ended = locust("--run-dir", str(tmp_path))

    assert ended.returncode == 2
    assert f"{tmp_path}: no plans.jsonl with plans in it" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_plan_that_finds_no_free_caller_is_dropped_and_counted() -> None:
    """Two users, three plans that are due: the third is dropped, never delayed. A fourth is left out when the load is to stop."""
    ended = subprocess.run(
        (sys.executable, "-m", "tests.load.dispatch_probe"), cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert json.loads(ended.stdout) == {"handed": ["a", "b"], "dropped": 1, "waiting": 2, "finished": True}
    assert "c: dropped, all 2 callers are busy" in ended.stderr
