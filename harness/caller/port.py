"""One transport in the media thread's hands: protect and send, receive and stamp, report."""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from pylibsrtp import Error as SrtpError

from harness.caller.aiortc_adapter import Wire
from harness.caller.ears import FullEar, LightEar
from harness.caller.incoming import Incoming
from harness.caller.kernel import Batch, stamp_arrivals
from harness.caller.outgoing import Outgoing
from harness.clock import Clock
from harness.measure import rtcp, rtp
from harness.measure.rfc3550 import Reception
from harness.measure.voice import Utterance
from harness.model import Grade, UnixNs

Impair = Callable[[UnixNs, bytes], tuple[int, ...]]
"""What becomes of one RTP or RTCP datagram, still or again encrypted: the delays in ns of its copies. (0,): untouched; (): lost."""

REPORT_NS = 1_000_000_000


class Stream(Protocol):
    """A received stream: Incoming, or its likeness in a compiled core."""

    @property
    def ear(self) -> FullEar | LightEar:
        """What hears it."""

    @property
    def reception(self) -> Reception | None:
        """What its headers told until now."""

    def sounds(self, now: UnixNs, is_final: bool = False, is_attentive: bool = True) -> Iterable[Utterance]:
        """Each utterance that began or ended; see Ear."""

    def reported(self, report: rtcp.SenderReport, at: UnixNs) -> None:
        """The sender's own report arrived."""

    def take_jitter_peak(self) -> float:
        """The highest interarrival jitter since the last call, in timestamp units."""


class Native(Protocol):
    """A port's share of a compiled core."""

    def collect(self, given: Port) -> None:
        """Takes what came."""


