"""Threshold, window and ``for`` of one alert to choose from: how late it tells an injected truth, how often it fired on the stored history, and the
smallest level that this traffic lets it tell apart.

The history is replayed once for each window, as the value that is compared; thresholds and ``for`` are then a matter of the state machine.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import promql_parser as pp

from harness.errors import UsageError
from harness.measure.series import Reader
from harness.model import Evidence, Source, value
from harness.rules.alerts import AlertRule, episodes, machine
from harness.rules.audit import Matrix, Server
from harness.rules.evaluate import Database, Evaluator, Labels, NotAnalysed, series
from harness.rules.margins import share_edges
from harness.rules.scale import display, scaled_expression, to_ms
from harness.rules.tree import bare, seconds, selectors, walked
from harness.rules.windows import Cadence, Crossing, Shape, Smoothing, Window, admitted

_TIMES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Thresholds tried, as multiples of the rule's own."""
_ALPHA = 1e-3
_HOLDS: Mapping[str, Callable[[float, float], bool]] = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_RANGE = re.compile(r"\[\s*((?:\d+(?:ms|[smhdwy]))+)\s*\]")
_COUNTED = ("_total", "_count", "_bucket")


@value
class Compared:
    """An alert's expression taken apart at the comparison that decides."""

    value: str
    """What is compared, with the guards of the expression kept."""
    operation: str
    threshold: float
    window_s: float | None
    """The widest range below it. None: it looks at the last sample."""
    events: str | None
    """The count a second of what the value is a share of. None: it is no share of counted events."""
    unit: float
    """What a share of 1 is in the value: 100 for percent."""


@value
class Choice:
    """One setting of the three."""

    threshold: float
    window_s: float | None
    for_s: float
    delay: Window | None
    """From the injected truth to firing, earliest and latest phase. None: the injected level does not cross this threshold."""
    fires: int
    """Episodes on the stored history; each is false if nothing was wrong then."""
    resolves: float | None
    """The level nearest to the threshold that is told for certain. None: no level is, or the history does not say."""
    is_own: bool
    """The rule as it is written."""
    is_best: bool
    """No other setting is both sooner and quieter."""


@value
class Tuning:
    """All settings of one alert."""

    rule: AlertRule
    compared: Compared
    before: float
    """The median of the history."""
    injected: float
    history_s: float
    series: int
    because: str
    """Where ``resolves`` comes from."""
    choices: tuple[Choice, ...]


@value
class Grid:
    """What is tried. Empty: around the rule's own."""

    thresholds: tuple[float, ...] = ()
    windows_s: tuple[float, ...] = ()
    fors_s: tuple[float, ...] = ()
    injected: float | None = None


def tune(rule: AlertRule, server: Server, cadence: Cadence, grid: Grid) -> Tuning:
    """Raises UsageError for an alert that compares no value with a number, and if the history has no value. The server may raise Unanswered."""
    compared = taken_apart(rule)
    windows = _windows(compared, grid, cadence.scrape_s)
    histories = {
        window_s: server.over_time(_with_window(compared.value, compared.window_s, window_s), cadence.evaluation_s) for window_s in windows
    }
    numbers = sorted(number for found in histories.values() for points in found.values() for _, number in points if not math.isnan(number))
    if not numbers:
        raise UsageError(f"alert {rule.name}: {compared.value} has no value in the stored window: nothing to choose by")
    before = statistics.median(numbers)
    own = rule.for_s
    fors = sorted(set(grid.fors_s or (0.0, own, own / 2, own * 2, cadence.evaluation_s * 4)))
    thresholds = sorted(set(grid.thresholds or (compared.threshold * times for times in _TIMES)))
    injected = _injected(compared, thresholds, before) if grid.injected is None else grid.injected
    rate_s = _rate_of_events(compared, server, cadence)
    instants = _instants(server, cadence.evaluation_s)
    choices = []
    for window_s, threshold, for_s in itertools.product(windows, thresholds, fors):
        shaped = _shaped(rule, compared, window_s, for_s)
        choices.append(
            Choice(
                threshold=threshold,
                window_s=window_s,
                for_s=for_s,
                delay=_delay(shaped, cadence, before, injected, threshold),
                fires=_fires(shaped, histories[window_s], instants, compared.operation, threshold),
                resolves=_resolves(compared, threshold, histories[window_s], rate_s, window_s, len(instants)),
                is_own=(window_s, threshold, for_s) == (compared.window_s, compared.threshold, own),
                is_best=False,
            )
        )
    because = (
        f"{rate_s * (compared.window_s or 0):.3g} events in the rule's own window, by Chernoff's bound with alpha {_ALPHA:g}"
        if rate_s is not None
        else "the spread that the history has around its median"
    )
    return Tuning(
        rule=rule,
        compared=compared,
        before=before,
        injected=injected,
        history_s=server.end_s - server.start_s,
        series=max(len(found) for found in histories.values()),
        because=because,
        choices=tuple(_best(choices)),
    )


