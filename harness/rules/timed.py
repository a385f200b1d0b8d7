"""Which numbers of an expression count time, so that they are scaled with it, and what depends on time and stays.

A constant counts time where it is compared with an age (``time() - x > 3600``) and where it says how far to look ahead (``predict_linear``).
It does not where it is compared with a date to come (``x - time()``): a certificate expires by the calendar, however fast the stack runs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import promql_parser as pp

from harness.errors import UsageError
from harness.model import value
from harness.rules.tree import bare, children, selectors, walked

_COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
_EVENTS = frozenset({"increase", "changes", "resets"})
_CALENDAR = frozenset({"hour", "minute", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"})


@value
class Kept:
    """Something that depends on time and is left as it was written."""

    text: str
    why: str


@value
class Timed:
    """What time does to an expression beside its durations."""

    numbers: frozenset[int]
    """Places of the numbers that count time, among all numbers of the expression in reading order."""
    kept: tuple[Kept, ...]


class _Kind(enum.Enum):
    CONSTANT = enum.auto()
    AGE = enum.auto()
    DATE = enum.auto()
    EVENTS = enum.auto()
    OTHER = enum.auto()


def timed(tree: pp.Expr) -> Timed:
    """Reads the whole expression once. Raises UsageError for a ``predict_linear`` that looks ahead by something that is no number."""
    reading = _Reading()
    reading.visit(tree, is_time=False)
    return Timed(numbers=frozenset(reading.chosen), kept=tuple(dict.fromkeys((*reading.kept, *_clocks(tree)))))


def numbers(node: pp.Expr) -> Iterator[float]:
    """Every number of the expression in reading order, those of aggregations (``topk(5, ...)``) included."""
    if isinstance(node, pp.NumberLiteral):
        yield float(node.val)
    if isinstance(node, pp.AggregateExpr) and isinstance(node.param, pp.NumberLiteral):
        yield float(node.param.val)
    for child in children(node):
        yield from numbers(child)


class _Reading:
    def __init__(self) -> None:
        self.seen = 0
        self.chosen: set[int] = set()
        self.kept: list[Kept] = []

    def visit(self, node: pp.Expr, *, is_time: bool) -> None:
        """is_time: the node is a constant that counts time."""
        match node:
            case pp.NumberLiteral():
                if is_time and node.val:
                    self.chosen.add(self.seen)
                self.seen += 1
            case pp.BinaryExpr():
                self._binary(node, is_time=is_time)
            case pp.Call() if node.func.name == "predict_linear":
                if _kind(node.args[1]) is not _Kind.CONSTANT:
                    raise UsageError(f"cannot scale {str(node)!r}: predict_linear counts seconds as something that is no number")
                self.visit(node.args[0], is_time=False)
                self.visit(node.args[1], is_time=True)
            case pp.AggregateExpr():
                if isinstance(node.param, pp.NumberLiteral):
                    self.seen += 1
                self.visit(node.expr, is_time=False)
            case _:
                for child in children(node):
                    self.visit(child, is_time=is_time)

    def _binary(self, node: pp.BinaryExpr, *, is_time: bool) -> None:
        operation, kinds = str(node.op), (_kind(node.lhs), _kind(node.rhs))
        left = right = is_time
        if is_time and operation == "*":
            left = False  # one factor is enough, and it must be the same one on the way back
        elif is_time and operation == "/":
            right = False
        elif operation in _COMPARISONS and _Kind.CONSTANT in kinds:
            other = kinds[0] if kinds[1] is _Kind.CONSTANT else kinds[1]
            left = other is _Kind.AGE and kinds[0] is _Kind.CONSTANT
            right = other is _Kind.AGE and kinds[1] is _Kind.CONSTANT
            if other is _Kind.DATE:
                self.kept.append(Kept(text=str(node), why="a date of the calendar, which comes no sooner here"))
            if other is _Kind.EVENTS and any(numbers(node.lhs if kinds[0] is _Kind.CONSTANT else node.rhs)):
                why = "counts what happens in a window that is shorter here: as in production only where it happens that much faster"
                self.kept.append(Kept(text=str(node), why=why))
        self.visit(node.lhs, is_time=left)
        self.visit(node.rhs, is_time=right)


def _kind(node: pp.Expr) -> _Kind:
    node = bare(node)
    if not list(selectors(node)) and not any(isinstance(each, pp.Call) and each.func.name == "time" for each in walked(node)):
        return _Kind.CONSTANT
    match node:
        case pp.BinaryExpr() if str(node.op) == "-" and _is_time(node.lhs):
            return _Kind.AGE
        case pp.BinaryExpr() if str(node.op) == "-" and _is_time(node.rhs):
            return _Kind.DATE
        case pp.BinaryExpr() if str(node.op) in ("*", "/") and _kind(node.rhs) is _Kind.CONSTANT:
            return _kind(node.lhs)
        case pp.BinaryExpr() if str(node.op) == "*" and _kind(node.lhs) is _Kind.CONSTANT:
            return _kind(node.rhs)
        case pp.Call() if node.func.name in _EVENTS:
            return _Kind.EVENTS
        case pp.Call() if len(node.args) == 1 and not isinstance(bare(node.args[0]), pp.MatrixSelector):
            return _kind(node.args[0])
        case pp.AggregateExpr() if str(node.op) in ("min", "max", "avg", "sum"):
            return _kind(node.expr)
        case pp.UnaryExpr() | pp.SubqueryExpr():
            return _kind(node.expr)
    return _Kind.OTHER


def _is_time(node: pp.Expr) -> bool:
    node = bare(node)
    return isinstance(node, pp.Call) and node.func.name == "time"


def _clocks(tree: pp.Expr) -> Iterator[Kept]:
    """Functions and modifiers that read the calendar, and uses of ``time()`` that are neither an age nor a date."""
    differences = [node for node in walked(tree) if _kind(node) in (_Kind.AGE, _Kind.DATE)]
    understood = sum(isinstance(node, pp.BinaryExpr) and (_is_time(node.lhs) or _is_time(node.rhs)) for node in differences)
    if sum(_is_time(node) and isinstance(node, pp.Call) for node in walked(tree)) > understood:
        yield Kept(text="time()", why="the clock, used otherwise than for an age or a date")
    for node in walked(tree):
        if isinstance(node, pp.Call) and node.func.name in _CALENDAR:
            yield Kept(text=str(node), why="the calendar, which runs no faster here")
        if isinstance(node, pp.VectorSelector | pp.SubqueryExpr) and node.at is not None:
            yield Kept(text=str(node), why="an instant of the calendar (@)")
