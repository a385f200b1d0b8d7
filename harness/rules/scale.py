"""Production time divided by a factor: rule files and Prometheus' configuration made fast, exactly, and back again.

What is scaled: ranges, offsets and subqueries of every expression, and the numbers in it that count time (`harness.rules.timed`); ``interval``,
``for``, ``keep_firing_for`` and ``query_offset`` of rules; scrape and evaluation intervals. What depends on time and stays is accounted for by
`kept_rules` and `NOT_SCALED`.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any

import promql_parser as promql

from harness.errors import UsageError
from harness.model import value
from harness.rules.timed import Kept, numbers, timed
from harness.rules.tree import walked

_UNITS_MS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_PART = r"\d+(?:ms|[smhdwy])"
_DURATION = rf"(?:{_PART})+"
_TOKEN = re.compile(
    rf"""
      (?P<skip> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*` | \#[^\n]* )
    | \[ \s* (?P<range>{_DURATION}) \s* (?: : \s* (?P<step>{_DURATION})? \s* )? \]
    | \b (?i:offset) \s+ -? \s* (?P<offset>{_DURATION}) \b
    | (?P<at> @ \s* [+-]? [\d.eE]+ )
    | (?P<number> \b (?: (?i:inf|nan) | 0[xX][0-9a-fA-F]+ | {_DURATION} | \d+ (?:\.\d*)? (?:[eE][+-]?\d+)? ) (?![\w:]) | \.\d+ )
    | (?P<name> [a-zA-Z_:][\w:]* )
    """,
    re.VERBOSE,
)
_RULE_DURATIONS = ("for", "keep_firing_for")
_GROUP_DURATIONS = ("interval", "query_offset")
_INTERVALS = ("scrape_interval", "evaluation_interval", "rule_query_offset")


@value
class Change:
    """One setting that the fast stack has otherwise than production."""

    setting: str
    production: str
    here: str


NOT_SCALED = (
    Kept(text="webhook back-off of Alertmanager", why="0.5 s and growing, in its code"),
    Kept(text="retention of resolved alerts in Prometheus", why="15 min, in its code"),
    Kept(text="scrape timeout", why="a network is not faster here; it is only kept within its interval"),
    Kept(text="HTTP latency, clock jitter, 2 ms of scrape alignment", why="times the factor in production's terms"),
)
"""What no configuration reaches. Alertmanager's collection of empty groups is --dispatch.maintenance-interval; Prometheus' resend delay, lookback and
grace period of ``for`` are flags, too: whoever starts them scales those."""


def scaled_rules(document: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """A parsed rule file with every duration divided by ``factor``; 1 / factor gives the original back.

    Raises UsageError if a duration would not be a whole number of milliseconds, or a number that counts time would have no end.
    """
    scaled: dict[str, Any] = copy.deepcopy(dict(document))
    for group in scaled.get("groups", ()):
        _divide(group, _GROUP_DURATIONS, factor)
        for rule in group["rules"]:
            _divide(rule, _RULE_DURATIONS, factor)
            rule["expr"] = scaled_expression(str(rule["expr"]), factor)
    return scaled


def scaled_expression(text: str, factor: float) -> str:
    """A PromQL expression with every duration, and every number that counts time, divided by ``factor``; all else stays as it was written.

    The text is edited where they stand, because promql-parser's own printing loses the colon of a subquery and milliseconds; the syntax trees
    before and after decide whether each was scaled, and scaled once.
    """
    before = _parsed(text)
    chosen = timed(before).numbers
    places = itertools.count()
    edited = _TOKEN.sub(lambda match: _edited(match, factor, places, chosen), text)
    after = _parsed(edited)
    exact = _exact(factor)
    wanted = [Fraction(each) / exact for each in _durations_ms(before)]
    counted = [float(Fraction(each) / exact) if place in chosen else each for place, each in enumerate(numbers(before))]
    if wanted != _durations_ms(after) or not _are_alike(counted, list(numbers(after))):
        raise UsageError(f"cannot scale {text!r}: it became {edited!r}, and not every duration of it is what it should be")
    return edited


def kept_rules(document: Mapping[str, Any]) -> tuple[Kept, ...]:
    """What depends on time in the expressions of a rule file and is the same at every factor, with the reason."""
    found = (each for group in document.get("groups", ()) for rule in group["rules"] for each in timed(_parsed(str(rule["expr"]))).kept)
    return tuple(dict.fromkeys(found))


def scaled_config(config: Mapping[str, Any], factor: float) -> tuple[dict[str, Any], tuple[Change, ...]]:
    """Prometheus' configuration with its intervals divided by ``factor``, and what that changed.

    A scrape timeout is not scaled, since a network is not faster here, but it may not exceed the interval.
    """
    scaled: dict[str, Any] = copy.deepcopy(dict(config))
    changes: list[Change] = []
    for name, section in (("global", scaled["global"]), *((job["job_name"], job) for job in scaled.get("scrape_configs", ()))):
        was = dict(section)
        _divide(section, _INTERVALS, factor)
        interval = section.get("scrape_interval", scaled["global"]["scrape_interval"])
        if "scrape_timeout" in section and to_ms(section["scrape_timeout"]) > to_ms(interval):
            section["scrape_timeout"] = interval
        changes.extend(
            Change(setting=f"{name}.{key}", production=str(was[key]), here=str(section[key])) for key in was if was[key] != section[key]
        )
    return scaled, tuple(changes)


def scaled_duration(text: str, factor: float) -> str:
    """``5m`` divided by 15 is ``20s``."""
    exact = Fraction(to_ms(text)) / _exact(factor)
    if exact.denominator != 1:
        raise UsageError(f"cannot divide {text} by {factor:g}: the result is no whole number of milliseconds")
    return display(int(exact))


def to_ms(text: str) -> int:
    """A Prometheus duration in milliseconds."""
    if text == "0":
        return 0
    if not re.fullmatch(_DURATION, text):
        raise UsageError(f"{text!r} is no duration; wanted one such as 15s, 1h30m or 500ms")
    return sum(int(part.rstrip("smhdwy")) * _UNITS_MS[part.lstrip("0123456789")] for part in re.findall(_PART, text))


def display(ms: int) -> str:
    """Milliseconds as Prometheus writes a duration."""
    if ms == 0:
        return "0s"
    parts = []
    for unit, size in _UNITS_MS.items():
        # Prometheus, too, writes weeks and years only when nothing is left over.
        if ms >= size and (unit not in ("y", "w") or ms % size == 0):
            parts.append(f"{ms // size}{unit}")
            ms %= size
    return "".join(parts)


def _exact(factor: float) -> Fraction:
    """1 / 15 as a float is not a fifteenth; the nearest simple fraction is what was meant."""
    return Fraction(factor).limit_denominator(1_000_000)


def _divide(section: dict[str, Any], keys: tuple[str, ...], factor: float) -> None:
    for key in keys:
        if key in section:
            section[key] = scaled_duration(str(section[key]), factor)


def _edited(match: re.Match[str], factor: float, places: Iterator[int], chosen: frozenset[int]) -> str:
    whole, start = match.group(0), match.start()
    if match.group("number") is not None:
        return _divided(whole, factor) if next(places) in chosen and factor != 1 else whole
    for name in ("offset", "step", "range"):
        if match.group(name) is not None:
            at, end = match.start(name) - start, match.end(name) - start
            whole = whole[:at] + scaled_duration(match.group(name), factor) + whole[end:]
    return whole


def _divided(number: str, factor: float) -> str:
    """A number, or a duration that stands for one."""
    if re.fullmatch(_DURATION, number):
        return scaled_duration(number, factor)
    exact = Fraction(int(number, 16) if number[:2] in ("0x", "0X") else number) / _exact(factor)
    text = f"{float(exact):.12f}".rstrip("0").rstrip(".")
    if Fraction(text) != exact:
        raise UsageError(f"cannot divide {number} by {factor:g}: the result has no end; choose another factor")
    return text


def _are_alike(wanted: Sequence[float], found: Sequence[float]) -> bool:
    """Equal, NaN included."""
    return len(wanted) == len(found) and all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(wanted, found, strict=True))


def _parsed(text: str) -> promql.Expr:
    try:
        return promql.parse(text)
    except ValueError as exc:
        raise UsageError(f"not PromQL: {text!r}: {exc}") from exc


def _durations_ms(tree: promql.Expr) -> list[Fraction]:
    """Every duration of the syntax tree, depth first."""
    found: list[Fraction] = []
    for node in walked(tree):
        match node:
            case promql.MatrixSelector():
                found.append(_fraction_ms(node.range))
            case promql.SubqueryExpr():
                found.extend(_fraction_ms(each) for each in (node.range, node.step, node.offset) if each is not None)
            case promql.VectorSelector():
                found.extend(_fraction_ms(each) for each in (node.offset,) if each is not None)
    return found


def _fraction_ms(duration: timedelta) -> Fraction:
    return Fraction(duration // timedelta(microseconds=1), 1000)
