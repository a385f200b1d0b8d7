"""Opus, 48 kHz mono, 20 ms: encode a prompt once, decode what arrives."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.error import FFmpegError
from numpy.typing import NDArray

RATE_HZ = 48_000
FRAME_SAMPLES = 960
LOOK_AHEAD_SAMPLES = 312
"""Delay of libopus at 48 kHz, encoder to decoder: sample n goes in, n + 312 comes out (2.5 ms overlap and 4 ms; OpusHead's pre-skip)."""
SILENCE = b"\xf8\xff\xfe"
"""20 ms of digital silence: CELT, full band, mono."""


def encode(pcm: NDArray[np.int16], bitrate: int = 32_000) -> tuple[bytes, ...]:
    """One packet for each 960 samples of ``pcm`` (mono, 48 kHz, a whole number of frames)."""
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, AudioCodecContext)
    codec.bit_rate = bitrate
    codec.format = "s16"
    codec.layout = "mono"
    codec.sample_rate = RATE_HZ
    codec.time_base = Fraction(1, RATE_HZ)
    codec.options = {"application": "voip", "frame_duration": "20"}
    packets: list[bytes] = []
    for start in range(0, len(pcm), FRAME_SAMPLES):
        frame = av.AudioFrame.from_ndarray(pcm[start : start + FRAME_SAMPLES].reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        frame.pts = start
        packets += map(bytes, codec.encode(frame))
    return tuple(packets)


class Decoder:
    """One stream's decoder: it remembers the previous packet, so packets go in by their RTP time."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "r")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate = RATE_HZ
        codec.layout = "mono"
        self._codec = codec

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        """The samples of one packet, mono, 48 kHz; 960 for an ordinary one. Empty if it is not Opus."""
        if not payload:
            return np.zeros(0, np.int16)
        try:
            frames = self._codec.decode(av.Packet(payload))
        except FFmpegError:
            return np.zeros(0, np.int16)
        parts = [np.frombuffer(memoryview(frame.planes[0]), np.int16)[: frame.samples] for frame in frames]
        if len(parts) == 1:
            return parts[0].copy()
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)
