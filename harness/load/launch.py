"""Starts Locust as a process of its own and watches it until the load is over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import EnvironmentFault

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_LAST_LINES = 8
_TICK_S = 0.5
_LEAVE_S = 25.0
"""Callers get 10 s to leave their calls; Locust a little more to end."""


def place_calls(run_dir: Path, *, env: Mapping[str, str], limit_s: float, tick: Callable[[], None]) -> str | None:
    """Places every plan of ``run_dir`` and returns when the last call has ended: None, or why it ended early.

    env: holds LIVEKIT_URL and its credentials. tick: called twice a second while the load runs. Ctrl-C ends the load early, and so does
    ``limit_s``; the callers leave first.
    Raises EnvironmentFault with the last log lines if the load could not be run.
    """
    log = run_dir / "logs" / "locust.log"
    argv = (sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", "--loglevel", "WARNING")
    clean = {name: text for name, text in env.items() if not name.startswith("LOCUST_")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            (*argv, "--run-dir", str(run_dir)), env=clean, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        early = _watch(process, limit_s=limit_s, tick=tick)
    except KeyboardInterrupt:
        early = "Ctrl-C"
    finally:
        _end(process)
    if early is None and process.returncode != 0:
        said = "\n    ".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        msg = f"the load could not be run: locust ended with exit code {process.returncode}; its last lines:\n    {said}"
        raise EnvironmentFault(msg)
    return early


def _watch(process: subprocess.Popen[bytes], *, limit_s: float, tick: Callable[[], None]) -> str | None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TICK_S)
        if process.returncode is not None:
            return None
        tick()
    return f"the calls had not ended after {limit_s:.0f} s"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Locust makes the callers leave. Whatever remains of its session is killed."""
    try:
        if process.poll() is None:
            # Not SIGTERM: Locust then ends before the callers have left.
            process.send_signal(signal.SIGINT)
            process.wait(_LEAVE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
