"""Plans: computed before the run, the same for the same seed, numbers of nobody."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load import schedule
from harness.model import PeerMode
from tests.fakes.evidence import healthy

SCENARIO = healthy()[0].info.scenario


def test_at_once_is_one_instant() -> None:
    """Every call is due when the load starts."""
    assert schedule.due_times(3, {"model": "at-once"}) == (0.0, 0.0, 0.0)


def test_a_constant_rate_spaces_calls_evenly() -> None:
    """Four calls at two a second take a second and a half."""
    assert schedule.due_times(4, {"model": "constant", "calls_per_s": 2}) == (0.0, 0.5, 1.0, 1.5)


@pytest.mark.parametrize(
    ("arrival", "due"),
    [
        ({"model": "ramp", "from_per_s": 0, "calls_per_s": 2, "over_s": 4}, (0.0, 2.0, 8**0.5, 12**0.5, 4.0, 4.5)),
        ({"model": "step", "calls_per_s": 1, "add_per_s": 1, "every_s": 2}, (0.0, 1.0, 2.0, 2.5, 3.0, 3.5)),
        ({"model": "spike", "calls_per_s": 1, "peak_per_s": 4, "at_s": 1, "for_s": 0.5}, (0.0, 1.0, 1.25, 1.5, 2.5, 3.5)),
        ({"model": "soak", "over_s": 3}, (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)),
        ({"model": "recorded", "times_s": [19.0, 10.0, 11.5, 12.0, 13.0, 17.0, 99.0]}, (0.0, 1.5, 2.0, 3.0, 7.0, 9.0)),
    ],
    ids=lambda part: part["model"] if isinstance(part, dict) else "",
)
def test_a_model_spaces_six_calls(arrival: dict[str, Any], due: tuple[float, ...]) -> None:
    """Worked by hand: call n is due when the summed rate reaches n."""
    assert schedule.due_times(6, arrival) == pytest.approx(due)


RATE = st.floats(min_value=0.001, max_value=1000)
SECONDS = st.floats(min_value=0.1, max_value=86400)
ARRIVALS = st.one_of(
    st.just({"model": "at-once"}),
    st.fixed_dictionaries({"model": st.sampled_from(["constant", "poisson"]), "calls_per_s": RATE}),
    st.fixed_dictionaries({"model": st.just("ramp"), "from_per_s": st.just(0.0) | RATE, "calls_per_s": RATE, "over_s": SECONDS}),
    st.fixed_dictionaries({"model": st.just("step"), "calls_per_s": RATE, "add_per_s": RATE, "every_s": SECONDS}),
    st.fixed_dictionaries({"model": st.just("spike"), "calls_per_s": RATE, "peak_per_s": RATE, "at_s": SECONDS, "for_s": SECONDS}),
    st.fixed_dictionaries({"model": st.just("soak"), "over_s": SECONDS}),
    st.fixed_dictionaries(
        {"model": st.just("recorded"), "times_s": st.lists(st.floats(min_value=0, max_value=2e9), min_size=60, max_size=60)}
    ),
)


@given(st.integers(min_value=1, max_value=60), ARRIVALS, st.integers(min_value=0))
def test_every_model_places_each_call_once_in_order(calls: int, arrival: dict[str, Any], seed: int) -> None:
    """As many times as calls, none before the start, none before the one before it, the same each time."""
    due = schedule.due_times(calls, arrival, seed=seed)

    assert len(due) == calls
    assert all(0 <= due_s < math.inf for due_s in due)
    assert list(due) == sorted(due)
    assert due == schedule.due_times(calls, arrival, seed=seed)


@given(st.integers(min_value=1, max_value=70), ARRIVALS, st.integers(min_value=0))
def test_fewer_calls_are_the_first_of_more(calls: int, arrival: dict[str, Any], seed: int) -> None:
    """A run that --max-calls cuts short keeps its arrivals; of a recording the earliest are the first."""
    sixty = replace(SCENARIO, calls=60, arrival=arrival, seed=seed)
    fewer = schedule.first(sixty, calls)

    due = schedule.due_times(60, arrival, seed=seed)[:calls]
    assert schedule.due_times(fewer.calls, fewer.arrival, seed=seed) == pytest.approx(due)


@given(st.integers(min_value=0, max_value=2**32), st.floats(min_value=0.01, max_value=100))
def test_poisson_arrivals_have_the_rate_that_was_asked_for(seed: int, per_s: float) -> None:
    """A thousand gaps: their mean is off by more than six standard errors less than once in a hundred million times."""
    due = schedule.due_times(1000, {"model": "poisson", "calls_per_s": per_s}, seed=seed)

    assert due[-1] * per_s == pytest.approx(1000, abs=6 * 1000**0.5)


def test_another_seed_makes_other_poisson_arrivals() -> None:
    """And the seeds of the calls are not the dice of their arrivals."""
    arrival = {"model": "poisson", "calls_per_s": 1.0}

    assert schedule.due_times(3, arrival, seed=1) != schedule.due_times(3, arrival, seed=2)


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


def test_how_callers_connect_reaches_every_call() -> None:
    """``peers`` of the scenario is ``peers`` of each plan."""
    asked = replace(SCENARIO, peers=PeerMode.DUAL)

    assert {plan.peers for plan in schedule.plans(asked, prefix="run")} == {PeerMode.DUAL}
