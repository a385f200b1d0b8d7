"""How far an impaired network moves the set of TTFW."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.impaired import NEVER, calibrated, graded, lost_in_a_row
from harness.model import Calibration, CalibrationPart, Grade, Impairment

PLAIN = Calibration(
    made_at="2026-11-23",
    digest="",
    method="",
    turns=30,
    parts=(CalibrationPart(name="all", lo_s=-0.01, hi_s=0.01, because=""),),
    mean_s=0.0,
)


def up(**fields: float) -> Impairment:
    return Impairment(direction="up", **fields)  # type: ignore[arg-type]


def test_a_quiet_network_changes_nothing() -> None:
    """The calibration itself."""
    assert calibrated(PLAIN, ()) is PLAIN


def test_delays_of_both_directions_add_up() -> None:
    """A caller hears the reply later by both ways; the agent reports neither. The mean is not known any more."""
    found = calibrated(PLAIN, [up(delay_s=0.04), Impairment(direction="down", delay_s=0.03, jitter_s=0.02)])

    assert [found.lo_s, found.hi_s] == pytest.approx([0.06, 0.1])
    assert found.mean_s is None


def test_a_delay_for_a_while_may_be_none() -> None:
    """A turn may fall outside its schedule."""
    found = calibrated(PLAIN, [up(delay_s=0.04, from_s=3.0)])

    assert [found.lo_s, found.hi_s] == pytest.approx([-0.01, 0.05])


@pytest.mark.parametrize(
    ("impairment", "packets"),
    [(up(lose_every=20), 1), (up(loss_ratio=0.01), 3), (up(loss_ratio=1.0, from_s=1.0, until_s=2.0), 50), (up(), 0)],
)
def test_losses_in_a_row_are_bounded(impairment: Impairment, packets: int) -> None:
    """One of every n; 1 % of 1 % of 1 %; the whole outage."""
    assert lost_in_a_row(impairment) == packets


@given(st.floats(0.001, 0.3), st.floats(1.0, 6.0))
def test_a_longer_burst_is_next_to_impossible(loss_ratio: float, burst_packets: float) -> None:
    """The chance that one begins and goes on for longer, by the chain itself."""
    most = lost_in_a_row(up(loss_ratio=loss_ratio, burst_packets=burst_packets))

    assert loss_ratio * (1 - 1 / burst_packets) ** most <= NEVER * 1.01


def test_the_light_grade_has_its_part() -> None:
    """Named among the reasons; full grade changes nothing."""
    assert graded(PLAIN, Grade.FULL) is PLAIN
    assert [graded(PLAIN, Grade.LIGHT).lo_s, graded(PLAIN, Grade.LIGHT).hi_s] == pytest.approx([-0.013, 0.013])
    assert graded(PLAIN, Grade.LIGHT).parts[-1].name == "light grade"
