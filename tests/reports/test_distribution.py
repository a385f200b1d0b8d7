"""TTFW heard and reported, bucket by bucket."""

from __future__ import annotations

import math
from dataclasses import replace

from harness.model import Source
from reports.distribution import distribution, reported_buckets
from tests.fakes.evidence import BOUNDS, EXPORTER, after, evidence, record, ttfw_samples


def test_reported_buckets_are_differences_of_cumulative_ones() -> None:
    """Six observations of turns without a tool."""
    counts = reported_buckets(evidence(has_tool_ttfw=False))

    assert (sum(counts.values()), counts[0.91], counts[1.14]) == (6, 3, 3)


def test_what_was_counted_before_the_load_is_not_reported() -> None:
    """An agent that was already running brings its history."""
    before = ttfw_samples(Source.AGENT_EXPORTER, (1.0,) * 50, after(1), EXPORTER)
    since = ttfw_samples(Source.AGENT_EXPORTER, (1.0,) * 52, after(30), EXPORTER)

    assert sum(reported_buckets(evidence(observations=(*before, *since))).values()) == 2


def test_milliseconds_reported_as_seconds_are_still_on_the_axis() -> None:
    """They fall into the last bucket, which has no end."""
    told = (
        *ttfw_samples(Source.AGENT_EXPORTER, (), after(1), EXPORTER),
        *ttfw_samples(Source.AGENT_EXPORTER, (1160.0, 980.0), after(30), EXPORTER),
    )
    drawn = distribution(evidence(observations=told), 1.46)

    assert drawn is not None
    assert (drawn.slots[-1].edge, drawn.slots[-1].reported) == ("∞", 2)


def test_without_the_agents_buckets_the_heard_half_is_drawn_alone() -> None:
    """And says that the other could not be read."""
    drawn = distribution(evidence(observations=()), 1.46)

    assert drawn is not None
    assert (drawn.heard, drawn.reported) == (9, None)
    assert sum(slot.heard for slot in drawn.slots) == 9


def test_nothing_heard_and_nothing_reported_is_no_picture() -> None:
    """None, not an empty frame."""
    silent = record(latencies_s=(None, None, None))

    assert distribution(evidence(records=(silent,), observations=()), None) is None


def test_void_turns_are_not_drawn() -> None:
    """Our own evidence forbids their use."""
    call = record()
    voided = tuple(replace(turn, void="late tick") for turn in call.turns)
    drawn = distribution(evidence(records=(record(turns=voided),), observations=()), None)

    assert drawn is None


def test_bounds_are_the_agents_own() -> None:
    """The infinite one included."""
    assert sorted(reported_buckets(evidence())) == [*BOUNDS, math.inf]
