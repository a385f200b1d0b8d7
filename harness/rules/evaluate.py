"""A PromQL evaluator over recorded samples: what a rule, an alert or a panel must compute, by the arithmetic of a `Flavour`.

Prometheus 3 if nothing else is said: ranges and the lookback are left-open. What it does not know it refuses by name (`NotAnalysed`), so that
nothing is judged by a guess. An expression is compiled once; an `Evaluator` remembers what it calculated of a database.
"""

from __future__ import annotations

import bisect
import dataclasses
import datetime as dt
import functools
import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import promql_parser as pp

from harness.measure import counters, histogram
from harness.measure.flavour import PROMETHEUS_3, Flavour
from harness.model import value
from harness.rules import functions
from harness.rules.tree import bare

_REMEMBERED = 20_000
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
Hidden = Mapping[tuple[str, str], int]
"""Milliseconds from which on the samples of a (job, instance) are not there yet."""


def series(name: str, samples: Sequence[tuple[float, float | None]], /, **labels: str) -> Series:
    """A series from its name, its (seconds, value) samples and its labels, which may well be called name."""
    pairs = tuple(sorted({**labels, "__name__": name}.items()))
    return Series(labels=pairs, at_s=tuple(at for at, _ in samples), values=tuple(number for _, number in samples))


def evaluate(expression: str | pp.Expr, database: Database, at_s: float, *, lookback_s: float = LOOKBACK_S) -> Result:
    """The value of ``expression`` at ``at_s``: a vector by label set, or a scalar.

    Raises NotAnalysed, naming what it does not know.
    """
    return Evaluator(database, lookback_s=lookback_s).evaluate(expression, at_s)


def vector(expression: str | pp.Expr, database: Database, at_s: float, *, lookback_s: float = LOOKBACK_S) -> Vector:
    """As `evaluate`, for expressions that must yield an instant vector."""
    return Evaluator(database, lookback_s=lookback_s).vector(expression, at_s)


class Evaluator:
    """One database that is asked again and again."""

    def __init__(self, database: Database, *, lookback_s: float = LOOKBACK_S, flavour: Flavour = PROMETHEUS_3) -> None:
        self.database, self.lookback_s, self.flavour = database, lookback_s, flavour
        self.remembered: dict[tuple[Any, ...], Vector] = {}
        self._indexed: dict[str, tuple[_Index, ...]] = {}

    def evaluate(self, expression: Expression, at_s: float, *, hidden: Hidden | None = None) -> Result:
        """As `evaluate`. hidden: samples that were not stored yet when the question was asked."""
        moment = _Moment(self, round(at_s * 1000), hidden or {})
        if isinstance(expression, str):
            return _compiled_text(expression)(moment)
        return (expression if callable(expression) else _compiled_tree(expression))(moment)

    def vector(self, expression: Expression, at_s: float, *, hidden: Hidden | None = None) -> Vector:
        """As `vector`."""
        return _vector(self.evaluate(expression, at_s, hidden=hidden))

    def indexed(self, name: str) -> tuple[_Index, ...]:
        """The series called ``name``."""
        if name not in self._indexed:
            self._indexed[name] = tuple(_Index(found) for found in self.database.get(name, ()))
        return self._indexed[name]


class _Index:
    """One series, ready to be asked for windows."""

    def __init__(self, found: Series) -> None:
        self.labels = found.labels
        self.nameless = _nameless(found.labels)
        self.by_name = dict(found.labels)
        self.owner = (self.by_name.get("job", ""), self.by_name.get("instance", ""))
        self.at_ms = [round(at_s * 1000) for at_s in found.at_s]
        self.values = found.values
        self.has_markers = None in found.values
        self.resets = _resets(found.values)

    def end(self, at_ms: int, hidden: Hidden) -> int:
        """Index behind the newest sample at or before ``at_ms`` that is there."""
        until = bisect.bisect_right(self.at_ms, at_ms)
        return min(until, bisect.bisect_left(self.at_ms, hidden[self.owner])) if self.owner in hidden else until

    def begin(self, at_ms: int, flavour: Flavour) -> int:
        """Index of the first sample of a window that begins at ``at_ms``."""
        return (bisect.bisect_left if flavour.is_closed else bisect.bisect_right)(self.at_ms, at_ms)

    def window(self, first: int, last: int) -> list[tuple[int, float]]:
        """Milliseconds and values, staleness markers left out."""
        inside = zip(self.at_ms[first:last], self.values[first:last], strict=True)
        return [(at, number) for at, number in inside if number is not None]


