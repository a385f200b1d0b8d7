"""RTP headers: what a datagram on a WebRTC port is, and the fields of RFC 3550 section 5.1."""

from __future__ import annotations

import struct
from enum import Enum

from harness.model import value

FIXED = struct.Struct("!BBHII")
"""The fixed header: version and flags, marker and payload type, sequence number, timestamp, SSRC."""
VERSION = 0x80
_PADDING, _EXTENSION, _CSRC_COUNT = 0x20, 0x10, 0x0F


class Kind(Enum):
    """What shares the port with RTP; RFC 7983 section 7 and RFC 5761 section 4."""

    RTP = "rtp"
    RTCP = "rtcp"
    OTHER = "other"
    """STUN, DTLS, TURN channels."""


def kind(datagram: bytes | memoryview) -> Kind:
    """Told by the first two bytes."""
    if len(datagram) < 2 or not 128 <= datagram[0] <= 191:
        return Kind.OTHER
    return Kind.RTCP if 192 <= datagram[1] <= 223 else Kind.RTP


@value
class Header:
    """The fixed header of one packet."""

    payload_type: int
    is_marked: bool
    sequence: int
    timestamp: int
    ssrc: int


def header(packet: bytes) -> Header:
    """Raises ValueError if ``packet`` is shorter than a header or of another version."""
    if len(packet) < FIXED.size or packet[0] & 0xC0 != VERSION:
        msg = f"not an RTP packet: {packet[:12].hex()}"
        raise ValueError(msg)
    _, second, sequence, timestamp, ssrc = FIXED.unpack_from(packet)
    return Header(payload_type=second & 0x7F, is_marked=second > 127, sequence=sequence, timestamp=timestamp, ssrc=ssrc)


def packed(given: Header, payload: bytes) -> bytes:
    """An RTP packet without extension or padding."""
    second = given.payload_type | (0x80 if given.is_marked else 0)
    return FIXED.pack(VERSION, second, given.sequence, given.timestamp, given.ssrc) + payload


def payload(packet: bytes) -> bytes:
    """What follows CSRCs and extension, less the padding. Empty for a padding-only probe.

    packet: decrypted. Raises ValueError if its lengths do not add up.
    """
    first = packet[0]
    start = FIXED.size + 4 * (first & _CSRC_COUNT)
    if first & _EXTENSION:
        start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4])
    end = len(packet) - (packet[-1] if first & _PADDING else 0)
    if not start <= end:
        msg = f"header of {start} bytes and padding do not fit a packet of {len(packet)}"
        raise ValueError(msg)
    return packet[start:end]


def protected_payload_bytes(packet: bytes) -> int:
    """Bytes after CSRCs and extension, which SRTP leaves readable; its authentication tag and any padding are counted."""
    first = packet[0]
    start = FIXED.size + 4 * (first & _CSRC_COUNT)
    if first & _EXTENSION:
        start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4])
    return len(packet) - start


def signed_difference(later: int, earlier: int, bits: int) -> int:
    """``later - earlier`` on a counter that wraps at ``bits``: within half its range either way."""
    half = 1 << (bits - 1)
    return ((later - earlier + half) & ((1 << bits) - 1)) - half
