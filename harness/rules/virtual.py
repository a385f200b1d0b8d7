"""Bracketed promtool cases from any alerting rule: silent one evaluation before, firing at the predicted one, and the edges around it.

For each rule a driver is searched: one selector of the expression whose level, or whose presence, turns the expression from false to true. The
evaluator of `harness.rules.evaluate` predicts the instants; promtool, the real engine, must agree at every one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import promql_parser as pp

from harness.model import value
from harness.rules.alerts import AlertRule, phases
from harness.rules.evaluate import Database, NotAnalysed, Series, series, vector

STEP_S = 15.0
"""Spacing of the synthetic samples: the shipped scrape interval."""
MARGIN = 1e-3
"""Relative distance of "just below" and "just above" from the level at which the expression turns."""
_LEVELS = (0.0, 1.0, -1.0, 0.5, 2.0, 10.0, 100.0, 1e3, 1e6, 1e9, 1e12)
_REST = (1.0, 100.0, 0.0)
"""Levels tried for the selectors that are not the driver."""
_NEVER_LONGER_S = 6 * 3600.0

Level = float | None
"""A gauge's value, or a counter's increase per second. None: the series is absent."""


@value
class Input:
    """One series that a case feeds."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    is_counter: bool
    bound: str | None = None


@value
class Case:
    """One promtool test: input levels before and after a step, and at which instants how many alerts fire."""

    rule: str
    name: str
    """``step``, ``just below``, ``just above``, ``at the threshold``, ``spike``, ``absent``, ``stale``, ``reset``."""
    inputs: tuple[tuple[Input, tuple[float | str, ...]], ...]
    expected: tuple[tuple[float, int], ...]
    """(instant in seconds, number of firing alerts)."""
    says: str


@value
class Proof:
    """What can be shown of one rule in virtual time."""

    rule: AlertRule
    driver: str | None
    """The selector that decides. None: none was found, or the rule cannot be analysed."""
    threshold: float | None
    """The driver's level at which the expression turns. None: its presence decides, or it is always true."""
    fires_after_s: float | None
    """From the step of the input to the first firing evaluation, on the 15 s grid."""
    cases: tuple[Case, ...]
    not_shown: str | None = None
    """Why nothing could be shown."""


def prove(rule: AlertRule) -> Proof:
    """The cases that bracket one rule."""
    try:
        return _proof(rule)
    except NotAnalysed as exc:
        return Proof(rule=rule, driver=None, threshold=None, fires_after_s=None, cases=(), not_shown=f"it uses {exc}")


def promtool_files(proofs: Sequence[Proof]) -> dict[str, dict[str, Any]]:
    """Files for ``promtool test rules``, by name: for each rule a rule file that holds it alone, as it was written, and its cases.

    One rule a file, because promtool evaluates all rules of its files in every case: together they take ten times as long.
    """
    files: dict[str, dict[str, Any]] = {}
    for number, proof in enumerate(proofs):
        if proof.cases:
            rules = f"rules-{number}.yml"
            files[rules] = {"groups": [{"name": proof.rule.group, "rules": [dict(proof.rule.text)]}]}
            files[f"test-{number}.yml"] = {
                "rule_files": [rules],
                "evaluation_interval": f"{proof.rule.interval_s:g}s",
                "tests": [_promtool_case(proof.rule, case) for case in proof.cases],
            }
    return files


@value
class _Step:
    """Levels of all inputs before and after."""

    calm: Mapping[Input, Level]
    breach: Mapping[Input, Level]
    driver: Input | None
    threshold: float | None


def _proof(rule: AlertRule) -> Proof:
    tree = pp.parse(rule.expression)
    inputs, widest_s = _inputs(tree)
    step = _search(rule, inputs, widest_s)
    if step is None:
        return Proof(
            rule=rule, driver=None, threshold=None, fires_after_s=None, cases=(), not_shown="no single input was found that turns it"
        )
    calm_s = _grid(max(widest_s, 60.0) + 60.0)
    breach_s = _grid(min(rule.for_s + 2 * widest_s + 300.0, _NEVER_LONGER_S))
    cases = list(_cases(rule, step, calm_s, breach_s))
    fires_at = _first_firing(rule, _database(step.calm, step.breach, calm_s, breach_s), calm_s + breach_s)
    return Proof(
        rule=rule,
        driver=_text(step.driver) if step.driver else None,
        threshold=step.threshold,
        fires_after_s=None if fires_at is None else fires_at - calm_s if step.driver else fires_at,
        cases=tuple(cases),
        not_shown=None if fires_at is not None else "the step never made it fire",
    )


