"""Supabase rows of our own calls, read by the key of the target. No foreign row is ever asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import httpx
from postgrest import CountMethod
from postgrest.exceptions import APIError
from supabase import Client, ClientOptions, create_client

from harness import door
from harness.clock import Clock
from harness.collect.naming import OURS, Translator
from harness.model import Door, Gap, Observation, Poll, Row, Source

TABLES = {"calls": "start_time", "transcripts": "timestamp", "tool_executions": "executed_at"}
"""Each table with the column that orders it; ``id`` makes the order total, without which pages repeat and skip rows."""
TIMEOUT_S = 20.0
_IDS = 50
"""Call ids a request: they travel in its URL."""
_PAGE = 500
"""Rows a request; servers cap answers silently at 1000."""


class Rows:
    """The tables of one project. A context manager: it keeps a connection.

    token: of a role that only reads. None: the key's own role reads.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        token: str | None = None,
        clock: Clock,
        client: httpx.Client | None = None,
        names: Translator = OURS,
        lacking: Collection[str] = (),
    ) -> None:
        """client: what opens the door, from now on ours; one of our own if absent. lacking: tables that the target has not."""
        self._url = url.rstrip("/")
        self._clock = clock
        self._http = client or door.client(Door(), trust_env=True, timeout_s=TIMEOUT_S)
        self._names = names
        self._tables = tuple(table for table in TABLES if table not in lacking)
        # No retries: they hide outages. HTTP/1.1: a shared HTTP/2 connection breaks across threads.
        options = ClientOptions(httpx_client=self._http, postgrest_client_retry=False, auto_refresh_token=False, persist_session=False)
        self._client: Client = create_client(self._url, key, options)
        self._by_key: Client | None = None
        """Counts what the key itself sees, where another token reads."""
        if token is not None:
            self._by_key = create_client(self._url, key, options)
            self._client.postgrest.auth(token)

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def read(self, call_ids: Sequence[str]) -> tuple[Observation | Gap, ...]:
        """Every row of these calls in every table; a Gap for each table that could not be read."""
        return tuple(item for table in self._tables for item in self._read(table, call_ids))

    def open_calls(self, call_ids: Sequence[str]) -> int | None:
        """How many of these calls have a row without an end. None: the rows could not be read."""
        if "calls" not in self._tables:
            return None
        read = self._read("calls", call_ids, is_counted=False)
        if any(isinstance(item, Gap) for item in read):
            return None
        return sum(1 for item in read if isinstance(item, Row) and item.columns.get("end_time") is None)

    def _read(self, table: str, call_ids: Sequence[str], *, is_counted: bool = True) -> tuple[Observation | Gap, ...]:
        at = self._clock.now()
        theirs, ours, order = self._named(table)
        mark = "" if theirs == table else f"/rest/v1/{table}?"
        request = f"{self._url}/rest/v1/{theirs}?select=*&{ours}=in.({','.join(call_ids)})&order={','.join(order)}"
        groups = [call_ids[start : start + _IDS] for start in range(0, len(call_ids), _IDS)]
        try:
            read = [self._pages(table, group) for group in groups]
        except APIError as exc:
            return (Gap(source=Source.ROWS, at=at, reason=f"{table}: refused: {exc.code} {exc.message}", request=request, ours=mark),)
        except httpx.HTTPError as exc:
            return (Gap(source=Source.ROWS, at=at, reason=f"{table}: {type(exc).__name__}: {exc}", request=request, ours=mark),)
        found = [columns for rows, _ in read for columns in rows]
        totals = [total for _, total in read]
        poll = Poll(
            source=Source.ROWS,
            at=at,
            took_s=(self._clock.now() - at) / 1e9,
            count=len(found),
            request=request,
            ours=mark,
            total=None if None in totals else sum(total for total in totals if total is not None),
            total_by_key=self._counted_by_key(table, groups) if is_counted else None,
        )
        told = (self._names.row(table, columns) for columns in found)
        return (poll, *(Row(source=Source.ROWS, table=table, columns=columns, at=at, request=request) for columns in told))

    def _pages(self, table: str, call_ids: Sequence[str]) -> tuple[list[dict[str, Any]], int | None]:
        """The rows, and how many the server counts. A server may cap an answer below what was asked for: only an empty page is the last."""
        rows: list[Any] = []
        total: int | None = None
        theirs, ours, (first, second) = self._named(table)
        while True:
            wanted = self._client.table(theirs).select("*", count=None if rows else CountMethod.exact).in_(ours, list(call_ids))
            answer = wanted.order(first).order(second).range(len(rows), len(rows) + _PAGE - 1).execute()
            total = answer.count if not rows else total
            rows += answer.data
            if not answer.data or (len(answer.data) < _PAGE if total is None else len(rows) >= total):
                return rows, total

    def _counted_by_key(self, table: str, groups: Sequence[Sequence[str]]) -> int | None:
        """None: no key but the token's, or one that may not count."""
        if self._by_key is None:
            return None
        theirs, ours, _ = self._named(table)
        try:
            counts = [
                self._by_key.table(theirs).select(ours, count=CountMethod.exact, head=True).in_(ours, list(group)).execute().count
                for group in groups
            ]
        except (APIError, httpx.HTTPError):
            return None
        return None if None in counts else sum(count for count in counts if count is not None)

    def _named(self, table: str) -> tuple[str, str, tuple[str, str]]:
        """What the target calls a table, its call id, and the columns that order it."""
        names = self._names
        return (
            names.table(table),
            names.column(table, "call_id"),
            (names.column(table, TABLES[table]), names.column(table, "id")),
        )
