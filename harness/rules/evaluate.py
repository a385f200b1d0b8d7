"""A PromQL evaluator over recorded samples: what a rule, an alert or a panel must compute, by the semantics of Prometheus 3.

Ranges and the lookback are left-open. What it does not know it refuses by name (`NotAnalysed`), so that nothing is judged by a guess.
"""

from __future__ import annotations

import bisect
import datetime as dt
import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import promql_parser as pp

from harness.measure import counters, histogram
from harness.model import value

LOOKBACK_S = 300.0
"""Prometheus' default of --query.lookback-delta."""

Labels = tuple[tuple[str, str], ...]
"""Sorted pairs; the metric name is the pair ``__name__``."""


class NotAnalysed(Exception):
    """The expression uses something that this evaluator does not compute; the message names it."""


@value
class Series:
    """One series as stored: instants in seconds, ascending; a value of None is a staleness marker."""

    labels: Labels
    at_s: Sequence[float]
    values: Sequence[float | None]


Database = Mapping[str, Sequence[Series]]
"""Series by metric name."""
Vector = dict[Labels, float]
Result = Vector | float | str


def series(name: str, samples: Sequence[tuple[float, float | None]], **labels: str) -> Series:
    """A series from its name, its (seconds, value) samples and its labels."""
    pairs = tuple(sorted({**labels, "__name__": name}.items()))
    return Series(labels=pairs, at_s=tuple(at for at, _ in samples), values=tuple(number for _, number in samples))


def evaluate(expression: str | pp.Expr, database: Database, at_s: float, *, lookback_s: float = LOOKBACK_S) -> Result:
    """The value of ``expression`` at ``at_s``: a vector by label set, or a scalar.

    Raises NotAnalysed, naming what it does not know.
    """
    node = pp.parse(expression) if isinstance(expression, str) else expression
    return _Evaluation(database, at_s, lookback_s).of(node)


def vector(expression: str | pp.Expr, database: Database, at_s: float, *, lookback_s: float = LOOKBACK_S) -> Vector:
    """As `evaluate`, for expressions that must yield an instant vector."""
    found = evaluate(expression, database, at_s, lookback_s=lookback_s)
    if not isinstance(found, dict):
        msg = "a scalar where an instant vector was wanted"
        raise NotAnalysed(msg)
    return found


_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: _divide(a, b),
    "%": lambda a, b: math.fmod(a, b) if b else math.nan,
    "^": operator.pow,
}
_COMPARISON: Mapping[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
_OVER_TIME: Mapping[str, Callable[[Sequence[float]], float]] = {
    "avg_over_time": lambda found: math.fsum(found) / len(found),
    "sum_over_time": math.fsum,
    "min_over_time": min,
    "max_over_time": max,
    "count_over_time": lambda found: float(len(found)),
    "last_over_time": lambda found: found[-1],
    "present_over_time": lambda found: 1.0,
    "changes": lambda found: float(sum(a != b for a, b in itertools.pairwise(found))),
    "resets": lambda found: float(sum(b < a for a, b in itertools.pairwise(found))),
}
_AGGREGATE: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "avg": lambda found: math.fsum(found) / len(found),
    "min": min,
    "max": max,
    "count": lambda found: float(len(found)),
    "group": lambda found: 1.0,
}
_ELEMENTWISE: Mapping[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "exp": math.exp,
    "sqrt": lambda number: math.sqrt(number) if number >= 0 else math.nan,
}