def _cases(rule: AlertRule, step: _Step, calm_s: float, breach_s: float) -> Iterator[Case]:
    end_s = calm_s + breach_s
    yield _case(rule, "step", step.calm, step.breach, calm_s, breach_s, "silent one evaluation before, firing at the predicted one")
    if step.driver is None:
        return
    yield _case(rule, "calm", step.calm, step.calm, calm_s, breach_s, "never fires")
    if rule.for_s > rule.interval_s:
        spike = _database(step.calm, step.breach, calm_s, _grid(rule.for_s - rule.interval_s), back_s=breach_s)
        yield _from_database(rule, "spike", spike, end_s, "a breach shorter than `for` never fires, unless the window keeps it alive")
    stale = _database(step.calm, step.breach, calm_s, breach_s, stale_at_s=calm_s + breach_s - 120.0)
    yield _from_database(rule, "stale", stale, end_s, "the series end with a staleness marker")
    absent = dict.fromkeys(step.breach)
    yield _case(rule, "absent", absent, absent, calm_s, breach_s, "no input series at all")
    if step.threshold is None:
        return
    for name, level in _around(step):
        held = {**step.breach, step.driver: level}
        yield _case(rule, name, step.calm, held, calm_s, breach_s, f"{_text(step.driver)} held {name}: {level!r}")
    if step.driver.is_counter:
        reset = _database(step.calm, step.breach, calm_s, breach_s, reset_at_s=calm_s + _grid(breach_s / 2))
        yield _from_database(rule, "reset", reset, end_s, "the counter restarts in the middle of the breach")


def _around(step: _Step) -> Iterator[tuple[str, float]]:
    """Levels just on either side of the threshold, and on it where it is exactly representable."""
    assert step.threshold is not None
    assert step.driver is not None
    away = max(abs(step.threshold) * MARGIN, 1e-6)
    yield "just below", step.threshold - away
    yield "just above", step.threshold + away
    if not step.driver.is_counter and step.threshold == round(step.threshold, 6):
        yield "at the threshold", step.threshold


def _inputs(tree: pp.Expr) -> tuple[tuple[Input, ...], float]:
    """The series that the expression needs, and its widest window in seconds."""
    found: dict[Input, None] = {}
    widest = 0.0
    for node, counts in _selectors(tree):
        selector = node.vector_selector if isinstance(node, pp.MatrixSelector) else node
        if isinstance(node, pp.MatrixSelector):
            widest = max(widest, node.range.total_seconds())
        if selector.name is None:
            msg = "a selector without a metric name"
            raise NotAnalysed(msg)
        labels = {matcher.name: _satisfying(str(matcher.op), matcher.value) for matcher in selector.matchers.matchers}
        labels = {name: text for name, text in labels.items() if text}
        bounds = ("0.1", "1", "10", "+Inf") if selector.name.endswith("_bucket") else (None,)
        for bound in bounds:
            with_bound = labels if bound is None else {**labels, "le": bound}
            found[Input(metric=selector.name, labels=tuple(sorted(with_bound.items())), is_counter=counts, bound=bound)] = None
    return tuple(found), widest


def _selectors(tree: pp.Expr) -> list[tuple[Any, bool]]:
    """Selectors of the tree with whether a counter function reads them."""
    found: list[tuple[Any, bool]] = []
    inside: set[int] = set()

    def visit(node: pp.Expr) -> bool:
        if isinstance(node, pp.MatrixSelector):
            found.append((node, id(node) in inside or bool(counting)))
            return False
        if isinstance(node, pp.VectorSelector):
            found.append((node, False))
        if isinstance(node, pp.SubqueryExpr):
            msg = "a subquery"
            raise NotAnalysed(msg)
        return True

    def descend(node: pp.Expr) -> None:
        if isinstance(node, pp.Call):
            if node.func.name in ("rate", "increase", "irate"):
                counting.append(1)
                for argument in node.args:
                    pp.walk(argument, visit)
                counting.pop()
                return
            for argument in node.args:
                descend(argument)
        elif isinstance(node, pp.BinaryExpr):
            descend(node.lhs)
            descend(node.rhs)
        elif isinstance(node, pp.ParenExpr | pp.UnaryExpr | pp.AggregateExpr):
            descend(node.expr)
        else:
            pp.walk(node, visit)

    counting: list[int] = []
    descend(tree)
    return found


