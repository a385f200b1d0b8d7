"""Real faults: processes that do them and end, and what ``/proc`` admits of what a real Prometheus computed meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from harness.clock import Clock
from harness.rules.real import Watched, level, planned
from harness.rules.windows import Cadence
from harness.stack import embedded, fault, real
from harness.stack.home import home_dir

SIGNAL = '100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[10s])))'


def started(*arguments: str) -> subprocess.Popen[bytes]:
    """One fault, by itself."""
    return subprocess.Popen((sys.executable, "-I", "-S", fault.__file__, *arguments), stdout=subprocess.PIPE)


def test_burning_ends_by_itself() -> None:
    """At its limit, without anybody's help."""
    with started("burn", "0.3") as process:
        assert process.wait(10) == 0


def test_burning_ends_with_its_parent() -> None:
    """A harness that was killed leaves nobody burning."""
    script = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL).pid)"
    command = (sys.executable, "-c", script, sys.executable, "-I", "-S", fault.__file__, "burn", "60")
    pid = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    until = time.monotonic() + 10
    while time.monotonic() < until and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)

    assert not Path(f"/proc/{pid}").exists()


def test_memory_is_held_as_asked() -> None:
    """Really: it is resident."""
    with started("hold", str(128 * 2**20), str(2**20), "30") as process:
        assert process.stdout is not None
        assert process.stdout.readline().decode().strip() == fault.HOLDS
        resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        process.kill()

    assert resident > 128 * 2**20


def test_memory_is_let_go_when_others_need_it() -> None:
    """Less is available than must be left: nothing is held."""
    with started("hold", str(64 * 2**20), str(2**50), "30") as process:
        assert process.stdout is not None
        assert process.stdout.readline().decode().startswith(fault.LET_GO)
        process.kill()


def test_a_small_file_system_is_seen_inside_alone(tmp_path: Path) -> None:
    """Full for the command that has it, an empty directory to everybody else, gone with the command."""
    if (refused := real.machine(tmp_path).no_disk) is not None:
        pytest.skip(refused)
    directory = tmp_path / "full"
    directory.mkdir()
    with subprocess.Popen((*real.within(directory), "/bin/sleep", "30")) as process:
        disk = real.SmallDisk(directory=directory, pid=process.pid, port=0)
        until = time.monotonic() + 10
        while time.monotonic() < until and Path(f"/proc/{process.pid}/exe").readlink().name != "sleep":
            time.sleep(0.02)
        levels = []
        for percent in (30.0, 85.0, 30.0):
            disk.hold(percent)
            levels.append(disk.percent())
        process.kill()

    assert levels == pytest.approx([30.0, 85.0, 30.0], abs=0.01)
    assert list(directory.iterdir()) == []


@pytest.mark.soak
def test_burnt_processors_are_seen_as_proc_admits(tmp_path: Path) -> None:
    """Every value that the real rule has of the real exporter lies within what was watched beside it, at whatever phase it was scraped."""
    clock, said = Clock.start(), list[Watched]()
    with embedded.up(home=home_dir(), logs=tmp_path / "logs", progress=lambda _: None, with_agent=False) as stack:
        burning = real.Real(stack, planned(real.machine(tmp_path)), seconds=30.0)
        with real.watch({"cpu": real.idle_s}, lambda _, seen: said.append(seen), clock=clock, every_s=0.1, told_s=60.0):
            time.sleep(6.0)
            burning.burn()
            time.sleep(8.0)
            burning.rest()
            time.sleep(1.0)
            until_s = clock.now() / 1e9 - 0.5
        found, longest_s = computed(str(stack.target.prometheus_url), until_s)
    watched = said[0]
    cadence = Cadence(scrape_s=1.0, evaluation_s=1.0, ingest_s=longest_s)
    sets = {at_s: level(9, watched, at_s, cadence) for at_s in found}
    known = {at_s: admitted for at_s, admitted in sets.items() if admitted is not None}

    assert len(known) >= 3
    assert [
        (found[at_s], admitted) for at_s, admitted in known.items() if not admitted[0] - 1e-6 <= found[at_s] <= admitted[1] + 1e-6
    ] == []


def computed(url: str, until_s: float) -> tuple[dict[float, float], float]:
    """The signal of the first host at each second, and the longest scrape."""
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:

        def asked(path: str, **parameters: str) -> list[dict[str, object]]:
            answer = client.get(path, params=parameters).raise_for_status().json()
            return list(answer["data"]["result"])

        (signal,) = asked("/api/v1/query_range", query=SIGNAL, start=f"{until_s - 14:.3f}", end=f"{until_s:.3f}", step="1s")
        (longest,) = asked("/api/v1/query", query="max(max_over_time(scrape_duration_seconds[1m]))")
    points, last = signal["values"], longest["value"]
    assert isinstance(points, list)
    assert isinstance(last, list)
    return {float(at): float(number) for at, number in points}, float(last[1]) + 0.005
