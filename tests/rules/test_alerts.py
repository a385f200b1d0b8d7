"""Alerting rules and their state machine: pending, firing, and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.rules.alerts import AlertRule, alert_rules, episodes, phases
from harness.rules.evaluate import series

FILE = """groups:
  - name: hosts
    interval: 15s
    rules:
      - record: x
        expr: y
      - alert: High
        expr: load > 80
        for: 1m
        labels: {severity: warning}
"""


@pytest.fixture
def rule(tmp_path: Path) -> AlertRule:
    """The only alert of a small file."""
    path = tmp_path / "rules.yml"
    path.write_text(FILE)
    (found,) = alert_rules(path)
    return found


def states(rule: AlertRule, values: list[float | None]) -> list[tuple[float, str]]:
    """The rule's states over samples every 15 s."""
    database = {"load": (series("load", [(15.0 * tick, number) for tick, number in enumerate(values)]),)}
    return [(phase.at_s, phase.state) for phase in phases(rule, database, 0.0, 15.0 * (len(values) - 1))]


def test_a_rule_file_is_read_with_its_lines(rule: AlertRule) -> None:
    """A rule knows where it stands and what it waits for."""
    assert (rule.name, rule.group, rule.line, rule.for_s, rule.interval_s) == ("High", "hosts", 7, 60.0, 15.0)


def test_it_fires_at_the_first_evaluation_after_for(rule: AlertRule) -> None:
    """Pending from the first true evaluation, firing one minute later."""
    assert states(rule, [0.0, 90.0, 90.0, 90.0, 90.0, 90.0]) == [
        (15.0, "pending"),
        (30.0, "pending"),
        (45.0, "pending"),
        (60.0, "pending"),
        (75.0, "firing"),
    ]


def test_one_calm_evaluation_starts_the_wait_again(rule: AlertRule) -> None:
    """Flapping faster than ``for`` never fires."""
    assert {state for _, state in states(rule, [90.0, 90.0, 90.0, 0.0, 90.0, 90.0, 90.0, 0.0, 90.0])} == {"pending"}


def test_a_stale_series_resolves(rule: AlertRule) -> None:
    """A series that ends with a marker is no longer true."""
    assert states(rule, [90.0] * 5 + [None])[-1] == (60.0, "firing")


def test_keep_firing_for_counts_from_the_first_false_evaluation(rule: AlertRule) -> None:
    """Prometheus notes when it was first found false, so 30 s of keeping are three evaluations of 15 s after the last true one."""
    kept = dataclasses.replace(rule, for_s=0.0, keep_firing_for_s=30.0)

    assert states(kept, [90.0, 90.0, 0.0, 0.0, 0.0, 0.0])[-1] == (45.0, "firing")


def test_an_episode_ends_at_the_evaluation_that_found_it_gone(rule: AlertRule) -> None:
    """Two of one label set, the second one never firing."""
    values = [0.0, *[90.0] * 6, 0.0, 90.0, 0.0]
    instants = [15.0 * tick for tick in range(len(values))]
    database = {"load": (series("load", list(zip(instants, values, strict=True))),)}

    found = episodes(phases(rule, database, 0.0, instants[-1]), instants)

    assert [(one.pending_at_s, one.firing_at_s, one.resolved_at_s) for one in found] == [(15.0, 75.0, 105.0), (120.0, None, 135.0)]


def test_a_rule_of_kubernetes_is_read_as_it_is(tmp_path: Path) -> None:
    """PrometheusRule has its groups below spec."""
    path = tmp_path / "rule.yaml"
    path.write_text("kind: PrometheusRule\nspec:\n" + "".join(f"  {line}\n" for line in FILE.splitlines()))

    assert [(found.name, found.line) for found in alert_rules(path)] == [("High", 9)]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "empty"),
        ("a: 1", "no list 'groups'"),
        (FILE.replace("load > 80", "load >"), ":7: alert High: not PromQL"),
        ("a: [", "not YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(text: str, wrong: str, tmp_path: Path) -> None:
    """File, line and reason."""
    path = tmp_path / "rules.yml"
    path.write_text(text)

    with pytest.raises(UsageError, match=f"rules.yml.*{wrong}"):
        alert_rules(path)
