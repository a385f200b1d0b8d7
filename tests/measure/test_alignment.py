"""Sentences side by side."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.measure.alignment import Pair, aligned, words_of

LINES = ["hello", "what are your opening hours", "we are open from nine to five", "goodbye"]


def pairs(wanted: list[str | None], found: list[str]) -> list[tuple[int | None, int | None]]:
    """Places that belong together."""
    return [(pair.wanted, pair.found) for pair in aligned(wanted, found)]


def test_case_punctuation_and_spacing_do_not_count() -> None:
    """Words alone do; apostrophes belong to words."""
    assert words_of("  It's  nine, I think! ") == "it's nine i think"


@given(st.lists(st.text(min_size=1), max_size=12))
def test_equal_sequences_go_side_by_side(lines: list[str]) -> None:
    """One to one."""
    assert aligned(lines, lines) == tuple(Pair(wanted=place, found=place) for place in range(len(lines)))


@given(st.integers(0, 3))
def test_a_lost_line_moves_no_other(gone: int) -> None:
    """It alone has no partner."""
    found = [line for place, line in enumerate(LINES) if place != gone]

    assert [pair for pair in pairs(list(LINES), found) if pair[1] is None] == [(gone, None)]


def test_a_doubled_line_moves_no_other() -> None:
    """One of the two has no partner."""
    assert [wanted for wanted, _ in pairs(list(LINES), [LINES[0], LINES[0], *LINES[1:]])].count(None) == 1


def test_a_garbled_line_is_altered_not_lost_and_invented() -> None:
    """It keeps its place."""
    assert pairs(list(LINES), [LINES[0], "what are your", *LINES[2:]]) == [(place, place) for place in range(4)]


def test_a_free_line_goes_with_anything() -> None:
    """The words of an agent without a script."""
    assert pairs(["hello", None, "goodbye"], ["hello", "certainly", "goodbye"]) == [(0, 0), (1, 1), (2, 2)]


@given(st.permutations(LINES))
def test_a_line_out_of_its_place_is_still_itself(found: list[str]) -> None:
    """Nothing is lost and nothing invented by another order."""
    assert {LINES[wanted]: found[place] for wanted, place in pairs(list(LINES), found) if wanted is not None and place is not None} == {
        line: line for line in LINES
    }


@given(st.lists(st.sampled_from(LINES), max_size=8), st.lists(st.sampled_from(LINES), max_size=8))
def test_every_line_is_accounted_for_once(wanted: list[str | None], found: list[str]) -> None:
    """Nothing is dropped, nothing used twice."""
    got = pairs(wanted, found)

    assert sorted(one for one, _ in got if one is not None) == list(range(len(wanted)))
    assert sorted(other for _, other in got if other is not None) == list(range(len(found)))
