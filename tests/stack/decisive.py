"""What a proof of decisiveness needs: a command that may not raise its priority, and a core half burnt by others. Run as scripts."""

from __future__ import annotations

import ctypes
import os
import sys
import time

CAP_SYS_NICE = 23
PR_CAPBSET_DROP = 24
PERIOD_S = 0.01


def without_priority(argv: list[str]) -> None:
    """Becomes ``argv``, which may not raise its priority, root or not: the capability is gone from the bounding set."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0)
    os.execvp(argv[0], argv)


def burn(core: int, share: float) -> None:
    """Burns this share of one core until it is killed."""
    os.sched_setaffinity(0, {core})
    due = time.monotonic()
    while True:
        until = due + share * PERIOD_S
        while time.monotonic() < until:
            pass
        due += PERIOD_S
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    if sys.argv[1] == "burn":
        burn(int(sys.argv[2]), float(sys.argv[3]))
    else:
        without_priority(sys.argv[2:])
