"""Caller processes: started by exec, given one plan a line, heard one result a line, never left behind."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from harness import codec
from harness.errors import EnvironmentFault
from harness.model import CallOutcome, CallPlan, value

CALLERS_PER_PROCESS = 60
"""Calls that one media thread carries with its deadlines kept, the Python one too: facts/aiortc.md section 7."""
_LAST_LINES = 8


@value
class CallResult:
    """What a caller process said when a call ended. A courtesy for statistics: the truth is in its event file."""

    call_id: str
    outcome: CallOutcome
    ttfw_s: tuple[float, ...]


@value
class Shares:
    """How the calls of a run are shared by the processes that place them, and by caller processes."""

    calls: int
    workers: int
    """Processes that place calls, each every ``workers``-th."""

    @property
    def processes(self) -> int:
        """Caller processes of each worker: together as many as the calls need, no more than there are cores, and one each at least."""
        needed = min(os.cpu_count() or 1, math.ceil(self.calls / CALLERS_PER_PROCESS))
        return max(1, math.ceil(needed / self.workers))

    @property
    def users(self) -> int:
        """Calls that each worker may have in progress."""
        return min(math.ceil(self.calls / self.workers), self.processes * CALLERS_PER_PROCESS)


class CallerProcess:
    """One ``python -m harness.caller``."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.is_ready = threading.Event()
        """Set when it said so, and when it died."""
        self.is_over = False
        """It closed its output: it ended, or is about to."""
        self.calls = 0
        """In progress."""
        self._results: dict[str, CallResult] = {}
        self._ended: dict[str, threading.Event] = {}
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(argv, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"results of {log.stem}")
        self._reader.start()

    def place(self, plan: CallPlan) -> CallResult:
        """Returns when the call has ended, or its process has."""
        ended = self._ended[plan.call_id] = threading.Event()
        # A dead process refuses the line; its reader has said or will say that the call was cut.
        with contextlib.suppress(OSError, ValueError):
            stdin = self._stdin()
            stdin.write(codec.line(plan))
            stdin.flush()
        if self.is_over:
            ended.set()
        ended.wait()
        return self._results.get(plan.call_id, CallResult(call_id=plan.call_id, outcome=CallOutcome.CUT, ttfw_s=()))

    def close(self) -> None:
        """No more plans: it ends with its last call."""
        with contextlib.suppress(OSError):
            self._stdin().close()

    def join(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(1.0)
        return True

    def _stdin(self) -> IO[str]:
        assert self.process.stdin is not None
        return self.process.stdin

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self._take(line)
        self.is_over = True
        self.is_ready.set()
        for ended in tuple(self._ended.values()):
            ended.set()

    def _take(self, line: str) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        if "ready" in said:
            self.is_ready.set()
        elif (call_id := said.get("call_id")) in self._ended:
            self._results[call_id] = CallResult(
                call_id=call_id, outcome=CallOutcome(said["outcome"]), ttfw_s=tuple(said.get("ttfw_s") or ())
            )
            self._ended[call_id].set()


class CallerPool:
    """Enough caller processes for the calls of a run. A context manager: nothing outlives it."""

    def __init__(
        self,
        *,
        run_dir: Path,
        processes: int,
        first: int = 1,
        env: Mapping[str, str],
        argv: Sequence[str] = (sys.executable, "-m", "harness.caller"),
    ) -> None:
        """first: number of the first process, in the names of its files."""
        self.capacity = processes * CALLERS_PER_PROCESS
        """Calls that may be in progress at once."""
        self._callers = [
            CallerProcess((*argv, "--run-dir", str(run_dir), "--name", name), env=env, log=run_dir / "logs" / f"{name}.log")
            for name in (f"caller-{number}" for number in range(first, first + processes))
        ]
        self._lock = threading.Lock()

    def __enter__(self) -> CallerPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def wait_ready(self, timeout_s: float) -> None:
        """Raises EnvironmentFault with the last log lines if a caller process is not ready in time."""
        for caller in self._callers:
            if caller.is_ready.wait(timeout_s) and not caller.is_over:
                continue
            state = f"ended with exit code {caller.process.returncode}" if caller.join(1.0) else f"is not ready after {timeout_s:g} s"
            said = "\n    ".join(caller.log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
            msg = f"caller process {caller.log.stem} {state}; its last lines:\n    {said}"
            raise EnvironmentFault(msg)

    def place(self, plan: CallPlan) -> CallResult:
        """Places the call now in the emptiest process; returns when it has ended."""
        with self._lock:
            caller = min(self._callers, key=lambda caller: (caller.is_over, caller.calls))
            caller.calls += 1
        try:
            return caller.place(plan)
        finally:
            with self._lock:
                caller.calls -= 1

    def finish(self, timeout_s: float) -> None:
        """Lets the calls in progress end, then the processes; stops those that do not."""
        for caller in self._callers:
            caller.close()
        for caller in self._callers:
            caller.join(timeout_s)
        self.stop()

    def stop(self, grace_s: float = 10.0) -> None:
        """Makes every caller leave its calls now and end. One that hangs is killed after ``grace_s``."""
        alive = [caller for caller in self._callers if caller.process.poll() is None]
        for caller in alive:
            caller.process.send_signal(signal.SIGINT)
        for caller in self._callers:
            caller.close()
        for caller in alive:
            if not caller.join(grace_s):
                caller.process.kill()
                caller.join(grace_s)
