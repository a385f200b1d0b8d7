"""Turns spoken and heard against transcripts and counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.check import check
from harness.model import Evidence, Observation, Row, Sample, Source, Status, TurnPlan, UnixNs, Verdict, WireWindow
from tests.fakes import stack
from tests.fakes.evidence import TURNS, after, plan, record

Rows = Callable[[list[Row]], list[Row]]


def verdict(evidence: Evidence, claim: str = "turns/rows") -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def with_transcripts(change: Rows) -> Evidence:
    """An honest run of one call in which its transcript is changed."""
    evidence = stack.run([(1.46, 1.08, 1.02)])
    rows = [item for item in evidence.observations if isinstance(item, Row) and item.table == "transcripts"]
    others = [item for item in evidence.observations if item not in rows]
    return replace(evidence, observations=(*others, *change(rows)))


def said(row: Row, **columns: str) -> Row:
    """The row with other words, or another role."""
    return replace(row, columns={**row.columns, **columns})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda rows: [*rows[:3], *rows[4:]],
            "call-1: what the user said as their line 2 has no row in transcripts: 'i want to book a table for two people'",
        ),
        (
            lambda rows: [*rows[:4], *rows[3:]],
            "call-1: transcripts holds a line of the user that was said once and is there twice: 'i want to book a table for two people'",
        ),
        (
            lambda rows: [*rows, said(rows[1], content="call me a cab")],
            "call-1: transcripts holds a line of the user that nobody said: 'call me a cab'",
        ),
        (
            lambda rows: [*rows[:1], said(rows[1], content="what is the weather"), *rows[2:]],
            "call-1: line 1 of the user is 'what is the weather' in transcripts, cut short after 4 of 7 words; "
            "what was said is 'what is the weather in london today'",
        ),
        (
            lambda rows: [said(rows[0], timestamp="2026-11-23T20:00:59.000000+00:00"), *rows[1:]],
            "call-1: the rows of transcripts are not in the order of the conversation",
        ),
    ],
    ids=["lost", "doubled", "invented", "cut", "out of order"],
)
def test_what_is_wrong_with_a_transcript_is_told_apart(change: Rows, sentence: str) -> None:
    """Lost, doubled, invented, cut short and out of order are five things."""
    found = verdict(with_transcripts(change))

    assert (found.status, found.sentence) == (Status.FAIL, sentence)


def stalled(evidence: Evidence, for_s: float) -> Evidence:
    """The same, but one round trip of the call came back so late, in the middle of its second prompt."""
    (call,) = evidence.records
    middle = UnixNs((call.turns[1].user_speech_started_at + call.turns[1].user_speech_ended_at) // 2)
    window = WireWindow(
        direction="up",
        since=UnixNs(middle - 2_000_000_000),
        until=UnixNs(middle + 3_000_000_000),
        packets=250,
        lost=0,
        reordered=0,
        duplicates=0,
        jitter_s=0.02,
        jitter_max_s=0.02,
        rtt_s=(0.001, 0.001 + for_s),
        rtt_max_at=middle,
    )
    return replace(evidence, records=(replace(call, windows=(window,)),))


def torn(rows: list[Row]) -> list[Row]:
    """What an agent writes that heard the second prompt in two pieces."""
    return [*rows[:3], said(rows[3], content="I want to book"), said(rows[3], content="for two people"), *rows[4:]]


def test_a_prompt_that_a_stall_tore_apart_may_be_two_turns() -> None:
    """The callers' own round trips show the stall. Without one, two turns are one too many; in a short one only the words are in doubt."""
    assert verdict(stalled(with_transcripts(torn), for_s=0.5)).status is not Status.FAIL
    assert verdict(stalled(with_transcripts(torn), for_s=0.1)).status is Status.FAIL
    assert verdict(with_transcripts(torn)).status is Status.FAIL


def test_the_words_of_a_prompt_that_came_in_jerks_are_in_doubt() -> None:
    """Longer than a jitter buffer, shorter than a pause."""

    def misheard(rows: list[Row]) -> list[Row]:
        return [*rows[:3], said(rows[3], content="I want to cook a table"), *rows[4:]]

    assert verdict(stalled(with_transcripts(misheard), for_s=0.1)).status is not Status.FAIL
    assert verdict(with_transcripts(misheard)).status is Status.FAIL


def test_roles_that_are_swapped_are_seen() -> None:
    """The words are there, under the wrong name."""
    assert verdict(with_transcripts(lambda rows: [said(rows[0], role="user"), *rows[1:]])).status is Status.FAIL


