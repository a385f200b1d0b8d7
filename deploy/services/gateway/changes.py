"""What a channel may ask of ``postgres_changes``, whether a change answers it, and the change in Supabase Realtime's words. Pure."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.pgoutput import Change

PAYLOAD_LIMIT = 1_048_576
"""Above this, Supabase Realtime sends only the fields of at most 64 bytes, and an error that says so."""
FIELD_LIMIT = 64
TOO_LARGE = "Error 413: Payload Too Large"
OPERATORS = ("eq", "neq", "lt", "lte", "gt", "gte", "in")
EVENTS = ("*", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """``status=eq.active``, parsed."""

    column: str
    operator: str
    operand: str

    @staticmethod
    def parse(text: str) -> Filter:
        """Raises ValueError with what was wanted."""
        column, has_operator, rest = text.partition("=")
        operator, has_operand, operand = rest.partition(".")
        if not (column and has_operator and has_operand) or operator not in OPERATORS:
            msg = f"filter {text!r}; wanted column=operator.value with one of {', '.join(OPERATORS)}"
            raise ValueError(msg)
        return Filter(column=column, operator=operator, operand=operand)

    def passes(self, row: Mapping[str, Any]) -> bool:
        """Whether ``row`` has a value that passes. A null passes nothing, as in SQL."""
        found = row.get(self.column)
        if found is None:
            return False
        if self.operator == "in":
            return any(_compared(found, item) == 0 for item in _items(self.operand))
        order = _compared(found, self.operand)
        match self.operator:
            case "eq":
                return order == 0
            case "neq":
                return order != 0
            case "lt":
                return order == -1
            case "lte":
                return order in (-1, 0)
            case "gt":
                return order == 1
            case _:
                return order in (0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One wish of a channel: event, table and filter."""

    id: int
    event: str
    schema: str
    table: str
    filter: Filter | None
    asked: Mapping[str, Any]
    """As the client wrote it: it compares the echo with it."""

    @staticmethod
    def parse(wish: Mapping[str, Any]) -> Binding:
        """Raises ValueError with what was wanted."""
        event = str(wish.get("event", "*")).upper()
        if event not in EVENTS:
            msg = f"postgres_changes event {event!r}; wanted one of {', '.join(EVENTS)}"
            raise ValueError(msg)
        return Binding(
            id=secrets.randbelow(2**31 - 1) + 1,
            event=event,
            schema=str(wish.get("schema", "public")),
            table=str(wish.get("table") or "*"),
            filter=Filter.parse(wish["filter"]) if wish.get("filter") else None,
            asked=wish,
        )

    def wants(self, change: Change) -> bool:
        """Whether the change answers this wish. For a DELETE the filter sees what the replica identity kept of the row."""
        if self.event not in ("*", change.kind) or self.schema not in ("*", change.relation.schema):
            return False
        if self.table not in ("*", change.relation.table):
            return False
        return self.filter is None or self.filter.passes(change.record or change.old_record)

    def echo(self) -> dict[str, Any]:
        """The wish with its number, for the reply to the join."""
        return {**self.asked, "id": self.id}


def payload(change: Change, *, key: tuple[str, ...], has_row_security: bool) -> str:
    """The change as Supabase Realtime words it, JSON, cut by its 1 MiB rule.

    key: columns of the primary key. A deleted row cannot be held against a policy: under row security only its key is told.
    """
    old = change.old_record
    if change.kind == "DELETE" and has_row_security:
        old = {name: entry for name, entry in old.items() if name in key}
    body: dict[str, Any] = {
        "schema": change.relation.schema,
        "table": change.relation.table,
        "type": change.kind,
        "commit_timestamp": change.commit_timestamp,
        "columns": [{"name": column.name, "type": column.type} for column in change.relation.columns],
        "record": dict(change.record),
        "errors": None,
    }
    if change.kind != "INSERT":
        body["old_record"] = dict(old)
    text = _json(body)
    if len(text.encode()) <= PAYLOAD_LIMIT:
        return text
    for part in ("record", "old_record"):
        if part in body:
            body[part] = {name: entry for name, entry in body[part].items() if len(_json(entry).encode()) <= FIELD_LIMIT}
    return _json({**body, "errors": [TOO_LARGE]})


def _compared(found: Any, operand: str) -> int | None:
    """-1, 0, 1 as ``found`` is less than, equal to or greater than ``operand``. None: they cannot be compared."""
    left, right = _texts(found, operand)
    if isinstance(found, int | float) and not isinstance(found, bool):
        try:
            left, right = float(found), float(operand)
        except ValueError:
            return None
    return int(left > right) - int(left < right)


def _texts(found: Any, operand: str) -> tuple[Any, Any]:
    if isinstance(found, bool):
        return str(found).lower(), {"t": "true", "f": "false"}.get(operand.lower(), operand.lower())
    return (found if isinstance(found, str) else _json(found)), operand


def _items(operand: str) -> list[str]:
    return [item.strip().strip('"') for item in operand.removeprefix("(").removesuffix(")").split(",")]


def _json(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)
