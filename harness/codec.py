"""Frozen values to JSON lines and back: the record format of the run directory."""

from __future__ import annotations

import dataclasses
import enum
import functools
import gzip
import itertools
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import UsageError

SCHEMA = 1
"""Version of the record format. Raised when a reader of the old format would misread the new one."""
PACKED = ".gz"
"""Ends the name of a record file that was packed to be kept."""

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
    hints: dict[str, Any] = {}
    plans: dict[tuple[object, ...], tuple[tuple[str, Callable[[Any], Any]], ...]] = {}

    def read(data: Any) -> Any:
        if type(data) is not dict and not isinstance(data, Mapping):
            msg = f"wanted an object for {kind.__name__}, got {data!r}"
            raise ValueError(msg)
        shape = (*data, *map(type, data.values()))
        if (plan := plans.get(shape)) is not None:
            fields = dict(data)
            try:
                for name, reader in plan:
                    fields[name] = reader(fields[name])
                return kind(**fields)
            except ValueError:
                pass  # found again below, with the name of its field
        if not hints:  # not before: a type may hold itself
            found = typing.get_type_hints(kind)
            hints.update({field.name: found[field.name] for field in dataclasses.fields(kind)})
        fields = {}
        for name, entry in data.items():
            if name not in hints:
                continue
            try:
                fields[name] = _reader(hints[name])(entry)
            except ValueError as exc:
                msg = f"{kind.__name__}.{name}: {exc}"
                raise ValueError(msg) from exc
        try:
            made = kind(**fields)
        except TypeError as exc:
            msg = f"{kind.__name__}: {exc}"
            raise ValueError(msg) from exc
        if len(fields) == len(data):
            plans[shape] = tuple(_plan(hints, {name: type(entry) for name, entry in data.items()}))
        return made

    return read


def _plan(hints: Mapping[str, Any], found: Mapping[str, type]) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """What is left to do with the fields of an object of which one with fields of the same types was read. A text is kept once."""
    for name, kind in found.items():
        if not _is_kept(hints[name], kind):
            yield name, _reader(hints[name])
        elif kind is str:
            yield name, sys.intern


def _is_kept(kind: Any, found: type) -> bool:
    """A value of the type ``found`` is read as it is where ``kind`` is wanted."""
    if supertype := getattr(kind, "__supertype__", None):
        return _is_kept(supertype, found)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_is_kept(each, found) for each in typing.get_args(kind))
    if origin is tuple:
        return False
    return kind is Any or kind is found or (origin is not None and found is dict)


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
    """The values of a record file, packed by gzip if its name ends so. A torn last line is passed over: the writer was stopped in the middle of it.

    Raises UsageError with file and line for a newer schema, an unknown type or a line that does not fit its type.
    """
    wanted: tuple[Any, ...] = kinds
    readers: dict[str, Callable[[Any], V]] = {kind.__name__: _reader(kind) for kind in wanted}
    with gzip.open(path, "rt") if path.suffix == PACKED else path.open() as lines:
        first = 1
        while chunk := list(itertools.islice(lines, _TOGETHER)):
            for number, (raw, data) in enumerate(zip(chunk, _decoded(chunk), strict=True), start=first):
                if data is _BLANK:
                    continue
                try:
                    schema, kind = data.pop("schema"), data.pop("type", "")
                except (KeyError, AttributeError) as exc:
                    if not raw.endswith("\n"):
                        return
                    msg = f"{path}:{number}: not a record: {raw[:60]!r}; wanted a JSON object with a schema number"
                    raise UsageError(msg) from exc
                if schema > SCHEMA:
                    msg = (
                        f"{path}:{number}: written by schema {schema}; this harness reads up to {SCHEMA}. "
                        "Upgrade, or use the harness that wrote it."
                    )
                    raise UsageError(msg)
                if (reader := readers.get(kind)) is None:
                    msg = f"{path}:{number}: holds no {' or '.join(readers)}"
                    raise UsageError(msg)
                try:
                    found = reader(data)
                except ValueError as exc:
                    msg = f"{path}:{number}: {exc}"
                    raise UsageError(msg) from exc
                yield found
            first += len(chunk)


_TOGETHER = 500
"""Lines that are decoded at once: quicker, and they share the names of their fields."""
_BLANK = object()


def _decoded(chunk: list[str]) -> list[Any]:
    """The data of each line; ``_BLANK`` for an empty one, None for one that is no JSON."""
    try:
        found: list[Any] = json.loads(f"[{','.join(chunk)}]")
    except ValueError:
        found = []
    return found if len(found) == len(chunk) else [_decoded_alone(raw) for raw in chunk]


def _decoded_alone(raw: str) -> Any:
    if raw == "\n":
        return _BLANK
    try:
        return json.loads(raw)
    except ValueError:
        return None
