"""What drives a rule: one input whose level, or whose presence, turns the expression from false to true.

Levels are tried on the evaluator of `harness.rules.evaluate` until two are found between which the expression turns, then bisected.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import promql_parser as pp

from harness.model import value
from harness.rules.evaluate import vector
from harness.rules.inputs import Input, Level, Ramp, Timeline, Toggle, constants, database, grid, inputs, widest_s
from harness.rules.tree import arms

_LEVELS = (0.0, 1.0, -1.0, 0.5, 2.0, 10.0, 100.0, 1e3, 1e6, 1e9, 1e12)
_TOGGLES = (Toggle(low=0.0, high=1.0), Toggle(low=1.0, high=1e6))
_RAMPS = (Ramp(start=0.0, per_s=1.0), Ramp(start=1e6, per_s=-1e3), Ramp(start=0.0, per_s=1e6))
_REST = (100.0, 1.0, 0.0)
"""Levels tried for the inputs that are not the driver."""
_MANY = 3
"""With more metrics than this all others share one level: the combinations would be too many."""


@value
class Step:
    """Levels of all inputs before and after."""

    calm: Mapping[Input, Level]
    breach: Mapping[Input, Level]
    driver: Input | None
    """None: the expression is always true."""
    threshold: float | None
    """The driver's level at which the expression turns. None: it is there or not, toggles or not."""


def steps(tree: pp.Expr) -> tuple[Step, ...]:
    """How to turn the expression: one way for each arm of its outermost ``or`` that has one. Empty: none was found."""
    if not inputs(tree):
        return (Step(calm={}, breach={}, driver=None, threshold=None),) if holds(tree, {}) else ()
    return _steps(tree, alike=False) or _steps(tree, alike=True)


def _steps(tree: pp.Expr, *, alike: bool) -> tuple[Step, ...]:
    alone = [_search(arm, inputs(arm, alike=alike)) for arm in arms(tree)]
    if len(alone) == 1:
        return tuple(step for step in alone if step is not None)
    # An arm that nothing turns is held at whatever keeps the others calm.
    calm = {entry: level for step in alone if step is not None for entry, level in step.calm.items()}
    calm = {**dict.fromkeys(inputs(tree, alike=alike), None), **calm}
    if holds(tree, calm):
        return ()
    found = []
    for step in alone:
        if step is not None and step.driver is not None:
            breach = {**calm, **step.breach}
            if holds(tree, breach):
                found.append(Step(calm=calm, breach=breach, driver=step.driver, threshold=step.threshold))
    return tuple(found)


def holds(tree: pp.Expr, levels: Mapping[Input, Level]) -> bool:
    """Whether the expression is true in the steady state of ``levels``."""
    widest = widest_s(tree)
    # Few samples will do where nothing changes: twelve in the widest window, and no gap beyond the lookback.
    spacing_s = 15.0 if any(isinstance(level, Toggle) for level in levels.values()) else min(240.0, grid(max(widest, 180.0) / 12))
    end_s = math.ceil((max(widest, 60.0) + 2 * spacing_s) / spacing_s) * spacing_s
    samples = database(levels, levels, Timeline(calm_s=end_s), spacing_s=spacing_s)
    try:
        return bool(vector(tree, samples, end_s))
    except OverflowError:
        return False


def _search(tree: pp.Expr, needed: Sequence[Input]) -> Step | None:
    """The first driver in reading order that has a threshold of its own; else the best of the others."""
    known = constants(tree)
    levels = sorted({*_LEVELS, *known, *(number * factor for number in known for factor in (-2.0, 0.1, 0.5, 0.99, 1.01, 2.0, 10.0))})
    found: list[Step] = []
    for driver in needed:
        for held in _rests(needed):
            step = _turned(tree, held, driver, levels)
            if step is not None and step.threshold:
                return step
            if step is not None:
                found.append(step)
                break
    return min(found, key=lambda step: step.threshold is None, default=None)


def _turned(tree: pp.Expr, held: Mapping[Input, Level], driver: Input, levels: Sequence[float]) -> Step | None:
    truths = [(level, holds(tree, {**held, driver: level})) for level in levels if level >= 0 or not driver.is_counter]
    false = [level for level, truth in truths if not truth]
    true = [level for level, truth in truths if truth]
    if true and false:
        return _bracketed(tree, held, driver, false, true)
    if not false:
        return None
    for breach in (None, *(() if driver.is_counter else (*_TOGGLES, *_RAMPS))):
        if holds(tree, {**held, driver: breach}):
            return Step(calm={**held, driver: false[0]}, breach={**held, driver: breach}, driver=driver, threshold=None)
    return None


def _bracketed(tree: pp.Expr, held: Mapping[Input, Level], driver: Input, false: Sequence[float], true: Sequence[float]) -> Step:
    """Bisects between the nearest false and true levels. The threshold is the limit, rounded to nine digits."""
    low, high = min(itertools.product(false, true), key=lambda pair: abs(pair[0] - pair[1]))
    calm, far = low, high
    for _ in range(60):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if holds(tree, {**held, driver: middle}):
            high = middle
        else:
            low = middle
    threshold = round(float(f"{(low + high) / 2:.9g}"), 12)
    breach = high + math.copysign(max(abs(threshold) * 0.1, 0.1), far - calm)
    if not holds(tree, {**held, driver: breach}):
        breach = far
    return Step(calm={**held, driver: calm}, breach={**held, driver: breach}, driver=driver, threshold=threshold)


def _rests(needed: Sequence[Input]) -> Iterator[Mapping[Input, Level]]:
    """Levels for all inputs; the driver's is replaced by the search."""
    metrics = sorted({entry.metric for entry in needed})
    if len(metrics) > _MANY:
        yield from (dict.fromkeys(needed, level) for level in _REST)
        # Some rules want one between others: a few orders of distinct levels, always the same ones.
        for order in itertools.islice(itertools.permutations(range(1, len(metrics) + 1)), 0, 120, 5):
            by_rank = dict(zip(metrics, map(float, order), strict=True))
            yield {entry: by_rank[entry.metric] for entry in needed}
        return
    for levels in itertools.product(_REST, repeat=len(metrics)):
        by_metric = dict(zip(metrics, levels, strict=True))
        yield {entry: by_metric[entry.metric] for entry in needed}
