"""Rooms and participants while calls run and afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.check import check
from harness.model import Evidence, Observation, Sample, Source, Status, Verdict
from tests.fakes import stack
from tests.fakes.evidence import after, info


def verdict(evidence: Evidence, claim: str = "sfu/rooms") -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def with_samples(source: Source, name: str, number: float, *, since_s: float, until_s: float = 100) -> Evidence:
    """An honest run in which one series says this number for a while."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Sample) and item.source is source and item.name == name
        is_then = after(since_s) <= item.at <= after(until_s)
        return replace(item, value=number) if is_it and is_then and isinstance(item, Sample) else item

    return stack.changed(stack.run(), change)


@pytest.mark.parametrize(
    ("evidence", "sentence"),
    [
        (with_samples(Source.SFU_API, "rooms", 1, since_s=60), "the media server's API still lists 1 of our rooms after every caller left"),
        (
            with_samples(Source.SFU_EXPORTER, "livekit_room_total", 2, since_s=60),
            "the media server's gauge says 2 rooms after the calls, before them it said 0",
        ),
        (
            with_samples(Source.SFU_EXPORTER, "livekit_room_total", 1, since_s=9, until_s=40),
            "the media server's gauge never said more than 1 rooms, may have reached 3",
        ),
        (
            with_samples(Source.SFU_EXPORTER, "livekit_room_total", 9, since_s=20, until_s=20),
            "the media server's gauge never said more than 9 rooms, may have reached 3",
        ),
    ],
    ids=["listed", "gauge stays", "too few", "too many"],
)
def test_rooms_come_and_go_with_calls(evidence: Evidence, sentence: str) -> None:
    """By the gauge while they run, by gauge and API when they are over."""
    found = verdict(evidence)

    assert (found.status, found.sentence) == (Status.FAIL, sentence)


def test_participants_are_callers_and_agents() -> None:
    """Two a call."""
    assert verdict(stack.run(), "sfu/participants").says == "peak 6, after 0"


def test_others_may_use_a_server_that_is_not_ours_alone() -> None:
    """Its gauge shows their rooms, too; of ours, the API knows."""
    busy = with_samples(Source.SFU_EXPORTER, "livekit_room_total", 40, since_s=0)

    assert verdict(replace(busy, info=info(target="production"))).status is Status.PASS
    assert verdict(busy).status is Status.FAIL
