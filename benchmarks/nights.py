"""How often an honest stack would be called a liar: ``python -m benchmarks.nights --nights 1000 --json``. Recorded healthy runs with other phases."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from random import Random

from benchmarks.resample import night
from harness.check import check
from harness.model import Evidence, Status
from harness.rundir import read_evidence

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
HEALTHY = ("healthy",)


def main() -> None:
    """One row, and the claims that were not passed on some night."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=1000, metavar="N")
    parser.add_argument("--runs", nargs="+", type=Path, default=[RUNS / name for name in HEALTHY], metavar="RUN", help="recorded runs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        told = pool.starmap(judged, [(options.runs[seed % len(options.runs)], seed) for seed in range(options.nights)], chunksize=4)
    row = {"nights": options.nights, "runs": len(options.runs), **summed(told), "seconds": round(time.perf_counter() - began)}
    print(json.dumps(row) if options.json else "\n".join(f"{name:<12}{figure}" for name, figure in row.items()))


def judged(run: Path, seed: int) -> tuple[str, dict[str, str]]:
    """The status of one virtual night, and every claim that did not pass in it: FAIL if one is red, else what the required ones are.

    What the recording itself leaves open, or has red because a defect was seeded, is not looked at, and no lies are planted.
    """
    passed = _passed(run)
    verdicts = [verdict for verdict in check(night(_evidence(run), Random(seed)), control=False).verdicts if verdict.claim in passed]
    scenario = _evidence(run).info.scenario
    is_red = any(verdict.status is Status.FAIL for verdict in verdicts)
    required = [verdict.status for verdict in verdicts if scenario.is_required(verdict.claim)]
    return (Status.FAIL if is_red else Status.worst(required)).value, {
        verdict.claim: f"{verdict.status}: {verdict.sentence}" for verdict in verdicts if verdict.status is not Status.PASS
    }


def summed(told: Iterable[tuple[str, dict[str, str]]]) -> dict[str, object]:
    """Nights by status, and the claims that were red or undecided, each with how often and one sentence."""
    told = list(told)
    statuses = Counter(status for status, _ in told)
    claims = Counter(f"{claim} {sentence.partition(':')[0]}" for _, open_claims in told for claim, sentence in open_claims.items())
    sentences = {claim: sentence for _, open_claims in told for claim, sentence in open_claims.items()}
    return {**{status.value: statuses[status.value] for status in Status}, "not_passed": dict(claims), "sentences": sentences}


@cache
def _evidence(run: Path) -> Evidence:
    return read_evidence(run)


@cache
def _passed(run: Path) -> frozenset[str]:
    return frozenset(verdict.claim for verdict in check(_evidence(run), control=False).verdicts if verdict.status is Status.PASS)


if __name__ == "__main__":
    main()
