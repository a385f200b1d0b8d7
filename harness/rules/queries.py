"""Queries where they stand: rule files, panel files and Grafana dashboards, each with its place in its file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UsageError
from harness.model import value
from harness.rules.panelfile import lines, panels
from harness.rules.rulefile import Entry, entries


class Use(StrEnum):
    """What a query is for."""

    PANEL = "panel"
    RECORD = "record"
    ALERT = "alert"


@value
class Query:
    """One PromQL expression in a file."""

    expression: str
    """As written, Grafana's variables replaced by what they stand for."""
    use: Use
    name: str
    """The panel's title, the record or the alert."""
    place: str
    """``FILE:LINE`` of a rule; ``FILE: panel TITLE`` of a dashboard."""
    labels: tuple[tuple[str, str], ...] = ()
    """Label templates of an alert."""


_MACROS = (
    (re.compile(r"\$__rate_interval|\$\{__rate_interval\}"), "1m"),
    (re.compile(r"\$__(interval|interval_ms)|\$\{__interval\}"), "15s"),
    (re.compile(r"\$__range(_s|_ms)?|\$\{__range\}"), "1h"),
    # In a label matcher any text will do; elsewhere a variable is a number or a duration, which no text can be.
    (re.compile(r"(?<=\[)\$\{?\w+(:\w+)?\}?(?=\])"), "5m"),
    (re.compile(r"\$\{?\w+(:\w+)?\}?"), "x"),
)


def queries(path: Path) -> tuple[Query, ...]:
    """Every query of a file: a rule file (YAML with ``groups``), a panel file (YAML with ``panels``) or a Grafana dashboard (JSON).

    Raises UsageError naming the file if it is none of them.
    """
    if path.suffix == ".json":
        return tuple(_dashboard(path))
    if is_panelfile(path):
        return tuple(_lines(path))
    return tuple(_rule(entry, path) for entry in entries(path))


def is_panelfile(path: Path) -> bool:
    """It is YAML with a key ``panels`` at its top."""
    try:
        document = yaml.compose(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(document, yaml.MappingNode) and any(name.value == "panels" for name, _ in document.value)


def _lines(path: Path) -> Iterator[Query]:
    for _, line in lines(panels(path.read_text(), file=str(path))):
        if line.query is not None:
            yield Query(expression=line.query, use=Use.PANEL, name=line.name, place=line.place)


def _dashboard(path: Path) -> Iterator[Query]:
    try:
        document = json.loads(path.read_text())
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise UsageError(f"{path}: not JSON: {exc}") from exc
    document = document.get("dashboard", document) if isinstance(document, dict) else document
    if not isinstance(document, dict) or not isinstance(document.get("panels"), list):
        raise UsageError(f"{path}: no list 'panels'; wanted a Grafana dashboard")
    for panel in _panels(document["panels"]):
        title = str(panel.get("title") or panel.get("id") or "untitled")
        for target in panel.get("targets") or ():
            if isinstance(target, dict) and target.get("expr"):
                yield Query(expression=_plain(str(target["expr"])), use=Use.PANEL, name=title, place=f"{path}: panel {title}")


def _panels(panels: list[Any]) -> Iterator[dict[str, Any]]:
    """Panels, and those inside rows."""
    for panel in panels:
        if isinstance(panel, dict):
            yield panel
            yield from _panels(panel.get("panels") or [])


def _plain(expression: str) -> str:
    for pattern, text in _MACROS:
        expression = pattern.sub(text, expression)
    return expression


def _rule(entry: Entry, path: Path) -> Query:
    use = Use.ALERT if "alert" in entry.rule else Use.RECORD
    return Query(
        expression=str(entry.rule.get("expr", "")),
        use=use,
        name=str(entry.rule.get(use, "")),
        place=f"{path}:{entry.line}",
        labels=tuple((str(key), str(text)) for key, text in (entry.rule.get("labels") or {}).items()),
    )
