"""Child processes of the stack: started with a log each, watched while they live, ended on every exit path."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from harness.clock import Clock
from harness.errors import EnvironmentFault, StackError
from harness.model import UnixNs, value
from harness.stack import guard, ports, processes

_POLL_S = 0.02
_LAST_LINES = 8


@value
class Command:
    """How one part is started and ended."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment, our mark excepted."""
    cwd: Path
    user: str | None = None
    """Account to run as; None: ours. Needs root."""
    signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGKILL)
    """Sent in turn until it is gone."""
    grace_s: float = 2.0
    """Waited after each signal but the last."""
    realtime: int | None = None
    """Real-time level at which it runs, where that is permitted. None: as everything else."""
    stops_before: bool = False
    """It still needs the others while it ends (an agent writes its last rows)."""


@value
class Death:
    """A part that ended without being asked to."""

    name: str
    at: UnixNs
    returncode: int
    last_lines: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What a person needs to know, the log's last lines included."""
        how = f"killed by {signal.Signals(-self.returncode).name}" if self.returncode < 0 else f"exit code {self.returncode}"
        said = "".join(f"\n    {line}" for line in self.last_lines)
        return f"{self.name} died ({how})" + (f"; its last lines:{said}" if said else "; it wrote no log")


class Child:
    """One started part."""

    def __init__(self, command: Command, process: subprocess.Popen[bytes], log: Path, log_offset: int) -> None:
        self.command = command
        self.process = process
        self.log = log
        self.log_offset = log_offset
        """Size of the log before this start: older lines are another life's."""
        self.ready_s: float | None = None
        """Seconds from the supervisor's start until it answered."""

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def said(self, words: bytes) -> bool:
        """The log holds these words, written by this process."""
        with self.log.open("rb") as log:
            log.seek(self.log_offset)
            return words in log.read()

    def line(self, words: str) -> str | None:
        """The last line that begins so, written by this process. None: there is none."""
        with self.log.open("rb") as log:
            log.seek(self.log_offset)
            lines = log.read().decode(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.startswith(words)), None)

    def last_lines(self) -> tuple[str, ...]:
        return tail(self.log, _LAST_LINES)


