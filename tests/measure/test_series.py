"""Observations put in order, and copies of them in which one thing is otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.series import Reader
from harness.model import Gap, Observation, Poll, Row, Sample, Source, UnixNs
from tests.fakes.evidence import after, evidence

ROWS = "http://127.0.0.1/rest/v1"


def sample(second: float, number: float, *, source: Source = Source.AGENT_EXPORTER, **labels: str) -> Sample:
    """One number of one counter."""
    return Sample(source=source, name="turns", labels=labels, value=number, at=after(second), request="http://127.0.0.1/metrics")


def poll(second: float, source: Source = Source.AGENT_EXPORTER, request: str = "http://127.0.0.1/metrics") -> Poll:
    """A reading that succeeded."""
    return Poll(source=source, at=after(second), took_s=0.01, count=1, request=request)


def gap(second: float, source: Source = Source.AGENT_EXPORTER, request: str = "http://127.0.0.1/metrics", *, is_blind: bool = False) -> Gap:
    """A reading that failed."""
    return Gap(source=source, at=after(second), reason="answered 500", request=request, is_blind=is_blind)


def reader(*observations: Observation, gaps: tuple[Gap, ...] = ()) -> Reader:
    """The index of these."""
    return Reader.of(replace(evidence(), observations=observations, gaps=gaps))


def test_series_are_told_apart_by_their_labels_and_ordered_in_time() -> None:
    """Whatever order the lines were written in."""
    found = reader(sample(2, 5, role="user"), sample(1, 7, role="assistant"), sample(1, 3, role="user"))
    timelines = {
        timeline.labels["role"]: [number for _, number in timeline.samples] for timeline in found.series(Source.AGENT_EXPORTER, "turns")
    }

    assert timelines == {"user": [3, 5], "assistant": [7]}


def test_a_timeline_says_what_was_said_last() -> None:
    """At its own instant already; before its first sample nothing."""
    (timeline,) = reader(sample(1, 3), sample(4, 5)).series(Source.AGENT_EXPORTER, "turns")

    assert [timeline.at(after(second)) for second in (0.5, 1, 3, 4, 9)] == [None, 3, 3, 5, 5]


def test_growth_begins_at_what_was_said_before() -> None:
    """Up to an instant, if one is given."""
    found = reader(poll(0), sample(0, 3), sample(2, 5), sample(4, 9))
    (timeline,) = found.series(Source.AGENT_EXPORTER, "turns")

    assert found.grown(timeline, Source.AGENT_EXPORTER, after(1)) == 6
    assert found.grown(timeline, Source.AGENT_EXPORTER, after(1), after(3)) == 2


def test_a_series_that_was_born_late_began_at_0() -> None:
    """If its source was read before; else only its growth since then is known."""
    seen, unseen = reader(poll(0), sample(2, 5), sample(4, 9)), reader(sample(2, 5), sample(4, 9))

    assert [each.grown(each.series(Source.AGENT_EXPORTER, "turns")[0], Source.AGENT_EXPORTER, after(1)) for each in (seen, unseen)] == [
        9,
        4,
    ]


def test_a_source_that_answered_again_has_no_gap() -> None:
    """What counts is its last reading."""
    assert reader(poll(1), poll(3), gaps=(gap(2),)).gap(Source.AGENT_EXPORTER) is None
    assert reader(poll(1), gaps=(gap(2),)).gap(Source.AGENT_EXPORTER) == gap(2)


def test_a_blind_source_stays_blind() -> None:
    """Nobody will ever answer."""
    assert reader(poll(3), gaps=(gap(2, is_blind=True),)).gap(Source.AGENT_EXPORTER) == gap(2, is_blind=True)


def test_a_gap_of_one_table_is_none_of_another() -> None:
    """One source, several requests."""
    found = reader(
        poll(1, Source.ROWS, f"{ROWS}/calls?select=*"),
        poll(3, Source.ROWS, f"{ROWS}/tool_executions?select=*"),
        gaps=(gap(2, Source.ROWS, f"{ROWS}/transcripts?select=*"),),
    )

    assert [found.gap(Source.ROWS, mark) is None for mark in ("/calls?", "/transcripts?", "/tool_executions?")] == [True, False, True]
    assert found.is_read(Source.ROWS, "/calls?")
    assert not found.is_read(Source.ROWS, "/transcripts?")


def test_a_copy_knows_what_it_says_otherwise() -> None:
    """By name of the series or table; the rest is shared."""
    row = Row(source=Source.ROWS, table="calls", columns={"call_id": "a"}, at=UnixNs(1), request=ROWS)
    honest = reader(sample(1, 3), row)
    more = honest.with_series(Source.AGENT_EXPORTER, "turns", lambda each: each.changed(lambda _, number: number + 1))

    assert honest.touched(more) == {"turns"}
    assert honest.touched(honest.with_rows("calls", ())) == {"calls"}
    assert honest.touched(honest) == frozenset()
    assert more.rows is honest.rows


def test_a_series_may_be_taken_away() -> None:
    """And single samples."""
    honest = reader(sample(1, 3), sample(2, 4))

    assert honest.with_series(Source.AGENT_EXPORTER, "turns", lambda _: None).series(Source.AGENT_EXPORTER, "turns") == ()
    (timeline,) = honest.with_series(
        Source.AGENT_EXPORTER, "turns", lambda each: each.changed(lambda _, number: number if number > 3 else None)
    ).series(Source.AGENT_EXPORTER, "turns")
    assert timeline.samples == ((after(2), 4),)


def row(call_id: str, number: int) -> Row:
    """One row of a call."""
    return Row(source=Source.ROWS, table="lines", columns={"call_id": call_id, "number": number}, at=after(0), request=ROWS)


def test_what_was_looked_at_is_told_from_what_was_not() -> None:
    """Of series, of rows, and of what is not there."""
    told = reader(sample(1, 3), row("a", 1), poll(0))
    watched, looked = told.watched()
    watched.series(Source.AGENT_EXPORTER, "turns")
    watched.rows.get("calls")

    assert told.with_rows("lines", ()).shows(looked)
    assert not told.with_rows("calls", ()).shows(looked)
    assert not told.with_series(Source.AGENT_EXPORTER, "turns", lambda each: each.changed(lambda _, number: number)).shows(looked)


def test_a_copy_made_of_what_is_watched_depends_on_what_it_was_made_of() -> None:
    """Not on what the copy says."""
    told = reader(sample(1, 3))
    watched, looked = told.watched()
    watched.with_series(Source.AGENT_EXPORTER, "turns", lambda _: None).series(Source.AGENT_EXPORTER, "turns")

    assert told.shows(looked)
    assert not told.with_series(Source.AGENT_EXPORTER, "turns", lambda _: None).shows(looked)


lines = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=8)


@given(lines, st.integers(0, 8), st.integers(0, 8), lines)
def test_rows_by_call_are_those_of_the_rows(before: list[tuple[str, int]], since: int, until: int, between: list[tuple[str, int]]) -> None:
    """Of a copy, too, whatever it has in place of some of them."""

    def numbers(call_id: str, rows: Sequence[Row]) -> dict[str, list[int]]:
        return {call_id: [each.columns["number"] for each in rows]}

    def expected(rows: list[Row]) -> dict[str, list[int]]:
        return {name: [each.columns["number"] for each in rows if each.columns["call_id"] == name] for name, _ in (*before, *between)}

    rows = [row(*each) for each in before]
    told = reader(*rows)
    other = [*rows[:since], *(row(*each) for each in between), *rows[max(since, until) :]]
    copy = told.with_rows("lines", other)

    assert told.of_calls("lines", numbers) == {name: found for name, found in expected(rows).items() if found}
    assert copy.of_calls("lines", numbers) == {name: found for name, found in expected(other).items() if found}
    assert {
        name: [each.columns["number"] for each in copy.rows_of_call("lines", name)] for name in copy.calls_in("lines")
    } == copy.of_calls("lines", numbers)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [*rows[:2], *rows[3:]],
        lambda rows: [*rows[:3], *rows[2:]],
        lambda rows: [*rows[:2], row("b", 9), *rows[3:]],
        lambda rows: [*rows[:5], row("b", 9)],
    ],
    ids=["lost", "doubled", "other", "last"],
)
def test_a_copy_is_asked_only_for_the_calls_of_which_it_has_other_rows(change: Callable[[list[Row]], list[Row]]) -> None:
    """One row of one call is lost, doubled or another."""
    rows = [row(name, number) for number, name in enumerate("ababab")]
    rows[2] = row("b", 2)
    told, asked = reader(*rows), list[str]()

    def count(call_id: str, found: Sequence[Row]) -> dict[str, int]:
        asked.append(call_id)
        return {call_id: len(found)}

    told.of_calls("lines", count)
    asked.clear()
    told.with_rows("lines", change(rows)).of_calls("lines", count)

    assert asked == ["b"]


def test_what_is_calculated_of_the_same_things_is_calculated_once() -> None:
    """Until it is forgotten."""
    told = reader(sample(1, 3))
    calculated: list[object] = []
    family = told.series(Source.AGENT_EXPORTER, "turns")

    def count(of: object) -> int:
        calculated.append(of)
        return len(calculated)

    assert [told.once(count, family), told.with_rows("lines", ()).once(count, family)] == [1, 1]
    told.forget(0)
    assert told.once(count, family) == 2
