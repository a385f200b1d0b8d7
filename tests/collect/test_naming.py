"""A target's names and units become ours at the edge, once, and what is called as ours is but means another thing stays outside."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.collect import series
from harness.collect.exporter import judged_lines
from harness.collect.naming import OURS, Translator
from harness.model import Names, Naming, TableNaming

TTFW, TURNS = "voice_agent_ttfw_seconds", "voice_agent_turns_total"
THEIRS = Translator(
    Names(
        metrics={
            TTFW: Naming(name="my_ttfw_ms", scale=0.001),
            TURNS: Naming(name="bot_turns", labels={"role": "speaker"}, values={"role": {"assistant": "bot"}}),
            "voice_agent_stt_latency_seconds": Naming(name="stage_seconds", where={"stage": "stt"}),
            "voice_agent_llm_latency_seconds": Naming(name="stage_seconds", where={"stage": "llm"}),
            "voice_agent:ttfw_seconds:p95": Naming(name="team:ttfw_ms:p95", scale=0.001),
        },
        tables={
            "calls": TableNaming(
                name="call_log",
                columns={
                    "call_id": Naming(name="conversation"),
                    "duration_seconds": Naming(name="length_ms", scale=0.001),
                    "status": Naming(name="state", values={"": {"completed": "done"}}),
                },
            )
        },
        match={"cluster": "staging"},
    )
)


def test_a_histogram_in_milliseconds_is_ours_in_seconds() -> None:
    """Bounds and sum are put into our unit, counts stay."""
    text = 'my_ttfw_ms_bucket{le="250.0"} 3\nmy_ttfw_ms_bucket{le="+Inf"} 4\nmy_ttfw_ms_sum 1300\nmy_ttfw_ms_count 4\n'

    assert [(line.name, line.labels, line.value) for line in judged_lines(text, "text/plain", THEIRS)] == [
        (f"{TTFW}_bucket", {"le": "0.25"}, 3.0),
        (f"{TTFW}_bucket", {"le": "+Inf"}, 4.0),
        (f"{TTFW}_sum", {}, 1.3),
        (f"{TTFW}_count", {}, 4.0),
    ]


def test_labels_and_their_values_are_ours() -> None:
    """Another label's values stay as they are."""
    assert THEIRS.series("bot_turns", {"speaker": "bot", "pod": "bot"}, 2.0) == (TURNS, {"role": "assistant", "pod": "bot"}, 2.0)


def test_a_counter_without_the_ending_of_counters_is_found() -> None:
    """Parsers of expositions give it the ending, Prometheus stores it without."""
    text = '# TYPE bot_turns counter\nbot_turns{speaker="user"} 2\n'

    assert [(line.name, line.labels) for line in judged_lines(text, "text/plain", THEIRS)] == [(TURNS, {"role": "user"})]
    assert THEIRS.series("bot_turns", {}, 2.0) == (TURNS, {}, 2.0)


def test_one_series_of_theirs_may_be_several_of_ours() -> None:
    """Told apart by a label, which is not passed on."""
    assert THEIRS.series("stage_seconds_sum", {"stage": "llm", "pod": "a"}, 2.0) == (
        "voice_agent_llm_latency_seconds_sum",
        {"pod": "a"},
        2.0,
    )
    assert THEIRS.series("stage_seconds_sum", {"stage": "vad"}, 2.0) is None


def test_a_name_of_ours_that_means_something_else_there_is_left_out() -> None:
    """They said what they call it: that is not it."""
    assert THEIRS.series(f"{TTFW}_count", {}, 2.0) is None
    assert OURS.series(f"{TTFW}_count", {}, 2.0) == (f"{TTFW}_count", {}, 2.0)


def test_a_selector_asks_for_their_names_and_matches() -> None:
    """What is asked of Prometheus is what stands in the request."""
    selector = THEIRS.selector(("voice_agent_turns_total", "voice_agent_ttfw_seconds_(sum|count)"))

    assert selector == (
        '{__name__=~"voice_agent_turns_total|voice_agent_ttfw_seconds_(sum|count)|my_ttfw_ms_sum|my_ttfw_ms_count|bot_turns|bot_turns_total"'
        ',cluster="staging"}'
    )
    assert "team:ttfw_ms:p95" in THEIRS.selector(series.RULES)
    assert "bot_turns" not in THEIRS.selector(series.RULES)


def test_a_rule_of_theirs_is_told_in_our_names() -> None:
    """What is recorded is what it says of our series."""
    theirs = "histogram_quantile(0.95, sum by (le, speaker) (rate(my_ttfw_ms_bucket[5m])))"

    assert THEIRS.expression(theirs) == "histogram_quantile(0.95, sum by (le, role) (rate(voice_agent_ttfw_seconds_bucket[5m])))"


def test_a_row_has_our_columns_in_our_units() -> None:
    """Columns that we do not know stay; one of ours that is called otherwise is not the one of our name."""
    theirs = {"id": 7, "conversation": "vp-1", "call_id": "internal", "length_ms": 12500, "state": "done", "note": "x"}

    assert THEIRS.row("calls", theirs) == {
        "id": 7,
        "call_id": "vp-1",
        "duration_seconds": 12.5,
        "status": "completed",
        "note": "x",
    }
    assert (THEIRS.table("calls"), THEIRS.column("calls", "call_id"), THEIRS.ours("call_log")) == ("call_log", "conversation", "calls")


@given(bound=st.floats(min_value=1e-3, max_value=1e5), scale=st.sampled_from([1e-9, 1e-6, 1e-3, 60.0]))
def test_bounds_keep_their_order_in_any_unit(bound: float, scale: float) -> None:
    """A larger bound of theirs is no smaller bound of ours."""
    names = Translator(Names(metrics={TTFW: Naming(name="x", scale=scale)}))

    def told(number: float) -> float:
        found = names.series("x_bucket", {"le": repr(number)}, 1.0)
        assert found is not None
        return float(found[1]["le"])

    assert told(bound) <= told(math.nextafter(bound, math.inf)) <= told(2 * bound)


@pytest.mark.parametrize("name", series.metrics())
def test_every_metric_is_one_that_is_judged(name: str) -> None:
    """The list is spelled out of the patterns by which series are kept."""
    known = re.compile("|".join((*series.AGENT, *series.SFU, *series.RULES)))

    assert any(known.fullmatch(name + ending) for ending in ("", *series.HISTOGRAM))
