"""Instants of notifications: a simulated group of Alertmanager tells nothing outside the admitted sets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.rules.delivery import Group, Route, are_merged, expires_after_s, group, is_told, notified, resolution, sends, timed_out
from harness.rules.windows import Window

ROUTE = Route(group_wait_s=30.0, group_interval_s=60.0)
SLOW = Route(group_wait_s=30.0, group_interval_s=60.0, post_s=2.0)

spans = st.floats(min_value=0.0, max_value=30.0)
posts = st.floats(min_value=0.0, max_value=2.0)


def at(instant_s: float, width_s: float = 0.0) -> Window:
    """A window that begins here."""
    return Window(earliest_s=instant_s, latest_s=instant_s + width_s)


@given(fires=st.floats(0.0, 500.0), phase=st.floats(0.0, 60.0), width=spans, inside=st.floats(0.0, 1.0), posts=st.tuples(posts, posts))
def test_a_ticking_group_tells_at_a_tick(fires: float, phase: float, width: float, inside: float, posts: tuple[float, float]) -> None:
    """Known phase or not, the tick after the alert's arrival is admitted."""
    window = at(fires, width)
    reached = fires + width * inside + posts[0]
    arrives = phase + math.ceil((reached - phase) / 60.0) * 60.0 + posts[1]

    for ticked in (None, phase, phase + 600.0):
        admitted = notified(window, SLOW, known=Group.TICKING, ticked_at_s=ticked)
        assert admitted.earliest_s - 1e-6 <= arrives <= admitted.latest_s + 1e-6


@given(resolves=st.floats(0.0, 500.0), width=spans, inside=st.floats(0.0, 1.0), told=st.floats(-60.0, 0.0), posts=st.tuples(posts, posts))
def test_a_resolution_is_told_at_a_tick_after_the_firing(
    resolves: float, width: float, inside: float, told: float, posts: tuple[float, float]
) -> None:
    """The first one at or after it, never the one that told the firing."""
    reached = resolves + width * inside + posts[0]
    flushed = told - 1.0
    arrives = flushed + max(1, math.ceil((reached - flushed) / 60.0)) * 60.0 + posts[1]

    for told_at in (None, at(told)):
        admitted = resolution(at(resolves, width), SLOW, told_at=told_at)
        assert admitted.earliest_s - 1e-6 <= arrives <= admitted.latest_s + 1e-6


def test_with_everything_known_it_is_one_instant() -> None:
    """A new group, then the tick that follows."""
    assert notified(at(100.0), ROUTE, known=Group.NEW) == at(130.0)
    assert resolution(at(200.0), ROUTE, told_at=at(130.0)) == at(250.0)


def test_the_emptied_group_goes_on_ticking_until_it_is_collected() -> None:
    """Between the resolution and the next maintenance an alert may find either."""
    assert group(at(100.0), None, ROUTE) is Group.NEW
    assert group(at(110.0), 100.0, ROUTE) is Group.EITHER
    assert group(at(131.0), 100.0, ROUTE) is Group.NEW
    assert group(at(90.0), 100.0, ROUTE) is Group.TICKING
    assert group(at(101.0), 100.0, Route(maintenance_s=0.0)) is Group.NEW


@pytest.mark.parametrize(("resolved_at", "told"), [(None, True), (129.0, False), (131.0, True), (130.0, None)])
def test_an_alert_shorter_than_group_wait_is_never_told(resolved_at: float | None, told: bool | None) -> None:
    """`ALERTS` shows it firing; the receiver hears nothing."""
    assert is_told(100.0, resolved_at, ROUTE) is told


def test_two_episodes_between_two_ticks_are_one() -> None:
    """The row of the first one is never closed."""
    assert are_merged(135.0, 140.0, 130.0, ROUTE)
    assert not are_merged(135.0, 191.0, 130.0, ROUTE)


def test_a_resend_waits_for_the_evaluation_after_its_delay() -> None:
    """Prometheus compares strictly: 60 s are over only at 75 s of a 15 s grid."""
    assert sends(0.0, 230.0, 15.0) == (0.0, 75.0, 150.0, 225.0)
    assert sends(0.0, 100.0, 15.0, resend_delay_s=50.0) == (0.0, 60.0)


def test_a_silent_prometheus_resolves_falsely() -> None:
    """Four resend delays after the last send, which was up to one resend before it fell silent."""
    assert expires_after_s(15.0) == 240.0
    assert timed_out(at(1000.0), ROUTE, 15.0) == Window(earliest_s=1165.0, latest_s=1300.0)
