"""How late packets leave, with real-time priority and without, beside a ticker that does nothing else, in the same run.

python -m benchmarks.send_lateness --callers 100 --seconds 10 --json

The ticker is a process at ordinary priority that sleeps by clock_nanosleep until absolute instants 4 ms apart, as the media thread does: what it is
late, the machine is late.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.caller_cost import conditions, cost, in_process
from benchmarks.priority import give_up_priority
from benchmarks.sfu import Sfu, lone_sfu
from harness.measure.pacing import Lateness
from harness.model import Grade, PeerMode

STEP_NS = 4_000_000
WITH_PRIORITY_MS, WITHOUT_MS = 1.0, 5.0
"""Most at p99: absolute with real-time priority, over the ticker's without."""


def main() -> None:
    """Prints one row for each engine and priority."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--callers", type=int, default=100, help="even: two to a room")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--engines", nargs="+", choices=("python", "compiled"), default=["compiled", "python"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs, lone_sfu(Path(logs)) as sfu:
        rows = [
            _row(sfu, arguments.callers, arguments.seconds, engine, has_priority=has_priority)
            for engine in arguments.engines
            for has_priority in (True, False)
        ]
    result = {"conditions": conditions(), "rows": rows}
    print(
        json.dumps(result, indent=2)
        if arguments.json
        else "\n".join(" ".join(f"{key}={said}" for key, said in row.items()) for row in rows)
    )


def _row(sfu: Sfu, callers: int, seconds: float, engine: str, *, has_priority: bool) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    is_over, ticked = context.Event(), context.SimpleQueue()
    ticker = context.Process(target=_tick, args=(is_over, ticked))
    ticker.start()
    try:
        prepare = None if has_priority else give_up_priority
        row = in_process(cost, sfu, callers, seconds, PeerMode.SINGLE, Grade.LIGHT, engine, prepare=prepare)
        is_over.set()
        ticker_p99_ms = ticked.get()
    finally:
        ticker.kill()
        ticker.join()
    limit_ms = WITH_PRIORITY_MS if has_priority else ticker_p99_ms + WITHOUT_MS
    kept = ("engine", "priority", "callers", "seconds", "others_cores", "pacing_p50_ms", "pacing_p99_ms", "pacing_max_ms", "late_ticks")
    return {
        **{name: row[name] for name in kept},
        "ticker_p99_ms": ticker_p99_ms,
        "limit_ms": round(limit_ms, 2),
        "is_kept": row["pacing_p99_ms"] <= limit_ms,
    }


def _tick(is_over: Any, ticked: Any) -> None:
    """Sleeps until instant after instant, and counts how late it woke."""
    libc, until = ctypes.CDLL(None), (ctypes.c_long * 2)()
    lateness, due_ns = Lateness(), time.monotonic_ns() + STEP_NS
    while not is_over.is_set():
        until[0], until[1] = divmod(due_ns, 1_000_000_000)
        libc.clock_nanosleep(time.CLOCK_MONOTONIC, 1, ctypes.byref(until), None)
        lateness.add(time.monotonic_ns() - due_ns)
        due_ns = max(due_ns + STEP_NS, time.monotonic_ns())
    ticked.put(lateness.quantile_ms(0.99))


if __name__ == "__main__":
    main()
