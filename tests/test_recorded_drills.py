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
from harness.model import Evidence, Findings, Observation, Row, Source, Status, Verdict
from harness.stack import sabotage
from reports.alerts import drawings

DRILLS = Path(__file__).parents[1] / "fixtures" / "drills"
HEALTHY = rundir.read_evidence(DRILLS / "healthy")
REAL = rundir.read_evidence(DRILLS / "real-faults")
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


def test_real_faults_are_green() -> None:
    """Processor, memory and disk by what ``/proc`` said beside the exporter; every planted lie is caught where it was told."""
    findings = check(REAL)

    assert findings.status is Status.PASS
    assert verdict(findings, "alerts/real").sentence == (
        "made to fire in earnest, by /proc: HostCpuHigh 1 time, HostMemoryHigh (a copy with a threshold of 16 %) 1 time, HostDiskFull 1 time"
    )
    assert [lie for lie in findings.planted if not lie.is_localised] == []


def test_a_rule_with_another_threshold_than_what_was_done_admits_is_red() -> None:
    """The watch says that the disk was full and the samples never do: the samples are accused, not the fault."""

    def calm(columns: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return None if columns["alert"] == "HostDiskFull" else columns

    found = verdict(check(changed(REAL, "alert_truth", calm)), "alerts/samples")

    assert found.status is Status.FAIL
    assert "HostDiskFull" in found.sentence


@pytest.mark.parametrize(
    ("subject", "number", "said"),
    [
        ("cpu", 0.0, "HostCpuHigh (fault 4): it may have been above 80 % before we did anything: the machine has other work"),
        ("memory", 12.0, "12.0 % was the most that /proc admits, and the rule asks for more than 16 %"),
        ("disk", None, "HostDiskFull (fault 2): nothing was watched"),
    ],
)
def test_a_real_fault_that_is_not_known_is_undecided(subject: str, number: float | None, said: str) -> None:
    """A machine that never idled, a level that was not reached, no watch: the alert is named, and nobody is accused."""

    def watched(columns: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if columns["subject"] != subject:
            return columns
        return None if number is None else {**columns, "values": [number] * len(columns["values"])}

    findings = check(changed(REAL, "watched", watched))

    assert verdict(findings, "alerts/samples").status is Status.PASS
    assert findings.status is Status.INCONCLUSIVE
    assert said in verdict(findings, "alerts/real").sentence


def test_a_fault_that_is_refused_leaves_its_alert_undecided() -> None:
    """With the reason that was said before the drill."""
    alerting = REAL.info.settings["alerting"]
    plan = {**alerting["real"], "refused": {"disk": "unshare is not permitted here"}}
    info = dataclasses.replace(REAL.info, settings={**REAL.info.settings, "alerting": {**alerting, "real": plan}})
    refused = changed(dataclasses.replace(REAL, info=info), "faults", lambda columns: None if columns["subject"] == "disk" else columns)

    found = verdict(check(refused), "alerts/real")

    assert found.status is Status.INCONCLUSIVE
    assert "HostDiskFull: unshare is not permitted here" in found.sentence


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


def added(table: str, source: Source, columns: Mapping[str, Any], to: Evidence = HEALTHY) -> Evidence:
    """With one row more."""
    row = Row(source=source, table=table, columns=columns, at=to.info.started_at, request="made")
    return dataclasses.replace(to, observations=(*to.observations, row))


def measured(sent_s: float, notified_s: float, stalled_s: float) -> Evidence:
    """The healthy drill, had it measured its requests."""
    told = changed(HEALTHY, "ingest", lambda columns: {**columns, "sent_s": sent_s, "notified_s": notified_s})
    return added("stalls", Source.FAULTS, {"longest_s": stalled_s}, told)


def test_the_longest_request_is_what_was_measured() -> None:
    """Of the slower of the two, and the longest that anything waited for its turn; half a second where nothing was."""
    longest = {
        name: Story.of(evidence.info, Reader.of(evidence)).route["TargetDown"].post_s
        for name, evidence in (("measured", measured(0.04, 0.09, 0.02)), ("not measured", HEALTHY))
    }

    assert longest == {"measured": pytest.approx(0.11), "not measured": 0.5}


def test_a_delivery_that_took_longer_than_any_request_is_late() -> None:
    """The sets are no wider than what was measured; requests that were shorter than the real ones make the real ones red."""
    assert verdict(check(measured(0.04, 0.09, 0.02)), "alerts/notified").status is Status.PASS
    assert verdict(check(measured(0.001, 0.001, 0.001)), "alerts/notified").status is Status.FAIL


def test_a_row_is_heard_before_a_canary_that_was_written_after_it() -> None:
    """Changes come in order; where no canary was written the page's own patience is the limit."""
    start = HEALTHY.info.started_at
    canary = {"told": "Canary", "written_at": start + 10_000_000_000, "heard_at": start + 10_200_000_000}
    evidence = added("realtime-proofs", Source.REALTIME, canary)
    story, plain = (Story.of(each.info, Reader.of(each)) for each in (evidence, HEALTHY))

    assert story.heard_by_s(9.0) == pytest.approx(10.2)
    assert story.heard_by_s(11.0) > story.until_s
    assert plain.heard_by_s(9.0) == 14.0
