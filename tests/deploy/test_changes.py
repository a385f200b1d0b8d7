"""Subscriptions, filters and the wording of a change, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway.changes import TOO_LARGE, Binding, Filter, payload
from gateway.pgoutput import Change, Column, Relation
from hypothesis import given
from hypothesis import strategies as st

CALLS = Relation(
    oid=1,
    schema="public",
    table="calls",
    columns=(Column(name="id", type="uuid", is_key=True), Column(name="status", type="text", is_key=False)),
)


def change(kind: str = "INSERT", record: dict[str, Any] | None = None, old: dict[str, Any] | None = None) -> Change:
    """A change of ``calls``."""
    row = {"id": "a", "status": "active"} if record is None else record
    return Change(relation=CALLS, kind=kind, commit_timestamp="2026-01-01T00:00:00.000Z", record=row, old_record=old or {})


def binding(**wish: Any) -> Binding:
    """A subscription to ``calls`` unless the wish says otherwise."""
    return Binding.parse({"event": "*", "schema": "public", "table": "calls", **wish})


@pytest.mark.parametrize(
    ("wish", "is_wanted"),
    [
        ({}, True),
        ({"event": "INSERT"}, True),
        ({"event": "insert"}, True),
        ({"event": "UPDATE"}, False),
        ({"table": "transcripts"}, False),
        ({"table": None}, True),
        ({"schema": "private"}, False),
        ({"schema": "*"}, True),
        ({"filter": "status=eq.active"}, True),
        ({"filter": "status=eq.completed"}, False),
        ({"filter": "nothing=eq.active"}, False),
    ],
)
def test_a_subscription_wants_what_it_asked_for(wish: dict[str, Any], is_wanted: bool) -> None:
    """Event, schema, table and filter must all agree."""
    assert binding(**wish).wants(change()) is is_wanted


@pytest.mark.parametrize(
    ("text", "row", "passes"),
    [
        ("n=eq.10", {"n": 10}, True),
        ("n=gt.9", {"n": 10}, True),
        ("n=lt.9", {"n": 10}, False),
        ("n=gte.10", {"n": 10}, True),
        ("n=lte.9.5", {"n": 9.5}, True),
        ("n=eq.ten", {"n": 10}, False),
        ("s=neq.a", {"s": "b"}, True),
        ("s=neq.a", {"s": None}, False),
        ("s=in.(a,b)", {"s": "b"}, True),
        ('s=in.("a","b c")', {"s": "b c"}, True),
        ("s=in.(a,b)", {"s": "c"}, False),
        ("n=in.(1,2)", {"n": 2}, True),
        ("b=eq.true", {"b": True}, True),
        ("b=eq.f", {"b": False}, True),
        ("s=eq.a.b=c", {"s": "a.b=c"}, True),
        ("t=gte.2026-01-01", {"t": "2026-06-01T00:00:00+00:00"}, True),
    ],
)
def test_filters(text: str, row: dict[str, Any], passes: bool) -> None:
    """Numbers compare as numbers, a null passes nothing."""
    assert Filter.parse(text).passes(row) is passes


@given(st.integers(-(2**53), 2**53), st.integers(-(2**53), 2**53))
def test_one_of_three_orders_holds(found: int, operand: int) -> None:
    """Less, equal or greater: exactly one."""
    held = [Filter.parse(f"n={operator}.{operand}").passes({"n": found}) for operator in ("lt", "eq", "gt")]

    assert sum(held) == 1


@pytest.mark.parametrize("text", ["status", "status=active", "=eq.active", "status=like.a%", "status=eq"])
def test_a_filter_that_cannot_be_read_is_refused(text: str) -> None:
    """When it is asked, not when a row comes."""
    with pytest.raises(ValueError, match="wanted column=operator"):
        Filter.parse(text)


def test_an_event_that_there_is_not_is_refused() -> None:
    """And named."""
    with pytest.raises(ValueError, match="'TRUNCATE'; wanted one of"):
        binding(event="truncate")


def test_the_echo_is_what_was_asked() -> None:
    """A client compares it word by word and leaves if it differs."""
    wish = {"event": "*", "schema": "public", "table": "calls", "filter": "status=eq.active"}
    echo = Binding.parse(wish).echo()

    assert {key: echo[key] for key in wish} == wish
    assert echo["id"] > 0


def test_a_change_in_supabases_words() -> None:
    """As clients validate it: an INSERT has no old record, errors are null."""
    told = json.loads(payload(change(), key=("id",), has_row_security=True))

    assert told == {
        "schema": "public",
        "table": "calls",
        "type": "INSERT",
        "commit_timestamp": "2026-01-01T00:00:00.000Z",
        "columns": [{"name": "id", "type": "uuid"}, {"name": "status", "type": "text"}],
        "record": {"id": "a", "status": "active"},
        "errors": None,
    }


@pytest.mark.parametrize(("has_row_security", "old"), [(True, {"id": "a"}), (False, {"id": "a", "status": "active"})])
def test_of_a_deleted_row_under_row_security_only_the_key_is_told(has_row_security: bool, old: dict[str, str]) -> None:
    """No policy can be asked about a row that is gone."""
    deleted = change("DELETE", record={}, old={"id": "a", "status": "active"})

    assert json.loads(payload(deleted, key=("id",), has_row_security=has_row_security))["old_record"] == old


def test_beyond_a_megabyte_only_small_fields_are_told() -> None:
    """With an error that says so."""
    told = json.loads(payload(change(record={"id": "a", "status": "x" * 1_100_000}), key=("id",), has_row_security=True))

    assert (told["record"], told["errors"]) == ({"id": "a"}, [TOO_LARGE])
