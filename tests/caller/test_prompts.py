"""The recorded prompts: what their list promises, and that they can be made again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.caller.prompts import Prompt, load_prompts
from harness.errors import UsageError

DIRECTORY = Path(__file__).parents[2] / "fixtures" / "audio"
NAMES = ("weather", "book-table", "opening-hours", "goodbye")


@pytest.mark.parametrize("name", NAMES)
def test_the_listed_speech_samples_are_the_first_and_last_at_the_floor(name: str) -> None:
    """``first_speech_sample`` and ``last_speech_sample`` bound everything that reaches -45 dBFS."""
    prompt = load_prompts(DIRECTORY)[name]

    voiced = np.flatnonzero(np.abs(prompt.pcm.astype(np.int32)) >= 184)

    assert (prompt.first_speech_sample, prompt.last_speech_sample) == (voiced[0], voiced[-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_whole_opus_frames(name: str) -> None:
    """No frame of a prompt is cut short, so its last packet holds its last speech sample."""
    assert len(load_prompts(DIRECTORY)[name].pcm) % 960 == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_has_no_pause_that_ends_a_turn(name: str) -> None:
    """No silence inside a prompt reaches 0.25 s, at which a common VAD believes that the caller has finished."""
    voiced = np.flatnonzero(np.abs(load_prompts(DIRECTORY)[name].pcm.astype(np.int32)) >= 184)

    assert np.diff(voiced).max() < 0.25 * 48_000


def test_the_prompts_can_be_made_again(tmp_path: Path) -> None:
    """The committed script makes the committed files, byte for byte."""
    subprocess.run([sys.executable, DIRECTORY / "make_prompts.py", tmp_path], check=True)

    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert made == {path.name: path.read_bytes() for path in DIRECTORY.iterdir() if path.suffix in (".wav", ".yaml")}


def test_a_changed_prompt_is_refused(tmp_path: Path) -> None:
    """A clip whose digest is not the listed one would move every latency: it is refused by name."""
    for path in DIRECTORY.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with wave.open(str(tmp_path / "goodbye.wav"), "wb") as out:
        out.setparams((1, 2, 48_000, 0, "NONE", "not compressed"))
        out.writeframes(bytes(1920))

    with pytest.raises(UsageError, match=r"goodbye\.wav: this file is not the listed sound"):
        load_prompts(tmp_path)


def listed(directory: Path, pcm: NDArray[np.float64]) -> Path:
    """A directory whose only prompt sounds like ``pcm``."""
    clip = directory / "hum.wav"
    with wave.open(str(clip), "wb") as out:
        out.setparams((1, 2, 48_000, 0, "NONE", "not compressed"))
        out.writeframes(pcm.astype("<i2").tobytes())
    digest = hashlib.sha256(clip.read_bytes()).hexdigest()
    (directory / "prompts.yaml").write_text(
        f"prompts:\n  hum: {{text: hum, sha256: {digest}, first_speech_sample: 0, last_speech_sample: {len(pcm) - 1}}}\n"
    )
    return directory


NO_SPEECH = {
    "silence": (np.zeros(48_000), "nothing is loud enough to be speech"),
    "a whisper of noise": (np.random.default_rng(1).normal(size=48_000) * 30, "nothing is loud enough to be speech"),
    "noise": (np.random.default_rng(1).normal(size=48_000) * 2_000, "a noise or a tone, not speech"),
    "a tone": (8_000 * np.cos(np.arange(48_000) / 40), "a noise or a tone, not speech"),
}


@pytest.mark.parametrize("name", NO_SPEECH)
def test_what_is_no_speech_is_refused(name: str, tmp_path: Path) -> None:
    """At load, by name: no agent answers it, and the run would be about nothing."""
    pcm, sentence = NO_SPEECH[name]
    with pytest.raises(UsageError, match=rf"hum\.wav: .*{sentence}"):
        load_prompts(listed(tmp_path, pcm))


def test_a_prompt_carries_its_words() -> None:
    """The text travels with the sound."""
    prompt: Prompt = load_prompts(DIRECTORY)["goodbye"]

    assert prompt.text == "thank you goodbye"
