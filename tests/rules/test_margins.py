"""Margins around thresholds: held outside them a rule is sure, and they are no wider than the arithmetic asks for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.rules.evaluate import evaluate, series
from harness.rules.margins import events_to_tell, gauge_edges, rate_edges, share_edges

RAM = "100 * (1 - avail / total) > 85"


@given(total=st.integers(1_000_000, 10**12), steps=st.integers(0, 1000))
def test_outside_its_roundings_a_gauge_is_sure(total: int, steps: int) -> None:
    """Bytes are whole numbers: the grain is one of them."""
    edges = gauge_edges(RAM, 85.0, grain=100 / total)
    assert edges.never is not None
    assert edges.always is not None

    for level, expected in ((edges.never - steps * 1e-6, False), (edges.always + steps * 1e-6, True)):
        avail = (math.ceil if not expected else math.floor)(total * (1 - level / 100))
        database = {"avail": (series("avail", [(0.0, float(avail))]),), "total": (series("total", [(0.0, float(total))]),)}
        assert bool(evaluate(RAM, database, 0.0)) is expected


@given(
    span=st.sampled_from((45.0, 105.0, 285.0)),
    threshold=st.floats(0.1, 50.0),
    start=st.floats(0.0, 10.0),
    reads=st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 0.5)),
)
def test_outside_its_grain_an_even_rate_is_sure(span: float, threshold: float, start: float, reads: tuple[float, float]) -> None:
    """Whole counts, read a little after their stamps."""
    edges = rate_edges(threshold, span, read_s=0.5)

    for level, expected in ((edges.never, False), (edges.always, True)):
        if level is not None:
            counted = math.floor(level * (start + span + reads[1])) - math.floor(level * (start + reads[0]))
            assert (counted / span > threshold + 1e-9) is expected or math.isclose(counted / span, threshold)


@pytest.mark.parametrize(("events", "never"), [(14_250, 0.01 - 1 / 14_250), (50, None)])
def test_an_even_share_needs_one_event_more(events: int, never: float | None) -> None:
    """Of 50 packets one is 2 %: below 1 % there is nothing."""
    assert share_edges(0.01, events).never == never


def test_independent_losses_need_many_packets() -> None:
    """1 % from 2 % at 1e-6 takes ten thousand packets or so; and the edges are where the count says."""
    needed = events_to_tell(0.01, 0.02, alpha=1e-6)

    assert 4_000 < needed < 6_000
    assert share_edges(0.01, needed, alpha=1e-6).always == pytest.approx(0.02)


@given(events=st.integers(10, 100_000), more=st.integers(0, 100_000))
def test_more_traffic_resolves_no_less(events: int, more: int) -> None:
    """The gap between never and always shrinks."""
    few, many = (share_edges(0.05, number, alpha=1e-6) for number in (events, events + more))

    assert few.always is None or (many.always is not None and many.always <= few.always + 1e-12)
    assert few.never is None or (many.never is not None and many.never >= few.never - 1e-12)
