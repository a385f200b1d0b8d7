"""Joins a second by one process, and what a caller keeps of its memory.

python -m benchmarks.joins --callers 60 --seconds 10 --json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.caller_cost import conditions, cost, in_process
from benchmarks.sfu import lone_sfu
from harness.model import Grade, PeerMode

LEAST_PER_S, MOST_MB = 50.0, 0.5


def main() -> None:
    """Prints one row for each engine: callers join four at once, then speak for some seconds in light grade, after which memory is read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--callers", type=int, default=60, help="even: two to a room")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as logs, lone_sfu(Path(logs)) as sfu:
        for engine in ("compiled", "python"):
            row = in_process(cost, sfu, arguments.callers, arguments.seconds, PeerMode.SINGLE, Grade.LIGHT, engine)
            memory_mb = row["memory_mib_per_caller"] * (1 << 20) / 1e6
            rows.append(
                {
                    **{name: row[name] for name in ("engine", "callers", "others_cores", "joins_per_s", "join_cpu_ms")},
                    "memory_mb_per_caller": round(memory_mb, 3),
                    "is_kept": row["joins_per_s"] >= LEAST_PER_S and memory_mb <= MOST_MB,
                }
            )
    result = {"conditions": conditions(), "rows": rows}
    print(
        json.dumps(result, indent=2)
        if arguments.json
        else "\n".join(" ".join(f"{key}={said}" for key, said in row.items()) for row in rows)
    )


if __name__ == "__main__":
    main()
