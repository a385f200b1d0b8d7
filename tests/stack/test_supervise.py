"""Supervision, with small Python programs as parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.clock import Clock
from harness.errors import EnvironmentFault, StackError
from harness.stack import guard, ports, processes
from harness.stack.supervise import Command, Supervisor, tail

SLEEP = "import time; time.sleep(60)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("not yet", flush=True))
print("up", flush=True)
while True: time.sleep(60)
"""
LAST_ROWS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (os.kill(int(sys.argv[1]), 0), print("written"), sys.exit()))
print("up", flush=True)
time.sleep(60)
"""
LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"


def command(program: str, *arguments: str, name: str = "part", **options: object) -> Command:
    """A part that runs a Python program."""
    argv = (sys.executable, "-I", "-S", "-c", program, *arguments)
    return Command(name=name, argv=argv, env={}, cwd=Path("/"), **options)  # type: ignore[arg-type]


def until(holds: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    return guard._is_alive(pid)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor in its block."""
    with Supervisor(logs=tmp_path / "logs", clock=Clock.start()) as started:
        yield started


def test_a_death_is_noticed_with_its_last_lines(supervisor: Supervisor) -> None:
    """Whoever ends by itself is reported with code, instant and words."""
    before = Clock.start().now()
    supervisor.start(command("print('one'); print('cannot open database'); raise SystemExit(3)", name="db"))

    assert until(lambda: bool(supervisor.deaths()))
    (death,) = supervisor.deaths()
    assert (death.name, death.returncode, death.last_lines) == ("db", 3, ("one", "cannot open database"))
    assert death.at >= before
    assert death.sentence == "db died (exit code 3); its last lines:\n    one\n    cannot open database"


def test_a_kill_is_named(supervisor: Supervisor) -> None:
    """A part that somebody killed says by which signal."""
    child = supervisor.start(command(SLEEP))
    os.kill(child.pid, signal.SIGKILL)

    assert until(lambda: bool(supervisor.deaths()))
    assert supervisor.deaths()[0].sentence == "part died (killed by SIGKILL); it wrote no log"


def test_an_end_on_purpose_is_no_death(supervisor: Supervisor) -> None:
    """What we end ourselves is not reported."""
    child = supervisor.start(command(SLEEP))
    supervisor.end("part")

    assert not child.is_alive()
    assert supervisor.deaths() == ()


def test_stop_ends_what_does_not_want_to(tmp_path: Path) -> None:
    """A part that ignores SIGTERM is killed after its grace."""
    with Supervisor(logs=tmp_path, clock=Clock.start()) as supervisor:
        child = supervisor.start(command(STUBBORN, signals=(signal.SIGTERM, signal.SIGTERM, signal.SIGKILL), grace_s=0.1))
        assert until(lambda: child.said(b"up"))

    assert child.process.returncode == -signal.SIGKILL
    assert (tmp_path / "part.log").read_text() == "up\nnot yet\nnot yet\n"


def test_those_that_need_the_others_end_first(tmp_path: Path) -> None:
    """The agent writes its last rows while the database still lives."""
    with Supervisor(logs=tmp_path, clock=Clock.start()) as supervisor:
        database = supervisor.start(command(SLEEP, name="database"))
        agent = supervisor.start(command(LAST_ROWS, str(database.pid), name="agent", stops_before=True))
        assert until(lambda: agent.said(b"up"))

    assert (tmp_path / "agent.log").read_text() == "up\nwritten\n"
    assert supervisor.deaths() == ()


def test_ready_means_that_our_own_child_answers(supervisor: Supervisor) -> None:
    """A child that has the port is ready."""
    (port,) = ports.free(("part",)).values()
    child = supervisor.start(command(LISTEN, str(port)))
    supervisor.wait_ready(child, lambda: ports.holder(port) is not None, timeout_s=10, port=port)

    assert child.ready_s is not None


def test_an_answer_of_another_process_is_not_ready(supervisor: Supervisor) -> None:
    """A living child without the port is not ready, whoever answers; the holder is named."""
    (port,) = ports.free(("part",)).values()
    other = subprocess.Popen([sys.executable, "-I", "-S", "-c", LISTEN, str(port)])
    try:
        assert until(lambda: ports.holder(port) is not None)
        child = supervisor.start(command(SLEEP))

        with pytest.raises(EnvironmentFault, match=rf"port {port}, wanted for part, is taken by pid {other.pid} \("):
            supervisor.wait_ready(child, lambda: True, timeout_s=0.1, port=port)
    finally:
        other.kill()
        other.wait()


