"""Synthetic series for a rule: the inputs its selectors ask for, and samples of them at chosen levels."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping

import promql_parser as pp

from harness.model import value
from harness.rules.evaluate import Database, NotAnalysed, Series, series
from harness.rules.tree import seconds, selectors, walked

STEP_S = 15.0
"""Spacing of the synthetic samples: the shipped scrape interval."""
_RATES = frozenset({"rate", "increase", "irate"})


@value
class Toggle:
    """A level that is another one at every sample: what ``changes()`` and ``resets()`` count."""

    low: float
    high: float


@value
class Ramp:
    """A level that goes up or down evenly: what ``deriv()``, ``delta()`` and ``predict_linear()`` see."""

    start: float
    per_s: float


Level = float | Toggle | Ramp | None
"""A gauge's value, a counter's increase per second, or the one value that a histogram observes each second. None: the series is absent."""


@value
class Input:
    """One series that a case feeds; a histogram with all its buckets."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    is_counter: bool
    bounds: tuple[str, ...] = ()
    """Upper bounds of a histogram's buckets. Empty: no histogram."""

    def __str__(self) -> str:
        labels = ", ".join(f'{name}="{text}"' for name, text in self.labels)
        return f"{self.metric}{{{labels}}}" if labels else self.metric


def inputs(tree: pp.Expr, *, alike: bool = False) -> tuple[Input, ...]:
    """The series that the expression needs, in reading order.

    alike: one that has no matcher for a label takes the value that another one has, so that the sides of an operator match.
    """
    found: dict[Input, None] = {}
    known = [(_named(_vector(node)), _mentioned(_vector(node)), function) for node, function in selectors(tree)]
    common = {name: text for (_, labels), _, _ in reversed(known) for name, text in labels.items() if name != "le"} if alike else {}
    for (metric, own), mentioned, function in known:
        labels = {**{name: text for name, text in common.items() if name not in mentioned}, **own}
        le = labels.pop("le", None)
        pairs = tuple(sorted(labels.items()))
        if metric.endswith("_bucket"):
            bounds = _bounds(tree) if le is None else tuple(dict.fromkeys((le, "+Inf")))
            found[Input(metric=metric, labels=pairs, is_counter=True, bounds=bounds)] = None
        else:
            found[Input(metric=metric, labels=pairs, is_counter=function in _RATES)] = None
    return tuple(found)


@functools.lru_cache(maxsize=256)
def widest_s(tree: pp.Expr) -> float:
    """The longest that the expression looks back, subqueries included."""
    looks = [0.0]
    for node, _ in selectors(tree):
        selector = node.vector_selector if isinstance(node, pp.MatrixSelector) else node
        looks.append((seconds(node.range) if isinstance(node, pp.MatrixSelector) else 0.0) + max(0.0, seconds(selector.offset)))
    nested = [seconds(node.range) + seconds(node.offset) for node in walked(tree) if isinstance(node, pp.SubqueryExpr)]
    return max(looks) + sum(nested)


def constants(tree: pp.Expr) -> set[float]:
    """Numbers in the expression, and their products."""
    found = {float(node.val) for node in walked(tree) if isinstance(node, pp.NumberLiteral)}
    product = [a * b for a in found for b in found]
    return {number for number in (*found, *product) if math.isfinite(number)}


def grid(duration_s: float) -> float:
    """The first multiple of the spacing that is no less."""
    return math.ceil(duration_s / STEP_S) * STEP_S


@value
class Timeline:
    """How long each part of a case lasts, from 0: calm, breach, calm again."""

    calm_s: float
    breach_s: float = 0.0
    back_s: float = 0.0
    stale_at_s: float | None = None
    """From here on every series is gone, with a marker."""
    reset_at_s: float | None = None
    """Every counter begins again at 0."""

    @property
    def end_s(self) -> float:
        return self.calm_s + self.breach_s + self.back_s


def database(calm: Mapping[Input, Level], breach: Mapping[Input, Level], timeline: Timeline, *, spacing_s: float = STEP_S) -> Database:
    """Samples of all inputs."""
    by_metric: dict[str, list[Series]] = {}
    for entry in breach:
        for bound in entry.bounds or (None,):
            labels = dict(entry.labels) if bound is None else {**dict(entry.labels), "le": bound}
            samples = _samples(entry, bound, calm[entry], breach[entry], timeline, spacing_s)
            by_metric.setdefault(entry.metric, []).append(series(entry.metric, samples, **labels))
    return by_metric


def _samples(
    entry: Input, bound: str | None, calm: Level, breach: Level, timeline: Timeline, spacing_s: float
) -> list[tuple[float, float | None]]:
    samples: list[tuple[float, float | None]] = []
    count, was_there = 0.0, False
    for tick in range(round(timeline.end_s / spacing_s) + 1):
        at_s = tick * spacing_s
        level = breach if timeline.calm_s < at_s <= timeline.calm_s + timeline.breach_s else calm
        if isinstance(level, Toggle):
            level = (level.low, level.high)[tick % 2]
        if isinstance(level, Ramp):
            level = level.start + level.per_s * at_s
        if level is None or (timeline.stale_at_s is not None and at_s >= timeline.stale_at_s):
            if was_there:
                samples.append((at_s, None))
            was_there = False
            continue
        was_there = True
        each_s = level if bound is None else float(level <= float(bound))
        count = 0.0 if timeline.reset_at_s == at_s else count + each_s * spacing_s
        samples.append((at_s, count if entry.is_counter else level))
    return samples


def _vector(node: pp.VectorSelector | pp.MatrixSelector) -> pp.VectorSelector:
    return node.vector_selector if isinstance(node, pp.MatrixSelector) else node


def _mentioned(selector: pp.VectorSelector) -> set[str]:
    return {matcher.name for matcher in selector.matchers.matchers}


def _named(selector: pp.VectorSelector) -> tuple[str, dict[str, str]]:
    """Metric and labels that the selector lets through."""
    labels = {matcher.name: _satisfying(str(matcher.op), matcher.value) for matcher in selector.matchers.matchers}
    metric = selector.name or labels.pop("__name__", "")
    if not metric:
        msg = "a selector without a metric name"
        raise NotAnalysed(msg)
    return metric, {name: text for name, text in labels.items() if text and name != "__name__"}


def _satisfying(operation: str, wanted: str) -> str:
    """A label value that the matcher lets through."""
    if operation.endswith(("NotEqual", "NotRe")) or operation in ("!=", "!~"):
        lets_empty = wanted != "" if operation in ("!=", "MatchOp.NotEqual") else re.fullmatch(wanted, "") is None
        return "" if lets_empty else "some"
    if operation.endswith("Equal") or operation == "=":
        return wanted
    for candidate in (wanted.split("|")[0].strip("()^$"), *re.split(r"[|()]", wanted), "some"):
        text = candidate.replace(".*", "x").replace(".+", "x").replace("\\", "")
        if re.fullmatch(wanted, text) and text:
            return text
    return ""


def _bounds(tree: pp.Expr) -> tuple[str, ...]:
    """Bucket bounds around every number that the expression may compare with."""
    known = [float(node.val) for node in walked(tree) if isinstance(node, pp.NumberLiteral)]
    around = {0.1, 1.0, 10.0, *(number * factor for number in known if 0 < number < 1e6 for factor in (0.5, 1.0, 2.0))}
    return (*(f"{number:.9g}" for number in sorted(around)), "+Inf")
