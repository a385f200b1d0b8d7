"""Plans: computed before the run, the same for the same seed, numbers of nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load import schedule
from tests.fakes.evidence import healthy

SCENARIO = healthy()[0].info.scenario


def test_at_once_is_one_instant() -> None:
    """Every call is due when the load starts."""
    assert schedule.due_times(3, {"model": "at-once"}) == (0.0, 0.0, 0.0)


def test_a_constant_rate_spaces_calls_evenly() -> None:
    """Four calls at two a second take a second and a half."""
    assert schedule.due_times(4, {"model": "constant", "calls_per_s": 2}) == (0.0, 0.5, 1.0, 1.5)


def test_the_same_seed_makes_the_same_plans() -> None:
    """A run can be repeated."""
    assert schedule.plans(SCENARIO, prefix="vp-a") == schedule.plans(SCENARIO, prefix="vp-a")


def test_another_seed_makes_other_plans() -> None:
    """The seed reaches every call."""
    others = schedule.plans(replace(SCENARIO, seed=SCENARIO.seed + 1), prefix="vp-a")

    assert all(plan.seed != other.seed for plan, other in zip(schedule.plans(SCENARIO, prefix="vp-a"), others, strict=True))


@given(st.integers(min_value=1, max_value=2500))
def test_every_call_has_its_own_room_and_id(calls: int) -> None:
    """However many there are; all begin with the prefix of the run."""
    plans = schedule.plans(replace(SCENARIO, calls=calls), prefix="vp-a")

    assert len({plan.call_id for plan in plans} | {plan.room for plan in plans}) == 2 * calls
    assert all(plan.call_id.startswith("vp-a-") and plan.room.startswith("vp-a-") for plan in plans)


def test_callers_have_numbers_that_nobody_has() -> None:
    """The range is kept for drama."""
    numbers = [plan.phone_number for plan in schedule.plans(replace(SCENARIO, calls=1001), prefix="vp-a")]

    assert all(number.startswith("+447700900") and len(number) == 13 for number in numbers)


@pytest.mark.parametrize(("call_s", "most"), [(0.4, 1), (0.6, 2), (10.0, 4)])
def test_the_peak_counts_calls_that_overlap(call_s: float, most: int) -> None:
    """Four calls half a second apart."""
    four = replace(SCENARIO, calls=4, arrival={"model": "constant", "calls_per_s": 2})

    assert schedule.peak(schedule.plans(four, prefix="vp-a"), call_s=call_s) == most
