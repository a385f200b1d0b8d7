"""When a rule may pend, fire and resolve, and when its notification may arrive: sets of instants, before the fact and with phases known.

The truth crosses the threshold at T0 and comes back at T1. A gauge shows it at the next scrape, a window only once enough of it holds the new
level (`Smoothing`), the rule at the next evaluation, the receiver at a tick of Alertmanager's group. Nothing here is a tolerance: each term is
a phase that is not known, and with the phase known the set is an instant. Seconds throughout, on any one clock.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator

import promql_parser as pp

from harness.model import value
from harness.rules.alerts import AlertRule
from harness.rules.tree import bare, seconds


@value
class Window:
    """Instants that are admitted, both ends inclusive."""

    earliest_s: float
    latest_s: float

    def holds(self, at_s: float) -> bool:
        return self.earliest_s <= at_s <= self.latest_s

    def later(self, least_s: float, most_s: float | None = None) -> Window:
        """Shifted by something between ``least_s`` and ``most_s``."""
        return Window(earliest_s=self.earliest_s + least_s, latest_s=self.latest_s + (least_s if most_s is None else most_s))

    @property
    def width_s(self) -> float:
        return self.latest_s - self.earliest_s


@value
class Cadence:
    """How often Prometheus looks, and how long a look takes."""

    scrape_s: float
    evaluation_s: float
    ingest_s: float = 0.0
    """Longest time from a sample's stamp, which is the start of its scrape, until a query sees it: the scrape's duration, or its timeout where
    a target hangs."""


class Shape(enum.StrEnum):
    """How a value over a window follows a step of what it is made of."""

    INSTANT = "instant"
    """The last sample."""
    SPAN = "span"
    """A mean over the time between the window's first and last sample: rate, increase, delta."""
    SAMPLES = "samples"
    """A mean of the window's samples: avg_over_time, sum_over_time."""
    HIGHEST = "highest"
    """Up with the first new sample, down with the last old one."""
    LOWEST = "lowest"
    ABSENT = "absent"
    """True once no sample is left: absent_over_time."""
    UNKNOWN = "unknown"
    """At some time while the window holds both."""


@value
class Smoothing:
    """What stands between a sample and the number that is compared."""

    shape: Shape
    window_s: float = 0.0
    offset_s: float = 0.0


@value
class Crossing:
    """What truly happened: a level that went from ``before`` to ``after`` and came back."""

    at: Window
    """T0: when it left ``before``. One instant if it is known."""
    back: Window | None
    """T1: when it left ``after``. None: it stays."""
    before: float
    after: float
    threshold: float
    ramp_s: float = 0.0
    """How long the way takes, evenly, there and back. 0: a step."""


@value
class Admitted:
    """The sets of instants of one rule for one crossing. Instants are evaluations; ``ALERTS`` stands ``query_offset`` before them."""

    pending: Window | None
    """None: it must never even be pending."""
    firing: Window | None
    """None: it must never fire."""
    must_fire: bool
    """False beside a set: the phases decide whether it lasts as long as ``for``, so it may fire then and need not."""
    resolved: Window | None
    """The first evaluation at which it is neither pending nor firing. None: the level stays, or it never was."""