def taken_apart(rule: AlertRule) -> Compared:
    """Raises UsageError where there is no single comparison of a value with a number to move."""
    node, guards = bare(pp.parse(rule.expression)), ""
    while isinstance(node, pp.BinaryExpr) and str(node.op) in ("and", "unless"):
        guards = f" {node.op} {node.modifier or ''} {node.rhs}{guards}"
        node = bare(node.lhs)
    if not isinstance(node, pp.BinaryExpr) or str(node.op) not in _HOLDS or not isinstance(bare(node.rhs), pp.NumberLiteral):
        raise UsageError(f"alert {rule.name}: no comparison of a value with a number, by <, <=, > or >=, that could be moved")
    if any(isinstance(each, pp.SubqueryExpr) for each in walked(node)):
        raise UsageError(f"alert {rule.name}: a subquery cannot be tuned")
    ranges = {seconds(each.range) for each, _ in selectors(node.lhs) if isinstance(each, pp.MatrixSelector)}
    events, unit = _share_of(node.lhs)
    return Compared(
        value=f"({node.lhs}){guards}",
        operation=str(node.op),
        threshold=float(bare(node.rhs).val),  # type: ignore[attr-defined]
        window_s=max(ranges, default=None),
        events=events,
        unit=unit,
    )


def at_scale(rule: AlertRule, factor: float, interval_s: float) -> AlertRule:
    """The rule of a stack that is ``factor`` times as fast."""
    return dataclasses.replace(
        rule,
        expression=scaled_expression(rule.expression, factor),
        for_s=rule.for_s / factor,
        keep_firing_for_s=rule.keep_firing_for_s / factor,
        query_offset_s=rule.query_offset_s / factor,
        interval_s=interval_s,
    )


def stored(evidence: Evidence, *, lookback_s: float) -> Stored:
    """The raw samples of a recorded run. Raises UsageError if there are none."""
    timelines = Reader.of(evidence).timelines.get(Source.PROMETHEUS, {})
    database = {
        name: tuple(series(name, [(at / 1e9, number) for at, number in found.samples], **found.labels) for found in of_name)
        for name, of_name in timelines.items()
    }
    instants = [at_s for of_name in database.values() for found in of_name for at_s in found.at_s]
    if not instants:
        raise UsageError("the run has no raw sample of Prometheus")
    return Stored(database=database, start_s=min(instants), end_s=max(instants), lookback_s=lookback_s)


