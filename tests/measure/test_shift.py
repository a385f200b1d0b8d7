"""How far one group of few measurements lies above another."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.measure.shift import Strata, at_least, shift

ALPHA = 1e-3
latencies = st.lists(st.floats(0.3, 3.0).map(lambda number: round(number, 3)), min_size=3, max_size=5)
strata = st.lists(st.tuples(latencies, latencies), min_size=3, max_size=4).map(lambda pairs: {str(n): pair for n, pair in enumerate(pairs)})


def moved(groups: Strata, by: float) -> Strata:
    return {name: (before, [number + by for number in after]) for name, (before, after) in groups.items()}


@given(strata, st.floats(-1.0, 1.0))
@settings(max_examples=50)
def test_a_shift_of_everything_moves_the_answer_by_as_much(groups: Strata, by: float) -> None:
    """Estimate and both ends."""
    found, later = shift(groups, alpha=ALPHA), shift(moved(groups, by), alpha=ALPHA)

    assert found is not None
    assert later is not None
    assert (later.by - found.by, later.lo - found.lo, later.hi - found.hi) == pytest.approx((by, by, by), abs=1e-6)


@given(strata)
@settings(max_examples=50)
def test_the_estimate_lies_between_the_ends(groups: Strata) -> None:
    """Always."""
    found = shift(groups, alpha=ALPHA)

    assert found is not None
    assert found.lo <= found.by <= found.hi


@given(strata)
@settings(max_examples=50)
def test_two_groups_that_are_one_do_not_differ(groups: Strata) -> None:
    """Nothing moved, nothing is found."""
    found = shift({name: (before, before) for name, (before, _) in groups.items()}, alpha=ALPHA)

    assert found is not None
    assert not found.is_decided


def test_three_turns_of_three_prompts_show_a_shift_beyond_their_own_spread() -> None:
    """Nine against nine: the prompts' own distances do not count."""
    chance = random.Random(3)
    level = {"weather": 1.4, "hours": 0.9, "goodbye": 0.8}
    groups = {
        name: ([at + chance.gauss(0, 0.02) for _ in range(3)], [at + 0.1 + chance.gauss(0, 0.02) for _ in range(3)])
        for name, at in level.items()
    }

    found = shift(groups, alpha=ALPHA)

    assert found is not None
    assert found.is_decided
    assert found.by == pytest.approx(0.1, abs=0.02)


def test_what_moves_a_whole_run_widens_both_ends() -> None:
    """A shift that another load of the machine explains is none."""
    groups = {str(n): ([1.0, 1.01, 1.02], [1.1, 1.11, 1.12]) for n in range(3)}
    alone, among = shift(groups, alpha=ALPHA), shift(groups, alpha=ALPHA, spread=0.05)

    assert alone is not None
    assert among is not None
    assert (alone.is_decided, among.is_decided) == (True, False)


@pytest.mark.parametrize("groups", [{}, {"a": ([], [1.0])}, {"a": ([1.0, 1.1], [2.0, 2.1])}])
def test_too_few_are_not_compared(groups: Strata) -> None:
    """Two against two can be divided in six ways: none of them is rare."""
    assert shift(groups, alpha=ALPHA) is None


@pytest.mark.parametrize("sizes", [(3, 3, 3), (20, 20), (150, 150)])
def test_equal_groups_are_called_different_as_rarely_as_said(sizes: Sequence[int]) -> None:
    """Thirty pairs of groups drawn alike at 1 %: five rejections would happen once in ten thousand times."""
    chance = random.Random(5)

    def drawn() -> Strata:
        return {
            str(n): ([chance.gauss(1, 0.1) for _ in range(size)], [chance.gauss(1, 0.1) for _ in range(size)])
            for n, size in enumerate(sizes)
        }

    rejected = sum(found.is_decided for _ in range(30) if (found := shift(drawn(), alpha=0.01)) is not None)

    assert rejected <= 4


def test_failures_are_counted_exactly() -> None:
    """Fisher: none of three against three of three happens once in twenty; none of ten against ten of ten hardly ever."""
    assert at_least((0, 3), (3, 3)) == pytest.approx(1 / 20)
    assert at_least((0, 10), (10, 10)) == pytest.approx(1 / 184_756)


@given(st.integers(0, 8), st.integers(0, 8))
def test_more_failures_are_less_likely(before: int, after: int) -> None:
    """Monotone in what failed after; no failure is certain."""
    assert at_least((before, 8), (after, 8)) >= at_least((before, 8), (min(after + 1, 8), 8))
    assert at_least((before, 8), (0, 8)) == pytest.approx(1.0)
