"""Frozen values to JSON lines and back: the record format of the run directory."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import UsageError

SCHEMA = 1
"""Version of the record format. Raised when a reader of the old format would misread the new one."""

V = TypeVar("V")


def to_json(item: Any) -> Any:
    """A frozen value as JSON data: dataclasses become objects, tuples arrays, enums their values."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: to_json(getattr(item, field.name)) for field in dataclasses.fields(item)}
    if isinstance(item, enum.Enum):
        return item.value
    if isinstance(item, Mapping):
        return {str(key): to_json(entry) for key, entry in item.items()}
    if isinstance(item, list | tuple | set | frozenset):
        return [to_json(entry) for entry in item]
    return item


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def from_json(kind: Any, data: Any) -> Any:
    """JSON data as a value of type ``kind``. Fields that ``data`` lacks take their default.

    Raises ValueError, naming the field, if ``data`` does not fit.
    """
    if kind is Any:
        return data
    if supertype := getattr(kind, "__supertype__", None):
        return from_json(supertype, data)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _from_union(typing.get_args(kind), data)
    if origin is tuple:
        inner = typing.get_args(kind)
        kinds = (inner[0],) * len(data) if inner[-1] is Ellipsis else inner
        return tuple(from_json(entry_kind, entry) for entry_kind, entry in zip(kinds, data, strict=True))
    if origin is not None:
        return dict(data)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _from_object(kind, data)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(data)
    if kind is float and isinstance(data, int):
        return float(data)
    if isinstance(kind, type) and not isinstance(data, kind):
        msg = f"wanted {kind.__name__}, got {type(data).__name__} {data!r}"
        raise ValueError(msg)
    return data


def _from_union(kinds: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not type(None))
    return from_json(kind, data)


def _from_object(kind: type, data: Any) -> Any:
    if not isinstance(data, Mapping):
        msg = f"wanted an object for {kind.__name__}, got {data!r}"
        raise ValueError(msg)
    hints = _hints(kind)
    fields = {}
    for field in dataclasses.fields(kind):
        if field.name not in data:
            continue
        try:
            fields[field.name] = from_json(hints[field.name], data[field.name])
        except ValueError as exc:
            msg = f"{kind.__name__}.{field.name}: {exc}"
            raise ValueError(msg) from exc
    try:
        return kind(**fields)
    except TypeError as exc:
        msg = f"{kind.__name__}: {exc}"
        raise ValueError(msg) from exc


def line(item: Any) -> str:
    """One value as one line of a record file, with the schema number and the name of its type."""
    return json.dumps({"schema": SCHEMA, "type": type(item).__name__, **to_json(item)}, separators=(",", ":")) + "\n"


def write_lines(path: Path, items: Iterable[Any]) -> None:
    """Replaces ``path`` by one line an item; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as out:
        out.writelines(line(item) for item in items)
    partial.replace(path)


def read_lines(path: Path, *kinds: type[V]) -> Iterator[V]:
    """The values of a record file. A torn last line is passed over: the writer was stopped in the middle of it.

    Raises UsageError with file and line for a newer schema, an unknown type or a line that does not fit its type.
    """
    by_name = {kind.__name__: kind for kind in kinds}
    text = path.read_text()
    lines = text.split("\n")
    for number, raw in enumerate(lines, start=1):
        if not raw:
            continue
        is_torn_end = number == len(lines)
        try:
            data = json.loads(raw)
            schema = data.pop("schema")
        except (ValueError, KeyError, AttributeError) as exc:
            if is_torn_end:
                return
            msg = f"{path}:{number}: not a record: {raw[:60]!r}; wanted a JSON object with a schema number"
            raise UsageError(msg) from exc
        if schema > SCHEMA:
            msg = (
                f"{path}:{number}: written by schema {schema}; this harness reads up to {SCHEMA}. "
                "Upgrade, or use the harness that wrote it."
            )
            raise UsageError(msg)
        kind = by_name.get(data.pop("type", ""))
        if kind is None:
            msg = f"{path}:{number}: holds no {' or '.join(by_name)}"
            raise UsageError(msg)
        try:
            yield from_json(kind, data)
        except ValueError as exc:
            msg = f"{path}:{number}: {exc}"
            raise UsageError(msg) from exc
