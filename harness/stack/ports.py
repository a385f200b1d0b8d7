"""Ports on loopback: free ones for the parts, and the name of whoever holds a taken one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness.errors import EnvironmentFault
from harness.model import value
from harness.stack import processes

LOOPBACK = "127.0.0.1"
_LISTEN = "0A"
_UDP_BOUND = "07"
_FIRST = 20_000
_TRIES = 500
_held: dict[int, int] = {}
"""Ports that this process has promised to its stacks, each with the descriptor of its lock."""


@value
class Holder:
    """The process that has a port."""

    pid: int
    command: str


def free(names: tuple[str, ...], *, fixed: Mapping[str, int] | None = None) -> dict[str, int]:
    """A free port for each name, TCP and UDP alike; those in ``fixed`` keep their number.

    A port is promised to one stack on this machine until its process ends, or ``release`` gives it back: two stacks that start in the same
    second look before either listens.
    Raises EnvironmentFault, naming the holder, if a fixed one is taken.
    """
    fixed = fixed or {}
    for name, port in fixed.items():
        if not _is_free(port):
            raise EnvironmentFault(f"port {port}, wanted for {name}, {taken_by(port)}; stop it or choose another port")
    chosen = dict(fixed)
    for name in names:
        if name not in chosen:
            chosen[name] = _any_free(without=frozenset(chosen.values()))
    return chosen


def release(chosen: Mapping[str, int]) -> None:
    """Gives promised ports back; nothing listens there any more."""
    for port in chosen.values():
        if (descriptor := _held.pop(port, None)) is not None:
            os.close(descriptor)


def taken_by(port: int) -> str:
    """``is taken by pid 12 (nginx ...)``, as far as this user may see."""
    found = holder(port)
    return f"is taken by pid {found.pid} ({found.command})" if found else "is taken by a process that this user cannot see"


def holder(port: int) -> Holder | None:
    """The process that listens on the TCP port or has the UDP port bound. None: nobody, or one that we may not look into."""
    inodes = _inodes(port)
    if not inodes:
        return None
    for pid in processes.pids():
        if inodes & processes.sockets(pid):
            return Holder(pid=pid, command=processes.command(pid))
    return None


def listens(pids: frozenset[int], port: int) -> bool:
    """One of these processes itself has the port. True where the system does not tell (no ``/proc``)."""
    if not Path("/proc/net/tcp").exists():
        return True
    inodes = _inodes(port)
    return any(inodes & processes.sockets(pid) for pid in pids)


def _any_free(*, without: frozenset[int]) -> int:
    """Below the range that the kernel gives to outgoing connections: a client cannot take it between our look and the part's start."""
    last = _first_ephemeral() - 1
    for _ in range(_TRIES):
        port = random.randint(_FIRST, last)
        if port not in without and _promise(port):
            if _is_free(port):
                return port
            release({"taken": port})
    raise EnvironmentFault(f"no free port between {_FIRST} and {last} on {LOOPBACK}")


def _promise(port: int) -> bool:
    """Whether the port is ours now; the lock goes with the process, however that ends."""
    if port in _held:
        return False
    directory = Path(tempfile.gettempdir()) / f"voxproof-ports-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    descriptor = os.open(directory / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    _held[port] = descriptor
    return True


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                # A port in TIME_WAIT is free for a server, as every server sets this.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True


def _inodes(port: int) -> frozenset[str]:
    """Socket inodes that listen (TCP) or are bound (UDP) on the port, on any address."""
    found = set()
    for table, state in (("tcp", _LISTEN), ("tcp6", _LISTEN), ("udp", _UDP_BOUND), ("udp6", _UDP_BOUND)):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return frozenset(found)
