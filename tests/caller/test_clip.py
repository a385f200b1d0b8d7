"""Clips."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from harness.caller.clip import clip, load
from harness.errors import UsageError


def tone(samples: int) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return (8000 * np.cos(2 * np.pi * 200 * np.arange(samples) / 48_000)).astype(np.int16)


def written(path: Path, rate_hz: int = 48_000, samples: int = 9_600) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(tone(samples).tobytes())
    return path


def test_a_clip_is_padded_to_whole_frames() -> None:
    """1000 samples need two packets; the speech ends where it ended."""
    made = clip("hm", tone(1_500), span=(10, 1_400))

    assert (len(made.pcm), len(made.frames), made.first_voiced_sample, made.last_voiced_sample) == (1_920, 2, 10, 1_400)


def test_its_span_is_measured_if_nobody_knows_it() -> None:
    """Silence before and after is not speech."""
    made = clip("hm", np.concatenate([np.zeros(5_000, np.int16), tone(9_600), np.zeros(5_000, np.int16)]))

    assert made.first_voiced_sample == 5_000
    assert made.last_voiced_sample == pytest.approx(14_599, abs=60)


def test_a_prompt_that_is_not_speech_is_refused() -> None:
    """By name, with its length."""
    with pytest.raises(UsageError, match=r"prompt mute: nothing in 1\.0 s"):
        clip("mute", np.zeros(48_000, np.int16))


def test_a_wav_file_becomes_a_clip_of_its_name(tmp_path: Path) -> None:
    """The file's stem is the clip's name."""
    assert load(written(tmp_path / "hello.wav")).name == "hello"


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Resampling would move the instants."""
    with pytest.raises(UsageError, match="16000 Hz, 1 channels, 16 bit; wanted 48000 Hz"):
        load(written(tmp_path / "hello.wav", rate_hz=16_000))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(UsageError, match=r"hello\.wav: no such file"):
        load(tmp_path / "hello.wav")


def test_a_file_that_is_not_wav_is_refused(tmp_path: Path) -> None:
    """Git LFS pointers are what audio files turn into."""
    (tmp_path / "hello.wav").write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(UsageError, match="not a WAV file"):
        load(tmp_path / "hello.wav")
