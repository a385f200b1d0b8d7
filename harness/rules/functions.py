"""Functions of PromQL as arithmetic: of the samples of a window, of the values of a group, of labels."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence

Samples = Sequence[tuple[int, float]]
"""(milliseconds, value), ascending."""
Labels = tuple[tuple[str, str], ...]


def power(base: float, exponent: float) -> float:
    """Go's math.Pow: what is too large is infinite, what is no real number is NaN."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan


def regression(samples: Samples, origin_ms: int) -> tuple[float, float]:
    """Slope a second and value at ``origin_ms``: prometheus promql/functions.go, linearRegression. At least two samples."""
    first = samples[0][1]
    if all(number == first for _, number in samples):
        return (math.nan, math.nan) if math.isinf(first) else (0.0, first)
    count = float(len(samples))
    times = [(at_ms - origin_ms) / 1000 for at_ms, _ in samples]
    values = [number for _, number in samples]
    sum_x, sum_y = math.fsum(times), math.fsum(values)
    together = math.fsum(x * y for x, y in zip(times, values, strict=True)) - sum_x * sum_y / count
    apart = math.fsum(x * x for x in times) - sum_x * sum_x / count
    slope = together / apart
    return slope, sum_y / count - slope * sum_x / count


def quantile(share: float, values: Sequence[float]) -> float:
    """Of single values, linear between ranks: prometheus promql/quantile.go, quantile."""
    if not values or math.isnan(share):
        return math.nan
    if not 0 <= share <= 1:
        return math.copysign(math.inf, share)
    ordered = sorted(values, key=lambda number: (not math.isnan(number), number))
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    weight = rank - low
    return ordered[low] * (1 - weight) + ordered[high] * weight


def variance(values: Sequence[float]) -> float:
    """Of the whole population."""
    return math.nan if any(map(math.isnan, values)) else statistics.pvariance(values)


def rounded(number: float, to: float = 1.0) -> float:
    """round(): halves go up."""
    if not math.isfinite(number):
        return number
    inverse = 1.0 / to
    return math.floor(number * inverse + 0.5) / inverse


def exponential(number: float) -> float:
    try:
        return math.exp(number)
    except OverflowError:
        return math.inf


def logarithm(number: float, base: float = math.e) -> float:
    if number == 0:
        return -math.inf
    if number < 0 or math.isnan(number):
        return math.nan
    return math.log2(number) if base == 2 else math.log10(number) if base == 10 else math.log(number)


def label_replaced(labels: Labels, target: str, replacement: str, source: str, pattern: str) -> Labels:
    """label_replace(): nothing is done where the pattern does not match the whole label."""
    found = re.fullmatch(pattern, dict(labels).get(source, ""))
    if found is None:
        return labels
    groups = {str(number): text or "" for number, text in enumerate((found[0], *found.groups()))} | {
        name: text or "" for name, text in found.groupdict().items()
    }
    text = re.sub(r"\$(?:\{(\w+)\}|(\w+)|(\$))", lambda match: "$" if match[3] else groups.get(match[1] or match[2], ""), replacement)
    return _with(labels, target, text)


def label_joined(labels: Labels, target: str, separator: str, sources: Sequence[str]) -> Labels:
    """label_join()."""
    known = dict(labels)
    return _with(labels, target, separator.join(known.get(source, "") for source in sources))


def _with(labels: Labels, name: str, text: str) -> Labels:
    kept = {**dict(labels), name: text}
    return tuple(sorted((key, said) for key, said in kept.items() if said))