class _Evaluation:
    """One expression at one instant."""

    def __init__(self, database: Database, at_s: float, lookback_s: float) -> None:
        self.database, self.at_s, self.lookback_s = database, at_s, lookback_s

    def of(self, node: pp.Expr) -> Result:
        if isinstance(node, pp.NumberLiteral):
            return float(node.val)
        if isinstance(node, pp.StringLiteral):
            return str(node.val)
        if isinstance(node, pp.ParenExpr):
            return self.of(node.expr)
        if isinstance(node, pp.UnaryExpr):
            return _map(self.of(node.expr), operator.neg)
        if isinstance(node, pp.VectorSelector):
            return self._instant(node)
        if isinstance(node, pp.AggregateExpr):
            return self._aggregate(node)
        if isinstance(node, pp.BinaryExpr):
            return self._binary(node)
        if isinstance(node, pp.Call):
            return self._call(node)
        msg = f"{type(node).__name__} outside a function"
        raise NotAnalysed(msg)

    def _select(self, node: pp.VectorSelector) -> list[Series]:
        if node.at is not None:
            msg = "the @ modifier"
            raise NotAnalysed(msg)
        matchers = [(matcher.name, str(matcher.op), matcher.value) for matcher in node.matchers.matchers]
        if node.name is None:
            msg = "a selector without a metric name"
            raise NotAnalysed(msg)
        return [found for found in self.database.get(node.name, ()) if all(_matches(dict(found.labels), *matcher) for matcher in matchers)]

    def _instant(self, node: pp.VectorSelector) -> Vector:
        at_s = self.at_s - _seconds(node.offset)
        out: Vector = {}
        for found in self._select(node):
            sample = _latest(found, at_s - self.lookback_s, at_s)
            if sample is not None:
                out[found.labels] = sample
        return out

    def _window(self, node: pp.Expr) -> list[tuple[Labels, list[tuple[float, float]], float, float]]:
        """Per series: labels, samples of the left-open window, its start and its end."""
        if not isinstance(node, pp.MatrixSelector):
            msg = f"{type(node).__name__} as a range"
            raise NotAnalysed(msg)
        selector = node.vector_selector
        end_s = self.at_s - _seconds(selector.offset)
        start_s = end_s - _seconds(node.range)
        out = []
        for found in self._select(selector):
            first, last = bisect.bisect_right(found.at_s, start_s), bisect.bisect_right(found.at_s, end_s)
            inside = [
                (at, number) for at, number in zip(found.at_s[first:last], found.values[first:last], strict=True) if number is not None
            ]
            if inside:
                out.append((found.labels, inside, start_s, end_s))
        return out

    def _aggregate(self, node: pp.AggregateExpr) -> Vector:
        operation = str(node.op)
        if operation not in _AGGREGATE:
            msg = f"the aggregation {operation}"
            raise NotAnalysed(msg)
        inner = self.of(node.expr)
        if not isinstance(inner, dict):
            msg = f"{operation} of a scalar"
            raise NotAnalysed(msg)
        groups: dict[Labels, list[float]] = {}
        for labels, number in inner.items():
            groups.setdefault(_grouped(labels, str(node.modifier)), []).append(number)
        return {labels: _AGGREGATE[operation](numbers) for labels, numbers in groups.items()}

    def _call(self, node: pp.Call) -> Result:
        name = str(node.func.name)
        arguments = list(node.args)
        if name == "time":
            return self.at_s
        if name == "vector":
            inner = self.of(arguments[0])
            assert isinstance(inner, float)
            return {(): inner}
        if name == "scalar":
            found = self._vector(arguments[0])
            return next(iter(found.values())) if len(found) == 1 else math.nan
        if name in ("absent", "absent_over_time"):
            return self._absent(name, arguments[0])
        if name in ("rate", "increase"):
            return self._extrapolated(name, arguments[0])
        if name in _OVER_TIME:
            return {
                _nameless(labels) if name != "last_over_time" else labels: _OVER_TIME[name]([number for _, number in inside])
                for labels, inside, _, _ in self._window(arguments[0])
            }
        if name == "histogram_quantile":
            return self._quantile(arguments)
        if name == "timestamp" and isinstance(arguments[0], pp.VectorSelector):
            return self._timestamps(arguments[0])
        if name in ("clamp_min", "clamp_max"):
            limit = self.of(arguments[1])
            assert isinstance(limit, float)
            keep: Callable[[float, float], float] = max if name == "clamp_min" else min
            return _map(self.of(arguments[0]), lambda number: keep(number, limit))
        if name in _ELEMENTWISE:
            return _map(self.of(arguments[0]), lambda number: float(_ELEMENTWISE[name](number)))
        msg = f"the function {name}"
        raise NotAnalysed(msg)

    def _vector(self, node: pp.Expr) -> Vector:
        found = self.of(node)
        if not isinstance(found, dict):
            msg = "a scalar where an instant vector was wanted"
            raise NotAnalysed(msg)
        return found

    def _extrapolated(self, name: str, node: pp.Expr) -> Vector:
        out: Vector = {}
        for labels, inside, start_s, end_s in self._window(node):
            if len(inside) < 2:
                continue
            samples = [(round(at_s * 1000), number) for at_s, number in inside]
            extrapolated = counters.rate if name == "rate" else counters.increase
            out[_nameless(labels)] = extrapolated(samples, round(start_s * 1000), round(end_s * 1000))
        return out

    def _absent(self, name: str, node: pp.Expr) -> Vector:
        found = self._window(node) if name == "absent_over_time" else self._vector(node)
        if found:
            return {}
        selector = node.vector_selector if isinstance(node, pp.MatrixSelector) else node
        if not isinstance(selector, pp.VectorSelector):
            return {(): 1.0}
        equal = {matcher.name: matcher.value for matcher in selector.matchers.matchers if _operator(str(matcher.op)) == "="}
        return {tuple(sorted(equal.items())): 1.0}

    def _timestamps(self, node: pp.VectorSelector) -> Vector:
        at_s = self.at_s - _seconds(node.offset)
        out: Vector = {}
        for found in self._select(node):
            if _latest(found, at_s - self.lookback_s, at_s) is not None:
                out[_nameless(found.labels)] = found.at_s[bisect.bisect_right(found.at_s, at_s) - 1]
        return out

    def _quantile(self, arguments: Sequence[pp.Expr]) -> Vector:
        wanted = self.of(arguments[0])
        assert isinstance(wanted, float)
        groups: dict[Labels, list[tuple[float, float]]] = {}
        for labels, number in self._vector(arguments[1]).items():
            bound = dict(labels).get("le")
            if bound is None:
                continue
            rest = tuple(pair for pair in labels if pair[0] not in ("le", "__name__"))
            groups.setdefault(rest, []).append((float(bound), number))
        return {labels: histogram.quantile(wanted, buckets) for labels, buckets in groups.items()}

    def _binary(self, node: pp.BinaryExpr) -> Result:
        operation, left, right = str(node.op), self.of(node.lhs), self.of(node.rhs)
        modifier = "" if node.modifier is None else str(node.modifier)
        if operation in ("and", "or", "unless"):
            if not isinstance(left, dict) or not isinstance(right, dict):
                msg = f"{operation} with a scalar"
                raise NotAnalysed(msg)
            return _set_operation(operation, left, right, modifier)
        is_bool = "bool" in modifier
        if isinstance(left, dict) and isinstance(right, dict):
            return _joined(operation, left, right, modifier, is_bool=is_bool)
        if isinstance(left, dict) and isinstance(right, float):
            other = right
            return _filtered(operation, left, lambda number: (number, other), is_bool=is_bool)
        if isinstance(left, float) and isinstance(right, dict):
            first = left
            return _filtered(operation, right, lambda number: (first, number), is_bool=is_bool)
        if isinstance(left, float) and isinstance(right, float):
            if operation in _COMPARISON:
                return float(_COMPARISON[operation](left, right))
            return _ARITHMETIC[operation](left, right)
        msg = f"{operation} of a string"
        raise NotAnalysed(msg)


