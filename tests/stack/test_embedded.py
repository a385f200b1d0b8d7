"""The embedded stack itself: what starts, who answers, what is noticed, what is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from harness.errors import EnvironmentFault
from harness.stack import detached, ports, processes
from harness.stack.database import _account
from harness.stack.embedded import RunningStack, up
from harness.stack.home import home_dir
from harness.stack.provision import obtain

pytestmark = pytest.mark.stack

HOME = home_dir()
MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
JOBS = ("livekit", "prometheus", "node", "blackbox", "alertmanager", "probe")
PARTS = {
    *("livekit", "prometheus", "postgres", "postgrest", "gateway"),
    *("alertmanager", "receiver", "blackbox_exporter", "node_exporter"),
}


def silent(_: str) -> None:
    """Progress that nobody reads."""


def until(holds: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The servers without the agent, for tests that only look."""
    with up(home=HOME, logs=tmp_path_factory.mktemp("logs"), progress=silent, with_agent=False) as running:
        yield running


def ask(stack: RunningStack, query: str) -> list[Any]:
    """An instant query."""
    answer = httpx.get(f"{stack.target.prometheus_url}/api/v1/query", params={"query": query}, trust_env=False)
    found: list[Any] = answer.json()["data"]["result"]
    return found


def test_every_part_is_there(stack: RunningStack) -> None:
    """Each with version, origin, and how long it took; the report prints them."""

    assert {part.name for part in stack.parts} == PARTS
    assert all(part.version and part.origin and part.location for part in stack.parts)
    assert all(part.started_s is not None and part.started_s < 20 for part in stack.parts)


