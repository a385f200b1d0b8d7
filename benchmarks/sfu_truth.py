"""What an impairment really did, against the media server's own metrics: loss, jitter and round trips, both ways.

``python -m benchmarks.sfu_truth --json``: real calls of the embedded stack to the responder, every 20th packet lost and 40 ms of delay both ways;
then up to 30 ms of jitter both ways. Of each figure what the server's exporter says, and the set of what it may say given the wire.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from pathlib import Path
from typing import Any

from assertions import jitter, loss, rtt
from assertions.facts import Facts
from assertions.ledger import Memory, Range, judge
from harness import rundir
from harness.measure import reports
from harness.measure.series import Reader
from harness.model import CallRecord, Evidence
from harness.verbs.running import order

SCENARIOS = ("calibration-delay", "calibration-jitter")
"""Of ``scenarios/``: constant delay and loss, whose truth is exact; and jitter."""


def main(argv: list[str] | None = None) -> int:
    """Figures with their conditions."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sfu_truth", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--run", action="append", type=Path, metavar="DIR", help="judge these recorded runs; none is placed")
    options = parser.parse_args(argv)
    runs = options.run or [placed(name) for name in SCENARIOS]
    found = {"conditions": conditions(), "runs": [figures(rundir.read_evidence(path)) for path in runs]}
    print(json.dumps(found, indent=1) if options.json else text(found))
    return 0


def placed(name: str) -> Path:
    """A run of one scenario, its directory."""
    from harness.run import run

    return run(order(name, target_path=None, argv=("benchmarks.sfu_truth",)), progress=lambda line: print(line, file=sys.stderr)).path


def conditions() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def figures(evidence: Evidence) -> dict[str, Any]:
    """Of one run: what was made, and of every number of the exporter what it says and may say."""
    facts, reader = Facts.of(evidence), Reader.of(evidence)
    rows = []
    for quantity in (loss, jitter, rtt):
        for tree in quantity.trees(facts):
            for judged in judge(tree, reader, Memory(), with_defects=False):
                if not judged.step.claim.endswith("/exporter") or judged.said is None:
                    continue
                for key, may in judged.admitted.parts.items():
                    says = judged.said.parts.get(key)
                    if isinstance(may, Range) and key[0] != "@":
                        rows.append(row(judged.step.claim, key, says.lo if isinstance(says, Range) else 0.0, may))
    made = {way: sum(window.lost for call in evidence.records for window in reports.impaired(call, way)) for way in ("up", "down")}
    told = {way: sum(last_lost(call, way) for call in evidence.records) for way in ("up", "down")}
    return {
        "run": evidence.info.run_id,
        "scenario": evidence.info.scenario.name,
        "calls": len(evidence.records),
        "lost_on_purpose": made,
        "reported_lost": told,
        "figures": rows,
    }


def last_lost(call: CallRecord, way: str) -> int:
    """What the last report of one direction said."""
    said = reports.of(call, way)
    return said.lost[-1] if said else 0


def row(claim: str, key: tuple[str, ...], says: float, may: Range) -> dict[str, Any]:
    return {
        "claim": claim,
        "figure": " ".join(key),
        "says": round(says, 3),
        "least": round(may.lo, 3),
        "most": None if math.isinf(may.hi) else round(may.hi, 3),
        "is_inside": may.lo <= says <= may.hi,
    }


def text(found: dict[str, Any]) -> str:
    lines = [f"{found['conditions']}"]
    for run in found["runs"]:
        lines.append(
            f"{run['scenario']} {run['run']}: {run['calls']} calls, lost on purpose {run['lost_on_purpose']}, reported {run['reported_lost']}"
        )
        for each in run["figures"]:
            most = "any" if each["most"] is None else f"{each['most']:g}"
            inside = "inside" if each["is_inside"] else "OUTSIDE"
            lines.append(
                f"  {each['claim']:<16} {each['figure']:<18} says {each['says']:>10g}  may say {each['least']:g} to {most}  {inside}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
