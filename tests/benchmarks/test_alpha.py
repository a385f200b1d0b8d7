"""A set that carries a probability keeps to it."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.alpha import SETS, most_by_chance

TRIALS = {"jitter/server-reports: mean": 20}
"""A hundred of the others: `python -m benchmarks.alpha` makes more."""


@pytest.mark.parametrize("name", SETS)
def test_no_more_of_what_is_honest_is_outside_than_alpha_says(name: str) -> None:
    """But for chance."""
    found = SETS[name](Random(name), TRIALS.get(name, 100))

    assert found.outside <= found.most


@pytest.mark.parametrize("name", SETS)
def test_the_lie_that_it_must_catch_is_outside(name: str) -> None:
    """Nearly always: what is too small for few turns is never called decided."""
    found = SETS[name](Random(name), TRIALS.get(name, 100))

    assert found.caught >= 0.97 * found.trials


def test_what_happens_by_chance_is_the_binomials() -> None:
    """Ten coins: more than ten heads never come, nine are too likely."""
    assert most_by_chance(10, 0.5) == 10
    assert [most_by_chance(trials, 0.02) for trials in (100, 2000)] == [11, 73]