@value
class Stored:
    """A recorded database as a server: its window, evaluated here."""

    database: Database
    start_s: float
    end_s: float
    lookback_s: float

    def matching(self, selector: str) -> Sequence[Mapping[str, str]]:
        window = f"last_over_time({selector}[{math.ceil(self.end_s - self.start_s) + 1}s])"
        found = Evaluator(self.database).vector(window, self.end_s)
        return [dict(labels) for labels in found]

    def over_time(self, expression: str, step_s: float) -> Matrix:
        tree, evaluator = pp.parse(expression), Evaluator(self.database, lookback_s=self.lookback_s)
        points: dict[Labels, list[tuple[float, float]]] = {}
        for at_s in _instants(self, step_s):
            try:
                found = evaluator.vector(tree, at_s)
            except NotAnalysed as exc:
                raise UsageError(f"cannot be calculated offline: it uses {exc}; give --prometheus URL") from exc
            for labels, number in found.items():
                points.setdefault(labels, []).append((at_s, number))
        return {labels: tuple(samples) for labels, samples in points.items()}


def _instants(server: Server, step_s: float) -> tuple[float, ...]:
    return tuple(round(server.start_s + step_s * step, 3) for step in range(int((server.end_s - server.start_s) / step_s + 1e-6) + 1))


def _windows(compared: Compared, grid: Grid, scrape_s: float) -> tuple[float | None, ...]:
    own = compared.window_s
    if own is None:
        return (None,)
    tried = grid.windows_s or tuple(own * times for times in (0.2, 0.5, 1.0, 2.0))
    # Below four scrapes a missed one leaves a gap.
    return tuple(sorted({each for each in tried if each >= 4 * scrape_s or each == own}))


def _with_window(text: str, own_s: float | None, window_s: float | None) -> str:
    if own_s is None or window_s is None or own_s == window_s:
        return text
    wanted = display(round(window_s * 1000))
    return _RANGE.sub(lambda match: f"[{wanted}]" if to_ms(match[1]) == round(own_s * 1000) else match[0], text)


def _shaped(rule: AlertRule, compared: Compared, window_s: float | None, for_s: float) -> AlertRule:
    """The rule with this window and ``for``; its threshold is the crossing's."""
    expression = _with_window(f"{compared.value} > 0", compared.window_s, window_s)
    return dataclasses.replace(rule, expression=expression, for_s=for_s)


def _injected(compared: Compared, thresholds: Sequence[float], before: float) -> float:
    """A level that crosses every threshold by as much as the history is away from the rule's own; percent end at 100."""
    away = abs(compared.threshold - before)
    if compared.operation in (">", ">="):
        level = max(thresholds[-1] + 0.5 * away, compared.threshold + away)
        return min(level, 100.0) if compared.threshold < 100 and re.search(r"\b100 \*|\* 100\b", compared.value) else level
    return min(thresholds[0] - 0.5 * away, compared.threshold - away)


def _delay(rule: AlertRule, cadence: Cadence, before: float, injected: float, threshold: float) -> Window | None:
    if not min(before, injected) < threshold < max(before, injected):
        return None
    now = Window(earliest_s=0.0, latest_s=0.0)
    quantile = _quantile_of(rule)
    if quantile is not None and injected > before:
        # Exceeded once more than 1 - q of the window's observations are of the new level.
        share, window_s = quantile
        smooth = Smoothing(shape=Shape.SPAN, window_s=window_s)
        return admitted(rule, Crossing(at=now, back=None, before=0.0, after=1.0, threshold=1 - share), cadence, smooth=smooth).firing
    return admitted(rule, Crossing(at=now, back=None, before=before, after=injected, threshold=threshold), cadence).firing


def _quantile_of(rule: AlertRule) -> tuple[float, float] | None:
    """Quantile and window, where the value is one of the rates of a histogram's buckets and grows."""
    node = bare(pp.parse(rule.expression))
    while isinstance(node, pp.BinaryExpr):
        node = bare(node.lhs)
    if not isinstance(node, pp.Call) or node.func.name != "histogram_quantile" or not isinstance(node.args[0], pp.NumberLiteral):
        return None
    windows = {seconds(each.range) for each, _ in selectors(node.args[1]) if isinstance(each, pp.MatrixSelector)}
    return (float(node.args[0].val), windows.pop()) if len(windows) == 1 else None