def _resets(values: Sequence[float | None]) -> list[int]:
    """Indices at which a counter fell."""
    found, before = [], None
    for index, number in enumerate(values):
        if number is None:
            continue
        if before is not None and number < before:
            found.append(index)
        before = number
    return found


class _Moment:
    """One instant of one database."""

    __slots__ = ("at_ms", "evaluator", "hidden", "key")

    def __init__(self, evaluator: Evaluator, at_ms: int, hidden: Hidden) -> None:
        self.evaluator, self.at_ms, self.hidden = evaluator, at_ms, hidden
        self.key = (at_ms, tuple(sorted(hidden.items())))


_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: _divide(a, b),
    "%": lambda a, b: math.fmod(a, b) if b else math.nan,
    "^": functions.power,
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
    "stddev_over_time": lambda found: math.sqrt(functions.variance(found)),
    "stdvar_over_time": functions.variance,
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
    "stddev": lambda found: math.sqrt(functions.variance(found)),
    "stdvar": functions.variance,
}
_ELEMENTWISE: Mapping[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": lambda number: float(math.ceil(number)) if math.isfinite(number) else number,
    "floor": lambda number: float(math.floor(number)) if math.isfinite(number) else number,
    "exp": functions.exponential,
    "sqrt": lambda number: math.sqrt(number) if number >= 0 else math.nan,
    "ln": functions.logarithm,
    "log2": lambda number: functions.logarithm(number, 2),
    "log10": lambda number: functions.logarithm(number, 10),
    "round": functions.rounded,
    "sgn": lambda number: math.copysign(1.0, number) if number else number,
    "sort": lambda number: number,
    "sort_desc": lambda number: number,
}

_Compiled = Callable[[_Moment], Result]
Expression = str | pp.Expr | _Compiled
"""As text, as a tree, or compiled already."""
_Selector = Callable[[_Moment], Sequence[_Index]]
_Window = tuple[_Index, int, int, int, int]
"""A series; first and behind the last index inside; start and end in milliseconds."""


@functools.lru_cache(maxsize=1024)
def _compiled_text(expression: str) -> _Compiled:
    return compiled(pp.parse(expression))


def compiled(node: pp.Expr) -> _Compiled:
    """What calculates ``node`` at a moment. Raises NotAnalysed when it is compiled, or when it is run."""
    if isinstance(node, pp.NumberLiteral | pp.StringLiteral):
        constant: Result = float(node.val) if isinstance(node, pp.NumberLiteral) else str(node.val)
        return lambda _: constant
    if isinstance(node, pp.ParenExpr):
        return compiled(node.expr)
    if isinstance(node, pp.UnaryExpr):
        inner = compiled(node.expr)
        return lambda moment: _map(inner(moment), operator.neg)
    if isinstance(node, pp.VectorSelector):
        return _instant(node)
    if isinstance(node, pp.AggregateExpr):
        return _remembered(node, _aggregate(node))
    if isinstance(node, pp.BinaryExpr):
        return _binary(node)
    if isinstance(node, pp.Call):
        return _remembered(node, _call(node))
    msg = f"{type(node).__name__} outside a function"
    raise NotAnalysed(msg)


_compiled_tree = functools.lru_cache(maxsize=1024)(compiled)
"""By identity: a tree that is tried with many inputs is compiled once."""


def _remembered(node: pp.Expr, calculate: _Compiled) -> _Compiled:
    """Rules share their inner parts: a quantile and another one of the same buckets."""
    text = str(node)

    def told(moment: _Moment) -> Result:
        key = (text, *moment.key)
        known = moment.evaluator.remembered
        if key not in known:
            found = calculate(moment)
            if not isinstance(found, dict):
                return found
            if len(known) > _REMEMBERED:
                known.clear()
            known[key] = found
            return found
        return known[key]

    return told


def _selected(node: pp.VectorSelector) -> _Selector:
    if node.at is not None:
        msg = "the @ modifier"
        raise NotAnalysed(msg)
    if node.name is None:
        msg = "a selector without a metric name"
        raise NotAnalysed(msg)
    name = str(node.name)
    matchers = [(matcher.name, _operator(str(matcher.op)), matcher.value) for matcher in node.matchers.matchers]
    for _, operation, _ in matchers:
        if operation not in ("=", "!=", "=~", "!~"):
            msg = f"the matcher {operation}"
            raise NotAnalysed(msg)
    if not matchers:
        return lambda moment: moment.evaluator.indexed(name)
    return lambda moment: [
        found for found in moment.evaluator.indexed(name) if all(_matches(found.by_name, *matcher) for matcher in matchers)
    ]


