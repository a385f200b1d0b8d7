"""Production time divided by a factor: rule files and Prometheus' configuration made fast, exactly, and back again.

What is scaled: ranges, offsets and subqueries of every expression; ``interval``, ``for``, ``keep_firing_for`` and ``query_offset`` of
rules; scrape and evaluation intervals. What cannot be: an argument that counts seconds as a number (``predict_linear``); such a rule is
refused, never half scaled.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Any

import promql_parser as promql

from harness.errors import UsageError
from harness.model import value

_UNITS_MS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_PART = r"\d+(?:ms|[smhdwy])"
_DURATION = rf"(?:{_PART})+"
_TOKEN = re.compile(
    rf"""
      (?P<skip> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*` | \#[^\n]* )
    | \[ \s* (?P<range>{_DURATION}) \s* (?: : \s* (?P<step>{_DURATION})? \s* )? \]
    | \b (?i:offset) \s+ -? \s* (?P<offset>{_DURATION}) \b
    """,
    re.VERBOSE,
)
_RULE_DURATIONS = ("for", "keep_firing_for")
_GROUP_DURATIONS = ("interval", "query_offset")
_INTERVALS = ("scrape_interval", "evaluation_interval")


@value
class Change:
    """One setting that the fast stack has otherwise than production."""

    setting: str
    production: str
    here: str


def scaled_rules(document: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """A parsed rule file with every duration divided by ``factor``; 1 / factor gives the original back.

    Raises UsageError if a duration would not be a whole number of milliseconds, or if an expression counts seconds as a number.
    """
    scaled: dict[str, Any] = copy.deepcopy(dict(document))
    for group in scaled.get("groups", ()):
        _divide(group, _GROUP_DURATIONS, factor)
        for rule in group["rules"]:
            _divide(rule, _RULE_DURATIONS, factor)
            rule["expr"] = scaled_expression(str(rule["expr"]), factor)
    return scaled


def scaled_expression(text: str, factor: float) -> str:
    """A PromQL expression with every duration divided by ``factor``; all else stays as it was written.

    The text is edited where the durations stand, because promql-parser's own printing loses the colon of a subquery and milliseconds; the
    syntax trees before and after decide whether every duration was scaled, and scaled once.
    """
    before = _durations_ms(text)
    edited = _TOKEN.sub(lambda match: _edited(match, factor), text)
    after = _durations_ms(edited)
    if [Fraction(each) / _exact(factor) for each in before] != after:
        raise UsageError(f"cannot scale {text!r}: its durations {before} ms became {after} ms")
    return edited


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


def _edited(match: re.Match[str], factor: float) -> str:
    whole, start = match.group(0), match.start()
    for name in ("offset", "step", "range"):
        if match.group(name) is not None:
            at, end = match.start(name) - start, match.end(name) - start
            whole = whole[:at] + scaled_duration(match.group(name), factor) + whole[end:]
    return whole


def _durations_ms(text: str) -> list[Fraction]:
    """Every duration of the syntax tree, depth first."""
    try:
        tree = promql.parse(text)
    except ValueError as exc:
        raise UsageError(f"not PromQL: {text!r}: {exc}") from exc
    found: list[Fraction] = []

    def visit(node: promql.Expr) -> bool:
        match node:
            case promql.MatrixSelector():
                found.append(_fraction_ms(node.range))
            case promql.SubqueryExpr():
                found.extend(_fraction_ms(each) for each in (node.range, node.step, node.offset) if each is not None)
            case promql.VectorSelector():
                found.extend(_fraction_ms(each) for each in (node.offset,) if each is not None)
            case promql.Call() if node.func.name == "predict_linear":
                raise UsageError(f"cannot scale {text!r}: predict_linear counts seconds as a number")
        return True

    promql.walk(tree, visit)
    return found


def _fraction_ms(duration: timedelta) -> Fraction:
    return Fraction(duration // timedelta(microseconds=1), 1000)