class Supervisor:
    """Starts children, notices their deaths, ends them. A context manager: nothing outlives it, not even if we are killed."""

    def __init__(self, *, logs: Path, clock: Clock) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="voxproof-"))
        """Data directories and generated configuration; gone at the end."""
        # Traversable, not listable: PostgreSQL may have to run under another account.
        self.scratch.chmod(0o711)
        self.logs = logs
        self._clock = clock
        self._mark = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._children: list[Child] = []
        self._watchers: list[threading.Thread] = []
        self._deaths: list[Death] = []
        self._is_stopping = False
        self._began = time.monotonic()
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Supervisor:
        self.logs.mkdir(parents=True, exist_ok=True)
        script = Path(guard.__file__)
        # -I -S: no site packages, so that it is there within milliseconds. A session of its own: Ctrl-C is not for it.
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), self._mark, str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # A pipe that our caller reads to its end must not wait for the guard of a background stack.
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            self._dismiss_guard()
            shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the supervisor was made."""
        return time.monotonic() - self._began

    @property
    def children(self) -> tuple[Child, ...]:
        with self._lock:
            return tuple(self._children)

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping

    def start(self, command: Command) -> Child:
        """Starts a part; its output goes to ``<logs>/<name>.log``.

        Raises EnvironmentFault if it cannot be executed.
        """
        path = self.logs / f"{command.name}.log"
        with self._lock:
            if self._is_stopping:
                raise StackError(f"{command.name} was not started: the stack is being stopped")
            with path.open("ab") as log:
                offset = log.tell()
                process = self._spawn(command, log.fileno())
            child = Child(command, process, path, offset)
            self._children.append(child)
            self._tell_guard(child)
        watcher = threading.Thread(target=self._watch, args=(child,), name=f"watch-{command.name}", daemon=True)
        watcher.start()
        self._watchers.append(watcher)
        return child

    def wait_ready(self, child: Child, answers: Callable[[], bool], *, timeout_s: float, port: int | None = None) -> None:
        """Returns when ``answers`` is true and it is our own living child that answers on ``port``.

        An answer alone is no proof: a port taken by another process answers too, and livekit-server then exits with code 0.
        Raises StackError with the log's last lines if the child died or never answered, EnvironmentFault if another process has the port.
        """
        until = time.monotonic() + timeout_s
        while True:
            if self._is_stopping:
                raise StackError(f"{child.name} was not awaited: the stack is being stopped")
            has_answered = answers()
            if not child.is_alive():
                raise self._unready(child, port)
            if has_answered and (port is None or ports.listens(frozenset(processes.tree(child.pid)), port)):
                child.ready_s = self.elapsed_s
                return
            if time.monotonic() > until:
                if has_answered and port is not None:
                    raise EnvironmentFault(f"port {port}, wanted for {child.name}, {ports.taken_by(port)}")
                said = "".join(f"\n    {line}" for line in child.last_lines())
                raise StackError(f"{child.name} did not answer within {timeout_s:.0f} s; the last lines of {child.log}:{said}")
            time.sleep(_POLL_S)

    def deaths(self) -> tuple[Death, ...]:
        """Parts that ended without being asked to, in order."""
        with self._lock:
            return tuple(self._deaths)

    def end(self, name: str, *, number: int | None = None) -> None:
        """Ends one part on purpose: with ``number``, or with the signals it stops by. Its end is no death."""
        for child in [child for child in self.children if child.name == name]:
            with self._lock:
                self._children.remove(child)
            if number is None:
                _stop(child)
            else:
                child.process.send_signal(number)
                child.process.wait()

    def stop(self) -> None:
        """Ends every child; those that need the others first."""
        with self._lock:
            self._is_stopping = True
            children = tuple(self._children)
        for stops_before in (True, False):
            wave = [child for child in children if child.command.stops_before is stops_before]
            threads = [threading.Thread(target=_stop, args=(child,)) for child in wave]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for watcher in self._watchers:
            watcher.join(timeout=1)

    def _spawn(self, command: Command, log: int) -> subprocess.Popen[bytes]:
        try:
            with processes.at_level(command.realtime):
                return subprocess.Popen(
                    command.argv,
                    env={**command.env, guard.MARK: self._mark},
                    cwd=command.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=command.user,
                    group=_group(command.user) if command.user else None,
                    extra_groups=[] if command.user else None,
                )
        except OSError as exc:
            raise EnvironmentFault(f"{command.name}: cannot execute {command.argv[0]}: {exc.strerror}") from exc

    def _tell_guard(self, child: Child) -> None:
        if self._guard is None or self._guard.stdin is None:
            return
        line = {"pid": child.pid, "start": guard.start_ticks(child.pid), "signals": child.command.signals}
        # Somebody may have killed the guard; we still end our children ourselves.
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(json.dumps(line).encode() + b"\n")
            self._guard.stdin.flush()

    def _dismiss_guard(self) -> None:
        if self._guard is None or self._guard.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        self._guard.wait()

    def _watch(self, child: Child) -> None:
        returncode = child.process.wait()
        at = self._clock.now()
        with self._lock:
            if self._is_stopping or child not in self._children:
                return
            self._deaths.append(Death(name=child.name, at=at, returncode=returncode, last_lines=child.last_lines()))

    def _unready(self, child: Child, port: int | None) -> Exception:
        if port is not None and ports.holder(port) is not None:
            return EnvironmentFault(f"port {port}, wanted for {child.name}, {ports.taken_by(port)}; {child.name} gave up")
        returncode = child.process.returncode
        death = Death(name=child.name, at=self._clock.now(), returncode=returncode, last_lines=child.last_lines())
        return StackError(f"{death.sentence}\n  before it answered; whole log: {child.log}")


def tail(path: Path, lines: int) -> tuple[str, ...]:
    """The last lines of a log, at most 300 characters each. Empty if there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 65_536))
            text = log.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line[:300] for line in text.splitlines()[-lines:])


def _stop(child: Child) -> None:
    for number in child.command.signals:
        if not child.is_alive():
            return
        child.process.send_signal(number)
        try:
            child.process.wait(child.command.grace_s)
        except subprocess.TimeoutExpired:
            continue
    child.process.wait()


def _group(user: str) -> int:
    import pwd  # not on every system that can run the harness against a foreign stack

    return pwd.getpwnam(user).pw_gid
