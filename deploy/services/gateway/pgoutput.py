"""PostgreSQL's pgoutput messages as changed rows: bytes in, values out, no connection.

Source: PostgreSQL documentation, "Logical Replication Message Formats", protocol version 1, text tuples.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_KINDS = {b"I": "INSERT", b"U": "UPDATE", b"D": "DELETE"}
_INTEGERS = {"int2", "int4", "int8", "oid"}
_FLOATS = {"float4", "float8", "numeric"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column as the stream announced it."""

    name: str
    type: str
    is_key: bool
    """Part of the replica identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table as the stream announced it."""

    oid: int
    schema: str
    table: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One changed row."""

    relation: Relation
    kind: str
    """INSERT, UPDATE or DELETE."""
    commit_timestamp: str
    """ISO 8601 with milliseconds, UTC: the server's clock at commit."""
    record: Mapping[str, Any]
    """The new row; empty for DELETE. Unchanged TOASTed columns are absent, as the stream does not carry them."""
    old_record: Mapping[str, Any]
    """The old row's replica identity; empty for INSERT."""


class Decoder:
    """Keeps the relations and the current transaction's commit time between messages."""

    def __init__(self, types: Mapping[int, str]) -> None:
        self._types = types
        self._relations: dict[int, Relation] = {}
        self._committed = ""

    def feed(self, message: bytes) -> Change | Relation | None:
        """What ``message`` says. None for those that concern no row.

        Raises ValueError for a change of a table that was never announced.
        """
        kind = message[:1]
        if kind == b"B":
            (micros,) = struct.unpack_from(">q", message, 9)
            committed = _EPOCH + dt.timedelta(microseconds=micros)
            self._committed = committed.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            return None
        if kind == b"R":
            relation = _relation(message, self._types)
            self._relations[relation.oid] = relation
            return relation
        if kind in _KINDS:
            return self._change(message, _KINDS[kind])
        return None

    def _change(self, message: bytes, kind: str) -> Change:
        (oid,) = struct.unpack_from(">I", message, 1)
        relation = self._relations.get(oid)
        if relation is None:
            msg = f"a change of relation {oid}, which the stream never announced"
            raise ValueError(msg)
        record: Mapping[str, Any] = {}
        old: Mapping[str, Any] = {}
        at = 5
        while at < len(message):
            tag = message[at : at + 1]
            values, at = _tuple(message, at + 1)
            named = {
                column.name: _json_value(text, column.type)
                for column, text in zip(relation.columns, values, strict=True)
                if text is not _UNCHANGED
            }
            if tag == b"N":
                record = named
            elif tag == b"O":
                old = named
            else:
                old = {column.name: named[column.name] for column in relation.columns if column.is_key and column.name in named}
        return Change(relation=relation, kind=kind, commit_timestamp=self._committed, record=record, old_record=old)


class _Unchanged:
    """A TOASTed value that the update did not touch."""


_UNCHANGED = _Unchanged()


def _relation(message: bytes, types: Mapping[int, str]) -> Relation:
    (oid,) = struct.unpack_from(">I", message, 1)
    schema, table, rest = message[5:].split(b"\0", 2)
    (count,) = struct.unpack_from(">H", rest, 1)
    at, columns = 3, []
    for _ in range(count):
        flags = rest[at]
        end = rest.index(b"\0", at + 1)
        (type_oid,) = struct.unpack_from(">I", rest, end + 1)
        columns.append(Column(name=rest[at + 1 : end].decode(), type=types.get(type_oid, "text"), is_key=bool(flags & 1)))
        at = end + 9
    return Relation(oid=oid, schema=schema.decode(), table=table.decode(), columns=tuple(columns))


def _tuple(message: bytes, at: int) -> tuple[list[str | _Unchanged | None], int]:
    (count,) = struct.unpack_from(">H", message, at)
    at += 2
    values: list[str | _Unchanged | None] = []
    for _ in range(count):
        kind = message[at : at + 1]
        at += 1
        if kind == b"t":
            (length,) = struct.unpack_from(">I", message, at)
            values.append(message[at + 4 : at + 4 + length].decode())
            at += 4 + length
        else:
            values.append(_UNCHANGED if kind == b"u" else None)
    return values, at


def _json_value(text: str | _Unchanged | None, type_name: str) -> Any:
    """PostgreSQL's text form as the JSON value that Supabase Realtime sends."""
    if text is None or isinstance(text, _Unchanged):
        return None
    if type_name == "bool":
        return text == "t"
    if type_name in _INTEGERS:
        return int(text)
    if type_name in _FLOATS:
        number = float(text)
        return number if math.isfinite(number) else text  # JSON has no NaN
    if type_name in ("json", "jsonb"):
        return json.loads(text)
    if type_name == "timestamptz":
        iso = text.replace(" ", "T", 1)
        return iso + ":00" if iso[-3] in "+-" else iso
    if type_name == "timestamp":
        return text.replace(" ", "T", 1)
    return text
