"""RTP headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.rtp import Header, Kind, header, kind, packed, payload, signed_difference

HEADERS = st.builds(
    Header,
    payload_type=st.integers(0, 63),
    is_marked=st.booleans(),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
)


@given(HEADERS, st.binary(max_size=200))
def test_a_packet_reads_back(written: Header, sound: bytes) -> None:
    """What was packed is parsed."""
    packet = packed(written, sound)

    assert (header(packet), payload(packet), kind(packet)) == (written, sound, Kind.RTP)


def test_extension_csrc_and_padding_are_no_payload() -> None:
    """The payload lies between header extension and padding."""
    plain = packed(Header(payload_type=111, is_marked=False, sequence=1, timestamp=2, ssrc=3), b"")
    packet = bytes([0x80 | 0x20 | 0x10 | 1]) + plain[1:] + b"csrc" + b"\xbe\xde\x00\x01ext." + b"sound" + b"\x00\x00\x03"

    assert payload(packet) == b"sound"


def test_a_probe_of_padding_has_no_payload() -> None:
    """A padding-only packet is empty."""
    plain = packed(Header(payload_type=111, is_marked=False, sequence=1, timestamp=2, ssrc=3), b"")

    assert payload(bytes([0x80 | 0x20]) + plain[1:] + bytes(4) + b"\x05") == b""


def test_lengths_that_do_not_add_up_are_refused() -> None:
    """A padding count longer than the packet is an error, not a negative slice."""
    plain = packed(Header(payload_type=111, is_marked=False, sequence=1, timestamp=2, ssrc=3), b"")

    with pytest.raises(ValueError, match="do not fit"):
        payload(bytes([0x80 | 0x20]) + plain[1:] + b"\xff")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"\x00\x01", Kind.OTHER),  # STUN binding request
        (b"\x16\xfe", Kind.OTHER),  # DTLS handshake
        (b"\x80\x6f", Kind.RTP),
        (b"\x80\xef", Kind.RTP),  # marked, payload type 111
        (b"\x80\xc8", Kind.RTCP),
        (b"\x81\xc9", Kind.RTCP),
        (b"", Kind.OTHER),
    ],
)
def test_two_bytes_tell_what_shares_the_port(start: bytes, expected: Kind) -> None:
    """RFC 7983 and RFC 5761."""
    assert kind(start) is expected


@given(st.integers(0, 0xFFFF), st.integers(-0x8000, 0x7FFF))
def test_differences_survive_the_wrap(earlier: int, step: int) -> None:
    """A counter that wrapped is still ahead."""
    assert signed_difference((earlier + step) & 0xFFFF, earlier, 16) == step
