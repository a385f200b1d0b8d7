"""What a number of an expression can be at all, whatever the series say: an interval, and what follows for a comparison.

Nothing is assumed of a gauge. A counter is not negative, ``up`` and ``probe_success`` are 0 or 1, a count of series is at least 1 (of none there is
no count), and a quantile of buckets is no larger than the last finite bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import promql_parser as pp

from harness.model import value
from harness.rules.tree import arms, bare

_COUNTERS = ("_total", "_count", "_bucket")
_FLAGS = frozenset({"up", "probe_success"})
_NOT_NEGATIVE = frozenset({"rate", "irate", "increase", "changes", "resets", "abs", "stddev_over_time", "stdvar_over_time", "sqrt"})
_LIKE_ITS_ARGUMENT = frozenset(
    {
        "avg_over_time",
        "min_over_time",
        "max_over_time",
        "last_over_time",
        "quantile_over_time",
        "sort",
        "sort_desc",
        "label_replace",
        "label_join",
    }
)


@value
class Bounds:
    """Least and largest, both inclusive."""

    low: float = -math.inf
    high: float = math.inf


@value
class Impossible:
    """A comparison that no series can make true."""

    text: str
    why: str


Quantiles = Callable[[pp.Call], float | None]
"""The last finite bound of the buckets that a histogram_quantile reads. None: not known."""


def bounds(node: pp.Expr, last_bound: Quantiles = lambda _: None) -> Bounds:
    """What the expression's elements can be."""
    node = bare(node)
    match node:
        case pp.NumberLiteral():
            return Bounds(low=float(node.val), high=float(node.val))
        case pp.UnaryExpr():
            inner = bounds(node.expr, last_bound)
            return Bounds(low=-inner.high, high=-inner.low)
        case pp.VectorSelector():
            return _of_metric(node.name or "")
        case pp.MatrixSelector():
            return _of_metric(node.vector_selector.name or "")
        case pp.SubqueryExpr():
            return bounds(node.expr, last_bound)
        case pp.AggregateExpr():
            return _of_aggregation(str(node.op), bounds(node.expr, last_bound))
        case pp.Call():
            return _of_call(node, last_bound)
        case pp.BinaryExpr():
            return _of_binary(node, last_bound)
    return Bounds()


def impossible(tree: pp.Expr, last_bound: Quantiles = lambda _: None) -> tuple[Impossible, ...]:
    """Why the expression is never true: at least one contradiction in each arm of its outermost ``or``. Empty: it may be true."""
    found = [tuple(_contradictions(arm, last_bound)) for arm in arms(tree)]
    return tuple(each for of_arm in found for each in of_arm) if all(found) else ()


def is_certain(tree: pp.Expr) -> bool:
    """The outermost comparison holds for every number that it can be given: the expression is true as soon as there is a series."""
    node = bare(tree)
    if not isinstance(node, pp.BinaryExpr) or str(node.op) not in _ALWAYS or "bool" in str(node.modifier or ""):
        return False
    return _ALWAYS[str(node.op)](bounds(node.lhs), bounds(node.rhs))


_NEVER: Mapping[str, Callable[[Bounds, Bounds], bool]] = {
    ">": lambda a, b: a.high <= b.low,
    ">=": lambda a, b: a.high < b.low,
    "<": lambda a, b: a.low >= b.high,
    "<=": lambda a, b: a.low > b.high,
    "==": lambda a, b: a.high < b.low or a.low > b.high,
    "!=": lambda a, b: a.low == a.high == b.low == b.high,
}
_ALWAYS: Mapping[str, Callable[[Bounds, Bounds], bool]] = {
    ">": lambda a, b: a.low > b.high,
    ">=": lambda a, b: a.low >= b.high,
    "<": lambda a, b: a.high < b.low,
    "<=": lambda a, b: a.high <= b.low,
}
_OPPOSITE = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "==": "==", "!=": "!="}


def _contradictions(node: pp.Expr, last_bound: Quantiles) -> Iterator[Impossible]:
    """Comparisons that are never true, among those that must be true for the expression to be."""
    limits: dict[str, list[tuple[str, float, pp.BinaryExpr]]] = {}
    for comparison in _needed(node):
        left, right = bounds(comparison.lhs, last_bound), bounds(comparison.rhs, last_bound)
        operation = str(comparison.op)
        if _NEVER[operation](left, right):
            shown, other = (right, left) if isinstance(bare(comparison.lhs), pp.NumberLiteral) else (left, right)
            yield Impossible(text=str(comparison), why=f"the value is {_shown(shown)}, and is compared with {_shown(other)}")
    for comparison in _of_one_series(node):
        left, right, operation = bounds(comparison.lhs, last_bound), bounds(comparison.rhs, last_bound), str(comparison.op)
        for side, bound, sign in ((comparison.lhs, right, operation), (comparison.rhs, left, _OPPOSITE[operation])):
            if bound.low == bound.high and not isinstance(bare(side), pp.NumberLiteral):
                limits.setdefault(str(bare(side)), []).append((sign, bound.low, comparison))
    for text, known in limits.items():
        low = max((number for sign, number, _ in known if sign in (">", ">=", "==")), default=-math.inf)
        high = min((number for sign, number, _ in known if sign in ("<", "<=", "==")), default=math.inf)
        are_open = any(sign in (">", "<") and number in (low, high) for sign, number, _ in known)
        if low > high or (low == high and are_open):
            yield Impossible(text=text, why=f"must be above {low:g} and below {high:g}")


