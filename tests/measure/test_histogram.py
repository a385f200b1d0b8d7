"""Quantiles and counts of histograms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.histogram import admitted_counts, moved, nearest_rank, per_bucket, quantile

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, math.inf)
observations = st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=60)


def cumulative(numbers: list[float]) -> dict[float, float]:
    """The histogram that observed these numbers."""
    return {bound: float(sum(number <= bound for number in numbers)) for bound in BOUNDS}


@given(observations, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_nearest_rank(numbers: list[float], wanted: float) -> None:
    """Its error is less than the width of that bucket; beyond the last bound it is clamped to it."""
    found = quantile(wanted, tuple(cumulative(numbers).items()))
    truth = nearest_rank(wanted, numbers)
    assert truth is not None
    high = next(bound for bound in BOUNDS if truth <= bound)
    low = max((bound for bound in (0.0, *BOUNDS) if bound < high), default=0.0)

    assert found == 2.5 if math.isinf(high) else low - 1e-9 <= found <= high + 1e-9


@given(observations, st.floats(0.01, 1), st.floats(0.01, 1))
def test_quantiles_rise_with_the_share(numbers: list[float], one: float, other: float) -> None:
    """p95 is never below p50."""
    buckets = tuple(cumulative(numbers).items())

    assert quantile(min(one, other), buckets) <= quantile(max(one, other), buckets)


@given(observations, st.floats(0.1, 100))
def test_a_quantile_of_rates_is_that_of_counts(numbers: list[float], by: float) -> None:
    """Every count times the same factor moves nothing."""
    counts = cumulative(numbers)

    assert quantile(0.95, tuple((bound, count * by) for bound, count in counts.items())) == pytest.approx(
        quantile(0.95, tuple(counts.items())), rel=1e-6
    )


@pytest.mark.parametrize(
    ("wanted", "buckets"),
    [
        (0.5, ()),
        (0.5, ((1.0, 3.0),)),
        (0.5, ((1.0, 3.0), (2.0, 3.0))),
        (0.5, ((1.0, 0.0), (math.inf, 0.0))),
        (math.nan, ((math.inf, 1.0),)),
    ],
)
def test_what_has_no_quantile_is_nan(wanted: float, buckets: tuple[tuple[float, float], ...]) -> None:
    """No buckets, no +Inf bucket, no observations, the lowest rank of an empty bucket."""
    assert math.isnan(quantile(wanted, buckets))


def test_shares_outside_0_and_1_are_infinite() -> None:
    """As Prometheus has it."""
    buckets = ((1.0, 1.0), (math.inf, 1.0))

    assert (quantile(-0.1, buckets), quantile(1.1, buckets)) == (-math.inf, math.inf)


def test_counts_that_fall_are_raised() -> None:
    """Rounding of rates may make a cumulative count smaller than the one before."""
    assert quantile(0.5, ((1.0, 4.0), (2.0, 3.0), (math.inf, 4.0))) == 0.5


def test_counts_that_differ_by_rounding_are_one_count() -> None:
    """Else the rank would fall into a bucket that is empty but for noise."""
    buckets = ((1.0, 1.0), (2.0, 1.0 + 1e-14), (4.0, 2.0), (math.inf, 2.0))

    assert quantile(0.5, buckets) == 1.0


@given(observations, st.integers(1, 100))
def test_nearest_rank_is_numpys_inverted_cdf(numbers: list[float], percent: int) -> None:
    """The smallest observation at or above the share."""
    assert nearest_rank(percent / 100, numbers) == np.quantile(numbers, percent / 100, method="inverted_cdf")


def test_of_nothing_there_is_no_rank() -> None:
    """Not 0."""
    assert nearest_rank(0.5, []) is None


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), max_size=30), st.floats(0, 4))
def test_the_true_count_is_admitted(values: list[tuple[float, float]], bound: float) -> None:
    """Wherever in their ranges the true values lie."""
    ranges = [(low, low + width) for low, width in values]
    ((low, high),) = admitted_counts(ranges, [bound])

    for share in (0.0, 0.5, 1.0):
        assert low <= sum(lo + share * (hi - lo) <= bound for lo, hi in ranges) <= high


@given(observations)
def test_buckets_alone_add_up(numbers: list[float]) -> None:
    """To the count of all."""
    assert sum(count for _, _, count in per_bucket(cumulative(numbers))) == len(numbers)


@given(observations)
def test_nothing_moves_when_nothing_changes(numbers: list[float]) -> None:
    """The middle of a bucket lies in it."""
    counts = cumulative(numbers)

    assert moved(counts, lambda number: number) == counts


def test_observations_move_as_a_whole() -> None:
    """Three of 0.25 to 0.5 s, 0.3 s longer, lie between 0.5 and 1 s."""
    counts = {0.25: 0.0, 0.5: 3.0, 1.0: 3.0, math.inf: 3.0}

    assert moved(counts, lambda number: number + 0.3) == {0.25: 0.0, 0.5: 0.0, 1.0: 3.0, math.inf: 3.0}
