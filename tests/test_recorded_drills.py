"""Recorded drills, judged again: a healthy one is green to the evaluation, each of twelve defects is red at its hop, with its alert named."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from assertions.episodes import Story
from harness import rundir
from harness.check import check
from harness.measure.series import Reader
from harness.model import Evidence, Findings, Observation, Row, Status, Verdict
from harness.stack import sabotage
from reports.alerts import drawings

DRILLS = Path(__file__).parents[1] / "fixtures" / "drills"
HEALTHY = rundir.read_evidence(DRILLS / "healthy")
SEEDED = {
    path.parent.name: rundir.read_info(path.parent).defect for path in DRILLS.glob("*/run.json") if rundir.read_info(path.parent).defect
}


def verdict(findings: Findings, claim: str) -> Verdict:
    """Of one claim."""
    (found,) = (each for each in findings.verdicts if each.claim == claim)
    return found


def changed(evidence: Evidence, table: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> Evidence:
    """With the rows of a table otherwise; None takes one away."""
    kept: list[Observation] = []
    for item in evidence.observations:
        if isinstance(item, Row) and item.table == table:
            columns = change(item.columns)
            if columns is not None:
                kept.append(dataclasses.replace(item, columns=columns))
        else:
            kept.append(item)
    return dataclasses.replace(evidence, observations=tuple(kept))


def test_a_healthy_drill_is_green() -> None:
    """Every claim, near misses included; every planted lie is caught where it was told."""
    findings = check(HEALTHY)

    assert [(each.claim, each.sentence) for each in findings.verdicts if each.status is not Status.PASS] == []
    assert len(findings.planted) == 7
    assert [lie for lie in findings.planted if not lie.is_localised] == []
    assert findings.status is Status.PASS


def test_a_cycle_at_production_speed_is_green() -> None:
    """The text that is shipped, not a scaled copy: every hop that the scenario requires."""
    evidence = rundir.read_evidence(DRILLS / "production-speed")
    findings = check(evidence)

    assert evidence.info.settings["time_scale"] == 1
    assert findings.status is Status.PASS
    assert [lie for lie in findings.planted if not lie.is_localised] == []


def test_rule_states_are_predicted_to_the_millisecond() -> None:
    """With the phase known: 20 ms are allowed, and the grid of evaluations leaves 1."""
    story = Story.of(HEALTHY.info, Reader.of(HEALTHY))
    errors_s = []
    for due in story.due:
        state = story.state_of(due)
        assert state is not None or not due.is_sure, due.name
        if state is not None and not due.begin.width_s:
            errors_s.append(abs(state.pending_at_s - due.begin.earliest_s))

    assert len(errors_s) >= 100
    assert max(errors_s) <= 0.02


@pytest.mark.parametrize("seeded", sabotage.catalogue(), ids=lambda each: each.name)
def test_a_defect_is_red_at_its_hop_with_its_alert(seeded: sabotage.Sabotage) -> None:
    """In the drill that it was seeded into."""
    (name,) = (run for run, defects in SEEDED.items() if seeded.name in str(defects).split(", "))
    found = verdict(check(rundir.read_evidence(DRILLS / name), control=False), seeded.claim)

    assert found.status is Status.FAIL
    assert ("rules are evaluated" if seeded.alert == "every rule" else seeded.alert) in found.sentence


def test_without_its_control_silence_is_undecided() -> None:
    """The Watchdog never came: that nothing else did means nothing."""

    def mute(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**columns, "alerts": [each for each in columns["alerts"] if each["labels"]["alertname"] != "Watchdog"]}

    found = verdict(check(changed(HEALTHY, "deliveries", mute), control=False), "alerts/silent")

    assert found.status is Status.INCONCLUSIVE
    assert "the Watchdog never reached the receiver" in found.sentence


def test_a_failed_notification_makes_silence_undecided() -> None:
    """Whatever was lost with it may have been an alert."""
    found = verdict(
        check(changed(HEALTHY, "controls", lambda columns: {**columns, "last": columns["last"] + 1}), control=False), "alerts/silent"
    )

    assert found.status is Status.INCONCLUSIVE


def test_a_near_miss_that_was_told_is_no_silence() -> None:
    """One delivery of one of its alerts is enough."""
    fault = next(each for each in Story.of(HEALTHY.info, Reader.of(HEALTHY)).faults if each.kind == "below")
    at_ns = HEALTHY.info.started_at + round((fault.begun.latest_s + 5) * 1e9)

    def told(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        labels = {**fault.labels, "alertname": fault.alert}
        alert = {"status": "firing", "fingerprint": "f", "startsAt": stamp(at_ns), "endsAt": "0001-01-01T00:00:00Z", "labels": labels}
        return {**columns, "alerts": [*columns["alerts"], alert]}

    first = iter([True])
    found = verdict(
        check(changed(HEALTHY, "deliveries", lambda columns: told(columns) if next(first, False) else columns), control=False),
        "alerts/silent",
    )

    assert found.status is Status.FAIL
    assert fault.alert in found.sentence


def stamp(at_ns: int) -> str:
    """RFC 3339."""
    return dt.datetime.fromtimestamp(at_ns / 1e9, tz=dt.UTC).isoformat()


def test_a_source_that_was_not_read_leaves_its_claims_open() -> None:
    """Nothing is guessed about the receiver."""
    lost = dataclasses.replace(
        HEALTHY, observations=tuple(item for item in HEALTHY.observations if getattr(item, "source", None) != "receiver")
    )

    assert verdict(check(lost, control=False), "alerts/notified").status is Status.INCONCLUSIVE


def test_every_alert_of_the_drill_is_drawn() -> None:
    """With its faults, its states, its row and the sets that are admitted."""
    found = {drawing.name.partition("{")[0]: drawing for drawing in reversed(drawings(HEALTHY))}

    assert set(found) >= {fault.alert for fault in Story.of(HEALTHY.info, Reader.of(HEALTHY)).faults}
    kinds = {box.kind for box in found["HostMemoryHigh"].boxes}
    assert kinds == {"below", "spike", "breach", "pending", "firing", "open", "may"}
    assert found["HostMemoryHigh"].path is not None
    assert found["HostMemoryHigh"].threshold == "85"
