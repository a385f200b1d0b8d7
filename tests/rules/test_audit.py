"""What is said of someone's alerts: never, fired, pended, silent, with the reason; against samples that stand in for a server's."""

from __future__ import annotations

import dataclasses

import promql_parser as pp
import pytest

from harness.rules.alerts import served_rules
from harness.rules.audit import Outlook, Prospect, prospect, selector_text, strays
from harness.rules.evaluate import Database, series
from harness.rules.tune import Stored
from tests.fakes.rules import alert_rule

HOUR_S = 3600.0
TICKS = [15.0 * tick for tick in range(241)]
DATABASE: Database = {
    "load": (series("load", [(at, 90.0 if 600 <= at < 1200 else 10.0) for at in TICKS], instance="a"),),
    "size": (series("size", [(at, 100.0) for at in TICKS], host="a"),),
    "up": (series("up", [(at, 1.0) for at in TICKS], job="node", instance="a"),),
    "brief": (series("brief", [*((at, 1.0) for at in TICKS if 600 <= at < 900), (900.0, None)], job="x"),),
}
RULE = alert_rule()


def told(expression: str, for_s: float = 0.0, **labels: str) -> Prospect:
    """What becomes of the alert in an hour in which the load was 90 for ten minutes."""
    server = Stored(database=DATABASE, start_s=0.0, end_s=HOUR_S, lookback_s=300.0)
    rule = dataclasses.replace(RULE, expression=expression, for_s=for_s, labels=labels)
    return prospect(rule, server, frozenset(DATABASE), step_s=15.0)


@pytest.mark.parametrize(
    ("expression", "for_s", "outlook"),
    [
        ("load > 80", 300.0, Outlook.FIRED),
        ("load > 80", 900.0, Outlook.PENDED),
        ("load > 200", 0.0, Outlook.SILENT),
        ('absent(up{job="gone"})', 0.0, Outlook.FIRED),
        ('up{job="gone"} == 0 or load > 80', 0.0, Outlook.FIRED),
        ('load > 80 unless up{job="gone"}', 0.0, Outlook.FIRED),
        ("max_over_time(load[5m:15s]) > 80", 700.0, Outlook.FIRED),
    ],
)
def test_what_may_fire_is_replayed(expression: str, for_s: float, outlook: Outlook) -> None:
    """An arm that has no series leaves the others; what is absent is what `absent` looks for."""
    assert told(expression, for_s).outlook is outlook


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("laod > 80", "no series laod; did you mean load?"),
        ('up{job="gone"} == 0', 'up has series, and none with job="gone"'),
        ('up{job="node", instance="b"} == 0', 'none with instance="b"'),
        ('up{job!~".*"} == 0', 'job!~".*" excludes every series'),
        ('up{job="a", job="b"} == 0', "job cannot be a and b at once"),
        ('up{job="a", job!~"a|b"} == 0', 'job="a" is excluded by job!~"a|b"'),
        ("up > 1", "is between 0 and 1"),
        ("load / size > 0.5", "none with the same labels; they differ in host, instance"),
    ],
)
def test_what_cannot_fire_says_why(expression: str, reason: str) -> None:
    """The reason names the part that excludes it."""
    found = told(expression)

    assert found.outlook is Outlook.NEVER
    assert reason in " ".join(found.reasons)


def test_a_label_that_changes_with_the_value_never_waits_out_its_for() -> None:
    """With ``for``; without, it fires anew each time, which is another matter."""
    assert told("load > 80", 60.0, level="{{ $value }}").outlook is Outlook.NEVER
    assert told("load > 80", 0.0, level="{{ $value }}").outlook is Outlook.FIRED


def test_a_signal_that_lives_shorter_than_for_never_fires() -> None:
    """Every series of it came and went within the window."""
    assert told("brief > 0", 600.0).reasons == ("`for` is 600 s, and no series of its signal lived longer than 300 s",)
    assert told("brief > 0", 240.0).outlook is Outlook.FIRED


def test_the_history_is_counted() -> None:
    """One episode of ten minutes, five of them firing."""
    found = told("load > 80", 300.0)

    assert (found.firings, found.fired_s, found.longest_true_s) == (1, 300.0, 600.0)


def test_silence_says_how_near_it_came() -> None:
    """The highest value, beside the threshold."""
    assert told("load > 100").remarks == ("nearest 90, threshold 100",)


def test_a_served_rule_is_read_and_held_against_the_file() -> None:
    """Same text and ``for``: nothing to say. Otherwise what the server runs."""
    entry = {"type": "alerting", "name": "A", "query": 'load{a="1",b="2"} > 80', "duration": 60, "health": "ok"}
    groups = [{"name": "g", "file": "f", "interval": 15, "rules": [entry]}]
    (rule,) = served_rules(groups)

    assert (rule.for_s, rule.interval_s) == (60.0, 15.0)
    assert list(strays(dataclasses.replace(rule, expression='load{b="2", a="1"} > 80'), groups)) == []
    assert list(strays(dataclasses.replace(rule, for_s=0.0), groups)) == ['this server runs it otherwise: load{a="1",b="2"} > 80 for 60 s']
    assert list(strays(dataclasses.replace(rule, name="B"), groups)) == ["this server does not run it: its group is not loaded"]


def test_a_selector_is_sent_as_it_was_written() -> None:
    """promql-parser's own printing loses what is escaped in a string."""
    tree = pp.parse('x{a="b\\"c\\\\d", e!~"f.*"} offset 5m')

    assert isinstance(tree, pp.VectorSelector)
    assert selector_text(tree) == 'x{a="b\\"c\\\\d", e!~"f.*"}'
