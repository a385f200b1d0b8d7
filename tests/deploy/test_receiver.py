"""What a notification tells, as rows. No server."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from receiver.episodes import Active, active_of, instant, rows
from receiver.sweep import Sweep

LABELS = {"alertname": "TargetDown", "instance": "a", "severity": "critical", "service": "monitoring"}
START, END = "2026-11-26T10:00:00.123456789Z", "2026-11-26T10:05:00.5Z"


def alert(status: str = "firing", **changes: Any) -> dict[str, Any]:
    """One alert of a notification."""
    ends_at = END if status == "resolved" else "0001-01-01T00:00:00Z"
    base = {"status": status, "fingerprint": "f1", "startsAt": START, "endsAt": ends_at, "labels": LABELS}
    return {**base, "annotations": {"summary": "a is down"}, **changes}


def row(told: dict[str, Any], active: Active | None = None, *, is_asked: bool = False) -> dict[str, Any]:
    """The only row of a notification of one alert."""
    (found,) = rows({"alerts": [told]}, active, is_asked=is_asked)
    return found


def since(text: str, state: str = "firing") -> Active:
    """Prometheus says that the alert is active since then."""
    return {frozenset(LABELS.items()): (instant(text), state)}


def test_a_firing_alert_is_an_open_row() -> None:
    """Everything that the table wants, and no end."""
    assert row(alert()) == {
        "fingerprint": "f1",
        "starts_at": "2026-11-26T10:00:00.123456+00:00",
        "ends_at": None,
        "severity": "critical",
        "service": "monitoring",
        "message": "a is down",
        "labels": LABELS,
        "resolution": None,
        "is_firing_now": False,
    }


def test_a_resolved_alert_has_its_end() -> None:
    """As Alertmanager says it."""
    found = row(alert("resolved"))

    assert (found["ends_at"], found["resolution"]) == ("2026-11-26T10:05:00.500000+00:00", "resolved")


@pytest.mark.parametrize(
    ("active", "resolution"),
    [
        ({}, "resolved"),
        (None, "timeout"),
        (since("2026-11-26T09:59:00Z"), "timeout"),
        (since("2026-11-26T10:04:00Z", "pending"), "timeout"),
        (since("2026-11-26T10:05:01Z", "pending"), "resolved"),
    ],
    ids=["over", "nobody to ask", "still true", "restarted and still true", "active anew"],
)
def test_an_end_is_held_against_what_prometheus_says(active: Active | None, resolution: str) -> None:
    """Alertmanager ends an alert of which Prometheus no longer speaks; that is no end of the condition."""
    assert row(alert("resolved"), active, is_asked=True)["resolution"] == resolution


@pytest.mark.parametrize(("active", "is_firing"), [({}, False), (since("2026-11-26T09:59:00Z"), True), (since(START, "pending"), False)])
def test_only_prometheus_says_that_it_fires_now(active: Active, is_firing: bool) -> None:
    """A notification may be late; the state is not."""
    assert row(alert(), active, is_asked=True)["is_firing_now"] is is_firing


def test_an_unknown_severity_can_be_stored() -> None:
    """A row that the table refuses would be told for ever."""
    assert row(alert(labels={"alertname": "X", "severity": "page"}))["severity"] == "info"


def test_an_alert_without_a_summary_is_called_by_its_name() -> None:
    """The message is never empty."""
    assert row(alert(annotations={}))["message"] == "TargetDown"


@pytest.mark.parametrize("told", [{}, {"alerts": [{"status": "firing"}]}, {"alerts": [alert(startsAt="yesterday")]}, {"alerts": 3}])
def test_another_body_is_refused(told: dict[str, Any]) -> None:
    """With a ValueError, which the server answers by 400."""
    with pytest.raises(ValueError, match=r"Alertmanager|isoformat"):
        list(rows(told, None, is_asked=False))


def test_what_prometheus_answers_is_read() -> None:
    """Go's nine digits of a second included."""
    answer = {"data": {"alerts": [{"labels": LABELS, "activeAt": START, "state": "firing"}]}}

    assert active_of(answer) == {
        frozenset(LABELS.items()): (dt.datetime(2026, 11, 26, 10, 0, 0, 123456, tzinfo=dt.UTC), "firing"),
    }


def test_a_row_that_nobody_speaks_of_is_swept_at_the_third_look() -> None:
    """It ended when it was first missed, at the latest; one of which Prometheus speaks is left alone."""
    row = {"fingerprint": "f1", "starts_at": START, "labels": LABELS}
    sweep = Sweep()
    looks = [dt.datetime(2026, 11, 26, 11, minute, tzinfo=dt.UTC) for minute in range(4)]

    assert sweep.look([row], since("2026-11-26T09:59:00Z"), at=looks[0]) == []
    assert [sweep.look([row], {}, at=at) for at in looks[1:3]] == [[], []]
    (gone,) = sweep.look([row], {}, at=looks[3])
    assert (gone["ends_at"], gone["resolution"]) == (looks[1].isoformat(), "swept")


def test_one_instant_in_two_precisions_is_one() -> None:
    """The Watchdog fires at once: its notification has milliseconds, the API nanoseconds."""
    row = {"fingerprint": "f1", "starts_at": "2026-11-26T12:16:15.245+00:00", "labels": LABELS}
    sweep = Sweep()
    at = dt.datetime(2026, 11, 26, 13, tzinfo=dt.UTC)

    assert [sweep.look([row], since("2026-11-26T12:16:15.245816303Z"), at=at) for _ in range(4)] == [[], [], [], []]


def test_a_restarted_rule_is_not_swept() -> None:
    """It is pending anew, and what it says next supersedes the row."""
    sweep = Sweep()
    row = {"fingerprint": "f1", "starts_at": START, "labels": LABELS}
    at = dt.datetime(2026, 11, 26, 11, tzinfo=dt.UTC)

    assert [sweep.look([row], since("2026-11-26T10:30:00Z", "pending"), at=at) for _ in range(4)] == [[], [], [], []]
