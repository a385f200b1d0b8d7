"""What a received RTP stream shows of the network: RFC 3550 appendix A.1 (sequence numbers), A.3 (loss), A.8 (jitter)."""

from __future__ import annotations

from harness.measure.rtcp import Block
from harness.measure.rtp import signed_difference
from harness.model import value

_RESTART_AFTER = 3000
"""A jump further than this is a restarted stream, not loss (A.1, MAX_DROPOUT); it counts once a second packet confirms it."""
FIRST_CYCLE = 0x10000
"""Room below the first packet for one reordered before it. Reports count from 0: LiveKit drops them as "runaway" otherwise."""
_WINDOW = 1024
"""Packets that far behind the highest are late or restarted, and cannot be told from duplicates (A.1: MAX_MISORDER is 100)."""
_WINDOW_BITS = (1 << _WINDOW) - 1


@value
class Reception:
    """A stream until now."""

    received: int
    """Duplicates included, as A.3 counts."""
    expected: int
    highest_sequence: int
    """Extended."""
    duplicates: int
    reordered: int
    """Arrived after a packet with a higher sequence number; duplicates are not counted."""
    jitter: float
    """In timestamp units."""
    jitter_max: float

    @property
    def lost(self) -> int:
        """Packets that never came. Unlike the report block's figure, a duplicate does not hide a loss."""
        return self.expected - (self.received - self.duplicates)


class Receiver:
    """Takes packets in the order of their arrival."""

    def __init__(self, rate_hz: int) -> None:
        self._ticks_per_ns = rate_hz / 1e9
        self._base: int | None = None
        self._highest = 0
        self._seen = 0
        """Bit n: the packet n below the highest has come."""
        self._restart: int | None = None
        self._expected_before = 0
        self._received = self._duplicates = self._reordered = 0
        self._last: tuple[int, int] | None = None
        self._jitter = self._jitter_max = 0.0
        self.jitter_peak = 0.0
        """In timestamp units, since whoever reads it last set it back."""

    def arrived(self, at_ns: int, sequence: int, timestamp: int) -> int | None:
        """Counts one packet. Returns its extended sequence number; None for a duplicate, or a jump that awaits confirmation."""
        if self._base is not None and sequence == (self._highest + 1) & 0xFFFF:
            # Nearly every packet is the next one.
            self._highest += 1
            self._seen = ((self._seen << 1) | 1) & _WINDOW_BITS
            self._received += 1
            self._restart = None
            self._time(at_ns, timestamp)
            return self._highest
        extended = self._extended(sequence)
        if extended is None:
            return None
        self._received += 1
        behind = self._highest - extended
        if behind < 0:
            self._seen = ((self._seen << -behind) | 1) & _WINDOW_BITS if -behind < _WINDOW else 1
            self._highest = extended
        elif self._seen >> behind & 1:
            self._duplicates += 1
            return None
        else:
            self._seen |= 1 << behind
            if behind:
                self._reordered += 1
        self._time(at_ns, timestamp)
        return extended

    def _extended(self, sequence: int) -> int | None:
        """Sequence number with cycles (A.1)."""
        if self._base is None:
            self._start(FIRST_CYCLE + sequence)
            return self._highest
        step = signed_difference(sequence, self._highest & 0xFFFF, 16)
        if -_WINDOW < step < _RESTART_AFTER:
            self._restart = None
            self._base = min(self._base, self._highest + step)
            return self._highest + step
        if self._restart != sequence:
            self._restart = (sequence + 1) & 0xFFFF
            return None
        self._expected_before += self._highest - self._base + 1
        self._start(((self._highest >> 16) + 1 << 16) + sequence)
        self._last = None
        self._restart = None
        return self._highest

    def _start(self, extended: int) -> None:
        self._base = self._highest = extended
        self._seen = 0

    def _time(self, at_ns: int, timestamp: int) -> None:
        """Interarrival jitter (A.8), in floating point."""
        if self._last is not None:
            last_at_ns, last_timestamp = self._last
            ticks = ((timestamp - last_timestamp + 0x80000000) & 0xFFFFFFFF) - 0x80000000
            self._jitter += (abs((at_ns - last_at_ns) * self._ticks_per_ns - ticks) - self._jitter) / 16
            if self._jitter > self._jitter_max:
                self._jitter_max = self._jitter
            if self._jitter > self.jitter_peak:
                self.jitter_peak = self._jitter
        self._last = (at_ns, timestamp)

    def reception(self) -> Reception | None:
        """None before the first packet."""
        if self._base is None:
            return None
        return Reception(
            received=self._received,
            expected=self._expected_before + self._highest - self._base + 1,
            highest_sequence=self._highest - FIRST_CYCLE,
            duplicates=self._duplicates,
            reordered=self._reordered,
            jitter=self._jitter,
            jitter_max=self._jitter_max,
        )


class Reporter:
    """Makes the report blocks of one stream: remembers what the previous one said."""

    def __init__(self, ssrc: int) -> None:
        self._ssrc = ssrc
        self._before = (0, 0)

    def block(self, heard: Reception, last_report: int, delay: int) -> Block:
        """The next block (A.3). last_report, delay: LSR and DLSR; 0 before the first sender report."""
        expected, received = heard.expected - self._before[0], heard.received - self._before[1]
        self._before = (heard.expected, heard.received)
        lost = expected - received
        return Block(
            ssrc=self._ssrc,
            fraction_lost=0 if expected <= 0 or lost <= 0 else min(255, (lost << 8) // expected),
            lost=heard.expected - heard.received,
            highest_sequence=heard.highest_sequence & 0xFFFFFFFF,
            jitter=int(heard.jitter),
            last_report=last_report,
            delay=delay,
        )
