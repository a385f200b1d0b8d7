"""The path of a drill, as far as it is arithmetic: its calls, what they were as faults, its rules, and whom it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.check import CLAIMS, undecidable
from harness.drill import _heard, _plans, drill, scaled
from harness.errors import UsageError
from harness.model import Drill, Grade, Scenario
from harness.rules.alerts import alert_rules
from harness.rules.drills import LOSS_FROM_S, LOSS_UNTIL_S
from harness.run import Order
from harness.rundir import RunDir
from harness.verbs.running import order
from tests.fakes.evidence import plan, record, scenario

ALERTS = Path(__file__).parents[1] / "deploy" / "monitoring" / "rules" / "alerts.yml"
ROWS = tuple(claim for claim in CLAIMS if claim.startswith("alerts/") and claim != "alerts/real")


def drilled(**changes: Any) -> Scenario:
    """A scenario that is a drill."""
    return scenario(calls=0, turns=(), requires=ROWS, drill=Drill(cycles=1), **changes)


def test_a_cycle_has_a_slow_call_that_loses_packets_and_a_quick_one(tmp_path: Path) -> None:
    """In the order in which they are due; nothing of them is decoded that need not be."""
    plans = _plans(Drill(cycles=2, calls=True), RunDir(tmp_path), 7, scrape_s=1.0)

    assert [(each.agent_name, bool(each.impairments)) for each in plans] == [("slow-responder", True), ("responder", False)] * 2
    assert [each.due_s for each in plans] == sorted(each.due_s for each in plans)
    assert {each.grade for each in plans} == {Grade.LIGHT}


def test_a_drill_without_calls_places_none(tmp_path: Path) -> None:
    """At production speed calls would be too short."""
    assert _plans(Drill(cycles=2), RunDir(tmp_path), 7, scrape_s=15.0) == ()


def test_a_lossy_call_is_two_faults(tmp_path: Path) -> None:
    """Loss from when its impairment began until it ended or the call did; slowness from the first reply to the last."""
    lossy = _plans(Drill(cycles=1, calls=True), RunDir(tmp_path), 7, scrape_s=1.0)[0]
    made = record(replace(plan(), impairments=lossy.impairments))
    loss, slow = _heard((made, record(plan(2))))

    assert made.joined_at is not None
    assert made.left_at is not None
    assert loss.begun.earliest_s == pytest.approx(made.joined_at / 1e9 + LOSS_FROM_S)
    assert loss.ended is not None
    assert loss.ended.latest_s == pytest.approx(min(made.joined_at / 1e9 + LOSS_UNTIL_S, made.left_at / 1e9))
    words = [turn.first_word_at for turn in made.turns if turn.first_word_at is not None]
    assert slow.begun.latest_s == pytest.approx(words[0] / 1e9)
    assert slow.ended is not None
    assert slow.ended.latest_s == pytest.approx(words[-1] / 1e9)


def test_every_duration_of_a_rule_is_divided() -> None:
    """Of the expression, too."""
    shipped = {rule.name: rule for rule in alert_rules(ALERTS)}
    fast = {rule.name: rule for rule in scaled(alert_rules(ALERTS), 15)}

    assert (shipped["HostCpuHigh"].for_s, fast["HostCpuHigh"].for_s, fast["HostCpuHigh"].interval_s) == (300, 20, 1)
    assert "[20s]" in fast["HostCpuHigh"].expression
    assert scaled(alert_rules(ALERTS), 1) == alert_rules(ALERTS)


def test_nobody_elses_stack_is_broken(tmp_path: Path) -> None:
    """A target is refused before anything is started."""
    wanted = Order(
        scenario=drilled(),
        target=object(),  # type: ignore[arg-type]
        defect=None,
        calibration=None,
        home=tmp_path,
        runs=tmp_path,
        environ={},
        argv=("voxproof",),
    )

    with pytest.raises(UsageError, match="a drill breaks things"):
        drill(wanted, progress=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_only_a_drill_decides_on_alerts() -> None:
    """And only one with near misses on silence; a drill decides on nothing else."""
    assert undecidable(drilled(), {}) == ()
    assert undecidable(scenario(requires=("alerts/pending",)), {}) == ("alerts/pending: only a drill breaks things; give the scenario one",)
    assert undecidable(replace(drilled(), requires=("alerts/*",)), {}) == ()
    assert undecidable(replace(drilled(), requires=("alerts/real",)), {}) == (
        "alerts/real: only with --real-faults, which asks for it by itself",
    )
    quiet = replace(drilled(), drill=Drill(cycles=1, near_misses=False))
    assert undecidable(quiet, {}) == ("alerts/silent: the drill has no near misses",)
    assert undecidable(replace(drilled(), requires=("calls/rows",)), {}) == ("calls/rows: a drill places no calls",)


def test_real_faults_are_of_a_drill() -> None:
    """The flag asks for them, and for the claim that says how real they were; calls have none."""
    wanted = order("alerts-cycle", target_path=None, argv=(), real_faults=True).scenario

    assert wanted.drill.real_faults
    assert list(filter(wanted.is_required, CLAIMS))[-1] == "alerts/real"
    with pytest.raises(UsageError, match="is no drill; try alerts-cycle"):
        order("smoke", target_path=None, argv=(), real_faults=True)
