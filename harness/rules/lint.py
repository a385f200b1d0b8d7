"""What is wrong with a query that can be seen without running it; with a server's names and types, more.

check                     it finds
promql/syntax             text that is no PromQL
promql/range-vector       a range vector where a graph or a rule wants numbers: the server answers 400
promql/missing            a metric that the server does not have
promql/counter            a counter used bare: its value is all that happened since the process started
promql/gauge-rate         rate() of a gauge: every fall counts as a restart
promql/counter-delta      delta() or deriv() of a counter: a restart counts as a fall
promql/histogram-name     the name of a histogram alone, which has no series
promql/quantile-all-time  histogram_quantile of raw buckets: of all time, not of a window
promql/quantile-le        an aggregation below histogram_quantile that drops ``le``
promql/quantile-per-series  one quantile a series instead of one of all
promql/quantile-mean      a mean of quantiles, which is no quantile
promql/window             a window of fewer than four scrapes: one missed scrape leaves a gap
promql/sum-then-rate      rate() of a sum: one restart looks like a restart of all
promql/hidden-mean        avg() over every series: one bad series disappears in it
alerts/value-label        a label that changes with the value: the alert starts anew at every evaluation
alerts/no-traffic         a ratio without a guard: 0 / 0 is NaN, and the alert is silent
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

import promql_parser as pp

from harness.model import value
from harness.rules.queries import Query, Use
from harness.rules.tree import bare, walked

SCRAPE_S = 15.0
LEAST_SCRAPES = 4
"""``rate()`` needs two samples, and one may be missed, on either edge."""
_RATES = frozenset({"rate", "irate", "increase"})
_DIFFERENCES = frozenset({"delta", "idelta", "deriv", "predict_linear"})
_COUNTER_SAFE = _RATES | {"resets", "changes", "absent", "absent_over_time", "present_over_time", "count_over_time", "timestamp"}
GAUGES_CALLED_TOTAL = frozenset(
    (
        "livekit_room_total",
        "livekit_participant_total",
        "livekit_connection_total",
        "livekit_track_published_total",
        "livekit_track_subscribed_total",
    )
)
"""livekit-server's gauges whose names end like a counter's; told apart here when no server says their types."""
_HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


@value
class Finding:
    """One thing that is wrong with one query."""

    check: str
    query: Query
    sentence: str


@value
class Above:
    """What stands around a selector, outermost first."""

    functions: tuple[str, ...] = ()
    aggregations: tuple[str, ...] = ()
    """``avg`` of the plain kind, ``avg by`` with labels kept."""


def lint(query: Query, *, types: Mapping[str, str] | None = None, scrape_s: float = SCRAPE_S) -> tuple[Finding, ...]:
    """Everything found in one query, in reading order.

    types: metric name to ``counter``, ``gauge``, ``histogram`` or ``summary``, of a live server. None: told by the names' endings.
    """
    try:
        tree = pp.parse(query.expression)
    except ValueError as exc:
        return (Finding(check="promql/syntax", query=query, sentence=f"not PromQL: {exc}"),)
    return tuple(
        dict.fromkeys(
            Finding(check=check, query=query, sentence=sentence) for check, sentence in _Reading(query, types, scrape_s).findings(tree)
        )
    )


class _Reading:
    """One walk through one tree."""

    def __init__(self, query: Query, types: Mapping[str, str] | None, scrape_s: float) -> None:
        self._query, self._types, self._scrape_s = query, types, scrape_s

    def findings(self, tree: pp.Expr) -> Iterator[tuple[str, str]]:
        if isinstance(tree, pp.MatrixSelector | pp.SubqueryExpr):
            yield "promql/range-vector", "yields every raw sample of the range; a graph answers 400. Wrap it in increase() or rate()"
        yield from self._walk(tree, Above())
        if self._query.use is Use.ALERT:
            yield from self._alert(tree)

    def _walk(self, node: pp.Expr, above: Above) -> Iterator[tuple[str, str]]:
        match node:
            case pp.Call():
                if node.func.name == "histogram_quantile":
                    yield from _quantile(node)
                inner = Above(functions=(*above.functions, node.func.name), aggregations=above.aggregations)
                for argument in node.args:
                    yield from self._walk(argument, inner)
            case pp.AggregateExpr():
                if str(node.op) == "avg" and "histogram_quantile" in str(node.expr):
                    yield "promql/quantile-mean", "the mean of quantiles is no quantile; sum the buckets by le, then take the quantile"
                kept = node.modifier is not None
                inner = Above(functions=above.functions, aggregations=(*above.aggregations, f"{node.op} by" if kept else str(node.op)))
                yield from self._walk(node.expr, inner)
            case pp.BinaryExpr():
                yield from self._walk(node.lhs, above)
                yield from self._walk(node.rhs, above)
            case pp.ParenExpr() | pp.UnaryExpr():
                yield from self._walk(node.expr, above)
            case pp.SubqueryExpr():
                if above.functions and above.functions[-1] in _RATES and isinstance(bare(node.expr), pp.AggregateExpr):
                    yield (
                        "promql/sum-then-rate",
                        f"{above.functions[-1]}() of an aggregation: the restart of one series looks like one of all",
                    )
                yield from self._walk(node.expr, above)
            case pp.MatrixSelector():
                yield from self._selector(node.vector_selector, above, node.range.total_seconds())
            case pp.VectorSelector():
                yield from self._selector(node, above, None)

    def _selector(self, node: pp.VectorSelector, above: Above, window_s: float | None) -> Iterator[tuple[str, str]]:
        if node.name is None:
            return
        kind = self._kind(node.name)
        inner = above.functions[-1] if above.functions else None
        if kind == "missing":
            yield "promql/missing", self._missing(node.name)
            return
        if kind == "histogram":
            yield "promql/histogram-name", f"{node.name} is a histogram: only {node.name}_bucket, _sum and _count have series"
        if kind == "counter" and inner not in _COUNTER_SAFE | {"histogram_quantile"} and window_s is None:
            yield "promql/counter", f"{node.name} is a counter: bare, it is all that happened since its process started"
        if kind == "counter" and inner in _DIFFERENCES:
            yield "promql/counter-delta", f"{inner}() of the counter {node.name} takes a restart for a fall; use increase()"
        if kind == "gauge" and inner in _RATES:
            yield "promql/gauge-rate", f"{inner}() of the gauge {node.name} takes every fall for a restart; use delta() or avg_over_time()"
        if window_s is not None and inner in _RATES and window_s < LEAST_SCRAPES * self._scrape_s:
            scrapes = int(window_s // self._scrape_s)
            sentence = f"[{window_s:g}s] holds {scrapes} scrapes of {self._scrape_s:g} s; fewer than {LEAST_SCRAPES} leave gaps"
            yield "promql/window", sentence
        if kind in ("gauge", "unknown") and above.aggregations and above.aggregations[-1] == "avg" and not above.functions:
            yield "promql/hidden-mean", f"avg({node.name}) weighs every series alike and hides a bad one; add max or a quantile beside it"

    def _kind(self, name: str) -> str:
        """``counter``, ``gauge``, ``histogram`` (the bare name), ``unknown`` or ``missing``."""
        base = next((name.removesuffix(part) for part in _HISTOGRAM_PARTS if name.endswith(part)), None)
        if self._types is None:
            if name in GAUGES_CALLED_TOTAL:
                return "gauge"
            if base is not None or name.endswith("_total"):
                return "counter"
            return "unknown"
        if name in self._types:
            return self._types[name]
        if base is not None and self._types.get(base) in ("histogram", "summary"):
            return "counter"
        if name.removesuffix("_total") in self._types and name.endswith("_total"):
            return "counter"
        return "unknown" if ":" in name or name in ("up", "ALERTS") else "missing"

    def _missing(self, name: str) -> str:
        assert self._types is not None
        known = [*self._types, *(base + part for base, kind in self._types.items() if kind == "histogram" for part in _HISTOGRAM_PARTS)]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        return f"the server has no metric {name}" + (f"; did you mean {near[0]}?" if near else "")

    def _alert(self, tree: pp.Expr) -> Iterator[tuple[str, str]]:
        for name, template in self._query.labels:
            if re.search(r"\$value|\.Value", template):
                yield "alerts/value-label", f"label {name} changes with the value: each evaluation is a new alert, and `for` never ends"
        has_and = any(isinstance(each, pp.BinaryExpr) and str(each.op) == "and" for each in walked(tree))
        for node in walked(tree):
            if isinstance(node, pp.BinaryExpr) and str(node.op) == "/" and not has_and and _may_be_zero(bare(node.rhs)):
                yield (
                    "alerts/no-traffic",
                    "0 / 0 is NaN, which passes no threshold: without traffic the alert is silent. Guard it: / (... > 0)",
                )


def _may_be_zero(denominator: pp.Expr) -> bool:
    """A count of events may; a number, a guarded count or the size of a thing may not."""
    if isinstance(denominator, pp.NumberLiteral):
        return False
    if isinstance(denominator, pp.BinaryExpr) and str(denominator.op) == ">":
        return False
    return any(isinstance(each, pp.Call) and each.func.name in _RATES for each in walked(denominator))


def _quantile(node: pp.Call) -> Iterator[tuple[str, str]]:
    buckets = bare(node.args[1])
    if not any(isinstance(each, pp.Call) and each.func.name in _RATES for each in walked(buckets)):
        yield (
            "promql/quantile-all-time",
            "raw buckets: the quantile of all observations since each process started; use rate(..._bucket[5m])",
        )
    if isinstance(buckets, pp.AggregateExpr):
        modifier = "" if buckets.modifier is None else str(buckets.modifier)
        keeps_le = ("by" in modifier and re.search(r"\ble\b", modifier)) or ("without" in modifier and not re.search(r"\ble\b", modifier))
        if not keeps_le:
            yield "promql/quantile-le", "the aggregation drops le, without which there are no buckets; use sum by (le)"
    else:
        yield "promql/quantile-per-series", "one line a series, each of few observations; use sum by (le) (rate(...))"
