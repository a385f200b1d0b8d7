"""What every quantity has in common behind its samples and rows: recording rules and panels, joined to the tree of their quantity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from assertions import panels, rules
from assertions.deciding import usual
from assertions.facts import Facts
from assertions.ledger import Reading, Step, Tree
from assertions.recomputed import Engine
from harness.measure.series import Reader

RAW = "raw samples"
"""The root of what follows from samples whose own truth no step of ours judges."""


class Chains:
    """The hops behind samples and rows, of one run."""

    def __init__(self, reader: Reader, facts: Facts) -> None:
        self._reader, self._facts = reader, facts
        self._engine = Engine(facts)
        self._rules = rules.shipped(reader, facts)
        self._quantities = rules.quantities(self._rules, self._reader, self._engine)
        self._panels = panels.drawn(reader, facts)
        self._shown = panels.quantities(self._panels, reader)

    def joined(self, trees: Sequence[Tree]) -> list[Tree]:
        """The trees with the hops behind them; what has no such tree stands on the raw samples."""
        found = [_with_needs(tree) for tree in trees]
        for quantity in self._quantities:
            place, source = _place(found, f"{quantity}/samples")
            step = rules.step(quantity, source, self._rules, self._reader, self._engine, self._facts)
            _join(found, place, step, rules.reads(self._rules, quantity, self._engine))
        for quantity in self._shown:
            is_of_rows = any(each.line.read is not None for each in self._panels if each.line.quantity == quantity)
            place, source = _place(found, f"{quantity}/rows" if is_of_rows else f"{quantity}/rule")
            step = panels.step(quantity, source, self._panels, self._rules, self._reader, self._engine, self._facts)
            _join(found, place, step, panels.reads(self._panels, quantity, self._engine))
        return found

    def passed_on(self, reader: Reader, lie: Reader) -> Reader:
        """A lie of an earlier hop, with which what is behind it calculates as it should."""
        told = rules.retold(lie, reader.touched(lie), self._rules, self._engine, self._facts)
        return panels.retold(reader, told, reader.touched(told), self._panels, self._engine, self._facts)


def _with_needs(tree: Tree) -> Tree:
    """The tree, each of its steps with what would decide it."""
    return dataclasses.replace(
        tree, steps=tuple(step if step.needs else dataclasses.replace(step, needs=usual(step.claim)) for step in tree.steps)
    )


def _place(trees: list[Tree], claim: str) -> tuple[int, str]:
    """Where the tree is that has a step of this claim, and the hop to go on from; a new tree if there is none."""
    for index, tree in enumerate(trees):
        if any(step.claim == claim for step in tree.steps):
            return index, claim
    trees.append(Tree(root=RAW, truth=Reading(parts={}), steps=(), reads=frozenset()))
    return len(trees) - 1, RAW


def _join(trees: list[Tree], place: int, step: Step, reads: frozenset[str]) -> None:
    tree = trees[place]
    trees[place] = dataclasses.replace(tree, steps=(*tree.steps, step), reads=tree.reads | reads)