def _satisfying(operation: str, wanted: str) -> str:
    """A label value that the matcher lets through."""
    if operation.endswith("NotEqual") or operation in ("!=", "!~") or operation.endswith("NotRe"):
        return "" if wanted else "some"
    if operation.endswith("Equal") or operation == "=":
        return wanted
    first = wanted.split("|")[0].strip("()^$")
    return first.replace(".*", "x").replace(".+", "x").replace("\\", "")


def _search(rule: AlertRule, inputs: tuple[Input, ...], widest_s: float) -> _Step | None:
    """A calm state and a breach that differ in one driver."""
    if not inputs:
        return _Step(calm={}, breach={}, driver=None, threshold=None) if _holds(rule, {}, widest_s) else None
    found = list(itertools.islice(_candidates(rule, inputs, widest_s), 8))
    return min(found, key=lambda step: (step.threshold is None, step.threshold == 0), default=None)


def _candidates(rule: AlertRule, inputs: tuple[Input, ...], widest_s: float) -> Iterator[_Step]:
    """Every way found to turn the expression; a driver with a level of its own tells more than one that is switched on and off."""
    constants = _constants(pp.parse(rule.expression))
    levels = sorted({*_LEVELS, *constants, *(c * f for c in constants for f in (0.1, 0.5, 0.99, 1.01, 2.0, 10.0))})
    for rest in _rests(inputs):
        for driver in inputs:
            held = {**rest}
            truths: list[tuple[Level, bool]] = [(None, _holds(rule, {**held, driver: None}, widest_s))]
            truths += [(level, _holds(rule, {**held, driver: level}, widest_s)) for level in levels if level >= 0 or not driver.is_counter]
            false = [level for level, truth in truths if not truth and level is not None]
            true = [level for level, truth in truths if truth and level is not None]
            if true and false:
                yield _bracketed(rule, held, driver, false, true, widest_s)
            elif truths[0][1] and false:
                yield _Step(calm={**held, driver: false[0]}, breach={**held, driver: None}, driver=driver, threshold=None)


def _bracketed(
    rule: AlertRule, held: Mapping[Input, Level], driver: Input, false: Sequence[float], true: Sequence[float], widest_s: float
) -> _Step:
    """Bisects between the nearest false and true levels. The threshold is the limit, rounded to nine digits."""
    low, high = min(itertools.product(false, true), key=lambda pair: abs(pair[0] - pair[1]))
    far_false, far_true = low, high
    for _ in range(60):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _holds(rule, {**held, driver: middle}, widest_s):
            high = middle
        else:
            low = middle
    threshold = round(float(f"{(low + high) / 2:.9g}"), 12)
    breach = high + (high - low if far_true == high else 0) + math.copysign(max(abs(threshold) * 0.1, 0.1), far_true - far_false)
    if not _holds(rule, {**held, driver: breach}, widest_s):
        breach = far_true
    calm = far_false
    return _Step(calm={**held, driver: calm}, breach={**held, driver: breach}, driver=driver, threshold=threshold)


def _rests(inputs: Sequence[Input]) -> Iterator[Mapping[Input, Level]]:
    """Levels for all inputs; the driver's is replaced by the search."""
    metrics = sorted({entry.metric for entry in inputs})
    if len(metrics) > 4:
        yield from (dict.fromkeys(inputs, level) for level in _REST)
        return
    for levels in itertools.product(_REST, repeat=len(metrics)):
        by_metric = dict(zip(metrics, levels, strict=True))
        yield {entry: by_metric[entry.metric] for entry in inputs}


def _constants(tree: pp.Expr) -> set[float]:
    found: set[float] = set()

    def visit(node: pp.Expr) -> bool:
        if isinstance(node, pp.NumberLiteral):
            found.add(float(node.val))
        return True

    pp.walk(tree, visit)
    product = [a * b for a in found for b in found]
    return {number for number in (*found, *product) if math.isfinite(number)}


def _holds(rule: AlertRule, levels: Mapping[Input, Level], widest_s: float) -> bool:
    """Whether the expression is true in the steady state of ``levels``."""
    end_s = _grid(max(widest_s, 60.0) + 60.0)
    return bool(vector(rule.expression, _database(levels, levels, end_s, 0.0), end_s))


def _grid(seconds: float) -> float:
    return math.ceil(seconds / STEP_S) * STEP_S


