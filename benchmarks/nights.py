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
    parser.add_argument(
        "--runs", nargs="+", type=Path, default=[RUNS / name for name in HEALTHY], metavar="RUN", help="recorded healthy runs"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        told = pool.starmap(judged, [(options.runs[seed % len(options.runs)], seed) for seed in range(options.nights)], chunksize=4)
    row = {"nights": options.nights, "runs": len(options.runs), **summed(told), "seconds": round(time.perf_counter() - began)}
    print(json.dumps(row) if options.json else "\n".join(f"{name:<12}{figure}" for name, figure in row.items()))


def judged(run: Path, seed: int) -> tuple[str, dict[str, str]]:
    """The status of one virtual night, and every claim that did not pass in it, save those that the recording itself leaves open."""
    findings = check(night(_evidence(run), Random(seed)))
    is_open = _open(run)
    return findings.status.value, {
        verdict.claim: f"{verdict.status}: {verdict.sentence}"
        for verdict in findings.verdicts
        if verdict.status is not Status.PASS
        and not verdict.blind
        and not (verdict.status is Status.INCONCLUSIVE and verdict.claim in is_open)
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
def _open(run: Path) -> frozenset[str]:
    """What the recording cannot decide: an older one lacks whole sources."""
    return frozenset(verdict.claim for verdict in check(_evidence(run)).verdicts if verdict.status is Status.INCONCLUSIVE)


if __name__ == "__main__":
    main()
