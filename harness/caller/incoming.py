"""One received RTP stream, on the listening thread: what its headers tell, and the ear that hears it."""

from __future__ import annotations

from collections.abc import Iterator

from harness.caller.ears import FullEar, LightEar
from harness.caller.opus import RATE_HZ
from harness.measure import rtcp
from harness.measure.rfc3550 import Receiver, Reception, Reporter
from harness.measure.voice import Utterance
from harness.model import UnixNs


class Incoming:
    """Packets go in by ``arrived`` in the order of their arrival; sound comes out by ``sounds`` in the order of RTP time."""

    def __init__(self, ssrc: int, ear: FullEar | LightEar) -> None:
        self.reception: Reception | None = None
        self.ear = ear
        self._receiver = Receiver(RATE_HZ)
        self._reporter = Reporter(ssrc)
        self._sender_report: tuple[int, UnixNs] | None = None

    def arrived(self, at: UnixNs, sequence: int, timestamp: int, packet: bytes) -> None:
        """One SRTP packet. Statistics take the header only; a duplicate is not heard."""
        number = self._receiver.arrived(at, sequence, timestamp)
        if number is not None:
            self.ear.heard(at, number, timestamp, packet)

    def publish(self) -> None:
        """Makes what arrived until now visible to ``block``, at once for all its fields."""
        self.reception = self._receiver.reception()

    def sounds(self, now: UnixNs, is_final: bool = False, is_attentive: bool = True) -> Iterator[Utterance]:
        """Each utterance that began or ended; see Ear."""
        return self.ear.sounds(now, is_final, is_attentive)

    def take_jitter_peak(self) -> float:
        """The highest interarrival jitter since the last call, in timestamp units."""
        peak, self._receiver.jitter_peak = self._receiver.jitter_peak, 0.0
        return peak

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
