"""How far heard and reported may lie apart, turn by turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assertions.distance import distances
from assertions.facts import Facts
from assertions.ledger import Range
from assertions.ttfw import heard
from harness.model import Calibration, Evidence, Grade, Impairment
from tests.fakes import stack
from tests.fakes.evidence import calibration, plan, record

KEY = ("turn", "voxproof-k3f9-1", "1")
OTHER = ("turn", "voxproof-k3f9-2", "1")
SCATTERED = replace(calibration(), mean_s=0.16, turn_sd_s=0.03, run_sd_s=0.005, runs=20)


def of(evidence: Evidence) -> tuple[Range, Range]:
    """The first turn's distance by itself, and for the sum."""
    facts = Facts.of(evidence)
    found = distances(heard(facts), facts)
    return found.each[KEY], found.together[KEY]


def run(found: Calibration | None, **changes: Any) -> Evidence:
    """Two calls, of which the first is changed."""
    first = record(plan(1))
    first = replace(first, turns=tuple(replace(turn, **changes) for turn in first.turns)) if changes else first
    return stack.of([first, record(plan(2))], calibration=found)


def test_without_a_calibration_any_distance_may_be() -> None:
    """Both ways."""
    each, together = of(run(None))

    assert each == together == Range(lo=float("-inf"), hi=float("inf"))


def test_bounds_alone_bound_the_sum_as_they_bound_each() -> None:
    """Nothing is known of the mean."""
    each, together = of(run(calibration()))

    assert each == together
    assert [each.lo, each.hi] == pytest.approx([0.06, 0.26])


def test_the_sum_is_bounded_closer_by_how_runs_scatter() -> None:
    """Around the mean."""
    each, together = of(run(SCATTERED))

    assert each.lo < together.lo < 0.16 < together.hi < each.hi


def test_listening_less_closely_adds_its_error() -> None:
    """To a turn, and to the mean."""
    full, light = of(run(SCATTERED)), of(run(SCATTERED, grade=Grade.LIGHT))

    assert [full[0].lo - light[0].lo, light[1].hi - full[1].hi] == pytest.approx([0.003, 0.003])


def test_an_impaired_call_is_known_by_its_bounds_only() -> None:
    """Delays that the scenario ordered add up; the other call keeps its mean."""
    slow = Impairment(direction="up", delay_s=0.1)
    first = record(replace(plan(1), impairments=(slow,)))
    evidence = stack.of([first, record(plan(2))], calibration=SCATTERED)
    facts = Facts.of(evidence)
    found = distances(heard(facts), facts)

    assert found.each[KEY] == found.together[KEY]
    assert [found.each[KEY].lo, found.each[KEY].hi] == pytest.approx([0.16, 0.36])
    assert found.together[OTHER].hi < 0.26
    assert any("impaired uplink" in reason for reason in found.because)
