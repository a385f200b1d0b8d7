"""One run against those before it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from assertions.changes import changes
from assertions.comparison import Judged, compare
from harness.check import check
from harness.model import Evidence, Status
from tests.fakes import stack
from tests.fakes.evidence import LATENCIES_S, info


def judged(evidence: Evidence) -> Judged:
    return Judged(evidence=evidence, findings=check(evidence, control=False))


@cache
def honest() -> Judged:
    """The honest run."""
    return judged(stack.run())


def slower(by_s: float) -> Judged:
    return judged(stack.run(tuple(tuple(latency + by_s for latency in call) for call in LATENCIES_S)))


def test_a_run_is_no_worse_than_itself() -> None:
    """No verdict differs, no figure does, nothing changed."""
    found = compare([honest()], honest())

    assert (found.claims, found.changes, found.status) == ((), (), Status.PASS)


def test_a_slower_agent_is_seen_although_every_claim_passes() -> None:
    """300 ms on each of nine turns."""
    found = compare([honest()], slower(0.3))

    assert found.status is Status.FAIL
    assert [(figure.name, figure.status) for figure in found.figures if figure.status is Status.FAIL] == [("TTFW heard", Status.FAIL)]


def test_a_faster_agent_is_no_regression() -> None:
    """It is said, and the exit code stays 0."""
    found = compare([honest()], slower(-0.3))

    assert found.status is Status.PASS
    assert "shorter by" in next(figure.sentence for figure in found.figures if figure.name == "TTFW heard")


def test_a_claim_that_fails_now_is_worse() -> None:
    """Whatever the figures say."""
    before, after = honest(), honest()
    broken = tuple(
        replace(verdict, status=Status.FAIL, sentence="a row is missing") if verdict.claim == "calls/rows" else verdict
        for verdict in after.findings.verdicts
    )

    found = compare([before], replace(after, findings=replace(after.findings, verdicts=broken)))

    assert found.status is Status.FAIL
    assert [(change.claim, change.before, change.after, change.is_worse) for change in found.claims] == [
        ("calls/rows", Status.PASS, Status.FAIL, True)
    ]


def test_three_calls_say_that_they_are_too_few() -> None:
    """None of three against three of three happens by chance once in twenty times."""
    found = compare([honest()], honest())

    assert found.figures[0].status is Status.INCONCLUSIVE
    assert "3 calls are too few" in found.figures[0].sentence


def test_several_runs_before_show_what_one_could_not() -> None:
    """Unanswered calls, against three and against thirty answered ones."""
    calls = tuple(replace(record, greeted_at=None) for record in stack.run(((None, None, None),) * 3).records)
    silent = judged(stack.of(calls))

    alone, together = compare([honest()], silent), compare([honest()] * 10, silent)

    assert (alone.figures[0].status, together.figures[0].status) == (Status.INCONCLUSIVE, Status.FAIL)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (info(), []),
        (info(parts=(replace(info().parts[0], version="1.14.0"), *info().parts[1:])), ["livekit-server 1.13.5 -> 1.14.0"]),
        (info(parts=info().parts[1:]), ["livekit-server 1.13.5 -> -"]),
        (info(digests={**info().digests, "scenarios/smoke.yaml": "0" * 64}), ["scenarios/smoke.yaml 41d841d8 -> 00000000"]),
        (info(harness_version="0.2.0"), ["voxproof 0.1.0 -> 0.2.0"]),
        (info(settings={**info().settings, "scrape_interval_s": 2.0}), ["scrape_interval_s 1.0 -> 2.0"]),
        (info(defect="ttfw-in-ms"), ["seeded on purpose nothing -> ttfw-in-ms"]),
    ],
)
def test_what_changed_is_said(after: object, words: list[str]) -> None:
    """Versions, digests, the harness, settings, defects."""
    assert [change.words for change in changes(info(), after)] == words  # type: ignore[arg-type]