def _instant(node: pp.VectorSelector) -> _Compiled:
    selected, offset_ms = _selected(node), _ms(node.offset)

    def calculate(moment: _Moment) -> Result:
        out: Vector = {}
        for found in selected(moment):
            index = _newest(found, moment, offset_ms)
            if index is not None:
                out[found.labels] = found.values[index]  # type: ignore[assignment]
        return out

    return calculate


def _newest(found: _Index, moment: _Moment, offset_ms: int) -> int | None:
    """Index of the newest sample within the lookback. None if there is none or it is a staleness marker."""
    at_ms, evaluator = moment.at_ms - offset_ms, moment.evaluator
    index = found.end(at_ms, moment.hidden) - 1
    if index < 0 or found.values[index] is None:
        return None
    age_ms = at_ms - found.at_ms[index]
    limit_ms = round(evaluator.lookback_s * 1000)
    return index if age_ms < limit_ms or (age_ms == limit_ms and evaluator.flavour.is_closed) else None


def _windows(node: pp.Expr) -> Callable[[_Moment], list[_Window]]:
    node = bare(node)
    if isinstance(node, pp.SubqueryExpr):
        return _subquery(node)
    if not isinstance(node, pp.MatrixSelector):
        msg = f"{type(node).__name__} as a range"
        raise NotAnalysed(msg)
    selected, offset_ms = _selected(node.vector_selector), _ms(node.vector_selector.offset)
    range_ms = _ms(node.range)

    def calculate(moment: _Moment) -> list[_Window]:
        end_ms = moment.at_ms - offset_ms
        start_ms = end_ms - range_ms
        out = []
        for found in selected(moment):
            first, last = found.begin(start_ms, moment.evaluator.flavour), found.end(end_ms, moment.hidden)
            if first < last:
                out.append((found, first, last, start_ms, end_ms))
        return out

    return calculate


