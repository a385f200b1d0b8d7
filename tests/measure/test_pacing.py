"""The lateness histogram."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.measure.pacing import Lateness


def counted(late_ns: list[int]) -> Lateness:
    lateness = Lateness()
    for late in late_ns:
        lateness.add(late)
    return lateness


@given(st.lists(st.integers(0, 19_999_999), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_at_most_one_bin_high(late_ns: list[int], q: float) -> None:
    """Below 20 ms the histogram is within 10 us of the nearest-rank quantile of the raw values, and never below it."""
    rank = max(1, -int(-q * len(late_ns) // 1))
    exact_ns = sorted(late_ns)[rank - 1]

    assert exact_ns <= round(counted(late_ns).quantile_ms(q) * 1e6) <= exact_ns + 10_000


@given(st.lists(st.integers(-1_000_000, 10**11)))
def test_every_tick_is_counted(late_ns: list[int]) -> None:
    """Early, late and absurdly late ones."""
    assert counted(late_ns).ticks == len(late_ns)


def test_beyond_the_last_bin_the_maximum_stands() -> None:
    """A stall of a minute is reported as what it was."""
    assert counted([60_000_000_000]).quantile_ms(0.99) == 60_000


def test_nothing_counted_is_no_lateness() -> None:
    """An engine that never ticked."""
    assert counted([]).quantile_ms(0.5) == 0


def test_the_histogram_tells_how_many_were_how_late() -> None:
    """By upper edge, inclusive; 30 ms counts below 50."""
    late_ns = [0, 90_000, 100_001, 900_000, 9_995_000, 30_000_000]

    assert [count for _, count in counted(late_ns).histogram()] == [2, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0]


def test_what_was_counted_since_leaves_out_what_was_before() -> None:
    """The quantile of the later ticks alone."""
    before = counted([50_000_000] * 10)

    assert counted([50_000_000] * 10 + [1_000_000] * 5).since(before).quantile_ms(0.5) == 1.01
