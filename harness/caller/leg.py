"""One call's audio, both ways, as the session sees it: speak, hear, and what the wire did meanwhile."""

from __future__ import annotations

import contextlib
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.caller.aiortc_adapter import Wire
from harness.caller.clip import Clip
from harness.caller.opus import LOOK_AHEAD_SAMPLES, RATE_HZ
from harness.caller.outgoing import Outgoing, Spoken
from harness.caller.port import Impair, Port
from harness.clock import Clock
from harness.measure.rtcp import Block
from harness.measure.timeline import Piece, mixed, pieces
from harness.measure.voice import Utterance
from harness.model import Grade, Reports, UnixNs, WireStats

__all__ = ["Leg", "Spoken", "Utterance"]

RECORDING_HZ = 24_000
_LOOK_AHEAD_NS = LOOK_AHEAD_SAMPLES * 1_000_000_000 // RATE_HZ
"""Taken off as it is from utterances, so that a recording shows them where they are told."""
_HALF_BAND = np.array([-0.0097, 0.0, 0.0572, 0.0, -0.1886, 0.0, 0.6411, 1.0, 0.6411, 0.0, -0.1886, 0.0, 0.0572, 0.0, -0.0097]) / 2
"""Low-pass at 12 kHz before every second sample is dropped: for ears, not for measurement."""


