"""A prompt ready to be sent: its samples, its Opus frames and where its speech begins and ends."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.caller.opus import FRAME_SAMPLES, RATE_HZ, encode
from harness.errors import UsageError
from harness.measure.onset import speech_span
from harness.model import value


@value
class Clip:
    """Pre-encoded speech. Sample numbers count from the clip's first sample at 48 kHz, before the codec."""

    name: str
    pcm: NDArray[np.int16]
    """Mono, 48 kHz, a whole number of frames."""
    frames: tuple[bytes, ...]
    """One Opus packet for 20 ms."""
    first_voiced_sample: int
    last_voiced_sample: int


def clip(name: str, pcm: NDArray[np.int16], span: tuple[int, int] | None = None) -> Clip:
    """Encodes ``pcm`` (mono, 48 kHz), padded to whole frames.

    span: first and last speech sample, both inclusive; measured if None. Raises UsageError if nothing in ``pcm`` is speech.
    """
    found = span or speech_span(pcm, RATE_HZ)
    if found is None:
        msg = f"prompt {name}: nothing in {len(pcm) / RATE_HZ:.1f} s of it is loud enough to be speech"
        raise UsageError(msg)
    padded = np.concatenate([pcm, np.zeros(-len(pcm) % FRAME_SAMPLES, np.int16)])
    return Clip(name=name, pcm=padded, frames=encode(padded), first_voiced_sample=found[0], last_voiced_sample=found[1])


def load(path: Path, span: tuple[int, int] | None = None) -> Clip:
    """A WAV file (48 kHz, mono, 16 bit) as a clip. Raises UsageError if it is missing or of another shape."""
    try:
        with wave.open(str(path), "rb") as recording:
            shape = (recording.getframerate(), recording.getnchannels(), recording.getsampwidth() * 8)
            samples = recording.readframes(recording.getnframes())
    except FileNotFoundError as exc:
        msg = f"prompt {path}: no such file"
        raise UsageError(msg) from exc
    except (wave.Error, EOFError) as exc:
        msg = f"prompt {path}: not a WAV file ({exc})"
        raise UsageError(msg) from exc
    if shape != (RATE_HZ, 1, 16):
        msg = f"prompt {path}: {shape[0]} Hz, {shape[1]} channels, {shape[2]} bit; wanted {RATE_HZ} Hz, 1 channel, 16 bit"
        raise UsageError(msg)
    return clip(path.stem, np.frombuffer(samples, np.int16), span)
