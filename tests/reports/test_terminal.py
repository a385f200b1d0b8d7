"""The table that a run prints."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from harness.model import Ruler, Status
from reports.terminal import table
from tests.fakes.evidence import evidence, findings, healthy, info, lying, scenario, undecided, verdict


def test_the_hop_that_lied_is_marked() -> None:
    """One marker, on the failed claim's line."""
    lines = table(*lying()).splitlines()

    assert [line for line in lines if "> " in line[:14]] == [
        "TTFW       > agent /metrics, count       6          {9}           1 turn       FAIL"
    ]


def test_a_failed_claim_ends_with_what_to_hear_and_what_to_type() -> None:
    """Sentence, effect, recording, next command."""
    assert table(*lying(), width=120).split("\n\n")[1] == (
        "FAIL ttfw/exporter: the agent reports no TTFW for turns that call a tool (6 observations, 9 turns heard)\n"
        "  effect  rule p95 0.96 s, callers heard 1.46 s\n"
        "  hear    reports/runs/k3f9/audio/call-1.wav at 00:05.30\n"
        "  repeat  voxproof explain k3f9 ttfw/exporter\n"
    )


def test_a_healthy_run_has_no_card_below_the_table() -> None:
    """The table is the last thing printed."""
    assert table(*healthy()).splitlines()[-1].startswith("control")


def test_a_required_claim_that_is_undecided_gets_a_card_and_its_gap_a_line() -> None:
    """What was not read, and what it left open."""
    text = table(*undecided())

    assert "gap          prometheus at 01:10.20: HTTP 500 Internal Server Error" in text
    assert "UNDECIDED ttfw/samples: prometheus could not be read: HTTP 500" in text


def test_a_requirement_that_nothing_judged_is_said() -> None:
    """Never silently green."""
    ran = evidence(info=info(scenario=scenario(requires=("sfu/rooms",))))

    assert "UNDECIDED sfu/rooms: required by the scenario, and nothing judged it" in table(ran, findings([verdict("calls/rows")]))


@pytest.mark.parametrize("width", [80, 100, 132])
def test_lines_fit_the_terminal(width: int) -> None:
    """Whatever a claim has to say, up to the reason of a blind one, which is never cut."""
    long = verdict(
        "turns/rows", says="12 of 21, first missing call-2 turn 3", may_say="{21 rows in the order spoken}", hop="transcripts rows"
    )
    lines = table(evidence(), findings([long]), width=width).splitlines()

    assert max(map(len, lines)) <= width


def test_colours_are_only_paint() -> None:
    """Without them the same text is left."""
    plain = table(*lying())

    assert re.sub(r"\x1b\[[0-9;]*m", "", table(*lying(), color=True)) == plain
    assert "\x1b" not in plain


def test_a_bent_ruler_names_the_limit() -> None:
    """The first thing said after BENT."""
    bent = Ruler(is_straight=False, bent="pacing p99 41 ms, limit 10 ms", pacing_p99_ms=41.0, void_turns=5, turns=9)

    assert "ruler  BENT  pacing p99 41 ms, limit 10 ms" in table(evidence(), replace(healthy()[1], ruler=bent))


def test_limits_on_the_agent_have_their_own_rows() -> None:
    """Under the agent's line, above the monitoring's table."""
    limit = verdict("slo/ttfw_p95", Status.FAIL, hop="TTFW heard, p95", says="1.46 s", may_say="<= 1.20 s")
    text = table(evidence(), findings([limit, verdict("calls/rows")]))

    assert "slo: 0 of 1 kept" in text
    assert text.index("TTFW heard, p95") < text.index("MONITORING")


def test_a_run_that_ended_early_says_so() -> None:
    """Before anything else is concluded."""
    assert "ended early: Ctrl-C" in table(evidence(info=info(interrupted="Ctrl-C")), findings())
