"""RFC 3550 figures of a received stream."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.rfc3550 import Receiver, Reception, Reporter

FRAME_NS, FRAME = 20_000_000, 960


def received(numbers: Iterable[int], first: int = 0, late_ns: Iterable[int] = ()) -> Reception:
    """Packets ``numbers`` of a stream of 20 ms packets, each at its time plus its lateness, in the order given."""
    receiver = Receiver(48_000)
    lateness = iter(late_ns)
    for number in numbers:
        receiver.arrived(
            10**18 + number * FRAME_NS + next(lateness, 0), (first + number) & 0xFFFF, (2**32 - 5000 + number * FRAME) & 0xFFFFFFFF
        )
    result = receiver.reception()
    assert result is not None
    return result


@given(st.integers(0, 0xFFFF), st.integers(2, 400), st.data())
def test_loss_is_what_was_dropped(first: int, sent: int, data: st.DataObject) -> None:
    """Every packet between the first and the last that did not come is lost, whatever the start of the numbering."""
    dropped = data.draw(st.sets(st.integers(1, sent - 2))) if sent > 2 else set()

    assert received((n for n in range(sent) if n not in dropped), first).lost == len(dropped)


@given(st.integers(0, 0xFFFF), st.permutations(range(20)))
def test_reordering_is_no_loss(first: int, order: list[int]) -> None:
    """All came, in whatever order."""
    result = received(order, first)

    assert (result.lost, result.expected) == (0, 20)


def test_what_overtook_is_counted() -> None:
    """A packet that arrives after a higher one is reordered."""
    assert received([0, 1, 3, 2, 6, 4, 5]).reordered == 3


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_a_duplicate_hides_no_loss(repeated: list[int]) -> None:
    """One packet lost and others doubled is still one lost."""
    result = received(n for n in range(31) for _ in range(1 + repeated.count(n)) if n != 15)

    assert (result.lost, result.duplicates) == (1, sum(n != 15 for n in repeated))


def test_a_restarted_stream_is_no_loss() -> None:
    """A jump of half the number space, confirmed by a second packet, begins anew. The packet that announced it is not counted."""
    receiver = Receiver(48_000)
    for sequence in [1, 2, 3, 30_000, 30_001, 30_002]:
        receiver.arrived(0, sequence, 0)

    result = receiver.reception()

    assert result is not None
    assert (result.expected, result.received, result.lost) == (5, 5, 0)


def test_one_stray_packet_restarts_nothing() -> None:
    """A wild number that no second one confirms is not counted."""
    receiver = Receiver(48_000)
    for sequence in [1, 2, 30_000, 3]:
        receiver.arrived(0, sequence, 0)

    result = receiver.reception()

    assert result is not None
    assert (result.expected, result.received) == (3, 3)


@given(st.integers(3, 200))
def test_an_even_stream_has_no_jitter(sent: int) -> None:
    """Packets that arrive as they were stamped, over the wrap of the RTP clock."""
    assert received(range(sent)).jitter_max == pytest.approx(0)


def test_jitter_is_the_rfcs_filter() -> None:
    """Arrivals alternating by 10 ms: every difference is 480 units, approached by sixteenths."""
    expected = 0.0
    for _ in range(40):
        expected += (480 - expected) / 16

    assert received(range(41), late_ns=[n % 2 * 10_000_000 for n in range(41)]).jitter == pytest.approx(expected)


@given(st.integers(0, 0xFFFF), st.integers(1, 200))
def test_extended_numbers_begin_in_the_first_cycle(first: int, sent: int) -> None:
    """A peer knows how often its own numbers wrapped, and drops a report that counts one cycle more."""
    assert received(range(sent), first).highest_sequence == first + sent - 1


def test_nothing_is_known_before_the_first_packet() -> None:
    """None, not zeros."""
    assert Receiver(48_000).reception() is None


def test_a_block_reports_the_loss_since_the_one_before() -> None:
    """Fraction of the interval, cumulative over all."""
    receiver, reporter = Receiver(48_000), Reporter(9)
    blocks = []
    for interval in ([0, 1, 2, 3], [5, 6, 7], [8, 9]):
        for sequence in interval:
            receiver.arrived(0, sequence, 0)
        heard = receiver.reception()
        assert heard is not None
        blocks.append(reporter.block(heard, last_report=5, delay=6))

    assert [(b.fraction_lost, b.lost, b.highest_sequence & 0xFFFF) for b in blocks] == [(0, 0, 3), (64, 1, 7), (0, 1, 9)]
    assert (blocks[0].ssrc, blocks[0].last_report, blocks[0].delay) == (9, 5, 6)
