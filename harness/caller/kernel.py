"""What the media thread asks of Linux: datagrams in batches with the kernel's arrival stamps, drops, real-time priority."""

from __future__ import annotations

import os
import platform
import socket
import struct
import threading
from collections.abc import Collection
from pathlib import Path

from cffi import FFI

from harness.errors import EnvironmentFault

SO_TIMESTAMPNS = 35
"""asm-generic/socket.h; the control message has the same number."""
PACING, BESIDE = 3, 1
"""Real-time levels: of a thread that keeps time, and of what is busy beside it. ``harness.stack.livekit`` puts the media server between them: it
must not wait for a hundred joins, nor packets for it. A stall of 0.8 s was seen where it had to, and 86 ms where it was their equal."""
_BATCH = 16
"""A caller receives one packet in 20 ms; the rest is room for a burst."""
_DATAGRAM = 2048
_CONTROL = 64
_MESSAGE = 64
"""sizeof(struct mmsghdr) where pointers have 64 bits: control length at 40, datagram length at 56."""
_STAMP = struct.Struct("qq")

_FFI = FFI()
_FFI.cdef("""
struct iovec { void *base; size_t length; };
struct msghdr { void *name; unsigned name_length; struct iovec *vector; size_t vector_length;
                void *control; size_t control_length; int flags; };
struct mmsghdr { struct msghdr head; unsigned length; };
int recvmmsg(int, struct mmsghdr *, unsigned, int, void *);
""")


class Batch:
    """Buffers for one ``recvmmsg``; for one thread."""

    def __init__(self) -> None:
        """Raises EnvironmentFault where there is no ``recvmmsg``."""
        if platform.system() != "Linux" or _FFI.sizeof("struct mmsghdr") != _MESSAGE:
            msg = f"the media engine needs 64 bit Linux (recvmmsg, SO_TIMESTAMPNS); this is {platform.system()} {platform.machine()}"
            raise EnvironmentFault(msg)
        self._receive = _FFI.dlopen(None).recvmmsg  # type: ignore[attr-defined]
        self._datagrams, self._controls = bytearray(_BATCH * _DATAGRAM), bytearray(_BATCH * _CONTROL)
        self._messages = _FFI.new("struct mmsghdr[]", _BATCH)
        self._vectors = _FFI.new("struct iovec[]", _BATCH)
        datagrams, controls = _FFI.from_buffer(self._datagrams), _FFI.from_buffer(self._controls)
        for index in range(_BATCH):
            self._vectors[index].base = datagrams + index * _DATAGRAM
            self._vectors[index].length = _DATAGRAM
            self._messages[index].head.vector = self._vectors + index
            self._messages[index].head.vector_length = 1
            self._messages[index].head.control = controls + index * _CONTROL
            self._messages[index].head.control_length = _CONTROL
        self._view = memoryview(self._datagrams)
        raw = memoryview(_FFI.buffer(self._messages))
        self._lengths, self._control_lengths = raw.cast("I"), raw.cast("Q")

    def receive(self, fd: int) -> list[tuple[int, bytes]]:
        """The datagrams that wait at ``fd``, each with the wall-clock nanoseconds at which the kernel took it in."""
        taken: list[tuple[int, bytes]] = []
        while True:
            count = self._receive(fd, self._messages, _BATCH, socket.MSG_DONTWAIT, _FFI.NULL)
            for index in range(count):
                seconds, nanoseconds = _STAMP.unpack_from(self._controls, index * _CONTROL + 16)
                start = index * _DATAGRAM
                self._control_lengths[index * 8 + 5] = _CONTROL
                taken.append((seconds * 1_000_000_000 + nanoseconds, bytes(self._view[start : start + self._lengths[index * 16 + 14]])))
            if count < _BATCH:
                return taken


def stamp_arrivals(connected: socket.socket) -> None:
    """Every datagram received from now on carries the kernel's stamp."""
    connected.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def receive_drops(inodes: Collection[int]) -> dict[int, int]:
    """Datagrams that the kernel dropped because nobody read them in time, by the socket's inode; only those ``/proc/net`` shows."""
    dropped = {}
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[9]) in inodes:
                dropped[int(fields[9])] = int(fields[-1])
    return dropped


def peer_drops(port: int) -> int:
    """Datagrams that the kernel dropped so far at this machine's sockets that are bound to ``port``."""
    try:
        lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    except OSError:
        return 0
    return sum(int(fields[-1]) for fields in lines if int(fields[1].rpartition(":")[2], 16) == port)


def raise_priority(level: int = PACING, thread: int = 0) -> str:
    """Real-time priority for a thread, and for the threads it starts from now on, where that is permitted.

    thread: its native id; 0: the calling one. Returns what was got, in the words of GeneratorHealth.
    """
    try:
        os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(level))
    except PermissionError:
        pass
    else:
        return f"SCHED_RR {level}"
    try:
        os.setpriority(os.PRIO_PROCESS, thread or threading.get_native_id(), -10)
    except PermissionError:
        return "normal"
    return "nice -10"


def restore_priority() -> None:
    """Ordinary priority for the calling thread."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 0:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 0)
