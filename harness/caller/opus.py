"""Opus, 48 kHz mono, 20 ms: encode a prompt once, decode what arrives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 48_000
FRAME_SAMPLES = 960
LOOK_AHEAD_SAMPLES = 312
"""Delay of libopus at 48 kHz, encoder to decoder: sample n goes in, n + 312 comes out. RFC 7845 section 4.2, opus_encoder.c."""
SILENCE = b"\xf8\xff\xfe"
"""20 ms of digital silence: CELT, full band, mono."""


def encode(pcm: NDArray[np.int16], bitrate: int = 32_000) -> tuple[bytes, ...]:
    """One packet for each 960 samples of ``pcm`` (mono, 48 kHz, a whole number of frames)."""
    raise NotImplementedError
