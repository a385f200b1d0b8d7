"""Replies that a caller talked down against their rows; and a band of word error for a recogniser that is not scripted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.check import check
from harness.model import CallRecord, Evidence, Observation, Row, Status, UnixNs, Verdict
from tests.fakes import stack
from tests.fakes.evidence import LATENCIES_S, TURNS, info, plan, record, scenario

IMPATIENT = (TURNS[0], replace(TURNS[1], barge_in_after_s=1.0), TURNS[2])
WHOLE = "The weather is sunny in London. Can I help with more?"


def verdict(evidence: Evidence, claim: str = "barge-ins/rows") -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def call(index: int, latencies_s: Any) -> CallRecord:
    """A call whose first reply was talked down after 1.2 s."""
    whole = record(plan(index, IMPATIENT), latencies_s)
    first = whole.turns[0]
    assert first.first_word_at is not None
    cut = replace(first, agent_speech_ended_at=UnixNs(first.first_word_at + 1_200_000_000))
    return replace(whole, turns=(cut, *whole.turns[1:]), talked_over=(1,))


def told(content: str | None) -> Evidence:
    """A run in which the replies that were talked down have this text in their rows; None: they have no row."""
    run = stack.of([call(index, latencies) for index, latencies in enumerate(LATENCIES_S, start=1)])

    def change(item: Observation) -> Observation | None:
        if not (isinstance(item, Row) and item.table == "transcripts" and item.columns["content"] == WHOLE):
            return item
        return None if content is None else replace(item, columns={**item.columns, "content": content})

    return stack.changed(run, change)


def test_the_text_that_was_spoken_so_far_is_honest() -> None:
    """The fastest whole reply of the run bounds how much that can be."""
    found = verdict(told("The weather is sunny"))

    assert found.status is Status.PASS
    assert any("the fastest whole reply of this run" in reason for reason in found.because)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            WHOLE,
            "call-1: line 2 of the assistant is told to its end, although the agent fell silent after 1.2 s: "
            "'the weather is sunny in london can i help with more'",
        ),
        (
            "We are open",
            "call-1: line 2 of the assistant is 'we are open', which is no beginning of what it was saying: "
            "'the weather is sunny in london can i help with more'",
        ),
        (None, "call-1: line 2 of the assistant, which the caller talked down, has no row in transcripts"),
    ],
    ids=["whole", "another", "lost"],
)
def test_what_is_wrong_with_a_cut_reply_is_told_apart(content: str | None, sentence: str) -> None:
    """Told whole, told otherwise, not told."""
    found = verdict(told(content))

    assert (found.status, found.sentence) == (Status.FAIL, sentence)


def test_the_rows_claim_leaves_a_cut_replys_words_to_this_one() -> None:
    """One lie is blamed once."""
    assert verdict(told(WHOLE), "turns/rows").status is Status.PASS


def test_a_run_without_barge_ins_makes_no_claim_about_them() -> None:
    """Nothing would be shown."""
    assert not [each for each in check(stack.run(), control=False).verdicts if each.claim.startswith("barge-ins/")]


@pytest.mark.parametrize(("ratio", "status"), [(0.2, Status.PASS), (0.1, Status.FAIL), (None, Status.FAIL)])
def test_a_recogniser_may_err_within_its_band(ratio: float | None, status: Status) -> None:
    """One word of seven is wrong: a band of a fifth allows it, a tenth does not."""
    run = stack.run(info=info(scenario=scenario(word_error_ratio=ratio)))

    def misheard(item: Observation) -> Observation:
        if not (isinstance(item, Row) and item.table == "transcripts" and item.columns["content"] == TURNS[0].text):
            return item
        return replace(item, columns={**item.columns, "content": "what is the whether in london today"})

    assert verdict(stack.changed(run, misheard), "turns/rows").status is status
