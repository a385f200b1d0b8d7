"""The stream we send: what goes into the next packet, and when what was said left."""

from __future__ import annotations

import contextlib
import random
from collections import deque
from typing import Protocol

from harness.caller.clip import Clip
from harness.caller.opus import FRAME_SAMPLES, RATE_HZ, SILENCE
from harness.clock import Clock
from harness.measure import rtcp, rtp
from harness.measure.timeline import Piece
from harness.model import UnixNs, value


@value
class Spoken:
    """One clip as it left. Instants are on the wire: send time of the sample's packet plus its offset inside the packet."""

    clip: str
    started_at: UnixNs
    """First voiced sample."""
    ended_at: UnixNs
    """Last voiced sample; if the clip was hushed, the end of its last packet."""
    is_whole: bool
    """False: hushed before its last voiced sample."""


class Core(Protocol):
    """A compiled core that speaks in an Outgoing's stead."""

    @property
    def is_speaking(self) -> bool:
        """A clip that it took has not left."""

    @property
    def packets(self) -> int:
        """Sent so far."""

    def take_late_ns(self) -> int:
        """How late the latest packet left since the last call."""

    def push(self) -> None:
        """Clips wait."""

    def hush(self) -> None:
        """Breaks off what it took."""


class Outgoing:
    """50 packets a second, whether something is said or not. ``play`` and ``hush`` may be called from any thread."""

    def __init__(self, ssrc: int, payload_type: int, clock: Clock, keeps_sound: bool = True) -> None:
        """keeps_sound: ``pieces`` are wanted."""
        self.ssrc = ssrc
        self._packets = self._octets = 0
        self._late_ns = 0
        self._payload_type = payload_type
        self._clock = clock
        self.keeps_sound = keeps_sound
        # Far from the wrap: an SRTP receiver that misses the first packets could not tell the roll-over count.
        self._sequence = random.randrange(1, 0x4000)
        self._timestamp = random.randrange(1 << 31)
        self._last = (0, self._timestamp)
        self._waiting: deque[Clip] = deque()
        self._core: Core | None = None
        self._clip: Clip | None = None
        self._next = 0
        self._is_hushed = False
        self._started_at: UnixNs | None = None
        self._said_at: UnixNs | None = None
        """Send time of the last packet of a clip."""
        self._spoken: list[Spoken] = []
        self._pieces: list[Piece] = []
        self._is_marked = True

    def play(self, clip: Clip) -> None:
        self._waiting.append(clip)
        if self._core is not None:
            self._core.push()

    def hush(self) -> None:
        self._waiting.clear()
        if self._core is not None:
            self._core.hush()
        else:
            self._is_hushed = True

    @property
    def is_speaking(self) -> bool:
        return self._clip is not None or bool(self._waiting) or (self._core is not None and self._core.is_speaking)

    def speak_through(self, core: Core) -> None:
        """From now on ``core`` makes and sends the packets, and tells ``said`` and ``broke_off``."""
        self._core = core
        core.push()

    def beginning(self) -> tuple[int, int, int]:
        """Payload type, sequence number and RTP time of the first packet."""
        return self._payload_type, self._sequence, self._timestamp

    @property
    def packets(self) -> int:
        """Sent so far."""
        return self._packets if self._core is None else self._core.packets

    def take_late_ns(self) -> int:
        """How late the latest packet left since the last call."""
        if self._core is not None:
            return self._core.take_late_ns()
        late_ns, self._late_ns = self._late_ns, 0
        return late_ns

    def next_clip(self) -> Clip | None:
        """Takes the clip that has waited longest."""
        with contextlib.suppress(IndexError):
            return self._waiting.popleft()
        return None

    def spoken(self) -> tuple[Spoken, ...]:
        return tuple(self._spoken)

    def pieces(self) -> tuple[Piece, ...]:
        """What left, for the recording."""
        return tuple(self._pieces)

    def write(self, packet: memoryview) -> int:
        """Writes the next packet. Returns its length."""
        frame = self._frame()
        length = rtp.FIXED.size + len(frame)
        second = self._payload_type | 0x80 if self._is_marked else self._payload_type
        rtp.FIXED.pack_into(packet, 0, rtp.VERSION, second, self._sequence, self._timestamp, self.ssrc)
        packet[rtp.FIXED.size : length] = frame
        self._is_marked = False
        return length

    def _frame(self) -> bytes:
        if self._is_hushed:
            self._is_hushed = False
            if self._clip is not None:
                self.broke_off(self._clip)
                self._clip = None
        if self._clip is None:
            if not self._waiting:
                return SILENCE
            self._clip = self._waiting.popleft()
            self._next = 0
        return self._clip.frames[self._next]

    def left(self, sent_ns: int, due_ns: int, payload_bytes: int) -> None:
        """The packet just written was sent at ``sent_ns`` and due at ``due_ns``, both monotonic."""
        self._last = (due_ns, self._timestamp)
        if sent_ns - due_ns > self._late_ns:
            self._late_ns = sent_ns - due_ns
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._timestamp = (self._timestamp + FRAME_SAMPLES) & 0xFFFFFFFF
        self._packets += 1
        self._octets += payload_bytes
        if self._clip is not None:
            self.said(self._clip, self._next, self._clock.at_monotonic(sent_ns))
            self._next += 1
            if self._next == len(self._clip.frames):
                self._clip = None

    def said(self, clip: Clip, index: int, at: UnixNs) -> None:
        """Frame ``index`` of ``clip`` left."""
        first, last = index * FRAME_SAMPLES, (index + 1) * FRAME_SAMPLES
        self._said_at = at
        if self.keeps_sound:
            self._pieces.append(Piece(at=at, pcm=clip.pcm[first:last]))
        if first <= clip.first_voiced_sample < last:
            self._started_at = _instant(at, clip.first_voiced_sample - first)
        if first <= clip.last_voiced_sample < last and self._started_at is not None:
            ended_at = _instant(at, clip.last_voiced_sample - first)
            self._spoken.append(Spoken(clip=clip.name, started_at=self._started_at, ended_at=ended_at, is_whole=True))
            self._started_at = None

    def broke_off(self, clip: Clip) -> None:
        """What has not left of ``clip`` never will."""
        if self._started_at is not None and self._said_at is not None:
            ended_at = _instant(self._said_at, FRAME_SAMPLES - 1)
            self._spoken.append(Spoken(clip=clip.name, started_at=self._started_at, ended_at=ended_at, is_whole=False))
        self._started_at = None

    def skip(self, frames: int) -> None:
        """The thread fell behind: so many packets are never sent, and RTP time goes on without them."""
        self._timestamp = (self._timestamp + frames * FRAME_SAMPLES) & 0xFFFFFFFF

    def report(self, now_ns: int) -> rtcp.SenderReport:
        """The stream at ``now_ns`` (monotonic). RTP time is that of the last packet plus what passed since it was due.

        A report whose RTP time runs ahead of the media fakes jitter at the SFU (66 ms were seen) for a track's first two minutes.
        """
        due_ns, timestamp = self._last
        elapsed = (now_ns - due_ns) * RATE_HZ // 1_000_000_000
        return rtcp.SenderReport(
            ssrc=self.ssrc,
            ntp=rtcp.ntp(self._clock.at_monotonic(now_ns)),
            rtp_timestamp=(timestamp + elapsed) & 0xFFFFFFFF,
            packets=self._packets,
            octets=self._octets,
        )


def _instant(packet_at: UnixNs, offset_samples: int) -> UnixNs:
    return UnixNs(packet_at + offset_samples * 1_000_000_000 // RATE_HZ)
