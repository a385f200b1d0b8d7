"""One received stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from harness.caller.ears import FullEar
from harness.caller.incoming import Incoming
from harness.caller.opus import LOOK_AHEAD_SAMPLES, encode
from harness.measure import rtcp, rtp
from harness.measure.voice import Utterance
from harness.model import UnixNs

START = 1_763_933_640_000_000_000
FRAME_NS = 20_000_000
PCM = np.concatenate([np.zeros(9_600), 8000 * np.cos(2 * np.pi * 200 * np.arange(9_600) / 48_000), np.zeros(38_400)]).astype(np.int16)
PACKETS = tuple(
    rtp.packed(
        rtp.Header(payload_type=111, is_marked=False, sequence=65_530 + n & 0xFFFF, timestamp=2**32 - 3_000 + 960 * n & 0xFFFFFFFF, ssrc=9),
        frame,
    )
    for n, frame in enumerate(encode(PCM))
)


def listened(order: Iterable[int]) -> tuple[Incoming, list[Utterance]]:
    """Packets in the order of their arrival, one every 20 ms, not encrypted."""
    stream = Incoming(9, FullEar(lambda packet: packet))
    told: list[Utterance] = []
    for position, number in enumerate(order):
        at = UnixNs(START + position * FRAME_NS)
        header = rtp.header(PACKETS[number])
        stream.arrived(at, header.sequence, header.timestamp, PACKETS[number])
        stream.publish()
        told += stream.sounds(at)
    told += stream.sounds(UnixNs(START + 10**10), is_final=True)
    return stream, told


def test_speech_is_told_at_its_instant() -> None:
    """Sample 9600 of the source left in packet 10: the codec's delay is taken off, and its pre-echo before a pure tone is not followed."""
    _, told = listened(range(len(PACKETS)))

    assert [utterance.ended_at is None for utterance in told] == [True, False]
    assert abs(told[0].started_at - (START + 200_000_000)) < 1_000_000


def test_sound_is_decoded_in_the_order_of_rtp_time() -> None:
    """A packet that was overtaken is put back: the sound is that of the stream in order."""
    order = [*range(12), 13, 12, *range(14, len(PACKETS))]
    in_order, _ = listened(range(len(PACKETS)))
    overtaken, _ = listened(order)

    assert [frame.timestamp for frame in overtaken.ear.frames] == [frame.timestamp for frame in in_order.ear.frames]
    assert all(np.array_equal(a.pcm, b.pcm) for a, b in zip(overtaken.ear.frames, in_order.ear.frames, strict=True))


def test_a_lost_packet_is_waited_for_and_given_up() -> None:
    """The rest is decoded, and placed by RTP time over the hole and over the wrap of both counters."""
    stream, _ = listened(number for number in range(len(PACKETS)) if number != 5)
    times = [frame.timestamp for frame in stream.ear.frames]

    assert len(times) == len(PACKETS) - 1
    assert {b - a for a, b in itertools.pairwise(times)} == {960, 1920}


def test_a_duplicate_is_not_heard_twice() -> None:
    """Each packet is decoded once."""
    stream, _ = listened(number for number in range(len(PACKETS)) for _ in range(2))

    assert len(stream.ear.frames) == len(PACKETS)


def test_a_packet_that_fails_authentication_makes_no_sound() -> None:
    """It arrived, so it is counted; it cannot be heard."""
    stream = Incoming(9, FullEar(lambda _: None))
    stream.arrived(UnixNs(START), 1, 0, PACKETS[0])
    stream.publish()

    assert list(stream.sounds(UnixNs(START))) == []
    assert stream.reception is not None


def test_there_is_no_block_before_the_first_packet() -> None:
    """A receiver report says nothing of a stream never heard."""
    assert Incoming(9, FullEar(lambda packet: packet)).block(UnixNs(START)) is None


def test_a_block_tells_how_long_the_senders_report_is_ago() -> None:
    """LSR is the middle of its NTP time, DLSR counts from its kernel stamp."""
    stream, _ = listened(range(3))
    report = rtcp.SenderReport(ssrc=9, ntp=rtcp.ntp(UnixNs(START)), rtp_timestamp=0, packets=3, octets=0)
    stream.reported(report, UnixNs(START + 1_000_000))
    block = stream.block(UnixNs(START + 501_000_000))

    assert block is not None
    assert (block.last_report, block.delay) == (rtcp.middle(rtcp.ntp(UnixNs(START))), 32_768)


def test_the_look_ahead_is_the_codecs() -> None:
    """6.5 ms."""
    assert LOOK_AHEAD_SAMPLES / 48 == 6.5
