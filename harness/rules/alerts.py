"""Alerting rules as values, and the machine that Prometheus runs over them: inactive, pending, firing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import promql_parser as pp

from harness.errors import UsageError
from harness.model import value
from harness.rules.evaluate import LOOKBACK_S, Database, Evaluator, Labels
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
    query_offset_s: float = 0.0
    """Every query asks for the values of so long ago; ``ALERTS`` is stored so long ago, too."""


@value
class Phase:
    """The state of one label set of an alert at one evaluation."""

    at_s: float
    labels: Labels
    state: str
    """``pending`` or ``firing``; an inactive one is absent."""


def alert_rules(path: Path, *, interval_s: float = DEFAULT_INTERVAL_S, query_offset_s: float = 0.0) -> tuple[AlertRule, ...]:
    """The alerting rules of a rule file, in order.

    interval_s, query_offset_s: of groups that name none.

    Raises UsageError with file and line for text that is no rule file and for an expression that is no PromQL.
    """
    return tuple(_rule(entry, str(path), interval_s, query_offset_s) for entry in entries(path) if "alert" in entry.rule)


def served_rules(groups: Sequence[Mapping[str, Any]], *, query_offset_s: float = 0.0) -> tuple[AlertRule, ...]:
    """The alerting rules that a Prometheus runs, from the groups of its /api/v1/rules, which do not tell a group's own ``query_offset``."""
    found = []
    for group in groups:
        interval = {"name": group.get("name", ""), "interval": f"{round(float(group['interval']) * 1000)}ms"}
        for rule in group["rules"]:
            if rule.get("type") == "alerting":
                text = {
                    "alert": rule["name"],
                    "expr": rule["query"],
                    "for": f"{round(float(rule.get('duration', 0)) * 1000)}ms",
                    "keep_firing_for": f"{round(float(rule.get('keepFiringFor', 0)) * 1000)}ms",
                    "labels": rule.get("labels") or {},
                    "annotations": rule.get("annotations") or {},
                }
                found.append(
                    _rule(Entry(group=interval, rule=text, line=0), str(group.get("file", "")), DEFAULT_INTERVAL_S, query_offset_s)
                )
    return tuple(found)


def phases(rule: AlertRule, database: Database, start_s: float, end_s: float) -> Iterator[Phase]:
    """What the rule's state is at every evaluation from ``start_s`` to ``end_s``, both inclusive."""
    steps = round((end_s - start_s) / rule.interval_s)
    return replayed(rule, database, (start_s + step * rule.interval_s for step in range(steps + 1)))


def replayed(rule: AlertRule, database: Database, evaluations_s: Iterable[float], *, lookback_s: float = LOOKBACK_S) -> Iterator[Phase]:
    """The rule's state at each of ``evaluations_s``, ascending, over raw samples as they were stored."""
    evaluator = Evaluator(database, lookback_s=lookback_s)
    # A sum of milliseconds in floating point is not the nearest number to its decimals, as the stored instants are; windows are left-open.
    asked = ((at_s, evaluator.vector(rule.expression, round(at_s - rule.query_offset_s, 3))) for at_s in evaluations_s)
    return machine(rule, asked)


def machine(rule: AlertRule, results: Iterable[tuple[float, Iterable[Labels]]]) -> Iterator[Phase]:
    """Prometheus rules/alerting.go, AlertingRule.Eval, over the label sets that the expression yielded at each evaluation.

    An alert fires at the first evaluation that is at least ``for`` after the one at which it became active. ``keep_firing_for`` is counted
    from the first evaluation that found it false, and ends at the first one that is at least that long after it.
    """
    active: dict[Labels, float] = {}
    firing: set[Labels] = set()
    false_since: dict[Labels, float] = {}
    for at_s, found in results:
        true_now = {_identity(labels) for labels in found}
        for labels in active.keys() - true_now:
            kept = labels in firing and at_s - false_since.setdefault(labels, at_s) < rule.keep_firing_for_s
            if not kept:
                del active[labels]
                firing.discard(labels)
                false_since.pop(labels, None)
        for labels in true_now:
            active.setdefault(labels, at_s)
            false_since.pop(labels, None)
        for labels, since in active.items():
            # Milliseconds, Prometheus' own resolution of evaluation instants read back.
            if round((at_s - since) * 1000) >= round(rule.for_s * 1000):
                firing.add(labels)
            yield Phase(at_s=at_s, labels=labels, state="firing" if labels in firing else "pending")


@value
class Episode:
    """One alert of one label set, from its first true evaluation to the one that found it gone."""

    labels: Labels
    pending_at_s: float
    """The first evaluation that found it true; the instant of the rule, not of its query."""
    firing_at_s: float | None
    """None: it never fired."""
    resolved_at_s: float | None
    """The first evaluation at which it is neither pending nor firing. None: it lasted to the end."""


def episodes(found: Iterable[Phase], evaluations_s: Sequence[float]) -> tuple[Episode, ...]:
    """Phases put together by label set, in the order in which they began."""
    after = dict(zip(evaluations_s, (*evaluations_s[1:], None), strict=True))
    runs: dict[Labels, list[list[Phase]]] = {}
    for phase in found:
        of_labels = runs.setdefault(phase.labels, [])
        if of_labels and after[of_labels[-1][-1].at_s] == phase.at_s:
            of_labels[-1].append(phase)
        else:
            of_labels.append([phase])
    made = [
        Episode(
            labels=labels,
            pending_at_s=run[0].at_s,
            firing_at_s=next((phase.at_s for phase in run if phase.state == "firing"), None),
            resolved_at_s=after[run[-1].at_s],
        )
        for labels, of_labels in runs.items()
        for run in of_labels
    ]
    return tuple(sorted(made, key=lambda episode: episode.pending_at_s))


def _identity(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "__name__")


def _rule(entry: Entry, path: str, interval_s: float, query_offset_s: float) -> AlertRule:
    group, rule = entry.group, entry.rule
    expression = str(rule.get("expr", ""))
    try:
        pp.parse(expression)
    except ValueError as exc:
        raise UsageError(f"{path}:{entry.line}: alert {rule['alert']}: not PromQL: {exc}") from exc
    return AlertRule(
        name=str(rule["alert"]),
        group=str(group.get("name", "")),
        path=path,
        line=entry.line,
        expression=expression,
        for_s=to_ms(str(rule.get("for", "0"))) / 1000,
        keep_firing_for_s=to_ms(str(rule.get("keep_firing_for", "0"))) / 1000,
        interval_s=to_ms(str(group["interval"])) / 1000 if "interval" in group else interval_s,
        labels={str(key): str(text) for key, text in (rule.get("labels") or {}).items()},
        annotations={str(key): str(text) for key, text in (rule.get("annotations") or {}).items()},
        text=rule,
        query_offset_s=to_ms(str(group["query_offset"])) / 1000 if "query_offset" in group else query_offset_s,
    )