def _fires(rule: AlertRule, history: Matrix, instants: Sequence[float], operation: str, threshold: float) -> int:
    true_at: dict[float, list[Labels]] = {}
    holds = _HOLDS[operation]
    for labels, points in history.items():
        for at_s, number in points:
            if holds(number, threshold):
                true_at.setdefault(round(at_s, 3), []).append(labels)
    told = episodes(machine(rule, ((at_s, true_at.get(at_s, ())) for at_s in instants)), instants)
    return sum(one.firing_at_s is not None for one in told)


def _rate_of_events(compared: Compared, server: Server, cadence: Cadence) -> float | None:
    """The median count a second of what the value is a share of."""
    if compared.events is None:
        return None
    found = [number for points in server.over_time(compared.events, cadence.evaluation_s).values() for _, number in points if number > 0]
    return statistics.median(found) if found else None


def _resolves(
    compared: Compared, threshold: float, history: Matrix, rate_s: float | None, window_s: float | None, looks: int
) -> float | None:
    up = compared.operation in (">", ">=")
    if rate_s is not None and window_s is not None:
        if not 0 < threshold / compared.unit < 1:
            return None
        edges = share_edges(threshold / compared.unit, rate_s * window_s, alpha=_ALPHA, looks=looks)
        found = edges.always if up else edges.never
        return None if found is None else found * compared.unit
    spreads = []
    for points in history.values():
        # A series that has just begun fills its first window with few samples.
        numbers = [number for at_s, number in points if not math.isnan(number) and at_s >= points[0][0] + (window_s or 0.0)]
        if len(numbers) > 1:
            middle = statistics.median(numbers)
            spreads.append(middle - min(numbers) if up else max(numbers) - middle)
    if not spreads:
        return None
    return threshold + max(spreads) if up else threshold - max(spreads)


def _share_of(node: pp.Expr) -> tuple[str | None, float]:
    """For a quotient of two rates of events: the divisor as text, and what a share of 1 is."""
    node = bare(node)
    if isinstance(node, pp.BinaryExpr) and str(node.op) == "*":
        for number, other in ((bare(node.lhs), node.rhs), (bare(node.rhs), node.lhs)):
            if isinstance(number, pp.NumberLiteral):
                events, unit = _share_of(other)
                return events, unit * float(number.val)
    # 100 * a / b is (100 * a) / b.
    if isinstance(node, pp.BinaryExpr) and str(node.op) == "/":
        counted = list(selectors(node))
        are_rates = all(function in ("rate", "increase") and _name(each).endswith(_COUNTED) for each, function in counted)
        sides = [list(selectors(node.lhs)), list(selectors(node.rhs))]
        if are_rates and all(sides):
            divisor = bare(node.rhs)
            while isinstance(divisor, pp.BinaryExpr) and str(divisor.op) in (">", ">="):
                divisor = bare(divisor.lhs)
            factor = 1.0
            for part in walked(node.lhs):
                if isinstance(part, pp.BinaryExpr) and str(part.op) == "*":
                    factor = (
                        math.prod(float(each.val) for each in map(bare, (part.lhs, part.rhs)) if isinstance(each, pp.NumberLiteral)) or 1.0
                    )
                    break
            is_rate = all(function == "rate" for _, function in sides[1])
            ranged = seconds(sides[1][0][0].range) if isinstance(sides[1][0][0], pp.MatrixSelector) else 1.0
            return (str(divisor) if is_rate else f"({divisor}) / {ranged:g}"), factor
    return None, 1.0


def _name(node: pp.VectorSelector | pp.MatrixSelector) -> str:
    return (node.vector_selector.name if isinstance(node, pp.MatrixSelector) else node.name) or ""


def _best(choices: Sequence[Choice]) -> Iterator[Choice]:
    """Marks those that nothing beats in both delay and silence."""

    told = [(each.delay.latest_s, each.fires) for each in choices if each.delay is not None]
    for each in choices:
        if each.delay is not None:
            mine = (each.delay.latest_s, each.fires)
            if not any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in told):
                each = dataclasses.replace(each, is_best=True)
        yield each
