"""Panel files: ours, whole and sound, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.errors import UsageError
from harness.rules.lint import lint
from harness.rules.panelfile import Kind, lines, panels
from harness.rules.queries import queries

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
OURS = MONITORING / "panels.yml"
PANEL = """schema: 1
panels:
  - name: p/turns
    page: P
    title: Turns
    unit: turns/min
    poll: 15s
    quantity: turns
    says: turns a minute
    query: sum(rate(turns_total[5m])) * 60
    computes: {a: growth, of: [turns_total], over: 5m, per: 1m}
"""


def names() -> list[str]:
    """Of our panels."""
    return [panel.name for panel in panels(OURS.read_text(), file="panels.yml")]


def test_every_element_of_the_pages_is_a_panel() -> None:
    """As the pages were specified, in their order."""
    assert names() == [
        *(f"overview/{name}" for name in ("active-calls", "ttfw-mean", "calls-24h", "mean-duration", "call-volume")),
        *(f"overview/{name}" for name in ("sip-errors", "service-status", "alerts")),
        *(f"voice-quality/{name}" for name in ("ttfw-p95", "ttfw-trend", "packet-loss", "jitter", "rtt", "latency-breakdown")),
        *(f"agent-performance/{name}" for name in ("mean-latency", "turns-per-minute", "tool-calls", "latency-stack", "top-tools")),
    ]


def test_active_calls_are_asked_for_most_often() -> None:
    """Every 5 s; charts once a minute."""
    polls = {panel.name: (panel.poll_s, panel.range_s is not None) for panel in panels(OURS.read_text(), file="panels.yml")}

    assert [name for name, (poll_s, _) in polls.items() if poll_s == 5] == ["overview/active-calls"]
    assert {poll_s for poll_s, is_chart in polls.values() if is_chart} == {60}


def test_nothing_is_found_in_our_own_queries() -> None:
    """Rules and panels that ship are clean of what the linter knows."""
    asked = [*queries(OURS), *queries(MONITORING / "rules" / "recording.yml")]

    assert len(asked) > 30
    assert [finding for query in asked for finding in lint(query)] == []


def test_every_record_that_a_panel_asks_for_is_written_by_a_rule() -> None:
    """A panel of a name that nobody records has never any data."""
    document = yaml.safe_load((MONITORING / "rules" / "recording.yml").read_text())
    records = {rule["record"] for group in document["groups"] for rule in group["rules"]}
    asked = [line.query or "" for _, line in lines(panels(OURS.read_text(), file="panels.yml"))]
    recorded = [query for query in asked if ":" in query or "livekit_" in query]

    assert [query for query in recorded if not any(record in query for record in records)] == [
        'sum by (reason) (increase(livekit_sip_calls_terminated{result!="success"}[24h]))'
    ]


def test_a_fast_stack_has_shorter_windows() -> None:
    """Of the query and of what it must compute alike; a minute of turns per minute stays a minute."""
    ((panel, line),) = lines(panels(PANEL, file="x.yml", factor=15))

    assert line.query == "sum(rate(turns_total[20s])) * 60"
    assert (line.computes.kind, line.computes.over_s, line.computes.per_s) == (Kind.GROWTH, 20.0, 60.0)
    assert panel.poll_s == 15.0


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("poll: 15s", "pol: 15s", "x.yml:7: unknown key 'pol'; did you mean 'poll'?"),
        ("poll: 15s", "poll: often", "'often' is no duration; wanted one such as 15s, 1h30m or 500ms"),
        ("query: sum(rate(turns_total[5m])) * 60", "query: sum(", "x.yml:10: not PromQL"),
        ("query: sum(rate(turns_total[5m])) * 60", "", "x.yml:3: 'p/turns': wanted query or read, and not both"),
        ("quantity: turns", "", "x.yml:3: 'p/turns': key 'quantity' is missing"),
        (", over: 5m", "", "x.yml:11: growth needs 'over'"),
        ("a: growth", "a: count", "x.yml:11: count is of rows, but the line is asked of Prometheus"),
        ("schema: 1", "schema: 2", "x.yml:1: layout 2; this voxproof reads 1"),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, wanted: str) -> None:
    """What is wrong, where, and what was wanted."""
    with pytest.raises(UsageError) as told:
        panels(PANEL.replace(old, new), file="x.yml")

    assert str(told.value).startswith(wanted)


def test_two_panels_of_one_name_are_refused() -> None:
    """A verdict names its panel."""
    with pytest.raises(UsageError, match=r"x.yml:12: a second panel 'p/turns'"):
        panels(PANEL + PANEL.partition("panels:\n")[2], file="x.yml")
