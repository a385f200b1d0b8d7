"""When the other side speaks, told while it happens: a view on decoded frames, in instants of their arrival."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from harness.measure.onset import LOUD_DBFS, ending, onset, power
from harness.model import UnixNs, value

PAUSE_S = 0.4
"""Silence shorter than this is inside an utterance: stops and word gaps are below 0.25 s, sentence gaps mostly above."""
MEMORY_FRAMES = 30
"""0.6 s: what onset needs to know the noise (0.3 s), and the softest rise."""
_TAIL_NS = 160_000_000
"""How long after its last loud block an utterance may fade."""
_GAP_NS = 100_000_000
"""Frames that far apart are not one sound: what lies between was not sent."""


@value
class Utterance:
    """One stretch of speech received, without a pause longer than ``PAUSE_S``.

    Instants: kernel arrival of the sample's packet plus its offset inside, less the codec's look-ahead.
    """

    started_at: UnixNs
    ended_at: UnixNs | None
    """Last voiced sample. None: still going on."""


class Voice:
    """Takes frames in the order of their sound."""

    def __init__(self, rate_hz: int, frame_samples: int, look_ahead_samples: int, memory_frames: int = MEMORY_FRAMES) -> None:
        """frame_samples: of an ordinary frame. look_ahead_samples: by how much the codec delays sound; taken off every instant.

        memory_frames: how far back a beginning is looked for; 15 are what its noise is taken from.
        """
        self._rate_hz = rate_hz
        self._look_ahead_ns = look_ahead_samples * 1_000_000_000 // rate_hz
        self._block = frame_samples // 4
        self._loud = power(LOUD_DBFS)
        self._silence = np.zeros(frame_samples, np.int16)
        self._frames: deque[tuple[int, NDArray[np.int16]]] = deque(maxlen=memory_frames)
        self.is_loud = False
        """Whether the last frame may be speech."""
        self._forget(0)
        self._started_at: UnixNs | None = None
        self._loud_until_ns = 0

    def heard(self, at: UnixNs, pcm: NDArray[np.int16]) -> Utterance | None:
        """One frame that arrived at ``at``. Returns the utterance that it began or ended; None if it changed nothing.

        pcm: a multiple of a quarter of an ordinary frame.
        """
        ended = self.passed(at)
        if at - self._frames[-1][0] > _GAP_NS:
            self._forget(at)
        self._frames.append((at, pcm))
        loud = self.loud_block(pcm)
        self.is_loud = loud is not None
        if loud is None:
            return ended
        if self._started_at is not None:
            self._loud_until_ns = at + self._ns((loud + 1) * self._block)
            return None
        return ended or self._begin()

    def passed(self, at: UnixNs) -> Utterance | None:
        """Time has passed, with or without frames. Returns the utterance that it ended."""
        if self._started_at is None or at - self._loud_until_ns < PAUSE_S * 1e9:
            return None
        utterance = Utterance(started_at=self._started_at, ended_at=self._end())
        self._started_at = None
        # What was said must not be found again as the beginning of what comes.
        for index, (arrived_at, pcm) in enumerate(self._frames):
            if arrived_at < self._loud_until_ns:
                self._frames[index] = (arrived_at, np.zeros_like(pcm))
        return utterance

    def loud_block(self, pcm: NDArray[np.int16]) -> int | None:
        """Number of the last quarter of an ordinary frame that may be speech. None: it is quiet."""
        blocks = pcm.astype(np.float32).reshape(-1, self._block)
        if float(np.vdot(blocks, blocks)) <= self._loud * self._block:  # all of it would not make one block loud
            return None
        loud = np.flatnonzero(np.einsum("ij,ij->i", blocks, blocks) > self._loud * self._block)
        return int(loud[-1]) if len(loud) else None

    @property
    def is_speaking(self) -> bool:
        """An utterance is under way."""
        return self._started_at is not None

    @property
    def loud_until(self) -> UnixNs:
        """Where the last loud block ended."""
        return UnixNs(self._loud_until_ns)

    def resume(self, at: UnixNs) -> None:
        """What came since the last frame was not given in; the utterance under way lasted until ``at``."""
        self._loud_until_ns = max(at, self._started_at or 0)
        self._forget(at)

    def _forget(self, at: int) -> None:
        """Nothing was sent before ``at``: silence stands there."""
        self._frames.clear()
        step_ns = self._ns(len(self._silence))
        self._frames.extend((at - n * step_ns, self._silence) for n in range(self._frames.maxlen or 0, 0, -1))

    def _begin(self) -> Utterance | None:
        sample = onset(np.concatenate([pcm for _, pcm in self._frames]), self._rate_hz)
        if sample is None:
            return None
        self._started_at = self._instant(self._frames, sample)
        at, pcm = self._frames[-1]
        self._loud_until_ns = at + self._ns(len(pcm))
        return Utterance(started_at=self._started_at, ended_at=None)

    def _end(self) -> UnixNs:
        """The last voiced sample."""
        frames = [frame for frame in self._frames if frame[0] < self._loud_until_ns + _TAIL_NS]
        # Whoever listens late may have given in only frames of long after.
        pcm = np.concatenate([pcm for _, pcm in frames]) if frames else self._silence[:0]
        sample = ending(pcm, self._rate_hz)
        if sample is None:
            return UnixNs(self._loud_until_ns - self._look_ahead_ns)
        return self._instant(frames, sample)

    def _instant(self, frames: Iterable[tuple[int, NDArray[np.int16]]], sample: int) -> UnixNs:
        """When sample number ``sample`` of these frames was heard."""
        for at, pcm in frames:
            if sample < len(pcm):
                return UnixNs(at + self._ns(sample) - self._look_ahead_ns)
            sample -= len(pcm)
        raise IndexError(sample)

    def _ns(self, samples: int) -> int:
        return samples * 1_000_000_000 // self._rate_hz