def _needed(node: pp.Expr) -> Iterator[pp.BinaryExpr]:
    """Comparisons that must hold: through ``and``, aggregations and arithmetic, not below ``or`` or to the right of ``unless``."""
    node = bare(node)
    if isinstance(node, pp.AggregateExpr):
        yield from _needed(node.expr)
    if not isinstance(node, pp.BinaryExpr):
        return
    operation = str(node.op)
    if operation == "or":
        return
    if operation in _NEVER and "bool" not in str(node.modifier or ""):
        yield node
    yield from _needed(node.lhs)
    if operation != "unless":
        yield from _needed(node.rhs)


def _of_one_series(node: pp.Expr) -> Iterator[pp.BinaryExpr]:
    """Comparisons that must hold of the same label sets at once."""
    node = bare(node)
    if not isinstance(node, pp.BinaryExpr):
        return
    if str(node.op) in _NEVER and "bool" not in str(node.modifier or ""):
        yield node
        yield from _of_one_series(node.lhs)
    elif str(node.op) == "and" and not str(node.modifier or ""):
        yield from _of_one_series(node.lhs)
        yield from _of_one_series(node.rhs)


def _of_metric(name: str) -> Bounds:
    if name in _FLAGS:
        return Bounds(low=0.0, high=1.0)
    return Bounds(low=0.0) if name.endswith(_COUNTERS) else Bounds()


def _of_aggregation(operation: str, inner: Bounds) -> Bounds:
    match operation:
        case "count" | "count_values":
            return Bounds(low=1.0)
        case "group":
            return Bounds(low=1.0, high=1.0)
        case "stddev" | "stdvar":
            return Bounds(low=0.0)
        case "sum":
            return Bounds(low=inner.low if inner.low >= 0 else -math.inf, high=inner.high if inner.high <= 0 else math.inf)
    return inner


def _of_call(node: pp.Call, last_bound: Quantiles) -> Bounds:
    name, arguments = node.func.name, list(node.args)
    if name in ("absent", "absent_over_time", "present_over_time"):
        return Bounds(low=1.0, high=1.0)
    if name == "count_over_time":
        return Bounds(low=1.0)
    if name == "histogram_quantile":
        highest = last_bound(node)
        return Bounds() if highest is None else Bounds(high=highest)
    if name in ("time", "timestamp"):
        return Bounds(low=0.0)
    if name in _NOT_NEGATIVE:
        return Bounds(low=0.0)
    if name in ("vector", *_LIKE_ITS_ARGUMENT):
        return bounds(arguments[1] if name == "quantile_over_time" else arguments[0], last_bound)
    if name == "sum_over_time":
        return _of_aggregation("sum", bounds(arguments[0], last_bound))
    if name in ("clamp_min", "clamp_max"):
        inner, limit = (bounds(each, last_bound) for each in arguments)
        if name == "clamp_min":
            return Bounds(low=max(inner.low, limit.low), high=max(inner.high, limit.high))
        return Bounds(low=min(inner.low, limit.low), high=min(inner.high, limit.high))
    return Bounds()


def _of_binary(node: pp.BinaryExpr, last_bound: Quantiles) -> Bounds:
    operation, left, right = str(node.op), bounds(node.lhs, last_bound), bounds(node.rhs, last_bound)
    if operation in _NEVER:
        return Bounds(low=0.0, high=1.0) if "bool" in str(node.modifier or "") else left
    match operation:
        case "and" | "unless":
            return left
        case "or":
            return Bounds(low=min(left.low, right.low), high=max(left.high, right.high))
        case "+":
            return Bounds(low=left.low + right.low, high=left.high + right.high)
        case "-":
            return Bounds(low=left.low - right.high, high=left.high - right.low)
        case "*":
            corners = [_product(a, b) for a in (left.low, left.high) for b in (right.low, right.high)]
            return Bounds(low=min(corners), high=max(corners))
        case "/":
            # A divisor that may be 0 leaves only the sign.
            if right.low > 0 and math.isfinite(right.low):
                corners = [_product(a, b) for a in (left.low, left.high) for b in (1 / right.low, 1 / right.high if right.high else 0.0)]
                return Bounds(low=min(corners), high=max(corners))
            return Bounds(low=0.0) if left.low >= 0 and right.low >= 0 else Bounds()
    return Bounds()


def _product(a: float, b: float) -> float:
    return 0.0 if 0.0 in (a, b) else a * b


def _shown(found: Bounds) -> str:
    if found.low == found.high:
        return f"{found.low:g}"
    if math.isinf(found.high):
        return f"at least {found.low:g}"
    return f"at most {found.high:g}" if math.isinf(found.low) else f"between {found.low:g} and {found.high:g}"
