"""When the other side speaks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.measure.voice import PAUSE_S, Utterance, Voice
from harness.model import UnixNs

START = 1_763_933_640_000_000_000
FRAME_NS = 20_000_000
Pcm = NDArray[np.int16]


def tone(samples: int) -> Pcm:
    return (8000 * np.cos(2 * np.pi * 200 * np.arange(samples) / 48_000)).astype(np.int16)


def silence(samples: int) -> Pcm:
    return np.zeros(samples, np.int16)


def heard(pcm: Pcm, missing: Iterable[int] = (), look_ahead: int = 0, frame: int = 960) -> list[Utterance]:
    """What is told of ``pcm`` when it arrives frame by frame, except the frames that are missing."""
    voice = Voice(48_000, 960, look_ahead)
    gone = set(missing)
    told = []
    for number in range(len(pcm) // frame):
        at = UnixNs(START + number * frame * 1_000_000_000 // 48_000)
        event = voice.passed(at) if number in gone else voice.heard(at, pcm[number * frame : (number + 1) * frame])
        if event:
            told.append(event)
    return told


def instant(sample: int) -> int:
    return START + sample * 1_000_000_000 // 48_000


@settings(max_examples=20)
@given(st.integers(0, 30_000), st.integers(4_800, 40_000))
def test_an_utterance_is_told_with_exact_instants(lead: int, length: int) -> None:
    """Start to the sample, end to the last loud samples; first without an end, then with it."""
    told = heard(np.concatenate([silence(lead), tone(length), silence(48_000)]))

    assert [event.ended_at is None for event in told] == [True, False]
    assert abs(told[0].started_at - instant(lead)) <= 21_000
    assert told[1].ended_at is not None
    assert abs(told[1].ended_at - instant(lead + length)) <= 2_000_000


def test_a_word_gap_does_not_end_it() -> None:
    """Half of the pause is inside an utterance."""
    gap = silence(int(PAUSE_S / 2 * 48_000))

    assert len(heard(np.concatenate([silence(9_600), tone(9_600), gap, tone(9_600), silence(48_000)]))) == 2


def test_a_sentence_gap_makes_two() -> None:
    """Half as long again is between two; the second begins at its own onset, not at the memory of the first."""
    gap = silence(24_000)

    told = heard(np.concatenate([silence(9_600), tone(9_600), gap, tone(9_600), silence(48_000)]))

    assert [abs(event.started_at - instant(9_600 + n * 33_600)) <= 21_000 for event, n in zip(told, (0, 0, 1, 1), strict=True)] == [
        True
    ] * 4


def test_it_ends_when_packets_stop() -> None:
    """An agent that leaves in the middle of a word has stopped speaking."""
    told = heard(np.concatenate([silence(9_600), tone(48_000)]), missing=range(30, 60))

    assert told[-1].ended_at is not None
    assert abs(told[-1].ended_at - (START + 30 * FRAME_NS)) <= 2_000_000


def test_speech_after_a_pause_of_packets_begins_with_its_first() -> None:
    """Discontinuous transmission: nothing was sent for a second."""
    told = heard(np.concatenate([silence(48_000), tone(9_600), silence(48_000)]), missing=range(1, 50))

    assert told[0].started_at == instant(48_000)


def test_the_codecs_delay_is_taken_off() -> None:
    """312 samples are 6.5 ms."""
    plain = heard(np.concatenate([silence(9_600), tone(9_600), silence(48_000)]))
    corrected = heard(np.concatenate([silence(9_600), tone(9_600), silence(48_000)]), look_ahead=312)

    assert [a.started_at - b.started_at for a, b in zip(plain, corrected, strict=True)] == [6_500_000] * 2


@pytest.mark.parametrize("frame", [480, 1920, 2880])
def test_frames_may_be_of_any_length(frame: int) -> None:
    """10, 40 and 60 ms: the same instants as with 20."""
    told = heard(np.concatenate([silence(28_800), tone(28_800), silence(57_600)]), frame=frame)

    assert [abs(utterance.started_at - instant(28_800)) <= 21_000 for utterance in told] == [True, True]
    assert told[1].ended_at is not None
    assert abs(told[1].ended_at - instant(57_600)) <= 2_000_000


def test_an_utterance_ends_even_if_its_last_frames_are_forgotten() -> None:
    """A listener that was late has none of them left: the end is where the last loud block was."""
    voice = Voice(48_000, 960, 0)
    for number in range(10):
        voice.heard(UnixNs(START + number * FRAME_NS), tone(960))
    voice._frames.clear()
    ended = voice.passed(UnixNs(START + 10**9))

    assert ended is not None
    assert ended.ended_at == voice.loud_until == START + 10 * FRAME_NS
