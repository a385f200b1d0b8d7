"""How far from its threshold a level must be held, so that the rule never fires below and always fires above: from the arithmetic, not chosen.

Never test at the threshold itself: `100 * (1 - avail / total) > 1` at exactly 1 % is true, at 80 % it is not, since the subtraction rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import promql_parser as pp

from harness.model import value
from harness.rules.tree import walked

_EPSILON = 2.0**-52


@value
class Edges:
    """Levels next to a threshold. Between them the rule may do either."""

    never: float | None
    """Held at or below this, the expression is never true. None: no level is low enough, as the counter's own grain exceeds the threshold."""
    always: float | None
    """Held at or above this, it is always true. None: no level is high enough."""
    because: str


def gauge_edges(expression: str, threshold: float, *, grain: float = 0.0) -> Edges:
    """Edges of a value that is compared as it was scraped.

    grain: distance of the two neighbouring values that the exposition can print, in the unit of the threshold.
    """
    operations, largest = _arithmetic(expression)
    # Each operation rounds by half a unit in the last place of numbers no larger than the expression's own constants and its threshold.
    rounding = operations * _EPSILON * max(abs(threshold), largest)
    return Edges(
        never=threshold - rounding - grain,
        always=threshold + rounding + grain,
        because=f"{operations} roundings" + (f" and a grain of {grain:g}" if grain else ""),
    )


def rate_edges(threshold: float, span_s: float, *, read_s: float = 0.0, grain: float = 1.0) -> Edges:
    """Edges of an even rate, as ``rate()`` over samples that are ``span_s`` apart sees it.

    read_s: longest time from a sample's stamp until its counter was read: the scrape's duration. grain: what the counter counts in.
    """
    ends, stretch = grain / span_s, read_s / span_s
    never = (threshold - ends) / (1 + stretch)
    return Edges(
        never=never if never >= 0 else None,
        always=(threshold + ends) / (1 - stretch) if stretch < 1 else None,
        because=f"one count more or less in {span_s:g} s" + (f", reads up to {read_s:g} s late" if read_s else ""),
    )


def share_edges(threshold: float, events: float, *, alpha: float | None = None, looks: int = 1) -> Edges:
    """Edges of a share, such as lost of all packets, among ``events`` of a window.

    alpha: probability that independent events cross nevertheless at any of ``looks`` evaluations, by Chernoff's bound. None: they are spread
    evenly (every n-th is lost), and only the window's ends are open.
    """
    if events <= 0:
        return Edges(never=None, always=None, because="no events")
    if alpha is None:
        never, always = threshold - 1 / events, threshold + 1 / events
        return Edges(never=never if never >= 0 else None, always=always if always <= 1 else None, because=f"one of {events:g} events")
    wanted = math.log(looks / alpha) / events
    below = _last(0.0, threshold, lambda share: _divergence(threshold, share) >= wanted)
    above = _last(1.0, threshold, lambda share: _divergence(threshold, share) >= wanted)
    return Edges(never=below, always=above, because=f"{events:g} independent events, {looks} looks, alpha {alpha:g}")


def events_to_tell(threshold: float, level: float, *, alpha: float, looks: int = 1) -> float:
    """Independent events a window must hold, so that a true share of ``level`` is never taken for the other side of ``threshold``."""
    divergence = _divergence(threshold, level)
    return math.log(looks / alpha) / divergence if divergence else math.inf


def _divergence(seen: float, share: float) -> float:
    """Kullback and Leibler's, of two coins, in nats."""

    def term(p: float, q: float) -> float:
        return 0.0 if p == 0 else math.inf if q == 0 else p * math.log(p / q)

    return max(0.0, term(seen, share) + term(1 - seen, 1 - share))


def _last(far: float, near: float, holds: Callable[[float], bool]) -> float | None:
    """The level nearest to ``near`` for which it holds, searched from ``far``. None: not even there."""
    if not holds(far):
        return None
    for _ in range(80):
        middle = (far + near) / 2
        far, near = (middle, near) if holds(middle) else (far, middle)
    return far


def _arithmetic(expression: str) -> tuple[int, float]:
    """Number of arithmetic operations and the largest constant."""
    found = walked(pp.parse(expression))
    constants = [abs(float(node.val)) for node in found if isinstance(node, pp.NumberLiteral)]
    operations = sum(isinstance(node, pp.BinaryExpr) and str(node.op) in ("+", "-", "*", "/") for node in found)
    return operations + 1, max(constants, default=0.0)
