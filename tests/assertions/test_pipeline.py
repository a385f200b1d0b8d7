"""How often Prometheus looked, whether its clock is ours, when rows were written; and whether targets were there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.check import check
from harness.model import Evidence, Gap, Observation, Poll, Row, Sample, Source, Status, Verdict
from harness.rundir import read_evidence
from tests.fakes import stack
from tests.fakes.evidence import after, info

RUNS = Path(__file__).parents[2] / "fixtures" / "runs"


def verdict(evidence: Evidence, claim: str) -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def without(name: str, since_s: float, until_s: float, *, job: str = "livekit") -> Evidence:
    """A run in which a series of one job has no samples for a while."""

    def kept(item: Observation) -> Observation | None:
        is_it = isinstance(item, Sample) and item.name == name and item.labels.get("job") == job
        return None if is_it and after(since_s) <= item.at <= after(until_s) else item

    return stack.changed(stack.run(), kept)


def with_samples(
    name: str, change: Callable[[float], float], *, job: str | None = None, since_s: float = 0, until_s: float = 100
) -> Evidence:
    """A run in which a series says something else for a while."""

    def told(item: Observation) -> Observation:
        if not isinstance(item, Sample) or item.name != name or item.source is not Source.PROMETHEUS:
            return item
        is_it = (job is None or item.labels.get("job") == job) and after(since_s) <= item.at <= after(until_s)
        return replace(item, value=change(item.value)) if is_it else item

    return stack.changed(stack.run(), told)


def gone(since_s: float, until_s: float, evidence: Evidence | None = None) -> Evidence:
    """The agent's exporter answers neither us nor Prometheus for a while."""

    def told(item: Observation) -> Observation | None:
        if not after(since_s) <= item.at <= after(until_s):
            return item
        if isinstance(item, Poll) and item.source is Source.AGENT_EXPORTER:
            return None
        if isinstance(item, Sample) and item.name == "up" and item.labels.get("job") == "voice-agent":
            return replace(item, value=0.0)
        return item

    found = stack.changed(evidence or stack.run(), told)
    return replace(
        found,
        gaps=(Gap(source=Source.AGENT_EXPORTER, at=after(since_s), reason="ConnectError: [Errno 111] Connection refused", request=""),),
    )


def test_a_target_that_answers_is_not_down() -> None:
    """One scrape that Prometheus says it lost, between two polls of ours that succeeded."""
    found = verdict(with_samples("up", lambda _: 0.0, job="livekit", since_s=30, until_s=30.9), "availability/samples")

    assert found.status is Status.FAIL
    assert found.sentence == "Prometheus says that livekit was down 30.4 s into the run; our own polls before and after found it up"


def test_a_target_that_is_gone_is_not_up() -> None:
    """Prometheus says that it is there, and we ourselves found it gone before and after."""
    honest = gone(30, 40)
    lying = stack.changed(
        honest, lambda item: replace(item, value=1.0) if isinstance(item, Sample) and item.name == "up" and item.value == 0.0 else item
    )

    assert verdict(honest, "availability/samples").status is Status.PASS
    assert "10 down" in verdict(honest, "availability/samples").says or "11 down" in verdict(honest, "availability/samples").says
    assert "that voice-agent was up" in verdict(lying, "availability/samples").sentence


def test_a_probe_of_a_server_that_answers_does_not_fail() -> None:
    """A recorded run: it is the process whose exporter we polled meanwhile. Of the gateway, which we did not, nothing is said."""
    recorded = read_evidence(RUNS / "healthy")
    probes = [item for item in recorded.observations if isinstance(item, Sample) and item.name == "probe_success"]
    in_the_middle = sorted(item.at for item in probes)[len(probes) // 2]

    def failing(is_health: bool) -> Evidence:
        return stack.changed(
            recorded,
            lambda item: (
                replace(item, value=0.0)
                if isinstance(item, Sample)
                and item.name == "probe_success"
                and abs(item.at - in_the_middle) < 2 * 10**9
                and item.labels["instance"].endswith("/health") == is_health
                else item
            ),
        )

    server, gateway = (verdict(failing(is_health), "availability/samples") for is_health in (False, True))

    assert (server.status, gateway.status) == (Status.FAIL, Status.PASS)
    assert server.sentence.startswith("Prometheus says that livekit, probed, was down")


def test_missing_scrapes_are_counted() -> None:
    """Five of them, in the middle."""
    found = verdict(without("up", 30, 35), "pipeline/scrapes")

    assert found.status is Status.FAIL
    assert found.sentence == "Prometheus scraped livekit 127.0.0.1:6789 57 times, may have done so 61 to 63 times"


def test_a_machine_that_was_behind_lets_scrapes_be_missing() -> None:
    """Our own polls were late by as much."""
    evidence = stack.changed(
        without("up", 30, 35), lambda item: None if isinstance(item, Poll) and after(30) <= item.at <= after(35) else item
    )

    assert verdict(evidence, "pipeline/scrapes").status is not Status.FAIL


def test_a_rule_group_of_another_interval_is_expected_so_often() -> None:
    """Every two seconds, and it is evaluated every second: too often."""
    found = verdict(with_samples("prometheus_rule_group_interval_seconds", lambda _: 2.0), "pipeline/rules")

    assert found.status is Status.FAIL
    assert found.sentence == "Prometheus evaluated voice_agent 61 times, may have done so 29 to 32 times"


def test_a_clock_that_is_ahead_is_told() -> None:
    """On this machine there is one clock."""
    found = verdict(with_samples("clock_offset_s", lambda _: 0.25), "pipeline/clock")

    assert found.sentence == "Prometheus' clock is 249 to 251 ms ahead of ours, may be 0 ms"


def test_a_foreign_clock_may_be_off_by_half_a_scrape() -> None:
    """As long as its instants still fall between the right polls."""
    evidence = replace(with_samples("clock_offset_s", lambda _: 0.25), info=info(target="staging"))

    assert verdict(evidence, "pipeline/clock").status is Status.PASS


@pytest.mark.parametrize(("table", "word"), [("calls", "its row of calls was"), ("transcripts", "its row of transcripts for turn 1 was")])
def test_a_row_is_written_after_it_happened(table: str, word: str) -> None:
    """A database whose clock is in another zone."""

    def told(item: Observation) -> Observation:
        if not isinstance(item, Row) or item.table != table:
            return item
        early = str(item.columns["recorded_at"]).replace("T20:", "T19:")
        return replace(item, columns={**item.columns, "recorded_at": early})

    found = verdict(stack.changed(stack.run(), told), "pipeline/rows")

    assert found.status is Status.FAIL
    assert found.sentence.startswith(f"call-1: {word} written -359")
