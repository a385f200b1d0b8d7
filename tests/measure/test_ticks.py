"""Windows of five seconds whose beginning is not known exactly: whatever it was, what a server says of them is admitted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from harness.measure import ticks
from harness.measure.ticks import Bounds, Life
from harness.model import UnixNs

SECOND = 1_000_000_000
START = 1_795_464_000_000_000_000
PACKETS = 50.0
STEADY = Bounds(lo=PACKETS, hi=PACKETS)

lives = st.tuples(st.integers(0, 50), st.integers(300, 1500))
"""When the life really began and how long it was, in packets."""
moments = st.lists(st.integers(0, 1500), max_size=30, unique=True)


def at(packets: int) -> UnixNs:
    return UnixNs(START + packets * ticks.PACKET_NS)


def life(began: int, length: int) -> Life:
    """Known to a second at its beginning."""
    return Life(began=(at(0), at(50)), ended=(at(began + length), at(began + length)))


def windows(began: int, length: int) -> list[tuple[int, int]]:
    """As the server really laid them, in packets."""
    return [(first, min(first + 250, began + length)) for first in range(began, began + length, 250)]


@given(lives, moments)
def test_per_cents_of_any_beginning_are_admitted(lived: tuple[int, int], lost: Sequence[int]) -> None:
    """Lost of expected, window by window, as the server sums it up."""
    said = sum(100 * sum(first <= each < last for each in lost) / (last - first) for first, last in windows(*lived))
    inside = [(at(each), 1.0) for each in lost if lived[0] <= each < lived[0] + lived[1]]
    admitted = ticks.lost_percent(life(*lived), inside, STEADY, 0.0)

    assert admitted.lo - 1e-9 <= said <= admitted.hi + 1e-9


@given(lives)
def test_the_number_of_windows_of_any_beginning_is_admitted(lived: tuple[int, int]) -> None:
    """One observation a window, and one at the end."""
    admitted = life(*lived).windows(0)

    assert admitted.lo <= len(windows(*lived)) <= admitted.hi


@given(lives, st.lists(st.floats(0.0, 0.1), min_size=31, max_size=31))
def test_the_highest_of_any_beginning_is_admitted(lived: tuple[int, int], peaks: Sequence[float]) -> None:
    """Of a value that has its peak in the middle of each second."""
    said = sum(
        max((peak for second, peak in enumerate(peaks) if first <= second * 50 + 25 < last), default=0.0) for first, last in windows(*lived)
    )
    seconds = [(at(second * 50), peak, peak) for second, peak in enumerate(peaks)]
    admitted = ticks.highest(life(*lived), seconds, [each + SECOND for each, _, _ in seconds], 0.0, 0.0)

    assert admitted.lo - 1e-9 <= said <= admitted.hi + 1e-9


@given(lives, st.lists(st.tuples(st.integers(0, 1500), st.floats(0.1, 90.0)), max_size=30, unique_by=lambda trip: trip[0]))
def test_round_trips_of_any_beginning_are_admitted(lived: tuple[int, int], trips: Sequence[tuple[int, float]]) -> None:
    """Of windows in which an answer came the highest that was known, rounded up."""
    trips = sorted(trip for trip in trips if lived[0] <= trip[0] < lived[0] + lived[1])
    said = []
    for first, last in windows(*lived):
        new = [trip for came, trip in trips if first <= came < last]
        if new:
            said.append(math.ceil(max([*new, *[trip for came, trip in trips if came < first][-1:]])))
    told = [(at(came), trip, trip) for came, trip in trips]
    heights, count = ticks.known(life(*lived), told, told, rounded=True)

    assert heights.lo <= sum(said) <= heights.hi
    assert count.lo <= len(said) <= count.hi


def test_what_has_no_end_stays_open() -> None:
    """Losses of a network that nobody knows."""
    admitted = ticks.lost_percent(life(0, 500), [(at(3), math.inf)], STEADY, 0.0)

    assert admitted == Bounds(lo=0.0, hi=math.inf)


def test_a_loss_in_a_short_window_weighs_more() -> None:
    """One of two hundred and fifty is 0.4 per cent; one of the last five is twenty."""
    lived = Life(began=(at(0), at(0)), ended=(at(255), at(255)))

    assert ticks.lost_percent(lived, [(at(10), 1.0)], STEADY, 0.0) == Bounds(lo=0.4, hi=0.4)
    assert ticks.lost_percent(lived, [(at(252), 1.0)], STEADY, 0.0) == Bounds(lo=20.0, hi=20.0)
