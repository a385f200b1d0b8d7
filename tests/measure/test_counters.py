"""Growth of counters, true and extrapolated."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from harness.measure.counters import growth, increase, rate

SECOND = 1000

steps = st.lists(st.tuples(st.integers(1, 40_000), st.integers(0, 50)), min_size=2, max_size=30)
"""Milliseconds since the sample before, and what was counted in between."""


def samples(counted: list[tuple[int, int]], start_ms: int = 0, born: float = 0.0) -> list[tuple[int, float]]:
    """A counter that was scraped after each of these steps."""
    instants = itertools.accumulate((ms for ms, _ in counted), initial=start_ms)
    numbers = itertools.accumulate((count for _, count in counted), initial=born)
    return list(zip(instants, numbers, strict=True))[1:]


def test_growth_is_what_was_counted() -> None:
    """Last less first."""
    assert growth([3, 5, 5, 9]) == 6


def test_a_restarted_counter_loses_nothing_that_was_read() -> None:
    """After a drop it began again at 0."""
    assert growth([3, 9, 2, 4]) == 10


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=20), st.data())
def test_growth_does_not_depend_on_who_read_in_between(numbers: list[float], data: st.DataObject) -> None:
    """Two readers of a counter that never restarted get the same to the last bit."""
    numbers = sorted(numbers)
    fewer = [numbers[0], *data.draw(st.lists(st.sampled_from(numbers[1:-1]), max_size=5).map(sorted)), numbers[-1]]

    assert growth(fewer) == growth(numbers)


@given(steps, st.integers(0, 60_000), st.integers(0, 60_000))
def test_increase_is_off_by_what_it_extrapolates_and_what_it_did_not_see(counted: list[tuple[int, int]], before: int, after: int) -> None:
    """estimate - truth = growth x (both edges) / sampled span - events at the edges; and each edge is at most 1.1 spacings."""
    inside = samples(counted, born=100.0)
    first_ms, last_ms = inside[0][0], inside[-1][0]
    grown, sampled = inside[-1][1] - inside[0][1], last_ms - first_ms
    estimate = increase(inside, first_ms - before, last_ms + after)

    edges = (estimate / grown - 1) * sampled if grown else 0.0
    assert -1e-6 * sampled <= edges <= 2 * 1.1 * sampled / (len(inside) - 1) * (1 + 1e-9)
    assert edges <= (before + after) * (1 + 1e-9) + sampled / (len(inside) - 1) + 1e-6 * sampled


@given(steps, st.integers(0, 20_000))
def test_increase_never_reaches_below_zero(counted: list[tuple[int, int]], before: int) -> None:
    """A counter cannot have grown by more than it holds before the last edge."""
    inside = samples(counted)
    estimate = increase(inside, inside[0][0] - before, inside[-1][0])

    assert estimate <= inside[-1][1] * (1 + 1e-9)


@given(steps, st.integers(0, 10**15))
def test_increase_knows_no_epoch(counted: list[tuple[int, int]], shift: int) -> None:
    """The same samples later give the same."""
    inside = samples(counted)
    later = [(at + shift, number) for at, number in inside]

    assert increase(later, shift, inside[-1][0] + shift) == increase(inside, 0, inside[-1][0])


def test_rate_is_increase_a_second() -> None:
    """One event a second is 1."""
    inside = [(second * SECOND, float(second)) for second in range(1, 21)]

    assert rate(inside, 0, 20 * SECOND) == 1.0
    assert increase(inside, 0, 20 * SECOND) == 20.0


def test_a_far_edge_is_reached_by_half_a_spacing() -> None:
    """Beyond 1.1 mean spacings the series is taken to have begun there."""
    inside = [(10_000, 100.0), (11_000, 110.0)]

    assert increase(inside, 0, 11_000) == 15.0
