"""One real fault, as a process that ends by itself; run as a script, standard library only.

``burn SECONDS``: one processor, with what nobody else wants of it. ``hold BYTES LEAVE SECONDS``: memory, let go when less than LEAVE bytes are
available to others. ``within DIRECTORY BYTES COMMAND...``: becomes the command, in a mount namespace of its own in which DIRECTORY is a small file
system; when the command ends, the kernel takes it away. Each ends when its parent does.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import sys
import time
from pathlib import Path

HOLDS, LET_GO = "holds", "let go"
"""What ``hold`` writes once it holds everything, and when it does not any more."""
_STEP_BYTES = 32 * 2**20
_LOOK_S = 0.05
_NEW_USER, _NEW_MOUNTS, _PRIVATE = 0x10000000, 0x00020000, 0x40000 | 0x4000


def main() -> None:
    """``fault.py burn | hold | within ...``"""
    match sys.argv[1:]:
        case ["burn", seconds]:
            burn(float(seconds))
        case ["hold", size, leave, seconds]:
            hold(int(size), int(leave), float(seconds))
        case ["within", directory, size, *command]:
            within(directory, int(size), command)


def burn(seconds: float) -> None:
    """Takes what would be idle, and gives way to everybody: SCHED_IDLE."""
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # The kernel's own bound, should the loop below be wrong.
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    parent, until = os.getppid(), time.monotonic() + seconds
    while time.monotonic() < until and os.getppid() == parent:
        for _ in range(100_000):
            pass


def hold(size: int, leave: int, seconds: float) -> None:
    """Step by step, each page written; the first to be killed if memory ends all the same."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    os.nice(19)
    parent, until = os.getppid(), time.monotonic() + seconds
    held: list[mmap.mmap] = []
    page = b"\x5a" * _STEP_BYTES
    said = None
    while time.monotonic() < until and os.getppid() == parent:
        if said != LET_GO and available_bytes() < leave + (0 if said == HOLDS else _STEP_BYTES):
            held.clear()
            said = LET_GO
            _say(f"{LET_GO}: less than {leave // 2**20} MiB were left to others")
        elif said is None and len(held) * _STEP_BYTES >= size:
            said = HOLDS
            _say(HOLDS)
        elif said is None:
            held.append(mmap.mmap(-1, _STEP_BYTES))
            held[-1].write(page)
            continue
        time.sleep(_LOOK_S)


def within(directory: str, size: int, command: list[str]) -> None:
    """A tmpfs below an overlay, since rules leave a bare tmpfs out: nothing of it is on a disk, and no root is needed."""
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: bytes | int | None) -> None:
        if getattr(libc, name)(*arguments):
            number = ctypes.get_errno()
            sys.exit(f"{name} is not permitted here ({os.strerror(number)})")

    call("unshare", _NEW_USER | _NEW_MOUNTS)
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{user} {user} 1")
    (own / "gid_map").write_text(f"{group} {group} 1")
    call("mount", b"none", b"/", None, _PRIVATE, None)
    call("mount", b"tmpfs", directory.encode(), b"tmpfs", 0, f"size={size},mode=0700".encode())
    parts = [f"{directory}/{name}" for name in ("lower", "upper", "work")]
    for part in parts:
        os.mkdir(part)  # noqa: PTH102 - as text: the kernel is told the same
    options = ",".join(f"{name}dir={part}" for name, part in zip(("lower", "upper", "work"), parts, strict=True))
    call("mount", b"overlay", directory.encode(), b"overlay", 0, options.encode())
    os.execv(command[0], command)


def available_bytes() -> int:
    """What can be had without anybody being swapped out."""
    with open("/proc/meminfo") as lines:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201 - the log of this process


if __name__ == "__main__":
    main()
