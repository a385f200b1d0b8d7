"""A received stream as a recording."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.timeline import Frame, Piece, mixed, pieces
from harness.model import UnixNs

START = 1_763_933_640_000_000_000
FRAME_NS = 20_000_000


def frame(number: int, late_ns: int = 0, clock: int = 7_000) -> Frame:
    return Frame(at=UnixNs(START + number * FRAME_NS + late_ns), timestamp=clock + number * 960, pcm=np.full(960, number + 1, np.int16))


@given(st.lists(st.integers(0, 70_000_000), min_size=1, max_size=50))
def test_jitter_of_the_network_is_not_in_the_recording(late_ns: list[int]) -> None:
    """Frames lie 20 ms apart, where the fastest would have put them all."""
    placed = pieces([frame(n, late) for n, late in enumerate(late_ns)], 48_000)

    assert [piece.at - (START + min(late_ns)) - n * FRAME_NS for n, piece in enumerate(placed)] == [
        piece.at - (START + min(late_ns)) - n * FRAME_NS
        for n, piece in enumerate(placed)
        if abs(piece.at - START - min(late_ns) - n * FRAME_NS) <= 2
    ]


def test_a_sender_that_stopped_its_clock_is_placed_anew() -> None:
    """RTP time that stood still for a second while nothing was sent."""
    after = Frame(at=UnixNs(START + FRAME_NS + 1_000_000_000), timestamp=7_960, pcm=np.ones(960, np.int16))

    assert [round((piece.at - START) / 1e6) for piece in pieces([frame(0), after], 48_000)] == [0, 1020]


def test_channels_are_silent_where_nothing_was() -> None:
    """A piece before the origin is cut, one beyond the end too."""
    ones = np.ones(4, np.int16)
    parts = [Piece(at=UnixNs(START - 2_000_000), pcm=ones), Piece(at=UnixNs(START + 4_000_000), pcm=2 * ones)]

    assert mixed(parts, UnixNs(START), 6, 1_000).tolist() == [1, 1, 0, 0, 2, 2]


def test_nothing_received_makes_no_pieces() -> None:
    """An empty stream."""
    assert pieces([], 48_000) == ()
