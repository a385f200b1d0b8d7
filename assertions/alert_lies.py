"""Lies that hops could tell of alerts: each changes one episode of one alert at its hop, and whatever the hops behind it would then pass on."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from assertions.episodes import WATCHDOG, Story, Who, instant_s
from assertions.ledger import Defect
from harness.measure.series import Reader
from harness.model import Evidence, Row, UnixNs
from harness.rules.alerts import Episode

Change = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def samples_calm(evidence: Evidence) -> Defect:
    """The alert of the last fault that is judged is true nowhere, and so it never was anywhere."""

    def lie(reader: Reader) -> Reader | None:
        story = Story.of(evidence.info, reader)
        judged = {fault.alert for fault, admitted in story.judged() if not isinstance(admitted, str)}
        alert = next((name for name in _stored_last(reader) if name in judged), None)
        return None if alert is None else _without(reader, alert, ("alert_truth", "alert_states", "deliveries", "alerts_history"))

    return lie


def never_fired(reader: Reader) -> Reader | None:
    """It is true, and no rule says so."""
    alert = _last_alert(reader)
    return None if alert is None else _without(reader, alert, ("alert_states", "deliveries", "alerts_history"))


def never_told(reader: Reader) -> Reader | None:
    """It fires, and the receiver hears nothing."""
    alert = _last_alert(reader)
    return None if alert is None else _without(reader, alert, ("deliveries", "alerts_history"))


def row_lost(reader: Reader) -> Reader | None:
    """The receiver answers, and stores nothing."""
    alert = _last_alert(reader)
    return None if alert is None else _without(reader, alert, ("alerts_history",))


def ended_silently(reader: Reader) -> Reader | None:
    """No end is told, and rows stay open."""
    alert = _last_alert(reader)
    if alert is None:
        return None

    def delivery(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        kept = [each for each in columns["alerts"] if each["labels"]["alertname"] != alert or each["status"] == "firing"]
        return {**columns, "alerts": kept}

    def row(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**columns, "resolved_at": None, "resolution": None} if _of(columns, alert) else columns

    return _changed(_changed(reader, "deliveries", delivery), "alerts_history", row)


def started_late(evidence: Evidence) -> Defect:
    """The last episode of an alert begins, and fires, one evaluation after it should."""
    return lambda reader: _delayed(evidence, reader, is_pending_delayed=True)


def fired_late(evidence: Evidence) -> Defect:
    """It is pending in time, and fires one evaluation after it should."""
    return lambda reader: _delayed(evidence, reader, is_pending_delayed=False)


def _delayed(evidence: Evidence, reader: Reader, *, is_pending_delayed: bool) -> Reader | None:
    story = Story.of(evidence.info, reader)
    found = _last_that_lasts(story)
    if found is None:
        return None
    who, episode, fires_s = found
    step_s, start_s = story.cadence.evaluation_s, evidence.info.started_at / 1e9

    def is_it(at: float, instant: float) -> bool:
        return abs(at - start_s - instant) < 0.01

    def state(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        labels = columns["labels"]
        if not _is(labels, who):
            return columns
        at_s = [float(at) for at in columns["at_s"]]
        if labels["alertstate"] == "firing":
            at_s = [at for at in at_s if not is_it(at, fires_s)]
        else:
            if is_pending_delayed:
                at_s = [at for at in at_s if not is_it(at, episode.pending_at_s)]
            at_s = sorted([*at_s, round(start_s + fires_s, 3)])
        return {**columns, "at_s": at_s}

    def later(text: str) -> str:
        return dt.datetime.fromtimestamp(instant_s(text) + step_s, tz=dt.UTC).isoformat()

    def delivery(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        hit = [each for each in columns["alerts"] if _is(each["labels"], who) and is_it(instant_s(each["startsAt"]), fires_s)]
        if not hit:
            return columns
        alerts = [{**each, "startsAt": later(each["startsAt"])} if each in hit else each for each in columns["alerts"]]
        # The group's ticks are counted from the beginning, so the end is told at the first of the moved ones.
        earlier_s = columns["at"] / 1e9 - start_s + step_s - story.route[who[0]].group_interval_s
        is_earlier = hit[0]["status"] == "resolved" and earlier_s >= (episode.resolved_at_s or 0.0)
        moved = round((step_s - (story.route[who[0]].group_interval_s if is_earlier else 0.0)) * 1e9)
        stored_at = columns["stored_at"]
        return {**columns, "alerts": alerts, "at": columns["at"] + moved, "stored_at": stored_at and stored_at + moved}

    def row(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        if not _of(columns, who[0]) or not is_it(instant_s(columns["starts_at"]), fires_s):
            return columns
        return {**columns, "starts_at": later(columns["starts_at"]), "recorded_at": later(columns["recorded_at"])}

    lie = _changed(reader, "alert_states", state)
    told = {
        columns["id"]
        for columns in (each.columns for each in reader.rows.get("alerts_history", ()))
        if _of(columns, who[0]) and is_it(instant_s(columns["starts_at"]), fires_s)
    }
    heard = (
        dataclasses.replace(each, at=UnixNs(each.at + round(step_s * 1e9))) if each.columns["id"] in told else each
        for each in reader.rows.get("heard", ())
    )
    return _changed(_changed(lie, "deliveries", delivery), "alerts_history", row).with_rows("heard", tuple(heard))


def _last_that_lasts(story: Story) -> tuple[Who, Episode, float] | None:
    """The last episode that a tick of its group more or less does not end, so that one evaluation changes nothing but itself."""
    found = [
        (who, episode, fires_s)
        for who, episode, fires_s in story.fired()
        if episode.resolved_at_s is not None
        and episode.pending_at_s < fires_s
        and episode.resolved_at_s - fires_s > story.route[who[0]].group_wait_s + 3 * story.cadence.evaluation_s
        and story.deliveries(who, fires_s, is_over=True)
    ]
    return found[-1] if found else None


def _last_alert(reader: Reader) -> str | None:
    """The alert that was stored last."""
    return next(_stored_last(reader), None)


def _stored_last(reader: Reader) -> Iterator[str]:
    """Alerts as they were stored, the last one first."""
    names = [row.columns["labels"]["alertname"] for row in reader.rows.get("alerts_history", ()) if row.columns.get("labels")]
    return (name for name in reversed(names) if name != WATCHDOG)


def _without(reader: Reader, alert: str, tables: tuple[str, ...]) -> Reader:
    def change(columns: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if "alerts" in columns:
            return {**columns, "alerts": [each for each in columns["alerts"] if each["labels"]["alertname"] != alert]}
        return None if columns.get("alert") == alert or _of(columns, alert) else columns

    for table in tables:
        reader = _changed(reader, table, change)
    return reader


def _changed(reader: Reader, table: str, change: Change) -> Reader:
    def rows() -> Iterator[Row]:
        for row in reader.rows.get(table, ()):
            columns = change(row.columns)
            if columns is not None:
                yield row if columns is row.columns else dataclasses.replace(row, columns=columns)

    return reader.with_rows(table, tuple(rows()))


def _of(columns: Mapping[str, Any], alert: str) -> bool:
    return bool((columns.get("labels") or {}).get("alertname") == alert)


def _is(labels: Mapping[str, str], who: Who) -> bool:
    return labels.get("alertname") == who[0] and dict(who[1]).items() <= labels.items()