def test_a_child_that_gives_up_on_a_taken_port_names_the_holder(supervisor: Supervisor) -> None:
    """As livekit-server does: exit code 0 because another has the port."""
    (port,) = ports.free(("part",)).values()
    other = subprocess.Popen([sys.executable, "-I", "-S", "-c", LISTEN, str(port)])
    try:
        assert until(lambda: ports.holder(port) is not None)
        child = supervisor.start(command("pass"))

        with pytest.raises(EnvironmentFault, match=rf"is taken by pid {other.pid} .*; part gave up"):
            supervisor.wait_ready(child, lambda: True, timeout_s=10, port=port)
    finally:
        other.kill()
        other.wait()


def test_a_child_that_dies_before_it_answers_is_an_error(supervisor: Supervisor) -> None:
    """The error has the last lines and the path of the log."""
    child = supervisor.start(command("print('bad flag'); raise SystemExit(2)"))

    with pytest.raises(StackError, match=r"part died \(exit code 2\); its last lines:\n    bad flag\n  before it answered; .*part\.log"):
        supervisor.wait_ready(child, lambda: False, timeout_s=10)


def test_silence_is_an_error(supervisor: Supervisor) -> None:
    """A part that lives and never answers is named after the timeout."""
    child = supervisor.start(command(SLEEP))

    with pytest.raises(StackError, match="part did not answer within 0 s"):
        supervisor.wait_ready(child, lambda: False, timeout_s=0.05)


def test_what_cannot_be_executed_is_named(supervisor: Supervisor) -> None:
    """A missing binary is the machine's fault."""
    missing = Command(name="part", argv=("/no/such/binary",), env={}, cwd=Path("/"))

    with pytest.raises(EnvironmentFault, match="part: cannot execute /no/such/binary: No such file"):
        supervisor.start(missing)


def test_an_earlier_life_does_not_count(tmp_path: Path) -> None:
    """Words in the log from before this start prove nothing."""
    (tmp_path / "part.log").write_text("registered worker\n")
    with Supervisor(logs=tmp_path, clock=Clock.start()) as supervisor:
        child = supervisor.start(command(SLEEP))

        assert not child.said(b"registered worker")


def test_the_scratch_directory_goes(tmp_path: Path) -> None:
    """Data and generated credentials do not stay."""
    with Supervisor(logs=tmp_path, clock=Clock.start()) as supervisor:
        (supervisor.scratch / "secret").write_text("x")

    assert not supervisor.scratch.exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_nothing_outlives_us(end: signal.Signals, tmp_path: Path) -> None:
    """However the supervisor's process ends, its children end, and theirs in sessions of their own, and the scratch directory goes."""
    program = f"""
import subprocess, sys, time
from pathlib import Path
from harness.clock import Clock
from harness.stack.supervise import Command, Supervisor
inner = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
outer = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:], start_new_session=True).pid, flush=True); time.sleep(60)"
with Supervisor(logs=Path({str(tmp_path)!r}), clock=Clock.start()) as supervisor:
    child = supervisor.start(Command(name="part", argv=(sys.executable, "-I", "-S", "-c", outer, *inner), env={{}}, cwd=Path("/")))
    while not child.said(b"\\n"):
        time.sleep(0.01)
    print(child.pid, supervisor._guard.pid, supervisor.scratch, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        child, watcher, scratch = process.stdout.readline().split()
        grandchild = int((tmp_path / "part.log").read_text())
        process.send_signal(end)

        assert until(lambda: not any(is_alive(int(pid)) for pid in (child, watcher, grandchild)))
        assert not Path(scratch).exists()


def test_memory_and_cpu_are_told(supervisor: Supervisor) -> None:
    """A living process has some of both."""
    child = supervisor.start(command("while True: pass"))

    def has_worked() -> bool:
        memory_mib, cpu_s = processes.usage(child.pid)
        return memory_mib is not None and memory_mib > 1 and cpu_s is not None and cpu_s > 0.05

    assert until(has_worked)


def test_a_gone_process_uses_nothing_known() -> None:
    """None is not zero."""

    assert processes.usage(2**22 + 1) == (None, None)


def test_a_missing_log_has_no_last_lines(tmp_path: Path) -> None:
    """No log, no lines."""

    assert tail(tmp_path / "none.log", 5) == ()


def test_long_lines_are_cut(tmp_path: Path) -> None:
    """A page of JSON in one line does not fill a sentence."""
    (tmp_path / "a.log").write_text("x" * 1000 + "\nlast\n")

    assert tail(tmp_path / "a.log", 2) == ("x" * 300, "last")


def test_a_part_may_run_at_a_realtime_level(supervisor: Supervisor) -> None:
    """Where that is permitted; whoever started it stays what it was."""
    mine = os.sched_getscheduler(0)
    child = supervisor.start(command(SLEEP, realtime=2))
    plain = supervisor.start(command(SLEEP, name="plain"))

    assert processes.level_of(child.pid) in (2, None)
    assert processes.level_of(plain.pid) is None
    assert os.sched_getscheduler(0) == mine
