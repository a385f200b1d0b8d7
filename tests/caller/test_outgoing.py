"""The stream we send."""

from __future__ import annotations

import numpy as np
import pytest

from harness.caller.clip import Clip
from harness.caller.opus import FRAME_SAMPLES, SILENCE
from harness.caller.outgoing import Outgoing, Spoken
from harness.clock import Clock
from harness.measure import rtcp, rtp
from harness.model import UnixNs

ANCHOR = 1_763_933_640_000_000_000
FRAME_NS = 20_000_000


def words(frames: int = 3, first: int = 480, last: int | None = None) -> Clip:
    """A clip of so many frames, each with a payload of its own."""
    return Clip(
        name="words",
        pcm=np.arange(frames * FRAME_SAMPLES, dtype=np.int16),
        frames=tuple(b"frame-%d" % n for n in range(frames)),
        first_voiced_sample=first,
        last_voiced_sample=frames * FRAME_SAMPLES - 481 if last is None else last,
    )


class Sent:
    """An outgoing stream driven by hand: one packet every 20 ms, each 1 ms late."""

    def __init__(self) -> None:
        self.stream = Outgoing(ssrc=7, payload_type=111, clock=Clock(anchor_ns=ANCHOR))
        self.packets: list[bytes] = []

    def tick(self, count: int = 1) -> list[bytes]:
        """The payloads of the next packets."""
        buffer = memoryview(bytearray(200))
        for _ in range(count):
            length = self.stream.write(buffer)
            due = len(self.packets) * FRAME_NS
            self.packets.append(bytes(buffer[:length]))
            self.stream.left(due + 1_000_000, due, length - 12)
        return [rtp.payload(packet) for packet in self.packets[-count:]]


def instant(packet: int, sample: int = 0) -> UnixNs:
    return UnixNs(ANCHOR + packet * FRAME_NS + 1_000_000 + sample * 1_000_000_000 // 48_000)


def test_silence_is_sent_when_nothing_is_said() -> None:
    """50 packets a second whatever happens: the media server counts a gap as loss."""
    assert Sent().tick(3) == [SILENCE] * 3


def test_headers_count_on() -> None:
    """Sequence numbers by one, RTP time by 960, from random beginnings; only the first packet is marked."""
    sent = Sent()
    sent.tick(3)
    headers = [rtp.header(packet) for packet in sent.packets]

    assert [header.sequence - headers[0].sequence for header in headers] == [0, 1, 2]
    assert [header.timestamp - headers[0].timestamp for header in headers] == [0, 960, 1920]
    assert [header.is_marked for header in headers] == [True, False, False]
    assert {(header.ssrc, header.payload_type) for header in headers} == {(7, 111)}


def test_a_clip_is_sent_once_and_silence_follows() -> None:
    """It begins with the next packet."""
    sent = Sent()
    sent.tick()
    sent.stream.play(words())

    assert sent.tick(4) == [b"frame-0", b"frame-1", b"frame-2", SILENCE]


def test_spoken_instants_are_send_times_plus_the_offset_inside() -> None:
    """First voiced sample in packet 0, last in packet 2."""
    sent = Sent()
    sent.stream.play(words())
    sent.tick(3)

    assert sent.stream.spoken() == (
        Spoken(clip="words", started_at=instant(0, 480), ended_at=instant(2, 3 * 960 - 481 - 1920), is_whole=True),
    )


def test_a_clip_is_spoken_once_its_last_voiced_sample_left() -> None:
    """The silence at its end is still played, but nobody waits for it."""
    sent = Sent()
    sent.stream.play(words(frames=4, last=1_000))
    sent.tick(2)

    assert (len(sent.stream.spoken()), sent.stream.is_speaking) == (1, True)


def test_clips_follow_each_other() -> None:
    """The second waits for the first."""
    sent = Sent()
    sent.stream.play(words(2))
    sent.stream.play(words(1))

    assert sent.tick(4) == [b"frame-0", b"frame-1", b"frame-0", SILENCE]


def test_hush_breaks_off_at_the_next_packet() -> None:
    """What was said of the clip is recorded as not whole; what waited is forgotten."""
    sent = Sent()
    sent.stream.play(words())
    sent.stream.play(words())
    sent.tick(1)
    sent.stream.hush()

    assert sent.tick(2) == [SILENCE, SILENCE]
    assert sent.stream.spoken() == (Spoken(clip="words", started_at=instant(0, 480), ended_at=instant(0, 959), is_whole=False),)
    assert not sent.stream.is_speaking


def test_a_clip_hushed_before_its_first_voiced_sample_was_not_spoken() -> None:
    """Silence is not speech."""
    sent = Sent()
    sent.stream.play(words(first=960))
    sent.tick(1)
    sent.stream.hush()
    sent.tick(1)

    assert sent.stream.spoken() == ()


def test_what_is_played_after_hush_is_heard() -> None:
    """Hush forgets the past only."""
    sent = Sent()
    sent.stream.hush()
    sent.stream.play(words(1))

    assert sent.tick() == [b"frame-0"]


def test_skipped_frames_pass_in_rtp_time_only() -> None:
    """No sequence number is lost: the packets were never sent."""
    sent = Sent()
    sent.tick()
    sent.stream.skip(10)
    sent.tick()
    first, second = (rtp.header(packet) for packet in sent.packets)

    assert (second.sequence - first.sequence, second.timestamp - first.timestamp) == (1, 11 * 960)


@pytest.mark.parametrize("skipped", [0, 5])
def test_a_report_continues_the_streams_clock(skipped: int) -> None:
    """RTP time of the last packet plus what passed since it was *due*: the 1 ms of lateness is not in it, nor are skipped frames."""
    sent = Sent()
    sent.tick(2)
    sent.stream.skip(skipped)
    report = sent.stream.report(FRAME_NS + 7_000_000)

    assert report == rtcp.SenderReport(
        ssrc=7,
        ntp=rtcp.ntp(UnixNs(ANCHOR + FRAME_NS + 7_000_000)),
        rtp_timestamp=rtp.header(sent.packets[-1]).timestamp + 336,
        packets=2,
        octets=6,
    )
