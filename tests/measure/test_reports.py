"""What round trips show of the way, once the delays that we ourselves made are taken off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.measure import reports
from harness.model import CallRecord, Control, Impaired, Reports, Source
from tests.fakes.evidence import after, record


def control(at_s: float, delay_s: float | None, *, is_sender: bool = True) -> Control:
    return Control(at=after(at_s), has_sender_report=is_sender, delay_s=delay_s)


def impaired(direction: str, *told: Control) -> Impaired:
    return Impaired(
        direction=direction,
        since=after(10),
        until=after(15),
        packets=0,
        lost=0,
        lost_sequences=(),
        duplicated=0,
        reordered=0,
        delay_min_s=None,
        delay_mean_s=None,
        delay_max_s=None,
        control=told,
    )


def call(rtt_s: float, *windows: Impaired) -> CallRecord:
    """One report of the server's, with its round trip."""
    said = Reports(direction="up", at=(after(12.03),), rtt_s=(rtt_s,), lost=(0,), jitter_s=(0.0,))
    return replace(record(), reports=(said,), impaired=windows)


def test_delays_of_both_reports_are_taken_off() -> None:
    """40 ms there, 30 ms back, and 2 ms that nobody made."""
    found = reports.excess_s(
        call(0.072, impaired("up", control(11.0, 0.04)), impaired("down", control(12.0, 0.03, is_sender=False))),
    )

    assert found == pytest.approx((0.002,))


def test_the_latest_report_that_had_come_counts() -> None:
    """The second was still on its way when the server answered; the third was lost."""
    up = impaired("up", control(11.0, 0.01), control(11.99, 0.04), control(11.995, None))
    found = reports.excess_s(call(0.041, up, impaired("down", control(12.0, 0.03, is_sender=False))))

    assert found == pytest.approx((0.001,))


def test_a_report_that_cannot_be_told_apart_shows_nothing() -> None:
    """No datagram of ours came at that instant."""
    assert reports.excess_s(call(0.072, impaired("up", control(11.0, 0.04)), impaired("down"))) == ()


def test_without_impairments_a_round_trip_is_all_the_ways() -> None:
    """As it is."""
    assert reports.excess_s(call(0.0007)) == (0.0007,)


def test_reports_are_read_as_a_source() -> None:
    """One poll a call, two series."""
    (poll,) = reports.polls([call(0.001)])

    assert (poll.source, poll.count) == (Source.SFU_REPORTS, 1)
    assert [(name, len(samples)) for name, _, samples, _ in reports.series([call(0.001)])] == [(reports.LOST, 1), (reports.JITTER, 1)]
