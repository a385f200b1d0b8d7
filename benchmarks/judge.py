"""What judging a run of many calls costs, reading included: ``python -m benchmarks.judge --calls 10000 --json``. In a process of its own."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

from benchmarks.crowd import crowd
from harness.check import check
from harness.rundir import read_evidence, read_plans

RECORDED = Path(__file__).parents[1] / "fixtures" / "runs" / "healthy"


def main() -> None:
    """One row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, metavar="N")
    parser.add_argument("--run", type=Path, default=RECORDED, help="a recorded run that takes place so many times at once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    times = math.ceil(options.calls / len(read_plans(options.run)))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run"
        calls = crowd(options.run, path, times=times)
        lines = sum(text.count("\n") for file in path.rglob("*.jsonl") for text in file.open())
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = {"calls": calls, "lines": lines, **pool.apply(judged, (path,))}
    row["others_load"] = round(os.getloadavg()[0], 1)
    print(json.dumps(row) if options.json else "\n".join(f"{name:<14}{figure}" for name, figure in row.items()))


def judged(path: Path) -> dict[str, float | str]:
    """Reads and judges the run in ``path``; seconds of wall and of CPU, and the most memory that this process ever held."""
    began, cpu = time.perf_counter(), time.process_time()
    evidence = read_evidence(path)
    read_s = time.perf_counter() - began
    findings = check(evidence)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "read_seconds": round(read_s, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "status": findings.status.value,
        "not_passed": ", ".join(
            f"{verdict.claim} {verdict.status}" for verdict in findings.verdicts if verdict.status != "pass" and not verdict.blind
        ),
    }


if __name__ == "__main__":
    main()
