"""Opus."""

from __future__ import annotations

import numpy as np
import pytest

from harness.caller.opus import FRAME_SAMPLES, LOOK_AHEAD_SAMPLES, RATE_HZ, SILENCE, Decoder, encode


def decoded(packets: tuple[bytes, ...]) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    decoder = Decoder()
    return np.concatenate([decoder.decode(packet) for packet in packets])


def test_every_frame_is_one_packet() -> None:
    """A second is 50 packets, at 32 kbit/s about 80 bytes each."""
    packets = encode(np.random.default_rng(1).normal(0, 3000, RATE_HZ).astype(np.int16))

    assert len(packets) == 50
    assert 40 < np.mean([len(packet) for packet in packets]) < 120


def test_sound_comes_out_late_by_the_look_ahead() -> None:
    """Encoder and decoder delay sound by 312 samples, within the codec's smear."""
    pcm = np.random.default_rng(1).normal(0, 3000, RATE_HZ).astype(np.int16)
    out = decoded(encode(pcm))
    spectrum = np.fft.rfft(out, 2 * RATE_HZ) * np.conj(np.fft.rfft(pcm, 2 * RATE_HZ))

    assert int(np.argmax(np.fft.irfft(spectrum))) == pytest.approx(LOOK_AHEAD_SAMPLES, abs=5)


def test_our_silence_is_silent() -> None:
    """The frame sent between clips decodes to zeros."""
    assert not decoded((SILENCE, SILENCE)).any()
    assert len(decoded((SILENCE,))) == FRAME_SAMPLES


@pytest.mark.parametrize("payload", [b"", b"\xff", bytes(range(200))])
def test_what_is_not_opus_makes_no_sound_and_no_error(payload: bytes) -> None:
    """A probe's padding or a broken packet never stops the listening thread."""
    assert len(Decoder().decode(payload)) in (0, FRAME_SAMPLES) or len(payload) > 100
