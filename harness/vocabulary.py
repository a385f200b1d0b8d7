"""What a target calls our metrics, tables and columns, in which units, and which it has not: those sections of ``target.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.collect.series import base, is_metric, metrics
from harness.document import Document, Either, Entries, Key, Number, Table, Text, nearest
from harness.errors import UsageError
from harness.model import Lack, Names, Naming, TableNaming

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:.]*")
_COLUMN = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_UNITS_RATIO = {"ratio": 1.0, "percent": 0.01}
_ENDINGS = {"seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"} | {
    unit: unit for unit in (*_UNITS_S, *_UNITS_RATIO) if unit not in ("s", "min")
}
"""What a name ends with that says its unit."""
TABLES = {
    "calls": ("id", "call_id", "phone_number", "direction", "status", "start_time", "end_time", "duration_seconds", "room_name"),
    "transcripts": ("id", "call_id", "role", "content", "timestamp"),
    "tool_executions": ("id", "call_id", "tool_name", "parameters", "result", "success", "latency_ms", "executed_at"),
    "alerts_history": ("id", "severity", "service", "message", "triggered_at", "resolved_at", "acknowledged"),
}
"""Our tables, and those of their columns that a claim may read."""

_UNIT = {
    "unit": Key(shape=Text(choices=(*_UNITS_S, *_UNITS_RATIO)), says="their unit, where it is not ours"),
    "scale": Key(shape=Number(), says="what one of theirs is in our unit, where no unit says it"),
}
_METRIC = Table(
    keys={
        "name": Key(shape=Text(), says="what it is called there, a histogram without _bucket, _sum and _count; as here if absent"),
        **_UNIT,
        "labels": Key(shape=Entries(of=Text()), says="their label, by ours"),
        "values": Key(shape=Entries(of=Entries(of=Text())), says="their value, by our label and our value"),
        "where": Key(shape=Entries(of=Text()), says="labels of theirs that tell it from other series of that name"),
        **{str(lack): Key(shape=Text(), says=f"{lack}: why it is not shown there") for lack in Lack},
    }
)
_COLUMN_SHAPE = Table(
    keys={
        "name": Key(shape=Text(), says="what it is called there", is_required=True),
        **_UNIT,
        "values": Key(shape=Entries(of=Text()), says="their value, by ours"),
    }
)
_TABLE = Table(
    keys={
        "name": Key(shape=Text(), says="what it is called there; as here if absent"),
        "columns": Key(shape=Entries(of=Either(text=Text(), table=_COLUMN_SHAPE)), says="their columns, by ours"),
        **{str(lack): Key(shape=Text(), says=f"{lack}: why it is not shown there") for lack in Lack},
    }
)
KEYS = {
    "metrics": Key(
        shape=Entries(of=Either(text=Text(), table=_METRIC)), says="metrics that are called otherwise there, or not there at all"
    ),
    "tables": Key(shape=Entries(of=Either(text=Text(), table=_TABLE)), says="tables that are called otherwise there, or not there at all"),
}


def names(document: Document) -> Names:
    """Raises UsageError with file and line: a name that is not ours, a unit that cannot be meant."""
    return Names(
        metrics={ours: _metric(document, ours, said) for ours, said in _renamed(document, "metrics")},
        tables={ours: _table(document, ours, said) for ours, said in _renamed(document, "tables")},
        lacking=dict(_lacking(document)),
        match=document.data.get("prometheus", {}).get("match", {}),
    )


def _renamed(document: Document, section: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What is called otherwise, by our name; a text is a name. Raises UsageError for names that are not ours."""
    for ours, said in document.data.get(section, {}).items():
        where = document.where(section, ours)
        if section == "metrics" and not is_metric(ours):
            hint = f"; its name is '{base(ours)}' for all its series" if is_metric(base(ours)) else ""
            raise UsageError(f"{where}: metrics: no metric of ours is called '{ours}'{hint or f'; {nearest(ours, metrics())}'}")
        if section == "tables" and ours not in TABLES:
            raise UsageError(f"{where}: tables: no table of ours is called '{ours}'; {nearest(ours, TABLES)}")
        table = {"name": said} if isinstance(said, str) else said
        if not any(lack in table for lack in Lack):
            yield ours, table


