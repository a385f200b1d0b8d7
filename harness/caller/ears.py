"""How a received stream is listened to: everything decoded (full grade), or only what lies around beginnings and ends (light grade)."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.caller.opus import FRAME_SAMPLES, LOOK_AHEAD_SAMPLES, RATE_HZ, Decoder
from harness.measure import rtp
from harness.measure.timeline import Frame
from harness.measure.voice import PAUSE_S, Utterance, Voice
from harness.model import UnixNs

Unprotect = Callable[[bytes], bytes | None]
"""SRTP to RTP; None for a packet that fails authentication or replay."""

RECENT = 45
"""Packets that a light ear remembers, encrypted: 0.9 s. A beginning noticed by a probe may be ``_PROBE_NS`` old."""
_PATIENCE = 3
"""Packets that wait for an earlier one before it is given up: 60 ms."""
_MEMORY_FRAMES = 16
"""In which a beginning is looked for: half of the full grade's memory, a third of its cost."""
_LEAD = 6
"""Packets decoded before the first one whose size tells of sound: the decoder settles, and a soft beginning is not missed."""
_TAIL_BEFORE, _TAIL_AFTER = 8, 2
"""Packets decoded around the last one whose size tells of sound, to find the end."""
_FOR_BEGINNING, _FOR_END = 12, 36
"""Packets needed to find one: the above, and those that came until it was noticed."""
_QUIET_RUN = 10
"""Quiet packets in a row after which nothing more is decoded: 0.2 s; the sizes of the last half are what silence weighs here."""
_PROBE_NS, _GAPLESS_PROBE_NS, _DOUBTFUL_PROBE_NS = 800_000_000, 500_000_000, 200_000_000
"""How often a packet is decoded to see whether sizes tell the truth: in silence, in speech without gaps, and in doubtful speech.

The end of an utterance must still be among the ``RECENT`` packets when the second one has noticed it.
"""
_GAPLESS_NS = 400_000_000
"""Without a packet as light as silence it is doubtful after this time that they are speech: syllables have gaps."""
_CLEAR, _DISTINCT = 0.5, 0.8
"""Silence that weighs more than these shares of speech is not told from it surely, or not at all."""
NEVER = 1 << 62
_REMEMBERED = 1 << 13
"""Packets after which one is decrypted for nothing: SRTP counts roll-overs by what it decrypts, and loses count after 2**15."""
_FOLLOWED_NS = round(PAUSE_S * 1e9) + 20_000_000


class Ear(Protocol):
    """One stream's. Packets go in by their extended sequence number; sound comes out in the order of RTP time."""

    frames: list[Frame]
    """What was decoded, if it is kept."""

    def heard(self, at: UnixNs, number: int, timestamp: int, packet: bytes) -> None:
        """One SRTP packet, no duplicate."""

    def sounds(self, now: UnixNs, is_final: bool = False, is_attentive: bool = True) -> Iterator[Utterance]:
        """Each utterance that began or ended.

        is_final: nothing more will come. is_attentive: a beginning is expected, or at least not covered by what we say ourselves.
        """


class _Sound(NamedTuple):
    """One decoded packet."""

    at: UnixNs
    number: int
    timestamp: int
    size: int
    """Payload bytes."""
    pcm: NDArray[np.int16]