_SHAPES = {
    **dict.fromkeys(("rate", "increase", "delta"), Shape.SPAN),
    **dict.fromkeys(("avg_over_time", "sum_over_time"), Shape.SAMPLES),
    **dict.fromkeys(("irate", "idelta", "last_over_time"), Shape.INSTANT),
    "max_over_time": Shape.HIGHEST,
    "min_over_time": Shape.LOWEST,
    "absent_over_time": Shape.ABSENT,
}
_COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
_PLAIN = frozenset(
    {"abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "clamp", "clamp_min", "clamp_max", "round", "sgn", "sort"}
)
_PLAIN |= frozenset({"sort_desc", "label_replace", "label_join", "scalar", "vector", "absent", "timestamp"})


def smoothing(expression: str) -> Smoothing:
    """The smoothing of the selector that decides: of those left of the first comparison the one with the widest window.

    Guards (what ``and`` and ``unless`` add) hold throughout the crossing, so they do not delay it.
    """
    found = list(_smoothings(compared(pp.parse(expression))))
    if not found:
        return Smoothing(shape=Shape.INSTANT)
    shapes = {each.shape for each in found if each.window_s == max(other.window_s for other in found)}
    widest = max(found, key=lambda each: each.window_s)
    return widest if len(shapes) == 1 else Smoothing(shape=Shape.UNKNOWN, window_s=widest.window_s, offset_s=widest.offset_s)


def admitted(rule: AlertRule, crossing: Crossing, cadence: Cadence, *, smooth: Smoothing | None = None) -> Admitted:
    """Sets of instants at which the rule's state may change, with the phases of scrape and evaluation unknown.

    They are no wider than a scrape and an evaluation, and what is not known of T0 and T1, if the window is a whole number of scrapes.
    """
    smooth = smooth or smoothing(rule.expression)
    up = _delay(smooth, crossing, cadence.scrape_s, rising=True)
    seen = crossing.at.later(up.earliest_s, up.latest_s)
    pending = _evaluated(seen, cadence, rule.query_offset_s)
    wait_s = whole(rule.for_s, cadence.evaluation_s)
    if crossing.back is None:
        return Admitted(pending=pending, firing=pending.later(wait_s), must_fire=True, resolved=None)
    lasted = Window(
        earliest_s=crossing.back.earliest_s - crossing.at.latest_s + smooth.offset_s,
        latest_s=crossing.back.latest_s - crossing.at.earliest_s + smooth.offset_s,
    )
    if up.earliest_s > 0 and lasted.latest_s <= up.earliest_s:
        return Admitted(pending=None, firing=None, must_fire=False, resolved=None)
    down = _delay(smooth, crossing, cadence.scrape_s, rising=False)
    gone = crossing.back.later(down.earliest_s, down.latest_s)
    away = _evaluated(gone, cadence, rule.query_offset_s)
    least_s, sure_s = lasting(wait_s, cadence)
    if gone.latest_s - seen.earliest_s <= least_s:
        return Admitted(pending=pending, firing=None, must_fire=False, resolved=away)
    is_sure = gone.earliest_s - seen.latest_s >= sure_s and lasted.earliest_s >= up.latest_s + cadence.scrape_s
    kept_s = whole(rule.keep_firing_for_s, cadence.evaluation_s)
    # What did not fire is not kept, either.
    resolved = Window(earliest_s=away.earliest_s + (kept_s if is_sure else 0.0), latest_s=away.latest_s + kept_s)
    return Admitted(pending=pending, firing=pending.later(wait_s), must_fire=is_sure, resolved=resolved)


def lasting(wait_s: float, cadence: Cadence) -> tuple[float, float]:
    """How long samples must stay true for an alert that waits ``wait_s``, as ``whole`` gives it: if no longer than the first it never fires,
    from the second on it always does."""
    least = math.floor((wait_s - cadence.ingest_s) / cadence.scrape_s + 1e-9)
    sure = math.ceil((wait_s + cadence.evaluation_s + cadence.ingest_s) / cadence.scrape_s - 1e-9)
    return max(0.0, least * cadence.scrape_s), sure * cadence.scrape_s


def whole(duration_s: float, interval_s: float) -> float:
    """The first multiple of the interval that is no shorter: what a ``for`` really lasts."""
    return math.ceil(duration_s / interval_s - 1e-9) * interval_s


def compared(node: pp.Expr) -> pp.Expr:
    """The side that holds the signal of the comparison that decides: the first one in reading order."""
    node = bare(node)
    if isinstance(node, pp.BinaryExpr):
        if str(node.op) in ("and", "unless", "or"):
            return compared(node.lhs)
        if str(node.op) in _COMPARISONS:
            return node.rhs if isinstance(node.lhs, pp.NumberLiteral) else node.lhs
    return node


def _smoothings(node: pp.Expr) -> Iterator[Smoothing]:
    """One for each selector."""
    match node:
        case pp.Call():
            for argument in node.args:
                if isinstance(argument, pp.MatrixSelector):
                    yield _over(node.func.name, argument)
                else:
                    yield from (_through(node.func.name, inner) for inner in _smoothings(argument))
        case pp.SubqueryExpr():
            for inner in _smoothings(node.expr):
                window_s = inner.window_s + seconds(node.range)
                yield Smoothing(shape=Shape.UNKNOWN, window_s=window_s, offset_s=inner.offset_s + seconds(node.offset))
        case pp.VectorSelector():
            yield Smoothing(shape=Shape.INSTANT, offset_s=seconds(node.offset))
        case pp.BinaryExpr():
            yield from _smoothings(node.lhs)
            yield from _smoothings(node.rhs)
        case pp.ParenExpr() | pp.UnaryExpr() | pp.AggregateExpr():
            yield from _smoothings(node.expr)


def _over(function: str, node: pp.MatrixSelector) -> Smoothing:
    shape = _SHAPES.get(function, Shape.UNKNOWN)
    window_s = 0.0 if shape is Shape.INSTANT else seconds(node.range)
    return Smoothing(shape=shape, window_s=window_s, offset_s=seconds(node.vector_selector.offset))


def _through(function: str, inner: Smoothing) -> Smoothing:
    """What a function of instant vectors makes of the smoothing of its argument."""
    if inner.shape is Shape.INSTANT or function in _PLAIN:
        return inner
    return Smoothing(shape=Shape.UNKNOWN, window_s=inner.window_s, offset_s=inner.offset_s)


def _evaluated(seen: Window, cadence: Cadence, offset_s: float) -> Window:
    """The first evaluation whose query sees the first scrape at or after ``seen``."""
    return seen.later(offset_s, offset_s + cadence.scrape_s + cadence.ingest_s + cadence.evaluation_s)


def _delay(smooth: Smoothing, crossing: Crossing, scrape_s: float, *, rising: bool) -> Window:
    """From T0 (or T1) to the instant after which the next scrape turns the value: earliest and latest."""
    start, end = (crossing.before, crossing.after) if rising else (crossing.after, crossing.before)
    share = (crossing.threshold - start) / (end - start)
    ramp_s, offset_s = crossing.ramp_s, smooth.offset_s
    # Left-open windows hold the floor or the ceiling of window / interval samples, as the phases fall.
    fewest, most = (max(1, round_(smooth.window_s / scrape_s)) for round_ in (_floor, _ceil))
    match smooth.shape:
        case Shape.INSTANT:
            delays = (ramp_s * share, ramp_s * share)
        case Shape.SPAN:
            delays = (_turn(share, (fewest - 1) * scrape_s, ramp_s), _turn(share, (most - 1) * scrape_s, ramp_s))
        case Shape.SAMPLES if not ramp_s:
            # Exactly at the threshold `>` and `>=` differ, and rounding may pass for either.
            delays = ((math.ceil(share * fewest - 1e-9) - 1) * scrape_s, math.floor(share * most + 1e-9) * scrape_s)
        case Shape.SAMPLES:
            delays = (max(0.0, _turn(share, fewest * scrape_s, ramp_s) - scrape_s), _turn(share, most * scrape_s, ramp_s))
        case Shape.HIGHEST | Shape.LOWEST:
            at_once = (end > start) == (smooth.shape is Shape.HIGHEST)
            counts = (1, 1) if at_once else (fewest, most)
            delays = (ramp_s * share + (counts[0] - 1) * scrape_s, ramp_s * share + (counts[1] - 1) * scrape_s)
        case Shape.ABSENT:
            delays = (max(0.0, smooth.window_s - scrape_s),) * 2 if rising else (0.0, 0.0)
        case Shape.UNKNOWN:
            delays = (0.0, smooth.window_s + ramp_s)
    return Window(earliest_s=delays[0] + offset_s, latest_s=delays[1] + offset_s)


def _turn(share: float, span_s: float, ramp_s: float) -> float:
    """When the mean of a ramp from 0 to 1 over the last ``span_s`` seconds reaches ``share``; the ramp begins at 0."""
    if not ramp_s:
        return share * span_s
    if not span_s:
        return share * ramp_s

    def area(until_s: float) -> float:
        return 0.0 if until_s <= 0 else until_s * until_s / (2 * ramp_s) if until_s <= ramp_s else until_s - ramp_s / 2

    low, high = 0.0, span_s + ramp_s
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if (area(middle) - area(middle - span_s)) / span_s < share else (low, middle)
    return high


def _floor(number: float) -> int:
    return math.floor(number + 1e-9)


def _ceil(number: float) -> int:
    return math.ceil(number - 1e-9)
