"""Exposition text changed as a faulty exporter would: whole lines in, whole lines out."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)(?P<rest>.*)$")
_LABEL = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')


def total(text: str, metric: str, labels: Mapping[str, str]) -> float:
    """Sum of the samples of ``metric`` whose labels include ``labels``. 0 if there are none."""
    found = 0.0
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and match["name"] == metric and labels.items() <= dict(_LABEL.findall(match["labels"] or "")).items():
            found += float(match["value"])
    return found


def without(text: str, metric: str) -> str:
    """The text with no sample of ``metric``."""
    lines = ((line, _LINE.match(line)) for line in text.splitlines(keepends=True))
    return "".join(line for line, match in lines if match is None or match["name"] != metric)


def multiplied(text: str, metric: str, by: float) -> str:
    """A gauge or a counter multiplied, or a histogram as it would be had every observation been: a slip of units, or something counted twice.

    What lies inside a bucket is unknown, so each observation counts as its bucket's upper bound; for a factor beyond the bounds' span
    (seconds to milliseconds) the result is exact: all of them are over the last bound.
    """
    lines = text.splitlines(keepends=True)
    counts = _cumulative(lines, metric)
    return "".join(_multiplied_line(line, metric, by, counts) for line in lines)


def _cumulative(lines: list[str], metric: str) -> dict[str, list[tuple[float, float]]]:
    """(upper bound, count up to it), ascending, by the other labels."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        match = _LINE.match(line)
        if match and match["name"] == f"{metric}_bucket":
            labels = dict(_LABEL.findall(match["labels"]))
            found.setdefault(_others(labels), []).append((float(labels["le"]), float(match["value"])))
    return {key: sorted(buckets) for key, buckets in found.items()}


def _multiplied_line(line: str, metric: str, by: float, counts: Mapping[str, list[tuple[float, float]]]) -> str:
    match = _LINE.match(line)
    if not match:
        return line
    if match["name"] in (metric, f"{metric}_sum"):
        number = float(match["value"]) * by
    elif match["name"] == f"{metric}_bucket":
        labels = dict(_LABEL.findall(match["labels"]))
        bound = float(labels["le"])
        below = [count for upper, count in counts[_others(labels)] if upper * by <= bound]
        number = max(below, default=0.0)
    else:
        return line
    return f"{line[: match.start('value')]}{number!r}{line[match.end('value') :]}"


def _others(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={text}" for name, text in sorted(labels.items()) if name != "le")