class _Decoding:
    """Packets to samples in the order of RTP time."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._waiting: dict[int, tuple[UnixNs, int, bytes]] = {}
        self.expected: int | None = None

    def put(self, at: UnixNs, number: int, timestamp: int, payload: bytes) -> None:
        if self.expected is None or number >= self.expected:
            self._waiting[number] = (at, timestamp, payload)

    def restart(self, number: int) -> None:
        """What follows begins at ``number``."""
        self._waiting.clear()
        self.expected = number

    def take(self, is_final: bool) -> Iterator[_Sound]:
        """What is in order, or has waited long enough."""
        while self._waiting:
            number = min(self._waiting)
            is_next = self.expected is None or number == self.expected
            if not is_next and len(self._waiting) < _PATIENCE and not is_final:
                return
            self.expected = number + 1
            at, timestamp, payload = self._waiting.pop(number)
            pcm = self._decoder.decode(payload)
            if len(pcm):
                yield _Sound(at, number, timestamp, len(payload), pcm)


class FullEar:
    """Decodes and keeps everything."""

    def __init__(self, unprotect: Unprotect) -> None:
        self.frames: list[Frame] = []
        self._unprotect = unprotect
        self._decoding = _Decoding()
        self._voice = Voice(RATE_HZ, FRAME_SAMPLES, LOOK_AHEAD_SAMPLES)
        self._clock: tuple[int, int] | None = None

    def heard(self, at: UnixNs, number: int, timestamp: int, packet: bytes) -> None:
        """See Ear."""
        if self._decoding.expected is not None and number < self._decoding.expected:
            return
        plain = self._unprotect(packet)
        if plain is not None:
            self._decoding.put(at, number, timestamp, rtp.payload(plain))

    def sounds(self, now: UnixNs, is_final: bool = False, is_attentive: bool = True) -> Iterator[Utterance]:
        """See Ear."""
        for sound in self._decoding.take(is_final):
            self.frames.append(Frame(at=sound.at, timestamp=self._extended(sound.timestamp), pcm=sound.pcm))
            event = self._voice.heard(sound.at, sound.pcm)
            if event:
                yield event
        ended = self._voice.passed(now)
        if ended:
            yield ended

    def _extended(self, timestamp: int) -> int:
        """RTP time that does not wrap."""
        last, extended = self._clock or (timestamp, timestamp)
        extended += rtp.signed_difference(timestamp, last, 32)
        self._clock = (timestamp, extended)
        return extended


class _Packet:
    """One of a light ear's memory. ``plain`` once it was decrypted, which SRTP allows only once."""

    __slots__ = ("at", "number", "packet", "plain", "size", "timestamp")

    def __init__(self, at: UnixNs, number: int, timestamp: int, packet: bytes, size: int) -> None:
        self.at, self.number, self.timestamp, self.packet, self.size = at, number, timestamp, packet, size
        self.plain: bytes | None = None


class _State(enum.Enum):
    RESTING = enum.auto()
    """Silence: nothing is decoded until a packet weighs more than silence does."""
    DECODING = enum.auto()
    """Something may begin."""
    FOLLOWING = enum.auto()
    """Speech has begun: nothing is decoded until packets weigh no more than silence for as long as a pause."""