def _divide(numerator: float, denominator: float) -> float:
    if denominator:
        return numerator / denominator
    return math.nan if numerator == 0 or math.isnan(numerator) else math.copysign(math.inf, numerator)


def _map(found: Result, change: Callable[[float], float]) -> Result:
    if isinstance(found, dict):
        return {_nameless(labels): change(number) for labels, number in found.items()}
    if isinstance(found, float):
        return change(found)
    msg = "arithmetic on a string"
    raise NotAnalysed(msg)


def _latest(found: Series, after_s: float, until_s: float) -> float | None:
    """Value of the newest sample in (after_s, until_s]. None if there is none or it is a staleness marker."""
    index = bisect.bisect_right(found.at_s, until_s) - 1
    return found.values[index] if index >= 0 and found.at_s[index] > after_s else None


def _seconds(duration: Any) -> float:
    if duration is None:
        return 0.0
    return duration.total_seconds() if isinstance(duration, dt.timedelta) else float(duration)


def _operator(text: str) -> str:
    return {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}.get(text, text)


def _matches(labels: Mapping[str, str], name: str, operation: str, wanted: str) -> bool:
    found = labels.get(name, "")
    match _operator(operation):
        case "=":
            return found == wanted
        case "!=":
            return found != wanted
        case "=~":
            return re.fullmatch(wanted, found) is not None
        case "!~":
            return re.fullmatch(wanted, found) is None
        case other:
            msg = f"the matcher {other}"
            raise NotAnalysed(msg)


