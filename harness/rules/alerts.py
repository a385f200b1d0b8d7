"""Alerting rules as values, and the machine that Prometheus runs over them: inactive, pending, firing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser as pp
import yaml

from harness.errors import UsageError
from harness.model import value
from harness.rules.evaluate import Database, Labels, vector
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
    try:
        document = yaml.compose(path.read_text())
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror or exc}") from exc
    except yaml.YAMLError as exc:
        raise UsageError(f"{path}: not YAML: {exc}") from exc
    if document is None:
        raise UsageError(f"{path}: empty; wanted a rule file with groups")
    groups = _entry(document, "groups")
    if groups is None or not isinstance(groups, yaml.SequenceNode):
        raise UsageError(f"{path}:1: no list 'groups'; is it a rule file?")
    return tuple(rule for group in groups.value for rule in _rules_of(group, path))


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


def _rules_of(group: yaml.Node, path: Path) -> Iterator[AlertRule]:
    fields = _plain(group)
    interval_s = to_ms(str(fields["interval"])) / 1000 if "interval" in fields else DEFAULT_INTERVAL_S
    rules = _entry(group, "rules")
    for node in rules.value if isinstance(rules, yaml.SequenceNode) else ():
        rule = _plain(node)
        if "alert" not in rule:
            continue
        line = node.start_mark.line + 1
        expression = str(rule.get("expr", ""))
        try:
            pp.parse(expression)
        except ValueError as exc:
            raise UsageError(f"{path}:{line}: alert {rule['alert']}: not PromQL: {exc}") from exc
        yield AlertRule(
            name=str(rule["alert"]),
            group=str(fields.get("name", "")),
            path=str(path),
            line=line,
            expression=expression,
            for_s=to_ms(str(rule.get("for", "0"))) / 1000,
            keep_firing_for_s=to_ms(str(rule.get("keep_firing_for", "0"))) / 1000,
            interval_s=interval_s,
            labels={str(key): str(text) for key, text in (rule.get("labels") or {}).items()},
            annotations={str(key): str(text) for key, text in (rule.get("annotations") or {}).items()},
            text=rule,
        )


def _entry(node: yaml.Node, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((found for name, found in node.value if name.value == key), None)


def _plain(node: yaml.Node) -> dict[str, Any]:
    found = yaml.safe_load(yaml.serialize(node))
    return found if isinstance(found, dict) else {}