def _lacking(document: Document) -> Iterator[tuple[str, str]]:
    for section in ("metrics", "tables"):
        for ours, said in document.data.get(section, {}).items():
            if isinstance(said, str):
                continue
            found = [lack for lack in Lack if lack in said]
            if found and len(said) > 1:
                where = document.where(section, ours, found[0])
                raise UsageError(f"{where}: {section}.{ours}: says '{found[0]}' and what it is called; leave one out")
            yield from ((ours, f"{lack}: {said[lack]}") for lack in found)


def _metric(document: Document, ours: str, said: Mapping[str, Any]) -> Naming:
    name, path = said.get("name", ours), ("metrics", ours)
    if not _NAME.fullmatch(name):
        raise UsageError(f"{document.where(*path, 'name')}: metrics.{ours}: '{name}' is no name of a metric")
    if name != base(name):
        raise UsageError(f"{document.where(*path, 'name')}: metrics.{ours}: leave the ending off, a histogram is '{base(name)}'")
    for label, text in said.get("where", {}).items():
        if '"' in text or "\\" in text:
            raise UsageError(
                f"{document.where(*path, 'where', label)}: metrics.{ours}.where.{label}: no quotes or backslashes, got '{text}'"
            )
    return Naming(
        name=name,
        scale=_scale(document, path, ours, said, name),
        labels=said.get("labels", {}),
        values=said.get("values", {}),
        where=said.get("where", {}),
    )


def _table(document: Document, ours: str, said: Mapping[str, Any]) -> TableNaming:
    columns = {}
    for column, given in said.get("columns", {}).items():
        path = ("tables", ours, "columns", column)
        if column not in TABLES[ours]:
            raise UsageError(
                f"{document.where(*path)}: tables.{ours}.columns: no column of ours is called '{column}'; {nearest(column, TABLES[ours])}"
            )
        table: Mapping[str, Any] = {"name": given} if isinstance(given, str) else given
        if not _COLUMN.fullmatch(table["name"]):
            raise UsageError(f"{document.where(*path)}: tables.{ours}.columns.{column}: '{table['name']}' is no name of a column")
        scale = _scale(document, path, column, table, table["name"])
        values: dict[str, Mapping[str, str]] = {"": dict(table["values"])} if "values" in table else {}
        columns[column] = Naming(name=table["name"], scale=scale, values=values)
    name = said.get("name", ours)
    if not _COLUMN.fullmatch(name):
        raise UsageError(f"{document.where('tables', ours, 'name')}: tables.{ours}: '{name}' is no name of a table")
    return TableNaming(name=name, columns=columns)


def _scale(document: Document, path: tuple[str, ...], ours: str, said: Mapping[str, Any], name: str) -> float:
    """What one of theirs is in our unit. A name that ends with another unit than ours must say which it means."""
    where, what = document.where(*path), ".".join(path)
    own, looks = _unit_of(ours), _unit_of(name)
    if "scale" in said:
        if "unit" in said:
            raise UsageError(f"{document.where(*path, 'scale')}: {what}: says both unit and scale; leave one out")
        return float(said["scale"])
    if "unit" not in said:
        if own and looks and looks != own and _family(looks) is _family(own):
            raise UsageError(f"{where}: {what}: '{name}' looks like {looks} and ours is in {own}; say unit: {looks}, or unit: {own}")
        return 1.0
    units = _family(own) if own else None
    if own is None or units is None:
        raise UsageError(f"{document.where(*path, 'unit')}: {what}: ours has no unit; say scale instead")
    if said["unit"] not in units:
        raise UsageError(
            f"{document.where(*path, 'unit')}: {what}: ours is in {own}; wanted one of {', '.join(units)}, got '{said['unit']}'"
        )
    return float(f"{units[said['unit']] / units[own]:.12g}")


def _unit_of(name: str) -> str | None:
    words = re.split(r"[_:.]", name)
    return next((unit for word in reversed(words) if (unit := _ENDINGS.get(word))), None)


def _family(unit: str) -> Mapping[str, float] | None:
    return next((units for units in (_UNITS_S, _UNITS_RATIO) if unit in units), None)
