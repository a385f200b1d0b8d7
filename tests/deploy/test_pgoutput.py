"""pgoutput messages, written by hand after PostgreSQL's documentation."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from gateway.pgoutput import Change, Decoder, Relation

TYPES = {16: "bool", 20: "int8", 25: "text", 114: "json", 701: "float8", 1184: "timestamptz", 1700: "numeric", 2950: "uuid"}
COLUMNS = (("id", 2950, 1), ("name", 25, 0))


def relation(columns: tuple[tuple[str, int, int], ...] = COLUMNS, *, oid: int = 7) -> bytes:
    """The announcement of public.things; name, type and key flag of each column."""
    told = b"".join(struct.pack(">B", key) + name.encode() + b"\0" + struct.pack(">Ii", kind, -1) for name, kind, key in columns)
    return b"R" + struct.pack(">I", oid) + b"public\0things\0d" + struct.pack(">H", len(columns)) + told


def row(*values: str | bytes | None) -> bytes:
    """TupleData: text, None for null, ``b"u"`` for what was not touched."""

    def field(value: str | bytes | None) -> bytes:
        if isinstance(value, bytes):
            return value
        return b"n" if value is None else b"t" + struct.pack(">I", len(value.encode())) + value.encode()

    return struct.pack(">H", len(values)) + b"".join(field(value) for value in values)


def fed(*messages: bytes) -> Change:
    """The change that the last message is."""
    decoder = Decoder(TYPES)
    for message in messages[:-1]:
        decoder.feed(message)
    found = decoder.feed(messages[-1])
    assert isinstance(found, Change)
    return found


def begin(micros: int) -> bytes:
    """Begin of a transaction that was committed so long after 2000."""
    return b"B" + struct.pack(">qqI", 1, micros, 1)


def inserted(type_oid: int, text: str) -> Any:
    """One value of that type, as it is told."""
    return fed(relation((("v", type_oid, 0),)), b"I" + struct.pack(">I", 7) + b"N" + row(text)).record["v"]


def test_an_insert_is_its_new_row() -> None:
    """With the instant of its commit, in milliseconds."""
    change = fed(begin(86_400_000_000 + 1_234), relation(), b"I" + struct.pack(">I", 7) + b"N" + row("a", "é"))

    assert (change.kind, change.relation.table, change.record, change.old_record) == ("INSERT", "things", {"id": "a", "name": "é"}, {})
    assert change.commit_timestamp == "2000-01-02T00:00:00.001Z"


def test_an_update_has_its_old_key_if_that_changed() -> None:
    """Of the old tuple only the key is meant; the rest is filled with nulls."""
    change = fed(relation(), b"U" + struct.pack(">I", 7) + b"K" + row("a", None) + b"N" + row("b", "x"))

    assert (change.kind, change.record, change.old_record) == ("UPDATE", {"id": "b", "name": "x"}, {"id": "a"})


def test_an_update_under_full_identity_has_its_old_row() -> None:
    """Nulls are values there."""
    change = fed(relation(), b"U" + struct.pack(">I", 7) + b"O" + row("a", None) + b"N" + row("a", "x"))

    assert change.old_record == {"id": "a", "name": None}


def test_what_an_update_did_not_touch_is_absent() -> None:
    """A large value that stayed is not in the log: absent, and no null."""
    change = fed(relation(), b"U" + struct.pack(">I", 7) + b"N" + row("a", b"u"))

    assert change.record == {"id": "a"}


def test_a_delete_is_its_old_key() -> None:
    """There is no new row."""
    change = fed(relation(), b"D" + struct.pack(">I", 7) + b"K" + row("a", None))

    assert (change.kind, change.record, change.old_record) == ("DELETE", {}, {"id": "a"})


@pytest.mark.parametrize(
    ("type_oid", "text", "value"),
    [
        (16, "t", True),
        (20, "-9007199254740993", -9007199254740993),
        (701, "0.25", 0.25),
        (1700, "NaN", "NaN"),
        (114, '{"a": [1]}', {"a": [1]}),
        (25, "", ""),
        (1184, "2026-01-01 10:00:00.5+00", "2026-01-01T10:00:00.5+00:00"),
        (1184, "2026-01-01 10:00:00+05:30", "2026-01-01T10:00:00+05:30"),
        (9999, "as it is", "as it is"),
    ],
)
def test_values_are_json(type_oid: int, text: str, value: Any) -> None:
    """Of PostgreSQL's text form; what JSON cannot say stays text."""
    assert inserted(type_oid, text) == value


def test_a_table_may_change_its_columns() -> None:
    """It is announced anew."""
    change = fed(relation(), relation((*COLUMNS, ("more", 25, 0))), b"I" + struct.pack(">I", 7) + b"N" + row("a", "x", "y"))

    assert change.record == {"id": "a", "name": "x", "more": "y"}


def test_an_announcement_says_what_a_table_is() -> None:
    """Schema, name and columns with their key."""
    found = Decoder(TYPES).feed(relation())

    assert isinstance(found, Relation)
    assert (found.schema, found.table, [(column.name, column.type, column.is_key) for column in found.columns]) == (
        "public",
        "things",
        [("id", "uuid", True), ("name", "text", False)],
    )


def test_a_change_of_nothing_known_is_no_guess() -> None:
    """The slot is given up rather than a row told wrongly."""
    with pytest.raises(ValueError, match="relation 7, which the stream never announced"):
        Decoder(TYPES).feed(b"I" + struct.pack(">I", 7) + b"N" + row("a"))


def test_other_messages_are_no_changes() -> None:
    """Commit, origin, truncate."""
    assert [Decoder(TYPES).feed(message) for message in (b"C" + bytes(25), b"O" + bytes(9), b"T" + bytes(9))] == [None, None, None]
