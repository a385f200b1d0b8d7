"""One received stream as a recording: decoded frames placed by RTP time, which is mapped through their arrival."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.model import UnixNs, value

BREAK_S = 0.15
"""A step of arrival against RTP time beyond this is a new piece (the sender paused its clock, the SFU switched), not network jitter."""


@value
class Frame:
    """One decoded packet."""

    at: UnixNs
    """Kernel arrival."""
    timestamp: int
    """RTP time, extended: it does not wrap."""
    pcm: NDArray[np.int16]


@value
class Piece:
    """Samples and the instant of the first."""

    at: UnixNs
    pcm: NDArray[np.int16]


def pieces(frames: Sequence[Frame], rate_hz: int) -> tuple[Piece, ...]:
    """The frames at the instants at which they would have arrived over the stream's fastest path.

    frames: in the order of RTP time.
    """
    placed: list[Piece] = []
    run: list[tuple[int, Frame]] = []
    for frame in frames:
        delay_ns = frame.at - frame.timestamp * 1_000_000_000 // rate_hz
        if run and abs(delay_ns - run[-1][0]) > BREAK_S * 1e9:
            placed += _placed(run, rate_hz)
            run = []
        run.append((delay_ns, frame))
    return (*placed, *_placed(run, rate_hz))


def _placed(run: Sequence[tuple[int, Frame]], rate_hz: int) -> list[Piece]:
    least_ns = min((delay_ns for delay_ns, _ in run), default=0)
    return [Piece(at=UnixNs(frame.timestamp * 1_000_000_000 // rate_hz + least_ns), pcm=frame.pcm) for _, frame in run]


def mixed(parts: Sequence[Piece], origin: UnixNs, samples: int, rate_hz: int) -> NDArray[np.int16]:
    """One channel of ``samples`` samples that begins at ``origin``: silence where nothing was, the later piece where two overlap."""
    channel = np.zeros(samples, np.int16)
    for part in parts:
        start = round((part.at - origin) * rate_hz / 1e9)
        skipped = max(0, -start)
        begin, end = min(samples, start + skipped), min(samples, start + len(part.pcm))
        if end > begin:
            channel[begin:end] = part.pcm[skipped : skipped + end - begin]
    return channel
