"""Replies whose first sample of speech is known because we put it there: plain words, cut hard, faded in, behind noise."""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

from fixtures.responder.script import Script
from harness.caller.clip import Clip, clip
from harness.caller.prompts import load_prompts

LASTS = 28_800
"""0.6 s at 48 kHz."""
_LEAD, _TAIL = 24_000, 2_400
"""0.5 s before the onset, so that noise is known before it; and a little after."""
_LOUD = 1_500
"""Root mean square of a place where words are cut: -27 dBFS."""

Sound = NDArray[np.float64]


class Beginning(enum.StrEnum):
    """How a reply begins."""

    WORDS = enum.auto()
    """As a sentence does."""
    CUT = enum.auto()
    """In the middle of a loud sound, from one sample to the next."""
    SOFT = enum.auto()
    """The same, faded in over 20 to 80 ms; it begins where the fade begins."""
    NOISY = enum.auto()
    """Words over noise of -60 to -50 dBFS."""
    SOFT_NOISY = enum.auto()
    """Faded in over noise."""


def replies(each: int, seed: int = 1) -> dict[str, Clip]:
    """``each`` clips of every kind, by name; the kind is the name up to the dot. The first voiced sample is the first that was put in."""
    dice = np.random.default_rng(seed)
    sentences = [(prompt.pcm, prompt.first_speech_sample) for prompt in load_prompts().values()]
    sentences += [(said.pcm, said.first_voiced_sample) for said in Script.load().clips.values()]
    return {(name := f"{kind}.{number}"): _reply(name, kind, dice, sentences) for kind in Beginning for number in range(each)}


def _reply(name: str, kind: Beginning, dice: np.random.Generator, sentences: list[tuple[NDArray[np.int16], int]]) -> Clip:
    is_noisy = kind in (Beginning.NOISY, Beginning.SOFT_NOISY)
    sound = _words(dice, sentences) if kind in (Beginning.WORDS, Beginning.NOISY) else _cut(dice, sentences)
    if kind in (Beginning.SOFT, Beginning.SOFT_NOISY):
        rise = int(48 * dice.uniform(20, 80))
        sound[:rise] *= np.linspace(0, 1, rise)
    first = _LEAD + int(dice.integers(0, 960))
    pcm = np.zeros(first + len(sound) + _TAIL)
    pcm[first : first + len(sound)] = sound
    if is_noisy:
        pcm += dice.normal(size=len(pcm)) * 32_768 * 10 ** (dice.uniform(-60, -50) / 20)
    return clip(name, np.clip(pcm, -32_768, 32_767).astype(np.int16), (first, first + len(sound) - 1))


def _words(dice: np.random.Generator, sentences: list[tuple[NDArray[np.int16], int]]) -> Sound:
    pcm, first = sentences[dice.integers(len(sentences))]
    return pcm[first : first + LASTS].astype(np.float64)


def _cut(dice: np.random.Generator, sentences: list[tuple[NDArray[np.int16], int]]) -> Sound:
    while True:
        pcm, _ = sentences[dice.integers(len(sentences))]
        start = int(dice.integers(0, len(pcm) - LASTS))
        sound = pcm[start : start + LASTS].astype(np.float64)
        if min(np.square(sound[:window]).mean() for window in (480, 2_400)) > _LOUD**2:
            return sound
