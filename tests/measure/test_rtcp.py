"""RTCP reports."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.rtcp import Block, ReceiverReport, Report, SenderReport, delay, middle, ntp, pack, round_trip_s, unpack
from harness.model import UnixNs

U32 = st.integers(0, 0xFFFFFFFF)
BLOCKS = st.builds(
    Block,
    ssrc=U32,
    fraction_lost=st.integers(0, 255),
    lost=st.integers(-0x800000, 0x7FFFFF),
    highest_sequence=U32,
    jitter=U32,
    last_report=U32,
    delay=U32,
)
SOME_BLOCKS = st.lists(BLOCKS, max_size=31).map(tuple)
REPORTS: st.SearchStrategy[Report] = st.one_of(
    st.builds(SenderReport, ssrc=U32, ntp=st.integers(0, 2**64 - 1), rtp_timestamp=U32, packets=U32, octets=U32, blocks=SOME_BLOCKS),
    st.builds(ReceiverReport, ssrc=U32, blocks=SOME_BLOCKS),
)
NOW = UnixNs(1_763_933_640_123_456_789)


def block(last_report: int = 0, delay: int = 0) -> Block:
    return Block(ssrc=7, fraction_lost=0, lost=0, highest_sequence=1, jitter=0, last_report=last_report, delay=delay)


@given(st.lists(REPORTS, max_size=3))
def test_a_compound_packet_reads_back(reports: list[Report]) -> None:
    """What was packed is parsed, in order."""
    assert unpack(pack(*reports)) == tuple(reports)


def test_other_packet_types_are_passed_over() -> None:
    """A source description between two reports hides neither."""
    description = struct.pack("!BBHI", 0x81, 202, 1, 9)
    first, second = ReceiverReport(ssrc=1, blocks=(block(),)), ReceiverReport(ssrc=2, blocks=())

    assert unpack(pack(first) + description + pack(second)) == (first, second)


@given(REPORTS, st.data())
def test_a_cut_packet_is_an_error_or_nothing(report: Report, data: st.DataObject) -> None:
    """Never a report with invented fields."""
    whole = pack(report)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]

    if len(cut) < 4:
        assert unpack(cut) == ()
    else:
        with pytest.raises(ValueError, match="RTCP"):
            unpack(cut)


def test_more_blocks_than_bytes_is_an_error() -> None:
    """A block count is not believed beyond the packet's length."""
    with pytest.raises(ValueError, match="claims 3 blocks"):
        unpack(struct.pack("!BBHI", 0x83, 201, 1, 9))


def test_ntp_counts_from_1900() -> None:
    """The Unix epoch is 2208988800 s after NTP's."""
    assert ntp(UnixNs(500_000_000)) == (2_208_988_800 << 32) + (1 << 31)


@given(st.integers(0, 30_000_000_000), st.integers(0, 30_000_000_000))
def test_the_round_trip_is_what_passed_less_what_the_peer_waited(path_ns: int, waited_ns: int) -> None:
    """Within the two roundings to 1/65536 s."""
    answer = block(last_report=middle(ntp(NOW)), delay=delay(waited_ns))

    measured = round_trip_s(answer, UnixNs(NOW + path_ns + waited_ns))

    assert measured is not None
    assert abs(measured - path_ns / 1e9) <= 2 / 65536


def test_no_round_trip_before_the_peer_had_a_report() -> None:
    """LSR 0 is absence, not 1900."""
    assert round_trip_s(block(), NOW) is None