def test_case_and_punctuation_do_not_count() -> None:
    """A transcript is judged by its words."""
    changed = with_transcripts(lambda rows: [said(row, content=str(row.columns["content"]).upper() + "!") for row in rows])

    assert verdict(changed).status is Status.PASS


def test_the_recording_is_opened_where_the_lost_line_was_said() -> None:
    """The turn that the sentence names."""
    found = verdict(with_transcripts(lambda rows: [*rows[:3], *rows[4:]]))
    turn = record().turns[1]

    assert found.evidence[0] == f"audio/call-1.wav#t={(turn.user_speech_ended_at - after(8.3)) / 1e9:.2f}"


def test_an_agent_without_a_script_may_say_anything() -> None:
    """But once for each turn."""
    free = tuple(replace(turn, reply=None) for turn in TURNS)
    evidence = stack.of([record(plan(1, free))])

    assert verdict(evidence).status is Status.PASS


def counted(by: float, *sources: Source, role: str = "user") -> Evidence:
    """An honest run in which a role's last turn is counted otherwise."""

    def change(item: Observation) -> Observation:
        is_it = (
            isinstance(item, Sample) and item.source in sources and item.name == "voice_agent_turns_total" and item.labels["role"] == role
        )
        is_final = isinstance(item, Sample) and item.value >= (9 if role == "user" else 12)
        return replace(item, value=item.value + by) if is_it and is_final and isinstance(item, Sample) else item

    return stack.changed(stack.run(), change)


@pytest.mark.parametrize(
    ("by", "role", "sentence"),
    [
        (-1, "user", "the agent's exporter says 8 turns of the user, may say 9: 1 turn too few"),
        (2, "assistant", "the agent's exporter says 14 turns of the assistant, may say 12: 2 turns too many"),
    ],
)
def test_a_wrong_count_is_blamed_on_the_exporter(by: float, role: str, sentence: str) -> None:
    """Prometheus passes it on."""
    evidence = counted(by, Source.AGENT_EXPORTER, Source.PROMETHEUS, role=role)

    assert verdict(evidence, "turns/exporter").sentence == sentence
    assert verdict(evidence, "turns/samples").is_faithful


def test_samples_that_differ_from_the_exporter_are_blamed_on_prometheus() -> None:
    """The exporter was read and said the truth."""
    evidence = counted(-1, Source.PROMETHEUS)

    assert verdict(evidence, "turns/exporter").status is Status.PASS
    assert verdict(evidence, "turns/samples").status is Status.FAIL


def test_one_scrape_that_stored_nothing_is_seen() -> None:
    """It was green, the counter was there, and its sample is not."""

    def change(item: Observation) -> Observation | None:
        is_it = isinstance(item, Sample) and item.source is Source.PROMETHEUS and item.name == "voice_agent_turns_total"
        return None if is_it and after(30) < item.at < after(31) else item

    found = verdict(stack.changed(stack.run(), change), "turns/samples")

    assert (found.status, "has no sample" in found.sentence) == (Status.FAIL, True)


def test_a_scrape_between_two_polls_may_say_either() -> None:
    """Our own poll is not Prometheus' scrape: while a counter moves, a sample lies between the polls around it."""
    assert verdict(stack.run(), "turns/samples").status is Status.PASS


def test_a_role_that_nobody_has_is_an_invention() -> None:
    """A counter of something that did not happen."""
    evidence = stack.run()
    more = tuple(
        replace(item, labels={**item.labels, "role": "system"})
        for item in evidence.observations
        if isinstance(item, Sample) and item.name == "voice_agent_turns_total" and item.labels["role"] == "user"
    )

    found = verdict(replace(evidence, observations=(*evidence.observations, *more)), "turns/exporter")

    assert found.sentence == "the agent's exporter says 9 turns of the system, may say 0: 9 turns too many"


def test_a_counter_that_restarts_loses_no_turn() -> None:
    """The exporter was restarted between two calls."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Sample) and item.name == "voice_agent_turns_total" and item.at >= after(40)
        return item if not is_it or not isinstance(item, Sample) else replace(item, value=0.0)

    evidence = stack.changed(stack.run(), change)

    assert {verdict(evidence, claim).status for claim in ("turns/exporter", "turns/samples")} == {Status.PASS}


def test_a_plan_with_free_prompts_still_counts() -> None:
    """One turn without reply text in the plan."""
    turn = TurnPlan(prompt="weather", text="what is the weather in london today")
    evidence = stack.of([record(plan(1, (turn, turn, turn)))])

    assert verdict(evidence, "turns/exporter").says == "3 + 4"
