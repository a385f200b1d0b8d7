"""Onsets of speech."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.measure.onset import onset, speech_span

RATE_HZ = 48_000
Pcm = NDArray[np.int16]


def vowel(samples: int, rise_s: float = 0.0) -> NDArray[np.float64]:
    """A harmonic sound at 120 Hz, peak 8000 of 32768; its amplitude rises with the square of time."""
    seconds = np.arange(samples) / RATE_HZ
    sound = np.sum([np.cos(2 * np.pi * 120 * k * seconds) / k for k in range(1, 25)], axis=0)
    if rise_s:
        sound *= np.minimum(1, seconds / rise_s) ** 2
    return np.asarray(sound / np.abs(sound).max() * 8000)


def recording(lead: int, sound: NDArray[np.float64], tail: int = 0, noise: float = 0.0) -> Pcm:
    """Silence, the sound, silence; over noise of a standard deviation."""
    clean = np.concatenate([np.zeros(lead), sound, np.zeros(tail)])
    return np.clip(clean + np.random.default_rng(3).normal(0, noise, len(clean)), -32768, 32767).astype(np.int16)


@settings(max_examples=25)
@given(st.integers(0, 40_000))
def test_onset_moves_with_the_sound(shift: int) -> None:
    """onset(shift(pcm, n)) == onset(pcm) + n, to the sample."""
    pcm = recording(16_000, vowel(9_600, rise_s=0.03))
    first = onset(pcm, RATE_HZ)

    assert first is not None
    assert onset(np.concatenate([np.zeros(shift, np.int16), pcm]), RATE_HZ) == first + shift


@settings(max_examples=25)
@given(st.integers(0, 20_000), st.integers(0, 20_000))
def test_a_hard_onset_is_found_to_the_sample(lead: int, tail: int) -> None:
    """Also when the recording begins with speech."""
    assert onset(recording(lead, vowel(9_600), tail), RATE_HZ) == lead


@pytest.mark.parametrize("noise", [3, 30])
@pytest.mark.parametrize(("rise_s", "late_ms"), [(0.0, 0.1), (0.01, 9), (0.03, 9), (0.1, 25)])
def test_a_soft_onset_is_found_where_it_leaves_the_noise(noise: float, rise_s: float, late_ms: float) -> None:
    """A rise of 100 ms over a room at -60 dBFS is found within 25 ms, a shorter one by the next glottal pulse; never before it began."""
    found = onset(recording(24_000, vowel(24_000, rise_s), noise=noise), RATE_HZ)

    assert found is not None
    assert 0 <= (found - 24_000) / 48 <= late_ms


def test_a_click_is_not_speech() -> None:
    """2 ms of full scale, then silence."""
    pcm = np.zeros(48_000, np.int16)
    pcm[20_000:20_096] = 30_000

    assert onset(pcm, RATE_HZ) is None


def test_a_click_before_speech_does_not_hide_it() -> None:
    """The speech after it is found."""
    pcm = recording(30_000, vowel(9_600))
    pcm[10_000:10_096] = 30_000

    assert onset(pcm, RATE_HZ) == 30_000


@pytest.mark.parametrize("noise", [0, 30, 100])
def test_noise_is_not_speech(noise: float) -> None:
    """Rooms down to -50 dBFS."""
    assert onset(recording(48_000, np.zeros(0), noise=noise), RATE_HZ) is None


@pytest.mark.parametrize("samples", [0, 1, 959, 2_000])
def test_too_little_to_tell(samples: int) -> None:
    """A few samples of silence hold no speech, and raise nothing."""
    assert onset(np.zeros(samples, np.int16), RATE_HZ) is None


@given(st.integers(0, 20_000), st.integers(2_400, 20_000), st.integers(0, 20_000))
@settings(max_examples=25)
def test_a_span_ends_with_its_last_loud_sample(lead: int, sound: int, tail: int) -> None:
    """Both ends inclusive; within the half wave on which the sound is cut."""
    span = speech_span(recording(lead, vowel(sound), tail), RATE_HZ)

    assert span is not None
    assert span[0] == lead
    assert lead + sound - 1 - 200 <= span[1] <= lead + sound - 1
