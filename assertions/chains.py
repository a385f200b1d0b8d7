"""What every quantity has in common behind its raw samples: the recording rules, joined to the tree of the quantity that they are of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from assertions import rules
from assertions.facts import Facts
from assertions.ledger import Reading, Tree
from assertions.recomputed import Engine
from harness.measure.series import Reader

RAW = "raw samples"
"""The root of what follows from samples whose own truth no step of ours judges."""


class Chains:
    """The hops behind the raw samples, of one run."""

    def __init__(self, reader: Reader, facts: Facts) -> None:
        self._facts = facts
        self._engine = Engine(facts)
        self._rules = rules.shipped(reader, facts)
        self._quantities = rules.quantities(self._rules, reader, self._engine)

    def joined(self, trees: Sequence[Tree]) -> list[Tree]:
        """The trees with the hops behind their samples; what has no such tree stands on the raw samples."""
        found = list(trees)
        for quantity in self._quantities:
            samples = f"{quantity}/samples"
            place = next((index for index, tree in enumerate(found) if any(step.claim == samples for step in tree.steps)), None)
            if place is None:
                found.append(Tree(root=RAW, truth=Reading(parts={}), steps=(), reads=frozenset()))
                place, samples = len(found) - 1, RAW
            tree = found[place]
            step = rules.step(quantity, samples, self._rules, self._engine, self._facts)
            reads = tree.reads | rules.reads(self._rules, quantity, self._engine)
            found[place] = dataclasses.replace(tree, steps=(*tree.steps, step), reads=reads)
        return found

    def passed_on(self, reader: Reader, lie: Reader) -> Reader:
        """A lie of an earlier hop, with which what is behind it calculates as it should."""
        return rules.retold(lie, reader.touched(lie), self._rules, self._engine, self._facts)
