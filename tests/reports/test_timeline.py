"""One call on one clock."""

from __future__ import annotations

from reports.timeline import LEFT, WIDTH, drawing
from tests.fakes.evidence import TURNS, evidence, plan, record, turn


def test_the_wait_reaches_from_the_callers_last_sample_to_the_agents_first() -> None:
    """TTFW is drawn exactly where it was measured."""
    drawn = drawing(evidence(), record())
    assert drawn is not None
    caller, wait, agent = [bar for bar in drawn.bars if bar.kind != "greeting"][:3]

    assert abs(caller.x + caller.width - wait.x) < 0.2
    assert abs(wait.x + wait.width - agent.x) < 0.2
    assert wait.label == "1.46 s"


def test_an_agent_that_talks_over_the_caller_is_shown_as_that() -> None:
    """A negative latency is kept, never filtered."""
    call = record(plan(turns=TURNS[:1]), (1.0,), turns=(turn(1, TURNS[0], 12.0, -0.3),))
    drawn = drawing(evidence(), call)

    assert drawn is not None
    assert [(bar.kind, bar.label) for bar in drawn.bars if bar.lane == "wait"] == [("over", "-0.30 s")]


def test_everything_lies_inside_the_drawing() -> None:
    """No bar, tick or label's bar leaves it."""
    drawn = drawing(evidence(), record())
    assert drawn is not None

    assert all(bar.x >= LEFT and bar.x + bar.width <= WIDTH for bar in drawn.bars)
    assert all(LEFT <= x <= WIDTH for lane in drawn.lanes for x in lane.xs)


def test_rows_scrapes_and_rules_are_on_the_same_clock() -> None:
    """One lane for each source that wrote or read during the call."""
    drawn = drawing(evidence(), record())

    assert drawn is not None
    assert [lane.name for lane in drawn.lanes] == ["rows", "scrapes", "rules"]


def test_a_mark_stands_where_the_recording_says() -> None:
    """Seconds of the recording, not of the call."""
    drawn = drawing(evidence(), record(), marks=((0.0, "ttfw/exporter"),))

    assert drawn is not None
    assert drawn.marks[0].x == drawn.audio_x
