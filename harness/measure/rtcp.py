"""RTCP sender and receiver reports (RFC 3550 section 6.4): bytes to values and back, NTP time, the round trip."""

from __future__ import annotations

import struct

from harness.model import UnixNs, value

SENDER_REPORT, RECEIVER_REPORT = 200, 201
MAX_BLOCKS = 31
_NTP_EPOCH_S = 2_208_988_800
"""Seconds from 1900 to 1970."""
_HEAD = struct.Struct("!BBHI")
_SENDER = struct.Struct("!QIII")
_BLOCK = struct.Struct("!IIIIII")


@value
class Block:
    """One report block: what a receiver says of one stream."""

    ssrc: int
    fraction_lost: int
    """Of 256, since the previous report."""
    lost: int
    """Cumulative, signed 24 bit: duplicates make it negative."""
    highest_sequence: int
    """Extended."""
    jitter: int
    """In timestamp units."""
    last_report: int
    """LSR: middle 32 bits of the NTP time of the last sender report; 0: none came yet."""
    delay: int
    """DLSR: since that report, in 1/65536 s."""


@value
class SenderReport:
    """Type 200. LiveKit ignores report blocks in it (downtrack.go handles rtcp.ReceiverReport only): we put ours into a ReceiverReport."""

    ssrc: int
    ntp: int
    """64 bit NTP time at which ``rtp_timestamp`` is the stream's clock."""
    rtp_timestamp: int
    packets: int
    octets: int
    """Payload bytes."""
    blocks: tuple[Block, ...] = ()


@value
class ReceiverReport:
    """Type 201."""

    ssrc: int
    blocks: tuple[Block, ...]


Report = SenderReport | ReceiverReport


def pack(*reports: Report) -> bytes:
    """One compound packet."""
    return b"".join(map(_packed, reports))


def _packed(report: Report) -> bytes:
    match report:
        case SenderReport():
            kind, sender = (
                SENDER_REPORT,
                _SENDER.pack(report.ntp, report.rtp_timestamp, report.packets & 0xFFFFFFFF, report.octets & 0xFFFFFFFF),
            )
        case ReceiverReport():
            kind, sender = RECEIVER_REPORT, b""
    words = 1 + (len(sender) + _BLOCK.size * len(report.blocks)) // 4
    head = _HEAD.pack(0x80 | len(report.blocks), kind, words, report.ssrc)
    return head + sender + b"".join(map(_packed_block, report.blocks))


def _packed_block(block: Block) -> bytes:
    loss = (block.fraction_lost << 24) | (max(-0x800000, min(0x7FFFFF, block.lost)) & 0xFFFFFF)
    return _BLOCK.pack(block.ssrc, loss, block.highest_sequence & 0xFFFFFFFF, block.jitter & 0xFFFFFFFF, block.last_report, block.delay)


def unpack(compound: bytes) -> tuple[Report, ...]:
    """The sender and receiver reports of a decrypted compound packet; other types are passed over.

    Raises ValueError if a length points outside it.
    """
    reports: list[Report] = []
    at = 0
    while at + 4 <= len(compound):
        first, kind, words = struct.unpack_from("!BBH", compound, at)
        end = at + 4 * (words + 1)
        if first >> 6 != 2 or end > len(compound):
            msg = f"not an RTCP packet at byte {at} of {len(compound)}: {compound[at : at + 8].hex()}"
            raise ValueError(msg)
        if kind in (SENDER_REPORT, RECEIVER_REPORT):
            reports.append(_unpacked(compound[at:end], kind, first & 31))
        at = end
    return tuple(reports)


def _unpacked(packet: bytes, kind: int, count: int) -> Report:
    blocks_at = 8 + (_SENDER.size if kind == SENDER_REPORT else 0)
    if blocks_at + count * _BLOCK.size > len(packet):
        msg = f"RTCP report of {len(packet)} bytes claims {count} blocks"
        raise ValueError(msg)
    (ssrc,) = struct.unpack_from("!I", packet, 4)
    blocks = tuple(_unpacked_block(packet, blocks_at + n * _BLOCK.size) for n in range(count))
    if kind == RECEIVER_REPORT:
        return ReceiverReport(ssrc=ssrc, blocks=blocks)
    ntp, rtp_timestamp, packets, octets = _SENDER.unpack_from(packet, 8)
    return SenderReport(ssrc=ssrc, ntp=ntp, rtp_timestamp=rtp_timestamp, packets=packets, octets=octets, blocks=blocks)


def _unpacked_block(packet: bytes, at: int) -> Block:
    ssrc, loss, highest, jitter, last_report, delay = _BLOCK.unpack_from(packet, at)
    lost = ((loss & 0xFFFFFF) ^ 0x800000) - 0x800000
    return Block(
        ssrc=ssrc, fraction_lost=loss >> 24, lost=lost, highest_sequence=highest, jitter=jitter, last_report=last_report, delay=delay
    )


def ntp(at: UnixNs) -> int:
    """An instant as 64 bit NTP time: seconds since 1900, and the fraction in 2**-32 s."""
    seconds, nanoseconds = divmod(at, 1_000_000_000)
    return (((seconds + _NTP_EPOCH_S) & 0xFFFFFFFF) << 32) | ((nanoseconds << 32) // 1_000_000_000)


def middle(ntp_time: int) -> int:
    """The middle 32 bits of an NTP time: 1/65536 s, wraps every 18 hours. The unit of LSR and DLSR."""
    return (ntp_time >> 16) & 0xFFFFFFFF


def delay(ns: int) -> int:
    """A duration as DLSR."""
    return (ns << 16) // 1_000_000_000 & 0xFFFFFFFF


def round_trip_s(block: Block, arrived_at: UnixNs) -> float | None:
    """Arrival less LSR less DLSR, in seconds, resolution 15 us; RFC 3550 section 6.4.1. None before the peer had a sender report of ours.

    A peer that rounds DLSR up can make it slightly negative: then it is 0.
    """
    if block.last_report == 0:
        return None
    elapsed = (middle(ntp(arrived_at)) - block.last_report - block.delay) & 0xFFFFFFFF
    return 0.0 if elapsed >= 1 << 31 else elapsed / 65536
