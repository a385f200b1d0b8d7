"""Alerting rules as values, and the machine that Prometheus runs over them: inactive, pending, firing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser as pp

from harness.errors import UsageError
from harness.model import value
from harness.rules.evaluate import Database, Labels, vector
from harness.rules.rulefile import Entry, entries
from harness.rules.scale import to_ms

DEFAULT_INTERVAL_S = 15.0
"""Evaluation interval of a group that names none: our prometheus.yml's."""


@value
class AlertRule:
    """One alerting rule of a rule file."""

    name: str
    group: str
    path: str
    line: int
    expression: str
    for_s: float
    keep_firing_for_s: float
    interval_s: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    text: Mapping[str, Any]
    """The rule as its file has it."""


@value
class Phase:
    """The state of one label set of an alert at one evaluation."""

    at_s: float
    labels: Labels
    state: str
    """``pending`` or ``firing``; an inactive one is absent."""


def alert_rules(path: Path) -> tuple[AlertRule, ...]:
    """The alerting rules of a rule file, in order.

    Raises UsageError with file and line for text that is no rule file and for an expression that is no PromQL.
    """
    return tuple(_rule(entry, path) for entry in entries(path) if "alert" in entry.rule)


def phases(rule: AlertRule, database: Database, start_s: float, end_s: float) -> Iterator[Phase]:
    """What the rule's state is at every evaluation from ``start_s`` to ``end_s``, both inclusive.

    An alert fires at the first evaluation that is at least ``for`` after the one at which it became active (Prometheus rules/alerting.go).
    """
    tree = pp.parse(rule.expression)
    active: dict[Labels, float] = {}
    firing: dict[Labels, float] = {}
    steps = round((end_s - start_s) / rule.interval_s)
    for step in range(steps + 1):
        at_s = start_s + step * rule.interval_s
        true_now = {_identity(labels) for labels in vector(tree, database, at_s)}
        for labels in list(active):
            if labels in true_now:
                continue
            if labels in firing and at_s - firing[labels] < rule.keep_firing_for_s:
                continue
            del active[labels]
            firing.pop(labels, None)
        for labels in true_now:
            active.setdefault(labels, at_s)
        for labels, since in active.items():
            if labels in firing or at_s - since >= rule.for_s:
                if labels in true_now:
                    firing[labels] = at_s
                yield Phase(at_s=at_s, labels=labels, state="firing")
            else:
                yield Phase(at_s=at_s, labels=labels, state="pending")


def _identity(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "__name__")


def _rule(entry: Entry, path: Path) -> AlertRule:
    group, rule = entry.group, entry.rule
    expression = str(rule.get("expr", ""))
    try:
        pp.parse(expression)
    except ValueError as exc:
        raise UsageError(f"{path}:{entry.line}: alert {rule['alert']}: not PromQL: {exc}") from exc
    return AlertRule(
        name=str(rule["alert"]),
        group=str(group.get("name", "")),
        path=str(path),
        line=entry.line,
        expression=expression,
        for_s=to_ms(str(rule.get("for", "0"))) / 1000,
        keep_firing_for_s=to_ms(str(rule.get("keep_firing_for", "0"))) / 1000,
        interval_s=to_ms(str(group["interval"])) / 1000 if "interval" in group else DEFAULT_INTERVAL_S,
        labels={str(key): str(text) for key, text in (rule.get("labels") or {}).items()},
        annotations={str(key): str(text) for key, text in (rule.get("annotations") or {}).items()},
        text=rule,
    )
