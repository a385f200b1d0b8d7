"""What a notification tells, as rows of ``alerts_history``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

MILLISECONDS = dt.timedelta(milliseconds=2)
"""Prometheus' API tells an instant to the nanosecond, its notifications the same one in whole milliseconds."""
SEVERITIES = ("critical", "warning", "info")
"""What the table takes; anything else is an ``info``, since a row that can never be stored would be told for ever."""

Active = Mapping[frozenset[tuple[str, str]], tuple[dt.datetime, str]]
"""What Prometheus says is active now, by labels: since when, and ``pending`` or ``firing``."""


def rows(notification: Mapping[str, Any], active: Active | None, *, is_asked: bool) -> Iterator[dict[str, Any]]:
    """The argument of ``record_alerts``. active: None if Prometheus could not be asked. is_asked: there is a Prometheus to ask.

    Raises ValueError, naming what is missing, for a body that is no notification of version 4.
    """
    try:
        for alert in notification["alerts"]:
            labels: Mapping[str, str] = alert["labels"]
            starts_at, ends_at = instant(alert["startsAt"]), instant(alert["endsAt"])
            is_over = alert["status"] == "resolved"
            since = None if active is None else active.get(frozenset(labels.items()))
            severity = labels.get("severity", "info")
            yield {
                "fingerprint": alert["fingerprint"],
                "starts_at": starts_at.isoformat(),
                "ends_at": ends_at.isoformat() if is_over else None,
                "severity": severity if severity in SEVERITIES else "info",
                "service": labels.get("service", "unknown"),
                "message": alert.get("annotations", {}).get("summary") or labels.get("alertname", "unnamed alert"),
                "labels": dict(labels),
                "resolution": _resolution(ends_at, active, since, is_asked=is_asked) if is_over else None,
                "is_firing_now": since is not None and since[1] == "firing" and since[0] <= starts_at + MILLISECONDS,
            }
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"no notification of Alertmanager: {type(exc).__name__}: {exc}") from exc


def active_of(answer: Mapping[str, Any]) -> Active:
    """What ``/api/v1/alerts`` answers, by labels."""
    return {frozenset(alert["labels"].items()): (instant(alert["activeAt"]), alert["state"]) for alert in answer["data"]["alerts"]}


def instant(text: str) -> dt.datetime:
    """An RFC 3339 instant of Go, which has nanoseconds, to the microsecond."""
    head, dot, tail = text.partition(".")
    if not dot:
        return dt.datetime.fromisoformat(text)
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    return dt.datetime.fromisoformat(f"{head}.{digits[:6]:0<6}{tail[len(digits) :]}")


def _resolution(ends_at: dt.datetime, active: Active | None, since: tuple[dt.datetime, str] | None, *, is_asked: bool) -> str:
    """Prometheus ends an alert by saying so; when it says nothing any more, Alertmanager does, at a date that Prometheus gave it earlier."""
    if not is_asked:
        return "resolved"
    if active is None:
        return "timeout"
    # Active since after that end is another episode.
    return "timeout" if since is not None and since[0] <= ends_at else "resolved"
