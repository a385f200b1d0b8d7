"""Calls in progress against the agent's gauge and its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assertions.active import Progress
from harness.check import check
from harness.model import Evidence, Observation, Sample, Source, Status, UnixNs, Verdict
from tests.fakes import stack
from tests.fakes.evidence import after

GAUGE = "voice_agent_active_calls"


def verdict(evidence: Evidence, claim: str) -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def told(lie: Callable[[float, UnixNs], float], *sources: Source) -> Evidence:
    """An honest run of which the gauge says otherwise."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Sample) and item.name == GAUGE and item.source in sources
        return replace(item, value=lie(item.value, item.at)) if is_it and isinstance(item, Sample) else item

    return stack.changed(stack.run(), change)


BOTH = (Source.AGENT_EXPORTER, Source.PROMETHEUS)


@pytest.mark.parametrize(
    ("lie", "claim", "sentence"),
    [
        (
            lambda number, at: min(number, 2.0),
            "active/exporter",
            "the agent's gauge says 2 calls in progress 10.0 s into the run, may say 3",
        ),
        (
            lambda number, at: number + (at > after(60)),
            "active/exporter",
            "the agent's gauge says 1 call in progress 61.0 s into the run, may say 0",
        ),
    ],
)
def test_a_gauge_that_lies_is_told_in_a_sentence(lie: Callable[[float, UnixNs], float], claim: str, sentence: str) -> None:
    """A call too few while three talk; one that is never counted out."""
    found = verdict(told(lie, *BOTH), claim)

    assert (found.status, found.sentence) == (Status.FAIL, sentence)
    assert verdict(told(lie, *BOTH), "active/samples").is_faithful


def test_prometheus_may_say_only_what_the_exporter_said_around_a_scrape() -> None:
    """One scrape that stored another number."""
    found = verdict(told(lambda number, at: number + (after(15) < at < after(16)), Source.PROMETHEUS), "active/samples")

    assert found.sentence == "Prometheus says 4 calls in progress 15.4 s into the run, may say 3"


def test_others_may_call_the_same_agent() -> None:
    """Their calls are in the gauge, too: that one of ours lacks would not have shown."""
    run = told(lambda number, at: number + 5, *BOTH)
    theirs = replace(run, info=replace(run.info, target="staging"))

    assert verdict(theirs, "active/exporter").status is Status.INCONCLUSIVE


@given(
    calls=st.lists(st.tuples(*[st.integers(0, 50)] * 4).map(sorted), max_size=6),
    spent=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=6, max_size=6),
    instant=st.integers(0, 50),
)
def test_what_is_so_is_always_admitted(calls: list[list[int]], spent: list[tuple[float, float]], instant: int) -> None:
    """Whenever in their bounds calls really begin and end."""
    progress = Progress(
        maybe_from=sorted(each[0] for each in calls),
        surely_from=sorted(each[1] for each in calls),
        surely_until=sorted(each[2] for each in calls),
        maybe_until=sorted(each[3] for each in calls),
    )
    real = [(a + x * (b - a), c + y * (d - c)) for (a, b, c, d), (x, y) in zip(calls, spent, strict=False)]
    there = sum(begun <= instant < ended for begun, ended in real)
    allowed = progress.at(instant, instant)

    assert allowed.lo <= there <= allowed.hi
