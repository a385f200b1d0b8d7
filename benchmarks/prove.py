"""The long proofs: healthy runs stay green, every live defect turns the run red at its hop. Writes a summary for ``docs/proof/``.

    python -m benchmarks.prove --healthy 10 --write docs/proof/spine.md

Every run is a whole one: the stack from nothing, real calls, torn down. Nothing is tried again: a red healthy run is a finding.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import codec, rundir
from harness.model import Findings, Status, value
from harness.stack import breakage


@value
class Proof:
    """One run and what it had to show."""

    name: str
    wanted: str
    found: str
    holds: bool
    ended: str
    """First failing or undecided claim with its sentence."""
    took_s: float
    load: float
    pacing_p99_ms: float | None
    run: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prove", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--healthy", type=int, default=10, help="healthy runs in a row")
    parser.add_argument("--defects", nargs="*", help="only these; none: all")
    parser.add_argument("--write", type=Path, help="file for the summary")
    parser.add_argument("--json", action="store_true", help="print the proofs as JSON")
    options = parser.parse_args(arguments)
    proofs = []
    for proof in _proofs(options.healthy, options.defects):
        proofs.append(proof)
        sys.stderr.write(f"{'ok  ' if proof.holds else 'NOT '} {proof.name}: {proof.found} ({proof.took_s:.0f} s)\n")
    text = _summary(proofs)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)
    print(json.dumps([_plain(proof) for proof in proofs]) if options.json else text)
    return 0 if all(proof.holds for proof in proofs) else 1


def _proofs(healthy: int, defects: Sequence[str] | None) -> Iterator[Proof]:
    for number in range(1, healthy + 1):
        yield _proof(f"healthy {number}", None, None)
    for defect in breakage.catalogue():
        if defects is None or defect.name in defects:
            yield _proof(defect.name, defect.name, defect.claim)


def _proof(name: str, defect: str | None, claim: str | None) -> Proof:
    """One run in a process of its own, as a user would start it."""
    before = set(rundir.RUNS.glob("*"))
    began, load = time.monotonic(), os.getloadavg()[0]
    command = [sys.executable, "-m", "harness.cli", "run", "smoke", "--json", *(["--defect", defect] if defect else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    took_s = time.monotonic() - began
    (path,) = set(rundir.RUNS.glob("*")) - before or {rundir.RUNS}
    try:
        findings: Findings = codec.from_json(Findings, json.loads((path / "verdicts.json").read_text()))
    except (OSError, ValueError) as exc:
        last = done.stderr.strip().splitlines()[-1:] or [str(exc)]
        return _result(name, claim, f"no verdict, exit {done.returncode}", last[0], None, took_s, load, path.name, holds=False)
    red = [verdict for verdict in findings.verdicts if verdict.status is Status.FAIL and verdict.blind is None]
    undecided = [verdict for verdict in findings.verdicts if verdict.status is Status.INCONCLUSIVE and verdict.blind is None]
    first = next(iter((*red, *undecided)), None)
    words = f"{first.claim}: {first.sentence}" if first else ""
    said = "green" if done.returncode == 0 else ("red at " + ", ".join(v.claim for v in red) if red else "undecided")
    holds = done.returncode == 0 if claim is None else done.returncode == 1 and bool(red) and claim in {verdict.claim for verdict in red}
    return _result(name, claim, said, words, findings.ruler.pacing_p99_ms, took_s, load, path.name, holds=holds)


def _result(
    name: str, claim: str | None, found: str, ended: str, pacing: float | None, took_s: float, load: float, run: str, *, holds: bool
) -> Proof:
    wanted = "green" if claim is None else f"red at {claim}"
    return Proof(name=name, wanted=wanted, found=found, holds=holds, ended=ended, took_s=took_s, load=load, pacing_p99_ms=pacing, run=run)


def _summary(proofs: Sequence[Proof]) -> str:
    held = sum(proof.holds for proof in proofs)
    lines = [
        f"{held} of {len(proofs)} proofs hold. Smoke scenario: 3 calls at once, 3 turns each, on the embedded stack;"
        f" {os.cpu_count()} cores, shared with other work (load average before each run in the table).",
        "",
        "| run | wanted | found | says | seconds | load | pacing p99 |",
        "|---|---|---|---|---|---|---|",
    ]
    for proof in proofs:
        pacing = "-" if proof.pacing_p99_ms is None else f"{proof.pacing_p99_ms:.1f} ms"
        mark = "" if proof.holds else "**NOT** "
        words = proof.ended.replace("|", "\\|")
        lines.append(
            f"| {proof.name} | {proof.wanted} | {mark}{proof.found} | {words} | {proof.took_s:.0f} | {proof.load:.1f} | {pacing} |"
        )
    return "\n".join(lines) + "\n"


def _plain(proof: Proof) -> dict[str, Any]:
    return {name: getattr(proof, name) for name in Proof.__dataclass_fields__}


if __name__ == "__main__":
    sys.exit(main())