def test_nobody_listens_beyond_loopback(stack: RunningStack) -> None:
    """No part, no helper of a part, on no port."""
    sockets = frozenset().union(*(processes.sockets(each) for pid in stack.pids().values() for each in processes.tree(pid)))
    listeners = [
        line.split() for table in ("tcp", "tcp6", "udp", "udp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    addresses = {fields[1].partition(":")[0] for fields in listeners if fields[9] in sockets and fields[3] in ("0A", "07")}

    assert addresses <= {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert "0100007F" in addresses


def test_prometheus_scrapes_as_soon_as_it_is_up(stack: RunningStack) -> None:
    """Every job is up when the start returns."""

    assert {(series["metric"]["job"], series["value"][1]) for series in ask(stack, "up")} == {(job, "1") for job in JOBS}


def test_rules_are_evaluated(stack: RunningStack) -> None:
    """Every group that is shipped, in the fast stack's interval, without an error."""

    def groups() -> list[Any]:
        found = httpx.get(f"{stack.target.prometheus_url}/api/v1/rules", trust_env=False).json()["data"]["groups"]
        assert isinstance(found, list)
        return found

    shipped = [group["name"] for path in (MONITORING / "rules").glob("*.yml") for group in yaml.safe_load(path.read_text())["groups"]]
    assert until(lambda: all(rule["health"] == "ok" for group in groups() for rule in group["rules"]))
    assert {(group["name"], group["interval"]) for group in groups()} == {(name, 1) for name in shipped}


def test_forward_statistics_are_on(stack: RunningStack) -> None:
    """Without them an alert on the SFU's own latency could never fire."""
    assert stack.target.sfu_metrics_url is not None
    text = httpx.get(stack.target.sfu_metrics_url, trust_env=False).text

    assert "livekit_forward_latency" in text
    assert "livekit_room_total" in text


def test_usage_is_told_by_part(stack: RunningStack) -> None:
    """Memory and CPU of each."""

    assert {part.name for part in stack.usage()} == PARTS
    assert all((part.rss_mib or 0) > 5 and part.cpu_s is not None for part in stack.usage())


def test_settings_name_what_is_not_as_in_production(stack: RunningStack) -> None:
    """Intervals, and everything that was changed."""

    assert (stack.settings["scrape_interval_s"], stack.settings["evaluation_interval_s"], stack.settings["time_scale"]) == (1.0, 1.0, 15)
    assert "global.scrape_interval: 15s -> 1s" in stack.settings["changes"]
    assert "not Supabase" in stack.settings["backend"]
    assert set(stack.digests) >= {"prometheus.yml", "rules/recording.yml", "supabase/migrations/0001_call_history.sql"}


def test_a_second_stack_is_another_stack(stack: RunningStack, tmp_path: Path) -> None:
    """Two at once share no port and no credential, and the end of one is not the end of the other."""
    with up(home=HOME, logs=tmp_path, progress=silent, with_agent=False) as other:
        assert other.target.livekit_url != stack.target.livekit_url
        assert other.target.livekit_api_secret != stack.target.livekit_api_secret
        assert other.target.supabase_key != stack.target.supabase_key

    assert stack.deaths() == ()
    assert ask(stack, "up{job='livekit'}")[0]["value"][1] == "1"


def test_a_death_is_noticed_while_it_happens(tmp_path: Path) -> None:
    """Name, cause and last log lines, within a second; and the stack still ends cleanly."""
    with up(home=HOME, logs=tmp_path, progress=silent, with_agent=False) as running:
        os.kill(running.pids()["livekit"], signal.SIGKILL)

        assert until(lambda: bool(running.deaths()), timeout_s=1)
        (death,) = running.deaths()
        assert (death.name, death.returncode) == ("livekit", -signal.SIGKILL)
        assert "livekit died (killed by SIGKILL); its last lines:\n    {" in death.sentence

    assert len(list(tmp_path.glob("*.log"))) == len(PARTS)


@pytest.mark.parametrize("part", ["livekit", "prometheus", "gateway"])
def test_a_port_taken_by_another_is_named_with_its_holder(part: str, tmp_path: Path) -> None:
    """Before anything starts, with pid and command of the holder."""
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]

        with (
            pytest.raises(EnvironmentFault, match=rf"port {port}, wanted for {part}, is taken by pid {os.getpid()} \("),
            up(home=HOME, logs=tmp_path, progress=silent, with_agent=False, fixed_ports={part: port}),
        ):
            pass

    assert list(tmp_path.glob("*.log")) == []


@pytest.mark.parametrize("part", ["livekit", "gateway"])
def test_a_port_lost_at_the_last_moment_is_named_too(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes a port between the choice and the part's start: it is never mistaken for the part, which may even exit with 0."""
    choose = ports.free
    with socket.socket() as thief:

        def choose_and_lose(names: tuple[str, ...], **options: Any) -> dict[str, int]:
            chosen = choose(names, **options)
            thief.bind((ports.LOOPBACK, chosen[part]))
            thief.listen()
            return chosen

        monkeypatch.setattr(ports, "free", choose_and_lose)
        with (
            pytest.raises(EnvironmentFault, match=rf"wanted for {part}, is taken by pid {os.getpid()} \("),
            up(home=HOME, logs=tmp_path, progress=silent, with_agent=False),
        ):
            pass


PROGRAM = """
import sys, time
from pathlib import Path
from harness.stack.embedded import up
from harness.stack.home import home_dir
with up(home=home_dir(), logs=Path(sys.argv[1]), progress=lambda text: print("...", text, flush=True), with_agent=False) as running:
    print(*running.pids().values(), running._supervisor._guard.pid, running._supervisor.scratch, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_behind(end: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C and a kill: no process of ours is left, nor of PostgreSQL's, nor the data directory."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=MONITORING.parents[1],
    ) as process:
        assert process.stdout is not None
        *pids, scratch = next(line for line in process.stdout if not line.startswith("...")).split()
        everyone = [each for pid in pids for each in processes.tree(int(pid))]
        assert len(everyone) > len(pids)
        process.send_signal(end)

        assert until(lambda: not any(is_alive(pid) for pid in everyone))
        assert until(lambda: not Path(scratch).exists())


def test_an_interrupted_start_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C while the parts are starting."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=MONITORING.parents[1]
    ) as process:
        assert until(lambda: bool(list(tmp_path.glob("*.log"))), timeout_s=30)
        mine = processes.tree(process.pid)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

    assert said.rstrip().endswith("KeyboardInterrupt")
    assert until(lambda: not any(is_alive(pid) for pid in mine))


def test_the_background_stack(tmp_path: Path) -> None:
    """Up, seen, a death seen, logs read, down; its state is its owner's alone and goes with it."""
    for name in ("bin", "locks"):
        (tmp_path / name).symlink_to(HOME / name)
    standing = detached.detached_up(home=tmp_path, progress=silent, with_agent=False)
    try:
        assert standing == detached.status(tmp_path)
        assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600
        assert httpx.get(f"{standing.target.prometheus_url}/-/ready", trust_env=False).is_success
        os.kill(standing.pids["postgrest"], signal.SIGKILL)

        def deaths() -> list[str]:
            now = detached.status(tmp_path)
            return [death.name for death in now.deaths] if now else []

        assert until(lambda: deaths() == ["postgrest"])
        assert "Listening on port" in "\n".join(detached.logs(tmp_path, "postgrest")["postgrest"])
    finally:
        assert detached.down(tmp_path)

    assert not any(is_alive(pid) for pid in (standing.pid, *standing.pids.values()))
    assert detached.status(tmp_path) is None
    assert not (tmp_path / "stack.json").exists()


def test_postgres_does_not_run_as_root(stack: RunningStack) -> None:
    """It refuses to; under root it is another account's."""
    owner = Path(f"/proc/{stack.pids()['postgres']}").stat().st_uid

    assert owner != 0
    assert (_account() is None) == (owner == os.geteuid())


@pytest.mark.parametrize("what", ["config", "rules"])
def test_the_shared_files_are_what_prometheus_accepts(what: str, tmp_path: Path) -> None:
    """Prometheus' own checker, on the files as Compose mounts them."""
    promtool = obtain("promtool", home=HOME, progress=silent).path
    files = [str(MONITORING / "prometheus.yml")] if what == "config" else [str(path) for path in (MONITORING / "rules").glob("*.yml")]
    done = subprocess.run([str(promtool), "check", what, *files], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
