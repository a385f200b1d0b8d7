"""Real-time priority given up, as on a machine that does not permit it."""

from __future__ import annotations

import ctypes
import struct

_VERSION_3, _SYS_NICE = 0x20080522, 23


def give_up_priority() -> None:
    """Takes CAP_SYS_NICE from the calling thread and from those it starts. Raises OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.create_string_buffer(struct.pack("Ii", _VERSION_3, 0))
    sets = ctypes.create_string_buffer(24)
    if libc.capget(head, sets):
        raise OSError(ctypes.get_errno(), "capget")
    effective, permitted, inheritable, *upper = struct.unpack("6I", sets.raw)
    kept = ~(1 << _SYS_NICE) & 0xFFFFFFFF
    reduced = ctypes.create_string_buffer(struct.pack("6I", effective & kept, permitted & kept, inheritable & kept, *upper))
    if libc.capset(head, reduced):
        raise OSError(ctypes.get_errno(), "capset")
