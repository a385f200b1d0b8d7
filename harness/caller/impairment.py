"""What a bad network makes of each packet: loss, delay, jitter, reordering, duplication, a bottleneck, on a schedule. Pure; seeded.

The same seed, the same impairments and the same packets give the same fates: every packet costs each impairment the same four dice, thrown apart
for RTP and RTCP, so that neither another setting nor the random instants of reports move a decision.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence

from harness.measure import rtcp, rtp
from harness.measure.rfc3550 import Receiver
from harness.model import Control, Impaired, Impairment, UnixNs, value

UP, DOWN = "up", "down"
RATE_HZ = 48_000
WINDOW_NS = 5_000_000_000
"""What was done is told for so long at a time."""
OVERHEAD_BYTES = 28
"""IPv4 and UDP headers: they take their share of a bottleneck."""


@value
class Fate:
    """What becomes of one datagram."""

    delays_ns: tuple[int, ...]
    """Of each of its copies; (0,): untouched; (): lost."""


class Path:
    """One direction of one call."""

    def __init__(self, impairments: Sequence[Impairment], *, direction: str, seed: int) -> None:
        """impairments: of both directions; those of the other are passed over."""
        mine = [each for each in impairments if each.direction == direction]
        queues = [None if each.rate_bps is None else Bottleneck(each.rate_bps, each.queue_s) for each in mine]
        self._media, self._control = (
            [
                _Stage(each, queue, random.Random(f"{seed}/{direction}/{number}/{kind}"), is_media=kind == "rtp")
                for number, (each, queue) in enumerate(zip(mine, queues, strict=True))
            ]
            for kind in ("rtp", "rtcp")
        )

    def fate(self, after_ns: int, size: int, *, is_media: bool = True) -> Fate:
        """Of the next datagram. after_ns: since the media path was up; does not decrease. size: bytes of the datagram."""
        delays: list[int] = [0]
        for stage in self._media if is_media else self._control:
            delays = [delay + more for delay in delays for more in stage.delays(after_ns + delay, size)]
        return Fate(delays_ns=tuple(delays))


class Bottleneck:
    """A link of so many bits a second with a queue before it; RTP and RTCP share it."""

    def __init__(self, rate_bps: float, queue_s: float) -> None:
        self._ns_per_byte = 8e9 / rate_bps
        self._queue_ns = queue_s * 1e9
        self._free_at = 0.0

    def delay_ns(self, at_ns: int, size: int) -> int | None:
        """Until the last bit has passed. None: the queue is full."""
        starts_at = max(self._free_at, at_ns)
        if starts_at - at_ns > self._queue_ns:
            return None
        self._free_at = starts_at + (size + OVERHEAD_BYTES) * self._ns_per_byte
        return round(self._free_at - at_ns)


class _Stage:
    """One impairment, for RTP or for RTCP."""

    def __init__(self, impairment: Impairment, queue: Bottleneck | None, dice: random.Random, *, is_media: bool) -> None:
        self._is = impairment
        self._queue = queue
        self._dice = dice
        self._from_ns = round(impairment.from_s * 1e9)
        self._until_ns = None if impairment.until_s is None else round(impairment.until_s * 1e9)
        self._delay_ns, self._jitter_ns = round(impairment.delay_s * 1e9), impairment.jitter_s * 1e9
        self._reorder_ns = round(impairment.reorder_s * 1e9)
        # Numbered, held back and doubled are media only: a report has no order, and SRTCP passes over its double.
        self._every = impairment.lose_every if is_media else None
        self._reorder_ratio, self._duplicate_ratio = (impairment.reorder_ratio, impairment.duplicate_ratio) if is_media else (0.0, 0.0)
        self._into_burst, self._out_of_burst = gilbert(impairment.loss_ratio, impairment.burst_packets)
        self._is_in_burst = False
        self._count = 0
        self._not_before = 0

    def delays(self, at_ns: int, size: int) -> tuple[int, ...]:
        """Of the copies that go on."""
        if at_ns < self._from_ns or (self._until_ns is not None and at_ns >= self._until_ns):
            return (0,)
        loss, jitter, reorder, duplicate = (self._dice.random() for _ in range(4))
        if self._is_lost(loss):
            return ()
        delay = self._delay_ns + round(self._jitter_ns * jitter)
        if self._queue is not None:
            queued = self._queue.delay_ns(at_ns, size)
            if queued is None:
                return ()
            delay += queued
        if self._is.keeps_order:
            delay = max(delay, self._not_before - at_ns)
            self._not_before = at_ns + delay
        if reorder < self._reorder_ratio:
            delay += self._reorder_ns
        return (delay, delay) if duplicate < self._duplicate_ratio else (delay,)

    def _is_lost(self, die: float) -> bool:
        self._count += 1
        if self._is_in_burst:
            self._is_in_burst = die >= self._out_of_burst
        else:
            self._is_in_burst = die < self._into_burst
        return self._is_in_burst or (self._every is not None and self._count % self._every == 0)


def gilbert(loss_ratio: float, burst_packets: float | None) -> tuple[float, float]:
    """Chances, at each packet, to go from a network that loses nothing to one that loses all, and back.

    burst_packets: mean length of a loss. None: that of packets lost each by itself.
    """
    if loss_ratio >= 1.0:
        return 1.0, 0.0
    back = 1.0 - loss_ratio if burst_packets is None else 1.0 / burst_packets
    return back * loss_ratio / (1.0 - loss_ratio), back


class Impairer:
    """The network of one direction in the media engine's hands, and what it really did. For one thread; ``windows`` for any."""

    def __init__(self, impairments: Sequence[Impairment], *, direction: str, seed: int, since: UnixNs) -> None:
        """since: the instant from which the schedule counts."""
        self._path = Path(impairments, direction=direction, seed=seed)
        self._direction = direction
        self._since = since
        self._closed: deque[Impaired] = deque()
        self._open = _Tally(since)
        self._last_release = 0
        self._sent: list[tuple[int, int, int, int]] = []
        """Release, sequence number, RTP time, losses before it: packets on their way, soonest first."""
        self._receiver = Receiver(RATE_HZ)
        self._lost = 0
        self._has_passed = False
        self._after: dict[int, tuple[float, int]] = {}

    def __call__(self, at: UnixNs, datagram: bytes) -> tuple[int, ...]:
        """The delays in ns of the copies of a datagram that came at ``at``."""
        if at >= self._open.since + WINDOW_NS:
            self._arrive(at)
            self._turn_over(at)
        is_media = rtp.kind(datagram) is rtp.Kind.RTP
        delays = self._path.fate(at - self._since, len(datagram), is_media=is_media).delays_ns
        if not is_media:
            self._open.control += 1
            self._open.control_lost += not delays
            delay_s = delays[0] / 1e9 if delays else None
            self._open.reports.append(Control(at=at, has_sender_report=datagram[1] == rtcp.SENDER_REPORT, delay_s=delay_s))
            return delays
        _, _, sequence, timestamp, _ = rtp.FIXED.unpack_from(datagram)
        self._open.count(at, sequence, delays)
        self._open.leading += not delays and not self._has_passed
        self._lost += not delays
        if delays:
            self._has_passed = True
            self._open.reordered += at + delays[0] < self._last_release
            self._last_release = max(self._last_release, at + delays[0])
            heapq.heappush(self._sent, (at + delays[0], sequence, timestamp, self._lost))
        self._arrive(at)
        return delays

    def _arrive(self, now: int) -> None:
        """What an observer right behind the network has measured by ``now``: nothing that comes later can arrive before."""
        while self._sent and self._sent[0][0] <= now:
            at, sequence, timestamp, lost = heapq.heappop(self._sent)
            self._receiver.arrived(at, sequence, timestamp)
            self._open.jittered(at, self._receiver.jitter_peak / RATE_HZ)
            self._receiver.jitter_peak = 0.0
            heard = self._receiver.reception()
            if heard is not None:
                self._after[sequence] = (heard.jitter / RATE_HZ, lost)

    def truth_after(self, sequence: int) -> tuple[float, int] | None:
        """Jitter in seconds (RFC 3550 A.8) and packets lost, for an observer behind the network whose highest packet is ``sequence``.

        None: that packet was lost, or is still on its way. For calls shorter than 2**16 packets (21 minutes).
        """
        return self._after.get(sequence & 0xFFFF)

    def left(self, late_ns: int) -> None:
        """A datagram that was held back left so long after its time."""
        self._open.late_ns = max(self._open.late_ns, late_ns)

    def windows(self, *, is_final: bool = False) -> tuple[Impaired, ...]:
        """The windows that closed since the last call. is_final: the one still open, too; nothing more will come."""
        if is_final:
            self._closed.append(self._open.told(self._direction))
        return tuple(self._closed.popleft() for _ in range(len(self._closed)))

    def _turn_over(self, at: UnixNs) -> None:
        self._closed.append(self._open.told(self._direction))
        self._open = _Tally(UnixNs(self._open.since + (at - self._open.since) // WINDOW_NS * WINDOW_NS))


class _Tally:
    """One window's counts."""

    def __init__(self, since: UnixNs) -> None:
        self.since = since
        self.control = self.control_lost = self.reordered = self.late_ns = self.leading = 0
        self.reports: list[Control] = []
        self._packets = self._duplicated = self._went = self._delay_ns = self._delay_max_ns = 0
        self._delay_min_ns: int | None = None
        self._lost: list[int] = []
        self._lost_at: list[UnixNs] = []
        self._jitter_peaks_s = [0.0] * (WINDOW_NS // 1_000_000_000)

    def jittered(self, at: int, jitter_s: float) -> None:
        """Packets that left before this window began, or leave after its end, count to its nearest second."""
        second = min(max((at - self.since) // 1_000_000_000, 0), len(self._jitter_peaks_s) - 1)
        self._jitter_peaks_s[second] = max(self._jitter_peaks_s[second], jitter_s)

    def count(self, at: UnixNs, sequence: int, delays_ns: tuple[int, ...]) -> None:
        self._packets += 1
        if not delays_ns:
            self._lost.append(sequence)
            self._lost_at.append(at)
            return
        self._duplicated += len(delays_ns) > 1
        self._went += 1
        self._delay_ns += delays_ns[0]
        self._delay_max_ns = max(self._delay_max_ns, delays_ns[0])
        self._delay_min_ns = delays_ns[0] if self._delay_min_ns is None else min(self._delay_min_ns, delays_ns[0])

    def told(self, direction: str) -> Impaired:
        return Impaired(
            direction=direction,
            since=self.since,
            until=UnixNs(self.since + WINDOW_NS),
            packets=self._packets,
            lost=len(self._lost),
            lost_sequences=tuple(self._lost),
            duplicated=self._duplicated,
            reordered=self.reordered,
            delay_min_s=None if self._delay_min_ns is None else self._delay_min_ns / 1e9,
            delay_mean_s=self._delay_ns / self._went / 1e9 if self._went else None,
            delay_max_s=self._delay_max_ns / 1e9 if self._went else None,
            control_packets=self.control,
            control_lost=self.control_lost,
            late_max_s=self.late_ns / 1e9,
            lost_at=tuple(self._lost_at),
            leading=self.leading,
            control=tuple(self.reports),
            jitter_peaks_s=tuple(round(peak, 6) for peak in self._jitter_peaks_s),
        )
