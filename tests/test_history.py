"""Earlier runs that lie beside one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.history import nights
from harness.model import RunInfo, Status, UnixNs
from harness.rundir import RunDir
from tests.fakes.evidence import START, findings, info, scenario, verdict


def keep(directory: Path, name: str, second: int, **changes: Any) -> Path:
    """A judged run on disk."""
    path = directory / name
    path.mkdir(parents=True)
    kept: RunInfo = info(run_id=name, started_at=UnixNs(START + second * 1_000_000_000), **changes)
    RunDir(path).write_info(kept)
    RunDir(path).write_findings(findings([verdict("calls/rows", Status.PASS)]))
    return path


def test_runs_before_it_are_told_oldest_first(tmp_path: Path) -> None:
    """Later ones are not history."""
    keep(tmp_path, "c", 30)
    keep(tmp_path, "a", 10)
    keep(tmp_path, "z", 90)
    now = keep(tmp_path, "now", 60)

    assert [(night.info.run_id, dict(night.statuses)) for night in nights(now)] == [
        ("a", {"calls/rows": Status.PASS}),
        ("c", {"calls/rows": Status.PASS}),
    ]


def test_other_runs_are_not_its_history(tmp_path: Path) -> None:
    """Another scenario, another target, a seeded defect."""
    keep(tmp_path, "a", 10, scenario=scenario(name="load"))
    keep(tmp_path, "b", 10, target="staging")
    keep(tmp_path, "c", 10, defect="ttfw-in-ms")

    assert nights(keep(tmp_path, "now", 60)) == ()


def test_a_seeded_run_has_no_history(tmp_path: Path) -> None:
    """It is red on purpose."""
    keep(tmp_path, "a", 10)

    assert nights(keep(tmp_path, "now", 60, defect="ttfw-in-ms")) == ()


def test_a_broken_run_beside_it_is_passed_over(tmp_path: Path) -> None:
    """Half a file of somebody else is no reason not to report this run."""
    (keep(tmp_path, "a", 10) / "verdicts.json").write_text('{"verdicts": [')
    (keep(tmp_path, "b", 20) / "run.json").write_text("{}")

    assert nights(keep(tmp_path, "now", 60)) == ()