class Port:
    """``speak``, ``drain`` and ``report`` belong to the media thread; ``digest`` to the listening thread."""

    def __init__(self, wire: Wire, outgoing: Outgoing | None, clock: Clock, grade: Grade = Grade.FULL) -> None:
        """outgoing: None for an end that only receives. grade: how closely the streams that arrive are listened to."""
        self.outgoing = outgoing
        self.inode = os.fstat(wire.socket.fileno()).st_ino
        self.send_errors = self.unreadable = 0
        self.up: Impair | None = None
        self.down: Impair | None = None
        self.left: Callable[[int], None] | None = None
        """Told how many ns after its time a datagram that was held back has left."""
        self.incoming: dict[int, Stream] = {}
        self._own: dict[int, Incoming] = {}
        self.round_trips_s: list[float] = []
        self.longest: tuple[float, UnixNs] | None = None
        """The longest round trip, in seconds, and when it had come back, since somebody last set it to None."""
        self.peer_blocks: list[rtcp.Block] = []
        """What the SFU's receiver reports say of our stream, oldest first."""
        self.peer_blocks_at: list[tuple[UnixNs, float | None]] = []
        """When each of them came, and the round trip in seconds that it shows."""
        self.own_blocks: list[tuple[UnixNs, rtcp.Block]] = []
        """What our own said of the streams that we receive. A compiled core writes them unseen."""
        self.next_report_ns = time.monotonic_ns() + random.randrange(REPORT_NS)
        self.wire = wire
        self._native: Native | None = None
        self._grade = grade
        self._clock = clock
        self._fd = wire.socket.fileno()
        self._protected = wire.protector()
        self._inbox: deque[tuple[UnixNs, bytes]] = deque()
        self._held_up: list[tuple[int, int, bytes]] = []
        self._held_down: list[tuple[int, int, bytes]] = []
        self._held_count = 0
        self.ssrc = random.randrange(1 << 32) if outgoing is None else outgoing.ssrc
        stamp_arrivals(wire.socket)

    def speak(self, due_ns: int) -> None:
        """Sends the packet that is due."""
        assert self.outgoing is not None
        protected = self._protected
        length = self.outgoing.write(protected.view)
        try:
            size = protected.protect(length)
        except SrtpError:
            sent_ns = time.monotonic_ns()
            self.send_errors += 1
        else:
            sent_ns = time.monotonic_ns()
            if self.up is None:
                self._put(protected.view[:size])
            else:
                self._send(protected.view[:size], sent_ns)
        self.outgoing.left(sent_ns, due_ns, length - rtp.FIXED.size)

    def report(self, now_ns: int) -> None:
        """Sends what is due of RTCP: a sender report, and in the same datagram a separate receiver report."""
        self.next_report_ns = now_ns + REPORT_NS
        now = self._clock.at_monotonic(now_ns)
        found = [incoming.block(now) for incoming in list(self._own.values())]
        blocks = tuple(block for block in found if block is not None)[: rtcp.MAX_BLOCKS]
        self.own_blocks += [(now, block) for block in blocks]
        reports: list[rtcp.Report] = []
        if self.outgoing is not None and self.outgoing.packets:
            reports.append(self.outgoing.report(now_ns))
        if blocks:
            reports.append(rtcp.ReceiverReport(ssrc=self.ssrc, blocks=blocks))
        if reports:
            self._send(self.wire.outbound.protect_rtcp(rtcp.pack(*reports)), now_ns)

    def _send(self, datagram: bytes | memoryview, now_ns: int) -> None:
        if self.up is None:
            self._put(datagram)
            return
        copy = bytes(datagram)
        for delay_ns in self.up(self._clock.at_monotonic(now_ns), copy):
            if delay_ns:
                self._hold(self._held_up, now_ns + delay_ns, copy)
            else:
                self._put(copy)

    @property
    def next_release_ns(self) -> int | None:
        """When (monotonic) the next datagram that an impairment holds back is to leave. None: it holds none."""
        return self._held_up[0][0] if self._held_up else None

    def release(self, now_ns: int) -> None:
        """Sends what an impairment held back until ``now_ns``."""
        while self._held_up and self._held_up[0][0] <= now_ns:
            due_ns, _, datagram = heapq.heappop(self._held_up)
            self._put(datagram)
            if self.left is not None:
                self.left(now_ns - due_ns)

    def _put(self, datagram: bytes | memoryview) -> None:
        try:
            self.wire.socket.send(datagram)
        except OSError:
            self.send_errors += 1

    def drain(self, batch: Batch, offset_ns: int) -> None:
        """Takes what arrived. offset_ns: wall clock less monotonic clock, measured just now."""
        for wall_ns, datagram in batch.receive(self._fd):
            at = self._clock.at_wall(wall_ns, offset_ns)
            if not 128 <= datagram[0] <= 191:
                with contextlib.suppress(RuntimeError):  # the loop has closed: nobody wants STUN any more
                    self.wire.hand_back(datagram)
            elif self.down is None:
                self._inbox.append((at, datagram))
            else:
                for delay_ns in self.down(at, datagram):
                    self._hold(self._held_down, at + delay_ns, datagram)
        if self._held_down:
            now = self._clock.now()
            while self._held_down and self._held_down[0][0] <= now:
                due, _, datagram = heapq.heappop(self._held_down)
                self._inbox.append((UnixNs(due), datagram))

    def _hold(self, held: list[tuple[int, int, bytes]], until: int, datagram: bytes) -> None:
        # The count keeps the order of datagrams that are due together.
        self._held_count += 1
        heapq.heappush(held, (until, self._held_count, datagram))

    def digest(self) -> None:
        """Sorts what ``drain`` took: RTP to its stream, RTCP to what it reports."""
        if self._native is not None:
            self._native.collect(self)
            return
        inbox, unpack, streams = self._inbox, rtp.FIXED.unpack_from, self._own
        touched: set[Incoming] = set()
        while inbox:
            at, datagram = inbox.popleft()
            try:
                _, second, sequence, timestamp, ssrc = unpack(datagram)
                if 192 <= second <= 223:
                    self._reported(at, self.wire.inbound.unprotect_rtcp(datagram))
                else:
                    stream = streams.get(ssrc) or self._stream(ssrc)
                    stream.arrived(at, sequence, timestamp, datagram)
                    touched.add(stream)
            except (SrtpError, struct.error, ValueError):
                self.unreadable += 1
        for stream in touched:
            stream.publish()

    def _stream(self, ssrc: int) -> Incoming:
        found = self._own.get(ssrc)
        if found is None:
            found = self._own[ssrc] = self.incoming[ssrc] = Incoming(ssrc, self.ear())
        return found

    def ear(self) -> FullEar | LightEar:
        """For a new stream."""
        return FullEar(self._unprotected) if self._grade is Grade.FULL else LightEar(self._unprotected, self.wire.tag_bytes)

    def _unprotected(self, packet: bytes) -> bytes | None:
        try:
            return self.wire.inbound.unprotect(packet)
        except SrtpError:
            self.unreadable += 1
            return None

    def _reported(self, at: UnixNs, compound: bytes) -> None:
        for report in rtcp.unpack(compound):
            if isinstance(report, rtcp.SenderReport) and report.ssrc in self.incoming:
                self.incoming[report.ssrc].reported(report, at)
            for block in report.blocks:
                if self.outgoing is not None and block.ssrc == self.outgoing.ssrc:
                    self._answered(block, at)

    def _answered(self, block: rtcp.Block, at: UnixNs) -> None:
        round_trip_s = rtcp.round_trip_s(block, at)
        self.peer_blocks_at.append((at, round_trip_s))
        self.peer_blocks.append(block)
        if round_trip_s is not None:
            self.round_trips_s.append(round_trip_s)
            if self.longest is None or round_trip_s > self.longest[0]:
                self.longest = round_trip_s, at

    def hand_over(self, native: Native) -> None:
        """From now on a compiled core speaks, drains and reports."""
        self._native = native

    def take(self, at: UnixNs, datagram: bytes) -> None:
        """What is no RTP: RTCP to what it reports, everything else back to aiortc."""
        if rtp.kind(datagram) is not rtp.Kind.RTCP:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody wants STUN any more
                self.wire.hand_back(datagram)
            return
        try:
            self._reported(at, self.wire.inbound.unprotect_rtcp(datagram))
        except (SrtpError, struct.error, ValueError):
            self.unreadable += 1

    def close(self) -> None:
        self.wire.socket.close()
