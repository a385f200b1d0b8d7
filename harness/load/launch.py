"""Starts Locust as a process of its own and watches it until the load is over."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import EnvironmentFault

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_LAST_LINES = 8
_LEAVE_S = 25.0
"""Callers get 10 s to leave their calls; Locust a little more to end."""


def place_calls(run_dir: Path, *, env: Mapping[str, str], every_s: float, tick: Callable[[], None]) -> None:
    """Places every plan of ``run_dir`` and returns when the last call has ended.

    tick: called every ``every_s`` seconds while the load runs; what it raises ends the load early, as Ctrl-C does: the callers leave first.
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
        _watch(process, every_s=every_s, tick=tick)
    finally:
        _end(process)
    if process.returncode != 0:
        said = "\n    ".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        msg = f"the load could not be run: locust ended with exit code {process.returncode}; its last lines:\n    {said}"
        raise EnvironmentFault(msg)


def _watch(process: subprocess.Popen[bytes], *, every_s: float, tick: Callable[[], None]) -> None:
    due = time.monotonic()
    while True:
        due += every_s
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.01, due - time.monotonic()))
        if process.returncode is not None:
            return
        tick()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_LEAVE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
