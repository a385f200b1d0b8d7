"""How far a recogniser's words lie from what was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.word_error import word_error_ratio

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("said", "heard", "ratio"),
    [
        ("what are your opening hours", "what are your opening hours", 0.0),
        ("what are your opening hours", "what are you opening hours", 0.2),
        ("what are your opening hours", "what are opening hours", 0.2),
        ("what are your opening hours", "oh what are your opening hours", 0.2),
        ("goodbye", "good bye", 2.0),
        ("goodbye", "", 1.0),
        ("", "hello", float("inf")),
        ("", "", 0.0),
    ],
)
def test_words_replaced_left_out_and_made_up_count_alike(said: str, heard: str, ratio: float) -> None:
    """For each word that was said."""
    assert word_error_ratio(said, heard) == pytest.approx(ratio)


@given(one=WORDS, other=WORDS, third=WORDS)
def test_it_is_a_distance(one: str, other: str, third: str) -> None:
    """Counted in words it is symmetric, and no way round is shorter."""

    def errors(said: str, heard: str) -> float:
        count = len(said.split())
        return word_error_ratio(said, heard) * count if count else len(heard.split())

    assert errors(one, other) == pytest.approx(errors(other, one))
    assert errors(one, third) <= errors(one, other) + errors(other, third) + 1e-9
    assert (errors(one, other) == 0) == (one == other)
