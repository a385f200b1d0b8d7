"""One received RTP stream, on the listening thread: statistics, decryption, decoding in order, speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.caller.opus import FRAME_SAMPLES, LOOK_AHEAD_SAMPLES, RATE_HZ, Decoder
from harness.measure import rtcp, rtp
from harness.measure.rfc3550 import Receiver, Reception, Reporter
from harness.measure.timeline import Frame
from harness.measure.voice import Utterance, Voice
from harness.model import UnixNs

_PATIENCE = 3
"""Packets that wait for an earlier one before it is given up: 60 ms."""


class Incoming:
    """Packets go in by ``arrived`` in the order of their arrival; sound comes out by ``sounds`` in the order of RTP time."""

    def __init__(self, ssrc: int, unprotect: Callable[[bytes], bytes | None]) -> None:
        """unprotect: SRTP to RTP; None for a packet that fails authentication or replay."""
        self.reception: Reception | None = None
        self.frames: list[Frame] = []
        self._unprotect = unprotect
        self._receiver = Receiver(RATE_HZ)
        self._reporter = Reporter(ssrc)
        self._sender_report: tuple[int, UnixNs] | None = None
        self._decoder = Decoder()
        self._voice = Voice(RATE_HZ, FRAME_SAMPLES, LOOK_AHEAD_SAMPLES)
        self._waiting: dict[int, tuple[UnixNs, int, bytes]] = {}
        self._expected: int | None = None
        self._clock: tuple[int, int] | None = None

    def arrived(self, at: UnixNs, sequence: int, timestamp: int, packet: bytes) -> None:
        """One SRTP packet. Statistics take the header only; a duplicate is not decoded."""
        number = self._receiver.arrived(at, sequence, timestamp)
        if number is None or (self._expected is not None and number < self._expected):
            return
        plain = self._unprotect(packet)
        if plain is not None:
            self._waiting[number] = (at, timestamp, rtp.payload(plain))

    def publish(self) -> None:
        """Makes what arrived until now visible to ``block``, at once for all its fields."""
        self.reception = self._receiver.reception()

    def sounds(self, now: UnixNs, is_final: bool = False) -> Iterator[Utterance]:
        """Decodes what is in order, or has waited long enough, and yields each utterance that began or ended.

        is_final: nothing more will come; decode what waits.
        """
        while self._waiting:
            number = min(self._waiting)
            is_next = self._expected is None or number == self._expected
            if not is_next and len(self._waiting) < _PATIENCE and not is_final:
                break
            self._expected = number + 1
            yield from self._sound(*self._waiting.pop(number))
        ended = self._voice.passed(now)
        if ended:
            yield ended

    def _sound(self, at: UnixNs, timestamp: int, payload: bytes) -> Iterator[Utterance]:
        pcm = self._decoder.decode(payload)
        if len(pcm) == 0:
            return
        extended = self._extended(timestamp)
        self.frames.append(Frame(at=at, timestamp=extended, pcm=pcm))
        event = self._voice.heard(at, pcm)
        if event:
            yield event

    def _extended(self, timestamp: int) -> int:
        """RTP time that does not wrap."""
        last, extended = self._clock or (timestamp, timestamp)
        extended += rtp.signed_difference(timestamp, last, 32)
        self._clock = (timestamp, extended)
        return extended

    def reported(self, report: rtcp.SenderReport, at: UnixNs) -> None:
        """The sender's own report arrived."""
        self._sender_report = (rtcp.middle(report.ntp), at)

    def block(self, now: UnixNs) -> rtcp.Block | None:
        """What our next receiver report says of the stream; for one thread. None before the first packet."""
        heard = self.reception
        if heard is None:
            return None
        if self._sender_report is None:
            return self._reporter.block(heard, 0, 0)
        last_report, arrived_at = self._sender_report
        return self._reporter.block(heard, last_report, rtcp.delay(max(0, now - arrived_at)))
