"""Walks over PromQL's syntax trees."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import promql_parser as pp


def walked(tree: pp.Expr) -> list[pp.Expr]:
    """Every node, depth first, the root included."""
    found: list[pp.Expr] = []

    def visit(node: pp.Expr) -> bool:
        found.append(node)
        return True

    pp.walk(tree, visit)
    return found


def bare(node: pp.Expr) -> pp.Expr:
    """Without the parentheses around it."""
    while isinstance(node, pp.ParenExpr):
        node = node.expr
    return node


def children(node: pp.Expr) -> tuple[pp.Expr, ...]:
    """The nodes directly below; none below a selector, whether of an instant or of a range."""
    match node:
        case pp.Call():
            return tuple(node.args)
        case pp.AggregateExpr() | pp.ParenExpr() | pp.UnaryExpr() | pp.SubqueryExpr():
            return (node.expr,)
        case pp.BinaryExpr():
            return (node.lhs, node.rhs)
    return ()


def selectors(node: pp.Expr, function: str | None = None) -> Iterator[tuple[pp.VectorSelector | pp.MatrixSelector, str | None]]:
    """Every selector in reading order, with the function whose argument it is. A range selector counts once."""
    if isinstance(node, pp.VectorSelector | pp.MatrixSelector):
        yield node, function
        return
    inner = node.func.name if isinstance(node, pp.Call) else function if isinstance(node, pp.ParenExpr) else None
    for child in children(node):
        yield from selectors(child, inner)


def arms(node: pp.Expr) -> tuple[pp.Expr, ...]:
    """What stands between the outermost ``or``: each can make the whole true by itself."""
    node = bare(node)
    if isinstance(node, pp.BinaryExpr) and str(node.op) == "or":
        return (*arms(node.lhs), *arms(node.rhs))
    return (node,)


def seconds(duration: dt.timedelta | int | float | None) -> float:
    """A duration of the tree. No offset is 0."""
    if duration is None:
        return 0.0
    return duration.total_seconds() if isinstance(duration, dt.timedelta) else float(duration)