class Leg:
    """The audio of one call. Methods may be called from any thread; none blocks.

    A leg sends 50 packets a second from the moment it is added to the engine: a clip's frames while one plays, Opus silence otherwise.
    """

    def __init__(self, clock: Clock, publisher: Wire, subscriber: Wire | None = None, grade: Grade = Grade.FULL) -> None:
        """publisher: the transport that carries the outgoing stream. subscriber: the second one of a dual-PC caller; None: single-PC.

        grade: how closely it listens. A light leg has no recording.
        """
        if publisher.stream is None:
            msg = "the publisher's wire carries no outgoing stream"
            raise ValueError(msg)
        self._outgoing = Outgoing(publisher.stream.ssrc, publisher.stream.payload_type, clock, keeps_sound=grade is Grade.FULL)
        self.is_light = grade is Grade.LIGHT
        self._call_soon = publisher.call_soon
        self._utterances: list[Utterance] = []
        self._told: Callable[[Utterance], None] | None = None
        self._clock = clock
        self._publisher = Port(publisher, self._outgoing, clock, grade)
        self.ports = (self._publisher,) if subscriber is None else (self._publisher, Port(subscriber, None, clock, grade))
        """For the engine."""

    def play(self, clip: Clip) -> None:
        """Starts speaking at the next tick, after whatever is still playing."""
        self._outgoing.play(clip)

    def hush(self) -> None:
        """Stops speaking at the next tick and forgets the clips that wait."""
        self._outgoing.hush()

    @property
    def is_speaking(self) -> bool:
        """A clip is playing or waits for its tick."""
        return self._outgoing.is_speaking

    def spoken(self) -> tuple[Spoken, ...]:
        """The clips whose last voiced sample has left, oldest first."""
        return self._outgoing.spoken()

    def utterances(self) -> tuple[Utterance, ...]:
        """What was heard so far, oldest first; at most the last one is still going on."""
        return tuple(self._utterances)

    def listen(self, told: Callable[[Utterance], None]) -> None:
        """``told`` is called in the asyncio thread when an utterance starts (``ended_at`` None) and again when it has ended.

        The end is told ``harness.measure.voice.PAUSE_S`` after the last voiced sample, a start within 0.1 s.
        Their instants are exact all the same.
        """
        self._told = told

    def impair(self, up: Impair | None, down: Impair | None, left: Callable[[int], None] | None = None) -> None:
        """What befalls each datagram from now on, by direction. None: nothing.

        left: told how many ns after its time a datagram that was held back has left. All are called in the media thread.
        """
        for port in self.ports:
            port.up, port.down, port.left = up, down, left

    def digest(self, is_final: bool = False) -> None:
        """For the listening thread: takes in what arrived. is_final: nothing more will come."""
        now = self._clock.now()
        is_attentive = not self._outgoing.is_speaking
        for port in self.ports:
            port.digest()
            for stream in port.incoming.values():
                for utterance in stream.sounds(now, is_final, is_attentive):
                    self._heard(utterance)

    def _heard(self, utterance: Utterance) -> None:
        if utterance.ended_at is not None:
            self._utterances = [known for known in self._utterances if known.started_at != utterance.started_at]
        self._utterances = sorted([*self._utterances, utterance], key=lambda known: known.started_at)
        if self._told is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens any more
                self._call_soon(self._told, utterance)

    def reports(self) -> tuple[Block, ...]:
        """What the SFU's receiver reports said of our stream, oldest first."""
        return tuple(self._publisher.peer_blocks)

    def receiver_reports(self) -> tuple[Reports, ...]:
        """The SFU's of our stream, and our own as far as we see them; a direction without any is left out."""
        came = zip(self._publisher.peer_blocks_at, self._publisher.peer_blocks, strict=False)
        up = [(at, block, rtt_s) for (at, rtt_s), block in came]
        down = [(at, block, None) for port in self.ports for at, block in list(port.own_blocks)]
        return tuple(
            Reports(
                direction=direction,
                at=tuple(at for at, _, _ in blocks),
                rtt_s=tuple(None if rtt_s is None else round(rtt_s, 6) for _, _, rtt_s in blocks),
                lost=tuple(block.lost for _, block, _ in blocks),
                jitter_s=tuple(round(block.jitter / RATE_HZ, 6) for _, block, _ in blocks),
            )
            for direction, blocks in (("up", up), ("down", down))
            if blocks
        )

    def wire_stats(self) -> tuple[WireStats, WireStats]:
        """Up and down, over the life of the leg until now."""
        return self._up(), self._down()

    def _up(self) -> WireStats:
        blocks = tuple(self._publisher.peer_blocks)
        return WireStats(
            direction="up",
            packets=self._outgoing.packets,
            expected=self._outgoing.packets,
            lost=blocks[-1].lost if blocks else 0,
            jitter_s=blocks[-1].jitter / RATE_HZ if blocks else None,
            jitter_max_s=max(block.jitter for block in blocks) / RATE_HZ if blocks else None,
            rtt_s=tuple(self._publisher.round_trips_s),
        )

    def _down(self) -> WireStats:
        heard = [stream.reception for port in self.ports for stream in list(port.incoming.values())]
        streams = [reception for reception in heard if reception is not None]
        most = max(streams, key=lambda reception: reception.received, default=None)
        return WireStats(
            direction="down",
            packets=sum(reception.received for reception in streams),
            expected=sum(reception.expected for reception in streams),
            lost=sum(reception.lost for reception in streams),
            jitter_s=None if most is None else most.jitter / RATE_HZ,
            jitter_max_s=None if most is None else most.jitter_max / RATE_HZ,
            reordered=sum(reception.reordered for reception in streams),
            duplicates=sum(reception.duplicates for reception in streams),
        )

    def take_peaks(self) -> tuple[float, float]:
        """Since the last call: the highest interarrival jitter, and how late our latest packet was sent, in seconds."""
        streams = [stream for port in self.ports for stream in list(port.incoming.values())]
        jitter = max((stream.take_jitter_peak() for stream in streams), default=0.0)
        return jitter / RATE_HZ, self._outgoing.take_late_ns() / 1e9

    def take_longest_at(self) -> UnixNs | None:
        """When the longest round trip since the last call had come back. None: none came."""
        longest, self._publisher.longest = self._publisher.longest, None
        return None if longest is None else longest[1]

    def write_recording(self, path: Path) -> UnixNs | None:
        """Writes both sides as WAV, 24 kHz, 16 bit: caller left, agent right. To be called after ``Engine.remove``, in a thread.

        Returns the instant of the first sample. None, and no file, if nothing was said by either side, or the leg is light.
        """
        said = self._outgoing.pieces()
        streams = [stream for port in self.ports for stream in port.incoming.values()]
        heard = tuple(
            Piece(at=UnixNs(piece.at - _LOOK_AHEAD_NS), pcm=piece.pcm) for stream in streams for piece in pieces(stream.ear.frames, RATE_HZ)
        )
        if not said and not heard:
            return None
        origin = min(piece.at for piece in (*said, *heard))
        end = max(piece.at + len(piece.pcm) * 1_000_000_000 // RATE_HZ for piece in (*said, *heard))
        samples = -(-(end - origin) * RATE_HZ // 2_000_000_000) * 2
        channels = [_halved(mixed(side, origin, samples, RATE_HZ)) for side in (said, heard)]
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as recording:
            recording.setnchannels(2)
            recording.setsampwidth(2)
            recording.setframerate(RECORDING_HZ)
            recording.writeframes(np.stack(channels, axis=1).tobytes())
        return origin


def _halved(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    """48 kHz to 24 kHz."""
    smooth = np.convolve(pcm.astype(np.float32), _HALF_BAND.astype(np.float32), mode="same")
    return np.clip(smooth[::2], -32768, 32767).astype(np.int16)
