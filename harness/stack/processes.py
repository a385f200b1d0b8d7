"""What the system tells of processes: descendants, memory, CPU time, command line. Linux; elsewhere nothing is told."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_COMMAND_CHARACTERS = 80


def pids() -> Iterator[int]:
    """Every process there is."""
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()) if _PROC.is_dir() else iter(())


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for each in pids():
        with contextlib.suppress(OSError):
            children.setdefault(int(_stat(each)[1]), []).append(each)
    found = [pid]
    for each in found:
        found.extend(children.get(each, ()))
    return found


def usage(pid: int) -> tuple[float | None, float | None]:
    """Memory in MiB and CPU seconds of a process and its descendants. None: there is no such process, or nothing is told.

    Memory is the proportional set size: pages that processes share are counted once, not once each.
    """
    memory_kib, ticks = 0, 0
    for each in tree(pid):
        try:
            for line in (_PROC / str(each) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    memory_kib += int(line.split()[1])
            # User and system time, and those of children it has waited for.
            ticks += sum(int(field) for field in _stat(each)[11:15])
        except OSError:
            if each == pid:
                return None, None
    return memory_kib / 1024, ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def at_level(realtime: int | None) -> Iterator[None]:
    """What the calling thread starts meanwhile runs at this real-time level, where that is permitted. None: as it does."""
    policy, level = (os.sched_getscheduler(0), os.sched_getparam(0)) if realtime is not None else (0, None)
    try:
        if realtime is not None:
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(realtime))
        yield
    finally:
        if level is not None:
            os.sched_setscheduler(0, policy, level)


def level_of(pid: int) -> int | None:
    """The real-time level of a process. None: it has none, or there is no such process."""
    with contextlib.suppress(OSError):
        return os.sched_getparam(pid).sched_priority or None
    return None


def sockets(pid: int) -> frozenset[str]:
    """Inodes of the sockets that the process has open. Empty if this user may not look."""
    found = set()
    try:
        descriptors = tuple((_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return frozenset()
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            kind, _, inode = str(descriptor.readlink()).partition(":[")
            if kind == "socket":
                found.add(inode.rstrip("]"))
    return frozenset(found)


def command(pid: int) -> str:
    """The command line of a process, cut to 80 characters."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"
    return words if len(words) <= _COMMAND_CHARACTERS else words[: _COMMAND_CHARACTERS - 3] + "..."


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold spaces: state, parent, ..."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
