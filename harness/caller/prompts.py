"""The recorded prompts of ``fixtures/audio``: their sound, their words and where the speech in them begins and ends."""

from __future__ import annotations

import hashlib
import io
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from harness.errors import UsageError
from harness.measure.onset import liveliness_db, speech_span
from harness.model import value

PROMPTS = Path(__file__).parents[2] / "fixtures" / "audio"
"""Where the repository keeps them."""
RATE_HZ = 48_000
LIVELY_DB = 10.0
"""A sound whose level moves less is noise or a tone."""


@value
class Prompt:
    """One thing a caller can say."""

    name: str
    text: str
    pcm: npt.NDArray[np.int16]
    """Mono at 48 kHz, whole frames of 20 ms."""
    first_speech_sample: int
    last_speech_sample: int
    """Inclusive."""


def load_prompts(directory: Path = PROMPTS) -> Mapping[str, Prompt]:
    """Every listed prompt by name.

    Raises UsageError for a missing list or clip, and for a clip that is not the listed sound, or no speech.
    """
    listing = directory / "prompts.yaml"
    try:
        entries = yaml.safe_load(listing.read_text())["prompts"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as exc:
        msg = f"{listing}: not a list of prompts ({exc}); make it with fixtures/audio/make_prompts.py"
        raise UsageError(msg) from exc
    return {
        name: Prompt(
            name=name,
            text=entry["text"],
            pcm=_sound(directory / f"{name}.wav", entry["sha256"]),
            first_speech_sample=entry["first_speech_sample"],
            last_speech_sample=entry["last_speech_sample"],
        )
        for name, entry in entries.items()
    }


def _sound(path: Path, sha256: str) -> npt.NDArray[np.int16]:
    try:
        raw = path.read_bytes()
    except OSError as exc:
        msg = f"{path}: the prompt is listed and its sound is missing; make it with fixtures/audio/make_prompts.py"
        raise UsageError(msg) from exc
    if hashlib.sha256(raw).hexdigest() != sha256:
        msg = f"{path}: this file is not the listed sound (its SHA-256 differs); make both again with fixtures/audio/make_prompts.py"
        raise UsageError(msg)
    with wave.open(io.BytesIO(raw)) as clip:
        if (clip.getframerate(), clip.getnchannels(), clip.getsampwidth()) != (RATE_HZ, 1, 2):
            msg = f"{path}: wanted 48 kHz mono 16 bit"
            raise UsageError(msg)
        pcm = np.frombuffer(clip.readframes(clip.getnframes()), "<i2").astype(np.int16)
    _refuse_no_speech(path, pcm)
    return pcm


def _refuse_no_speech(path: Path, pcm: npt.NDArray[np.int16]) -> None:
    """No agent answers silence or noise, and no end of speech can be measured in it."""
    span = speech_span(pcm, RATE_HZ)
    if span is None:
        raise UsageError(
            f"{path}: {len(pcm) / RATE_HZ:.1f} s in which nothing is loud enough to be speech (-45 dBFS for 20 ms); record it again, louder"
        )
    moves_db = liveliness_db(pcm[span[0] : span[1] + 1], RATE_HZ)
    if moves_db < LIVELY_DB:
        raise UsageError(
            f"{path}: this is a noise or a tone, not speech: its level moves by {moves_db:.0f} dB, that of speech by more than {LIVELY_DB:g}; "
            "record somebody who speaks"
        )