def _subquery(node: pp.SubqueryExpr) -> Callable[[_Moment], list[_Window]]:
    if node.step is None:
        msg = "a subquery without a step of its own"
        raise NotAnalysed(msg)
    if node.at is not None:
        msg = "the @ modifier"
        raise NotAnalysed(msg)
    inner, offset_ms, range_ms, step_ms = compiled(node.expr), _ms(node.offset), _ms(node.range), _ms(node.step)

    def calculate(moment: _Moment) -> list[_Window]:
        end_ms = moment.at_ms - offset_ms
        start_ms = end_ms - range_ms
        samples: dict[Labels, list[tuple[float, float | None]]] = {}
        # Steps are multiples of the step, not counted from the window; the window is left-open.
        for at_ms in range((start_ms // step_ms + 1) * step_ms, end_ms + 1, step_ms):
            for labels, number in _vector(inner(_Moment(moment.evaluator, at_ms, moment.hidden))).items():
                samples.setdefault(labels, []).append((at_ms / 1000, number))
        found = [
            _Index(Series(labels=labels, at_s=[at for at, _ in points], values=[number for _, number in points]))
            for labels, points in samples.items()
        ]
        return [(each, 0, len(each.at_ms), start_ms, end_ms) for each in found]

    return calculate


def _aggregate(node: pp.AggregateExpr) -> _Compiled:
    operation, modifier = str(node.op), "" if node.modifier is None else str(node.modifier)
    if operation in ("topk", "bottomk", "quantile", "count_values"):
        return _with_parameter(operation, node, modifier)
    if operation not in _AGGREGATE:
        msg = f"the aggregation {operation}"
        raise NotAnalysed(msg)
    inner, reduce = compiled(node.expr), _AGGREGATE[operation]

    def calculate(moment: _Moment) -> Result:
        found = inner(moment)
        if not isinstance(found, dict):
            msg = f"{operation} of a scalar"
            raise NotAnalysed(msg)
        groups: dict[Labels, list[float]] = {}
        for labels, number in found.items():
            groups.setdefault(_grouped(labels, modifier), []).append(number)
        return {labels: reduce(numbers) for labels, numbers in groups.items()}

    return calculate


def _with_parameter(operation: str, node: pp.AggregateExpr, modifier: str) -> _Compiled:
    """topk, bottomk, quantile and count_values."""
    assert node.param is not None
    inner, given = compiled(node.expr), compiled(node.param)

    def calculate(moment: _Moment) -> Result:
        parameter = given(moment)
        groups: dict[Labels, list[tuple[Labels, float]]] = {}
        for labels, number in _vector(inner(moment)).items():
            groups.setdefault(_grouped(labels, modifier), []).append((labels, number))
        out: Vector = {}
        for group, entries in groups.items():
            if operation == "quantile":
                out[group] = functions.quantile(_number(parameter), [number for _, number in entries])
            elif operation == "count_values":
                for _, number in entries:
                    labels = tuple(sorted({**dict(group), str(parameter): f"{number:g}"}.items()))
                    out[labels] = out.get(labels, 0.0) + 1
            else:
                ordered = sorted(entries, key=lambda entry: entry[1], reverse=operation == "topk")
                out |= dict(ordered[: max(0, int(_number(parameter)))])
        return out

    return calculate


def _call(node: pp.Call) -> _Compiled:
    name, arguments = str(node.func.name), list(node.args)
    if name == "time":
        return lambda moment: moment.at_ms / 1000
    if name == "vector":
        scalar = compiled(arguments[0])
        return lambda moment: {(): _number(scalar(moment))}
    if name == "scalar":
        inner = compiled(arguments[0])
        return lambda moment: next(iter(found.values())) if len(found := _vector(inner(moment))) == 1 else math.nan
    if name in ("absent", "absent_over_time"):
        return _absent(name, arguments[0])
    if name in ("rate", "increase"):
        return _grown(name, arguments[0])
    if name in _OVER_TIME:
        return _over_time(name, arguments[0])
    if name in ("delta", "idelta", "irate", "deriv", "predict_linear", "quantile_over_time"):
        return _of_samples(name, arguments)
    if name in ("label_replace", "label_join"):
        return _relabelled(name, arguments)
    if name == "clamp":
        value_of, low, high = (compiled(argument) for argument in arguments)
        return lambda moment: _clamped(_clamped(value_of(moment), max, _number(low(moment))), min, _number(high(moment)))
    if name == "round" and len(arguments) == 2:
        number_of, to = compiled(arguments[0]), compiled(arguments[1])
        return lambda moment: _map(number_of(moment), lambda number: functions.rounded(number, _number(to(moment))))
    if name == "histogram_quantile":
        return _quantile(arguments)
    if name == "timestamp" and isinstance(arguments[0], pp.VectorSelector):
        return _timestamps(arguments[0])
    if name in ("clamp_min", "clamp_max"):
        found, limit = compiled(arguments[0]), compiled(arguments[1])
        keep: Callable[[float, float], float] = max if name == "clamp_min" else min
        return lambda moment: _clamped(found(moment), keep, _number(limit(moment)))
    if name in _ELEMENTWISE:
        each, change = compiled(arguments[0]), _ELEMENTWISE[name]
        return lambda moment: _map(each(moment), lambda number: float(change(number)))
    msg = f"the function {name}"
    raise NotAnalysed(msg)


def _clamped(found: Result, keep: Callable[[float, float], float], limit: float) -> Result:
    return _map(found, lambda number: keep(number, limit))


def _over_time(name: str, node: pp.Expr) -> _Compiled:
    windows, reduce = _windows(node), _OVER_TIME[name]

    def calculate(moment: _Moment) -> Result:
        out: Vector = {}
        for found, first, last, _, _ in windows(moment):
            inside = [number for number in found.values[first:last] if number is not None]
            if inside:
                out[found.labels if name == "last_over_time" else found.nameless] = reduce(inside)
        return out

    return calculate


def _of_samples(name: str, arguments: Sequence[pp.Expr]) -> _Compiled:
    """Functions of the single samples of a window."""
    windows = _windows(arguments[1] if name == "quantile_over_time" else arguments[0])
    others = [argument for argument in arguments if not isinstance(bare(argument), pp.MatrixSelector | pp.SubqueryExpr)]
    given = compiled(others[0]) if others else None

    def calculate(moment: _Moment) -> Result:
        parameter = _number(given(moment)) if given is not None else 0.0
        out: Vector = {}
        for found, first, last, start_ms, end_ms in windows(moment):
            samples = found.window(first, last)
            if name == "quantile_over_time" and samples:
                out[found.nameless] = functions.quantile(parameter, [number for _, number in samples])
            elif len(samples) > 1:
                out[found.nameless] = _of_two_or_more(name, samples, start_ms, end_ms, moment.at_ms, parameter)
        return out

    return calculate


def _of_two_or_more(name: str, samples: functions.Samples, start_ms: int, end_ms: int, at_ms: int, parameter: float) -> float:
    (before_ms, before), (last_ms, last) = samples[-2:]
    if name == "idelta":
        return last - before
    if name == "irate":
        return (last if last < before else last - before) / ((last_ms - before_ms) / 1000)
    if name == "deriv":
        return functions.regression(samples, samples[0][0])[0]
    if name == "predict_linear":
        slope, level = functions.regression(samples, at_ms)
        return slope * parameter + level
    # A gauge, unlike a counter, may be extrapolated below 0.
    window = dataclasses.replace(counters.Window.of(samples, start_ms, end_ms), first=-1.0)
    return counters.extrapolated(last - samples[0][1], window)


def _relabelled(name: str, arguments: Sequence[pp.Expr]) -> _Compiled:
    inner, texts = compiled(arguments[0]), [str(argument.val) for argument in arguments[1:] if isinstance(argument, pp.StringLiteral)]

    def changed(labels: Labels) -> Labels:
        if name == "label_join":
            return functions.label_joined(labels, texts[0], texts[1], texts[2:])
        return functions.label_replaced(labels, *texts)

    return lambda moment: {changed(labels): number for labels, number in _vector(inner(moment)).items()}


def _grown(name: str, node: pp.Expr) -> _Compiled:
    windows = _windows(node)

    def calculate(moment: _Moment) -> Result:
        out: Vector = {}
        for found, first, last, start_ms, end_ms in windows(moment):
            number = _growth(name, found, first, last, start_ms, end_ms, moment.evaluator.flavour)
            if number is not None:
                out[found.nameless] = number
        return out

    return calculate


def _growth(name: str, found: _Index, first: int, last: int, start_ms: int, end_ms: int, flavour: Flavour) -> float | None:
    if not flavour.is_extrapolating:
        known = found.window(0, last)
        inside = sum(at > start_ms for at, _ in known)
        if name == "rate":
            return counters.unextrapolated_rate(known, len(known) - inside, start_ms)
        return counters.unextrapolated_increase(known, len(known) - inside, start_ms, next(iter(found.values[last:]), None))
    if found.has_markers:
        samples = found.window(first, last)
        if len(samples) < 2:
            return None
        return (counters.rate if name == "rate" else counters.increase)(samples, start_ms, end_ms)
    if last - first < 2:
        return None
    low, high = found.values[first], found.values[last - 1]
    assert low is not None
    assert high is not None
    grown = high - low
    if found.resets:
        for index in found.resets[bisect.bisect_right(found.resets, first) : bisect.bisect_left(found.resets, last)]:
            grown += found.values[index - 1]  # type: ignore[operator]
    window = counters.Window(
        first_ms=found.at_ms[first], first=low, last_ms=found.at_ms[last - 1], count=last - first, start_ms=start_ms, end_ms=end_ms
    )
    return counters.extrapolated_rate(grown, window) if name == "rate" else counters.extrapolated(grown, window)


def _absent(name: str, node: pp.Expr) -> _Compiled:
    windows = _windows(node) if name == "absent_over_time" else None
    inner = compiled(node) if windows is None else None
    selector = node.vector_selector if isinstance(node, pp.MatrixSelector) else node
    labels: Labels = ()
    if isinstance(selector, pp.VectorSelector):
        equal = {matcher.name: matcher.value for matcher in selector.matchers.matchers if _operator(str(matcher.op)) == "="}
        labels = tuple(sorted(equal.items()))

    def calculate(moment: _Moment) -> Result:
        if windows is not None:
            is_there = any(found.window(first, last) for found, first, last, _, _ in windows(moment))
        else:
            assert inner is not None
            is_there = bool(_vector(inner(moment)))
        return {} if is_there else {labels: 1.0}

    return calculate


def _timestamps(node: pp.VectorSelector) -> _Compiled:
    selected, offset_ms = _selected(node), _ms(node.offset)

    def calculate(moment: _Moment) -> Result:
        newest = ((found, _newest(found, moment, offset_ms)) for found in selected(moment))
        return {found.nameless: found.at_ms[index] / 1000 for found, index in newest if index is not None}

    return calculate


def _quantile(arguments: Sequence[pp.Expr]) -> _Compiled:
    wanted, inner = compiled(arguments[0]), compiled(arguments[1])

    def calculate(moment: _Moment) -> Result:
        share = _number(wanted(moment))
        groups: dict[Labels, list[tuple[float, float]]] = {}
        for labels, number in _vector(inner(moment)).items():
            bound = next((text for name, text in labels if name == "le"), None)
            if bound is not None:
                groups.setdefault(_unbounded(labels), []).append((float(bound), number))
        if not moment.evaluator.flavour.is_extrapolating:
            msg = f"histogram_quantile of {moment.evaluator.flavour.name}"
            raise NotAnalysed(msg)
        return {labels: histogram.quantile(share, buckets) for labels, buckets in groups.items()}

    return calculate


def _binary(node: pp.BinaryExpr) -> _Compiled:
    operation, lhs, rhs = str(node.op), compiled(node.lhs), compiled(node.rhs)
    modifier = "" if node.modifier is None else str(node.modifier)
    is_bool = "bool" in modifier

    def calculate(moment: _Moment) -> Result:
        left, right = lhs(moment), rhs(moment)
        if operation in ("and", "or", "unless"):
            if not isinstance(left, dict) or not isinstance(right, dict):
                msg = f"{operation} with a scalar"
                raise NotAnalysed(msg)
            return _set_operation(operation, left, right, modifier)
        if isinstance(left, dict) and isinstance(right, dict):
            return _joined(operation, left, right, modifier, is_bool=is_bool)
        if isinstance(left, dict) and isinstance(right, float):
            return _filtered(operation, left, lambda number: (number, right), is_bool=is_bool)
        if isinstance(left, float) and isinstance(right, dict):
            return _filtered(operation, right, lambda number: (left, number), is_bool=is_bool)
        if isinstance(left, float) and isinstance(right, float):
            if operation in _COMPARISON:
                return float(_COMPARISON[operation](left, right))
            return _ARITHMETIC[operation](left, right)
        msg = f"{operation} of a string"
        raise NotAnalysed(msg)

    return calculate


def _vector(found: Result) -> Vector:
    if not isinstance(found, dict):
        msg = "a scalar where an instant vector was wanted"
        raise NotAnalysed(msg)
    return found


def _number(found: Result) -> float:
    if not isinstance(found, float):
        msg = "a vector where a number was wanted"
        raise NotAnalysed(msg)
    return found


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


def _ms(duration: Any) -> int:
    if duration is None:
        return 0
    return round(duration.total_seconds() * 1000) if isinstance(duration, dt.timedelta) else round(float(duration) * 1000)


def _operator(text: str) -> str:
    return {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}.get(text, text)


def _matches(labels: Mapping[str, str], name: str, operation: str, wanted: str) -> bool:
    found = labels.get(name, "")
    match operation:
        case "=":
            return found == wanted
        case "!=":
            return found != wanted
        case "=~":
            return re.fullmatch(wanted, found) is not None
        case _:
            return re.fullmatch(wanted, found) is None


@functools.lru_cache(maxsize=65536)
def _nameless(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "__name__")


@functools.lru_cache(maxsize=1024)
def _names(modifier: str, word: str) -> frozenset[str] | None:
    """The labels in ``word (a, b)`` of a modifier's text. None if the word is not there."""
    found = re.search(rf"\b{word}\s*\(([^)]*)\)", modifier)
    return None if found is None else frozenset(name.strip() for name in found[1].split(",") if name.strip())


@functools.lru_cache(maxsize=65536)
def _unbounded(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] not in ("le", "__name__"))


@functools.lru_cache(maxsize=65536)
def _grouped(labels: Labels, modifier: str) -> Labels:
    by, without = _names(modifier, "by"), _names(modifier, "without")
    if by is not None:
        return tuple(pair for pair in labels if pair[0] in by)
    if without is not None:
        return tuple(pair for pair in labels if pair[0] not in without | {"__name__"})
    return ()


@functools.lru_cache(maxsize=65536)
def _key(labels: Labels, modifier: str) -> Labels:
    on, ignoring = _names(modifier, "on"), _names(modifier, "ignoring")
    if on is not None:
        return tuple(pair for pair in labels if pair[0] in on)
    return tuple(pair for pair in labels if pair[0] not in (ignoring or frozenset()) | {"__name__"})


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
