"""Other people's calls: what shows them, and that a counter which may hold them is undecided, never too many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from assertions import others
from assertions.facts import Facts
from harness.check import check
from harness.measure.series import Reader
from harness.model import Evidence, Observation, Sample, Source, Status
from tests.fakes import stack
from tests.fakes.evidence import after, info

COUNTED = {"turns/exporter", "tools/exporter", "ttfw/exporter"}


def theirs(change: Callable[[Sample], float | None] | None = None, **settings: Any) -> Evidence:
    """An honest run on a stack of others. change: what a sample says instead; None leaves it out."""
    evidence = stack.run(info=replace(info(), target="theirs", settings={**info().settings, **settings}))

    def told(item: Observation) -> Observation | None:
        if change is None or not isinstance(item, Sample):
            return item
        value = change(item)
        return None if value is None else replace(item, value=value)

    return stack.changed(evidence, told)


def more(name: str, by: float, *, since_s: float = 0.0, source: Source | None = None) -> Callable[[Sample], float]:
    """Every sample of the series says more by so much from an instant on."""

    def change(sample: Sample) -> float:
        is_meant = sample.name == name and sample.at >= after(since_s) and source in (None, sample.source)
        return sample.value + by if is_meant else sample.value

    return change


def statuses(evidence: Evidence) -> Mapping[str, Status]:
    return {verdict.claim: verdict.status for verdict in check(evidence, control=False).verdicts if verdict.blind is None}


def why(evidence: Evidence) -> str | None:
    return others.why(Facts.of(evidence), Reader.of(evidence))


def test_a_quiet_stack_of_others_is_judged_like_ours() -> None:
    """The media server had no room but ours: the counters are ours."""
    evidence = theirs()

    assert why(evidence) is None
    assert {statuses(evidence)[claim] for claim in COUNTED} == {Status.PASS}


def test_rooms_that_are_not_ours_show_others() -> None:
    """One room more than we can have made: no counter is blamed, and the sentence says what would decide it."""
    evidence = theirs(more("livekit_room_total", 1))
    said = why(evidence)

    assert said is not None
    assert said.startswith("others' calls ran beside ours (the media server had 1 rooms")
    assert said.endswith("run when nobody else calls; if nobody did, say exclusive: true in the target file")


def test_more_turns_than_ours_are_undecided_beside_others() -> None:
    """Theirs are in the counter: never 'too many'; rows, which have our call ids, are decided all the same."""

    def change(sample: Sample) -> float:
        room = more("livekit_room_total", 1)(sample)
        return room + 2 if sample.name == "voice_agent_turns_total" and sample.at > after(30) else room

    found = statuses(theirs(change))

    assert {found[claim] for claim in COUNTED} == {Status.INCONCLUSIVE}
    assert {found[claim] for claim in ("turns/rows", "calls/rows", "turns/samples", "ttfw/samples")} == {Status.PASS}


def test_fewer_turns_than_ours_are_wrong_beside_others_too() -> None:
    """Others' calls only add."""

    def change(sample: Sample) -> float | None:
        if sample.name == "voice_agent_turns_total":
            return min(sample.value, 1.0)
        return more("livekit_room_total", 1)(sample)

    assert statuses(theirs(change))["turns/exporter"] is Status.FAIL


def test_the_owners_word_makes_too_many_wrong() -> None:
    """exclusive: true: nobody else called, so what is too many is a lie."""
    evidence = theirs(more("voice_agent_turns_total", 2, since_s=30), exclusive=True)

    assert why(evidence) is None
    assert statuses(evidence)["turns/exporter"] is Status.FAIL


def test_growth_before_our_load_shows_others() -> None:
    """We had not called yet."""
    evidence = theirs(more("voice_agent_turns_total", 1, since_s=1))
    said = why(evidence)

    assert said is not None
    assert "voice_agent_turns_total grew by 1 before our load began" in said


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("17", "4 sessions of others than our callers began on the media server, at most 3 of them in our calls"),
        ("13", "4 sessions of callers like ours"),
    ],
)
def test_sessions_beyond_ours_show_others(protocol: str, said: str) -> None:
    """A counter, so that a call between two polls is seen; ours are told by the protocol that they claim."""
    evidence = theirs(protocol=13)
    sessions = tuple(
        Sample(
            source=Source.SFU_EXPORTER,
            name=others.SESSIONS,
            labels={"protocol_version": label},
            value=count if second else 0.0,
            at=after(second),
            request=stack.SFU,
        )
        for label in ("13", "17")
        for count in (4.0 if label == protocol else 3.0,)
        for second in (0, 60)
    )
    found = why(replace(evidence, observations=(*evidence.observations, *sessions)))

    assert found is not None
    assert said in found


@pytest.mark.parametrize("source", [Source.SFU_EXPORTER])
def test_a_stack_that_would_not_show_others_is_undecided(source: Source) -> None:
    """No gauge of rooms or calls: nobody knows whether others called."""
    said = why(theirs(lambda sample: None if sample.source is source or sample.name == others.ACTIVE else sample.value))

    assert said is not None
    assert said.startswith("nothing that was read would have shown others' calls")
