"""Ends the stack's processes when their supervisor is gone, however it went; run as a script, standard library only.

The supervisor holds the only write end of our standard input and writes one JSON line a child: ``{"pid", "start", "signals"}``. The end of
the input means that it has finished or was killed: children still alive get their signals in turn, and so does every process that carries
the stack's mark in its environment (a child started just before the end, a child's child in a session of its own). The scratch directory
goes last.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from typing import Any

MARK = "VOXPROOF_STACK"
_PATIENCE_S = 2.0


def main() -> None:
    """``guard.py MARK SCRATCH``."""
    mark, scratch = sys.argv[1:3]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    children = [json.loads(line) for line in sys.stdin if line.endswith("\n")]
    waves = [
        {child["pid"]: child["signals"][min(wave, len(child["signals"]) - 1)] for child in children if _is(child)} for wave in range(3)
    ]
    for wave in range(3):
        targets = {pid: number for pid, number in waves[wave].items() if _is_alive(pid)}
        targets.update({pid: (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)[wave] for pid in _marked(mark) if pid not in targets})
        if not targets:
            break
        for pid, number in targets.items():
            _signal(pid, number)
        _wait(targets)
    shutil.rmtree(scratch, ignore_errors=True)


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the pid it names one process for good. None: no such process."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - no pathlib here: it doubles the start of this script
            return int(stat.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _is(child: dict[str, Any]) -> bool:
    return start_ticks(child["pid"]) == child["start"] if child["start"] is not None else _is_alive(child["pid"])


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as environ:  # noqa: PTH123
            if wanted in environ.read().split(b"\0"):
                found.append(int(name))
    return found


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _wait(pids: dict[int, int]) -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until and any(_is_alive(pid) for pid in pids):
        time.sleep(0.02)


if __name__ == "__main__":
    main()
