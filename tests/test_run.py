"""The main path's own decisions: exit codes, windows, limits, and no machine path in what a run leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import rundir
from harness.model import Part, Status, UnixNs
from harness.run import Finished, _forget_s, _load_limit_s, _window_start, placed
from tests.fakes.evidence import healthy

EVIDENCE, FINDINGS = healthy()


def finished(status: Status, interrupted: str | None = None) -> Finished:
    evidence = replace(EVIDENCE, info=replace(EVIDENCE.info, interrupted=interrupted))
    return Finished(path=rundir.RUNS / "k3f9", evidence=evidence, findings=replace(FINDINGS, status=status))


@pytest.mark.parametrize(
    ("status", "interrupted", "code"),
    [
        (Status.PASS, None, 0),
        (Status.FAIL, None, 1),
        (Status.INCONCLUSIVE, None, 3),
        (Status.PASS, "Ctrl-C", 3),
        (Status.FAIL, "Ctrl-C", 1),
    ],
)
def test_exit_codes_follow_the_findings(status: Status, interrupted: str | None, code: int) -> None:
    """A run that was cut short cannot pass."""
    assert finished(status, interrupted).exit_code == code


def test_a_run_is_named_by_its_id_where_runs_are_kept() -> None:
    """And by its path anywhere else: what is printed can be typed again."""
    elsewhere = replace(finished(Status.PASS), path=Path("fixtures/runs/lying-agent"))

    assert (finished(Status.PASS).name, elsewhere.name) == ("k3f9", "fixtures/runs/lying-agent")


def test_the_window_begins_two_scrapes_and_a_rule_window_before_the_run() -> None:
    """A counter's value before the first call is in it, and all that a rule saw at it."""
    info = replace(EVIDENCE.info, started_at=UnixNs(100_000_000_000), settings={"scrape_interval_s": 15, "rules_window_s": 20.0})

    assert _window_start(info) == 50_000_000_000


@pytest.mark.parametrize(
    ("settings", "requires", "interrupted", "waits"),
    [
        ({"time_scale": 15}, ("ttfw/rule",), None, True),
        ({"time_scale": 15}, ("ttfw/exporter",), None, False),
        ({"time_scale": 15}, ("ttfw/rule",), "Ctrl-C", False),
        ({}, ("ttfw/rule",), None, False),
    ],
)
def test_only_a_rule_on_a_fast_stack_is_waited_for(
    settings: dict[str, float], requires: tuple[str, ...], interrupted: str | None, waits: bool
) -> None:
    """A window that has forgotten something costs seconds there, minutes elsewhere."""
    scenario = replace(EVIDENCE.info.scenario, requires=requires)

    assert (_forget_s(replace(EVIDENCE.info, settings=settings, scenario=scenario, interrupted=interrupted)) > 0) is waits


def test_the_limit_of_the_load_allows_every_turn_its_time() -> None:
    """It stops a load that hangs, never one that is slow."""
    (plan, *_) = EVIDENCE.plans

    assert _load_limit_s((plan,)) > plan.due_s + len(plan.turns) * (plan.answer_timeout_s + 10)


def test_parts_are_placed_without_the_names_of_this_machine(tmp_path: Path) -> None:
    """Runs are shown to others."""
    root = Path(__file__).parents[1]
    parts = [
        Part(name="a", version="1", origin="cache", location=str(tmp_path / "bin" / "a")),
        Part(name="b", version="1", origin="package", location=str(root / "deploy" / "b")),
        Part(name="c", version="1", origin="path", location="/usr/bin/c"),
    ]

    assert [part.location for part in placed(tuple(parts), tmp_path)] == ["$VOXPROOF_HOME/bin/a", "deploy/b", "/usr/bin/c"]
