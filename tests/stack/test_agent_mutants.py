"""Defects in the agent's telemetry: a small program in the place of the agent, a small module in the place of its metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.stack.breakage import MUTANTS

METRICS = """
class Series:
    def __init__(self): self.seen = []
    def observe(self, value): self.seen.append(value)
    def labels(self, *names): return self
    def inc(self, amount=1): self.seen.append(amount)
TTFW, TOOL_CALLS = Series(), Series()
"""
PROGRAM = """
import json, threading
from voxproof_telemetry import metrics
def call(events):
    for event in events:
        metrics.TOOL_CALLS.labels("t", "true").inc() if event == "tool" else metrics.TTFW.observe(event)
metrics.TOOL_CALLS.labels("t", "true")
call([1.0])
one = threading.Thread(target=call, args=(["tool"],)); one.start(); one.join()
call([2.0, "tool", 3.0, 4.0])
print(json.dumps([metrics.TTFW.seen, metrics.TOOL_CALLS.seen]))
"""


def run(tmp_path: Path, mutant: str | None) -> Any:
    """What the series have seen."""
    (tmp_path / "voxproof_telemetry").mkdir()
    (tmp_path / "voxproof_telemetry" / "__init__.py").touch()
    (tmp_path / "voxproof_telemetry" / "metrics.py").write_text(METRICS)
    env = {
        "PYTHONPATH": os.pathsep.join((str(MUTANTS / "agent"), str(tmp_path))),
        **({"VOXPROOF_MUTANT": mutant, "VOXPROOF_SHIFT_S": "0.3"} if mutant else {}),
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("mutant", "ttfw"),
    [(None, [1.0, 2.0, 3.0, 4.0]), ("ttfw-shifted", [1.3, 2.3, 3.3, 4.3]), ("ttfw-missing-for-tools", [1.0, 2.0, 4.0])],
)
def test_a_mutant_changes_ttfw_only(mutant: str | None, ttfw: list[float], tmp_path: Path) -> None:
    """All later by 300 ms, or none after a tool call of the same call; tool counters stay honest."""

    assert run(tmp_path, mutant) == [ttfw, [1, 1]]
