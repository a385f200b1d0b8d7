"""Frozen values to JSON lines and back: the record format of the run directory."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
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


def from_json(kind: Any, data: Any) -> Any:
    """JSON data as a value of type ``kind``. Fields that ``data`` lacks take their default.

    Raises ValueError, naming the field, if ``data`` does not fit.
    """
    return _reader(kind)(data)


@functools.cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What reads a value of type ``kind``: made once, since a large run has a million lines."""
    if kind is Any:
        return _as_it_is
    if supertype := getattr(kind, "__supertype__", None):
        return _reader(supertype)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _union_reader(typing.get_args(kind))
    if origin is tuple:
        return _tuple_reader(typing.get_args(kind))
    if origin is not None:
        return dict
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object_reader(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        members = {member.value: member for member in kind}
        return lambda data: members[data] if data in members else kind(data)
    return functools.partial(_plain, kind)


def _as_it_is(data: Any) -> Any:
    return data


def _plain(kind: Any, data: Any) -> Any:
    if type(data) is kind:
        return data
    if kind is float and isinstance(data, int):
        return float(data)
    if isinstance(kind, type) and not isinstance(data, kind):
        msg = f"wanted {kind.__name__}, got {type(data).__name__} {data!r}"
        raise ValueError(msg)
    return data


def _union_reader(kinds: tuple[Any, ...]) -> Callable[[Any], Any]:
    (inner,) = (_reader(kind) for kind in kinds if kind is not type(None))
    return (lambda data: None if data is None else inner(data)) if type(None) in kinds else inner


def _tuple_reader(kinds: tuple[Any, ...]) -> Callable[[Any], Any]:
    if kinds[-1] is Ellipsis:
        every = _reader(kinds[0])
        return lambda data: tuple([every(entry) for entry in data])
    each = [_reader(kind) for kind in kinds]
    return lambda data: tuple([read(entry) for read, entry in zip(each, data, strict=True)])


def _object_reader(kind: type) -> Callable[[Any], Any]:
    readers: dict[str, Callable[[Any], Any]] = {}

    def read(data: Any) -> Any:
        if not isinstance(data, Mapping):
            msg = f"wanted an object for {kind.__name__}, got {data!r}"
            raise ValueError(msg)
        if not readers:  # not before: a type may hold itself
            hints = typing.get_type_hints(kind)
            readers.update({field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)})
        fields = {}
        for name, entry in data.items():
            if (reader := readers.get(name)) is None:
                continue
            try:
                fields[name] = reader(entry)
            except ValueError as exc:
                msg = f"{kind.__name__}.{name}: {exc}"
                raise ValueError(msg) from exc
        try:
            return kind(**fields)
        except TypeError as exc:
            msg = f"{kind.__name__}: {exc}"
            raise ValueError(msg) from exc

    return read


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
    with path.open() as lines:
        yield from _values(path, lines, by_name)


def _values(path: Path, lines: Iterable[str], by_name: Mapping[str, type[V]]) -> Iterator[V]:
    for number, raw in enumerate(lines, start=1):
        if raw == "\n":
            continue
        is_torn_end = not raw.endswith("\n")
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