class LightEar:
    """Decides by the size of packets when to decode, and by decoding what has happened.

    What silence weighs is learnt by decoding it. A size that misleads costs decoding, not truth: probes notice.
    """

    def __init__(self, unprotect: Unprotect, tag_bytes: int) -> None:
        """tag_bytes: SRTP authentication tag, appended to each packet."""
        self.frames: list[Frame] = []
        self.decoded = 0
        """Packets decoded so far."""
        self.silence_bytes = 0
        """Payloads up to this size are taken for silence."""
        self._unprotect = unprotect
        self._tag_bytes = tag_bytes
        self._decoding = _Decoding()
        self._voice = Voice(RATE_HZ, FRAME_SAMPLES, LOOK_AHEAD_SAMPLES, _MEMORY_FRAMES)
        self._recent: deque[_Packet] = deque(maxlen=RECENT)
        self._state = _State.DECODING
        self._loud_at = 0
        """Arrival of the last packet that weighs more than silence; in FOLLOWING of the last sound, if that is later."""
        self._quiet_at = 0
        """Arrival of the last packet that weighs no more than silence."""
        self._rested_at = 0
        """Arrival of the last packet of which it is known that it is silent."""
        self._considered = -1
        """Number of the last packet that need not be decoded any more."""
        self._probed_at = 0
        self._decrypted = 0
        self._speech_bytes = 0.0
        self._quiet: list[int] = []

    def heard(self, at: UnixNs, number: int, timestamp: int, packet: bytes) -> None:
        """See Ear."""
        size = rtp.protected_payload_bytes(packet) - self._tag_bytes
        self._recent.append(_Packet(at, number, timestamp, packet, size))
        if size <= self.silence_bytes:
            self._quiet_at = max(self._quiet_at, at)
        elif at > self._loud_at:
            self._loud_at = at
        if number - self._decrypted > _REMEMBERED:
            self._plain(self._recent[-1])

    def wants(self, loud_at: int, quiet_at: int, now: int, is_attentive: bool) -> int:
        """How many of the latest packets ``sounds`` has to see. 0: it has nothing to do.

        loud_at, quiet_at: last arrival of a packet over ``silence_bytes``, and of another one.
        """
        match self._state:
            case _State.DECODING:
                return RECENT
            case _State.RESTING:
                if loud_at > self._rested_at:
                    return _FOR_BEGINNING
                return RECENT if is_attentive and now - self._probed_at > _PROBE_NS and self._is_doubtful() else 0
            case _State.FOLLOWING:
                if now - max(loud_at, self._loud_at) > _FOLLOWED_NS:
                    return RECENT if self._is_doubtful() else _FOR_END
                is_gapless = now - max(quiet_at, self._quiet_at) > _GAPLESS_NS
                is_probing = now - self._probed_at > self._probe_ns() and (is_gapless or self._is_doubtful())
                return RECENT if is_probing else 0

    def wake(self, quiet_at: int) -> tuple[int, int, int]:
        """When ``wants`` may be true: a packet over ``silence_bytes`` after the first, none for the second if it is not 0, or the third has come.

        The third is an instant, like the first. quiet_at: as for ``wants``.
        """
        match self._state:
            case _State.DECODING:
                return 0, 0, 0
            case _State.RESTING:
                return self._rested_at, 0, self._probed_at + _PROBE_NS if self._is_doubtful() else NEVER
            case _State.FOLLOWING:
                doubted_at = 0 if self._is_doubtful() else max(quiet_at, self._quiet_at) + _GAPLESS_NS
                return NEVER, _FOLLOWED_NS, max(doubted_at, self._probed_at + self._probe_ns())

    def sounds(self, now: UnixNs, is_final: bool = False, is_attentive: bool = True) -> Iterator[Utterance]:
        """See Ear."""
        if not self._recent:
            return
        if self._state is _State.RESTING:
            if self._loud_at > self._rested_at:
                self._attend(_LEAD)
            elif is_attentive and self._is_doubtful() and self._is_probe_due(now, _PROBE_NS) and self._is_probe_loud(1):
                self._attend(RECENT)
        elif self._state is _State.FOLLOWING:
            if now - self._loud_at > _FOLLOWED_NS or is_final:
                yield from self._end(now, self._tail())
            elif (
                (self._is_doubtful() or now - self._quiet_at > _GAPLESS_NS)
                and self._is_probe_due(now, self._probe_ns())
                and not self._is_probe_loud(3)
            ):
                yield from self._end(now, sorted(self._recent, key=_number))
        if self._state is _State.DECODING:
            yield from self._begin(is_final)

    def _is_probe_due(self, now: UnixNs, every_ns: int) -> bool:
        if now - self._probed_at <= every_ns or self._recent[-1].number <= self._considered:
            return False
        self._probed_at = now
        return True

    def _is_doubtful(self) -> bool:
        """Sizes may not tell speech: silence weighs nearly as much, or nobody has spoken yet."""
        return self.silence_bytes >= self._speech_bytes * _CLEAR

    def _probe_ns(self) -> int:
        """While someone speaks."""
        return _DOUBTFUL_PROBE_NS if self._is_doubtful() else _GAPLESS_PROBE_NS

    def _is_probe_loud(self, probes: int) -> bool:
        """Decodes the latest packet; if it is quiet, others 0.1 s apart, so that a gap between words is not taken for silence."""
        chosen = list(self._recent)[-1::-5][:probes]
        return any(self._voice.loud_block(sound.pcm) is not None for packet in chosen for sound in self._decode([packet]))

    def _attend(self, lead: int) -> None:
        """Something sounds: decoding starts ``lead`` packets before it."""
        fresh = sorted((packet for packet in self._recent if packet.number > self._considered), key=_number)
        loud = (n for n, packet in enumerate(fresh) if packet.size > self.silence_bytes and packet.at > self._rested_at)
        start = max(0, next(loud, 0) - lead)
        if fresh:
            self._considered = fresh[start].number - 1
        self._state = _State.DECODING
        self._quiet.clear()
        self._decoding.restart(self._considered + 1)

    def _begin(self, is_final: bool) -> Iterator[Utterance]:
        """Decodes what came until speech begins or silence returns."""
        for packet in self._recent:
            if packet.number > self._considered:
                self._put(packet)
        for sound in self._take(is_final):
            self._considered = sound.number
            event = self._voice.heard(sound.at, sound.pcm)
            if self._voice.is_loud:
                self._speech_bytes += (sound.size - self._speech_bytes) / 8 if self._speech_bytes else sound.size
                self._quiet.clear()
            else:
                self._quiet.append(sound.size)
            if event:
                yield event
            if self._voice.is_speaking:
                self._state = _State.FOLLOWING
                self._loud_at = max(self._loud_at, sound.at)
                self._probed_at = sound.at
                return
            if len(self._quiet) >= _QUIET_RUN:
                self._learn(max(self._quiet[_QUIET_RUN // 2 :]))
                self._rest(sound.at)
                return

    def _learn(self, silence_bytes: int) -> None:
        """Silence weighs this much, as far as it can be told from speech by weight."""
        has_fallen = silence_bytes < self.silence_bytes / 2
        self.silence_bytes = silence_bytes if has_fallen else max(self.silence_bytes, silence_bytes)
        if self._speech_bytes:
            self.silence_bytes = min(self.silence_bytes, round(self._speech_bytes * _DISTINCT))

    def _rest(self, at: UnixNs) -> None:
        """Until something louder than silence arrives after ``at``."""
        self._state = _State.RESTING
        self._rested_at = self._probed_at = at
        self._loud_at = max((packet.at for packet in self._recent if packet.size > self.silence_bytes), default=0)

    def _tail(self) -> list[_Packet]:
        """The packets around the last one that weighs more than silence; all, if lighter ones are known to sound."""
        recent = sorted(self._recent, key=_number)
        last = max((n for n, packet in enumerate(recent) if packet.size > self.silence_bytes), default=None)
        if last is None or recent[last].at < self._loud_at:
            return recent
        return recent[max(0, last - _TAIL_BEFORE + 1) : last + _TAIL_AFTER + 1]

    def _end(self, now: UnixNs, window: list[_Packet]) -> Iterator[Utterance]:
        """Decodes ``window``, in which the utterance may end. It goes on if there is sound after all."""
        self._voice.resume(window[0].at)
        self._quiet.clear()
        for sound in self._decode(window):
            event = self._voice.heard(sound.at, sound.pcm)
            if self._voice.is_loud:
                self._quiet.clear()
            else:
                self._quiet.append(sound.size)
            if event:
                yield event
        ended = self._voice.passed(now)
        if ended:
            yield ended
        self._considered = window[-1].number
        if self._voice.is_speaking:
            self._loud_at = max(self._loud_at, self._voice.loud_until)
            self._probed_at = now
        else:
            if len(self._quiet) >= _QUIET_RUN:
                self._learn(max(self._quiet[_QUIET_RUN // 2 :]))
            self._rest(window[-1].at)

    def _decode(self, packets: Sequence[_Packet]) -> Iterator[_Sound]:
        """These packets now, whatever was or will be decoded."""
        self._decoding.restart(packets[0].number)
        for packet in packets:
            self._put(packet)
        yield from self._take(is_final=True)

    def _put(self, packet: _Packet) -> None:
        plain = self._plain(packet)
        if plain is not None:
            self._decoding.put(packet.at, packet.number, packet.timestamp, rtp.payload(plain))

    def _take(self, is_final: bool) -> Iterator[_Sound]:
        for sound in self._decoding.take(is_final):
            self.decoded += 1
            yield sound

    def _plain(self, packet: _Packet) -> bytes | None:
        if packet.plain is None:
            packet.plain = self._unprotect(packet.packet)
            self._decrypted = max(self._decrypted, packet.number)
        return packet.plain


def _number(packet: _Packet) -> int:
    return packet.number
