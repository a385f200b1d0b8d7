"""How reports say things."""

from __future__ import annotations

import pytest

from harness.model import Status, Verdict
from reports.words import offset, plural, seconds, word
from tests.fakes.evidence import verdict


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        (verdict("ttfw/rule"), "ok"),
        (verdict("ttfw/rule", is_faithful=True), "faithful"),
        (verdict("ttfw/rule", Status.FAIL), "FAIL"),
        (verdict("ttfw/rule", Status.INCONCLUSIVE), "undecided"),
        (verdict("ttfw/rule", Status.INCONCLUSIVE, blind="no access"), "blind"),
    ],
)
def test_every_verdict_has_one_word(judged: Verdict, said: str) -> None:
    """The five words of the table."""
    assert word(judged) == said


def test_a_latency_that_was_never_heard_is_not_a_number() -> None:
    """None is shown as a dash, never as zero."""
    assert seconds(None) == "-"


def test_a_place_in_a_recording_reads_like_a_player() -> None:
    """Minutes, seconds, hundredths."""
    assert offset(67.31) == "01:07.31"


def test_one_is_not_plural() -> None:
    """``1 call``, ``0 calls``."""
    assert (plural(1, "call"), plural(0, "call")) == ("1 call", "0 calls")