def _nameless(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "__name__")


def _names(modifier: str, word: str) -> set[str] | None:
    """The labels in ``word (a, b)`` of a modifier's text. None if the word is not there."""
    found = re.search(rf"\b{word}\s*\(([^)]*)\)", modifier)
    return None if found is None else {name.strip() for name in found[1].split(",") if name.strip()}


def _grouped(labels: Labels, modifier: str) -> Labels:
    by, without = _names(modifier, "by"), _names(modifier, "without")
    if by is not None:
        return tuple(pair for pair in labels if pair[0] in by)
    if without is not None:
        return tuple(pair for pair in labels if pair[0] not in without | {"__name__"})
    return ()


def _key(labels: Labels, modifier: str) -> Labels:
    on, ignoring = _names(modifier, "on"), _names(modifier, "ignoring")
    if on is not None:
        return tuple(pair for pair in labels if pair[0] in on)
    return tuple(pair for pair in labels if pair[0] not in (ignoring or set()) | {"__name__"})


def _set_operation(operation: str, left: Vector, right: Vector, modifier: str) -> Vector:
    theirs = {_key(labels, modifier) for labels in right}
    if operation == "and":
        return {labels: number for labels, number in left.items() if _key(labels, modifier) in theirs}
    if operation == "unless":
        return {labels: number for labels, number in left.items() if _key(labels, modifier) not in theirs}
    ours = {_key(labels, modifier) for labels in left}
    return left | {labels: number for labels, number in right.items() if _key(labels, modifier) not in ours}


def _filtered(operation: str, found: Vector, pair: Callable[[float], tuple[float, float]], *, is_bool: bool) -> Vector:
    """A vector against a scalar; ``pair`` puts the operands in order. A filter keeps the element and its name."""
    if operation in _ARITHMETIC:
        return {_nameless(labels): _ARITHMETIC[operation](*pair(number)) for labels, number in found.items()}
    if is_bool:
        return {_nameless(labels): float(_COMPARISON[operation](*pair(number))) for labels, number in found.items()}
    return {labels: number for labels, number in found.items() if _COMPARISON[operation](*pair(number))}


def _joined(operation: str, left: Vector, right: Vector, modifier: str, *, is_bool: bool) -> Vector:
    """Vector against vector, one-to-one or with group_left / group_right."""
    if "group_right" in modifier:
        many, one, copied = right, left, _names(modifier, "group_right")
    else:
        many, one, copied = left, right, _names(modifier, "group_left")
    is_grouped = "group_" in modifier
    by_key: dict[Labels, tuple[Labels, float]] = {}
    for labels, number in one.items():
        key = _key(labels, modifier)
        if key in by_key:
            msg = "many-to-many matching"
            raise NotAnalysed(msg)
        by_key[key] = (labels, number)
    out: Vector = {}
    for labels, number in many.items():
        key = _key(labels, modifier)
        if key not in by_key:
            continue
        other_labels, other = by_key[key]
        first, second = (other, number) if many is right else (number, other)
        if operation in _COMPARISON:
            holds = _COMPARISON[operation](first, second)
            if not is_bool and not holds:
                continue
            result = float(holds) if is_bool else first
        else:
            result = _ARITHMETIC[operation](first, second)
        kept = _nameless(labels) if operation in _ARITHMETIC or is_bool else labels
        if is_grouped:
            extra = {name: text for name, text in other_labels if name in (copied or set())}
            kept = tuple(sorted({**dict(kept), **extra}.items()))
        else:
            kept = key if operation in _ARITHMETIC or is_bool or _names(modifier, "on") is not None else kept
        out[kept] = result
    return out