def _database(
    calm: Mapping[Input, Level],
    breach: Mapping[Input, Level],
    calm_s: float,
    breach_s: float,
    *,
    back_s: float = 0.0,
    stale_at_s: float | None = None,
    reset_at_s: float | None = None,
) -> Database:
    """Samples every 15 s: calm until ``calm_s``, the breach, then calm again for ``back_s``."""
    by_metric: dict[str, list[Series]] = {}
    total = round((calm_s + breach_s + back_s) / STEP_S)
    for entry in breach:
        count = 0.0
        samples: list[tuple[float, float | None]] = []
        was_there = False
        for tick in range(total + 1):
            at_s = tick * STEP_S
            level = breach[entry] if calm_s < at_s <= calm_s + breach_s else calm[entry]
            if level is None or (stale_at_s is not None and at_s >= stale_at_s):
                if was_there:
                    samples.append((at_s, None))
                was_there = False
                continue
            was_there = True
            if entry.is_counter:
                count = 0.0 if reset_at_s == at_s else count + level * STEP_S * _share(entry.bound)
            samples.append((at_s, count if entry.is_counter else level))
        by_metric.setdefault(entry.metric, []).append(series(entry.metric, samples, **dict(entry.labels)))
    return by_metric


def _share(bound: str | None) -> float:
    """Observations of a synthetic histogram fall into the upper buckets, so that a quantile has somewhere to be."""
    return {None: 1.0, "0.1": 0.0, "1": 0.5, "10": 1.0, "+Inf": 1.0}[bound]


def _first_firing(rule: AlertRule, database: Database, end_s: float) -> float | None:
    return next((phase.at_s for phase in phases(rule, database, 0.0, end_s) if phase.state == "firing"), None)


def _case(
    rule: AlertRule, name: str, calm: Mapping[Input, Level], breach: Mapping[Input, Level], calm_s: float, breach_s: float, says: str
) -> Case:
    return _from_database(rule, name, _database(calm, breach, calm_s, breach_s), calm_s + breach_s, says)


def _from_database(rule: AlertRule, name: str, database: Database, end_s: float, says: str) -> Case:
    firing: dict[float, int] = {}
    for phase in phases(rule, database, 0.0, end_s):
        firing[phase.at_s] = firing.get(phase.at_s, 0) + (phase.state == "firing")
    instants = [step * rule.interval_s for step in range(round(end_s / rule.interval_s) + 1)]
    turns = {0.0, instants[-1]}
    for before, after in itertools.pairwise(instants):
        if firing.get(before, 0) != firing.get(after, 0):
            turns |= {before, after}
    inputs = tuple(
        (Input(metric=found_name, labels=tuple(p for p in found.labels if p[0] != "__name__"), is_counter=False), _written(found, end_s))
        for found_name, entries in database.items()
        for found in entries
        if found.at_s
    )
    expected = tuple((at_s, firing.get(at_s, 0)) for at_s in sorted(turns))
    return Case(rule=rule.name, name=name, inputs=inputs, expected=expected, says=says)


def _written(found: Series, end_s: float) -> tuple[float | str, ...]:
    by_instant = dict(zip(found.at_s, found.values, strict=True))
    ticks = [by_instant.get(tick * STEP_S, "_") for tick in range(round(end_s / STEP_S) + 1)]
    return tuple("stale" if entry is None else entry for entry in ticks)


def _text(entry: Input) -> str:
    labels = ", ".join(f'{name}="{text}"' for name, text in entry.labels)
    return f"{entry.metric}{{{labels}}}" if labels else entry.metric


def _values(written: Sequence[float | str]) -> str:
    """promtool's notation: runs of one value are folded."""
    parts = []
    for entry, run in itertools.groupby(written):
        length = len(list(run))
        text = entry if isinstance(entry, str) else repr(float(entry))
        parts.append(text if length == 1 else f"{text}x{length - 1}" if not isinstance(entry, str) else " ".join([text] * length))
    return " ".join(parts)


def _promtool_case(rule: AlertRule, case: Case) -> dict[str, Any]:
    query = f'count(ALERTS{{alertname="{rule.name}", alertstate="firing"}}) or vector(0)'
    return {
        "name": f"{rule.name}: {case.name}",
        "interval": f"{STEP_S:g}s",
        "input_series": [{"series": _text(entry), "values": _values(written)} for entry, written in case.inputs],
        "promql_expr_test": [
            {"expr": query, "eval_time": f"{round(at_s)}s", "exp_samples": [{"labels": "{}", "value": count}]}
            for at_s, count in case.expected
        ],
    }
