"""Walks over PromQL's syntax trees."""

from __future__ import annotations

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
