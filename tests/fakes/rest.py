"""PostgREST in memory, as far as the telemetry writes to it; it can fail before or after it did what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import httpx

Row = dict[str, Any]


class Rest:
    """A transport for httpx.

    failures: one for each coming request: a status, or an exception after the row was written; None for none.
    """

    def __init__(self, *failures: int | Exception | None) -> None:
        self.tables: dict[str, list[Row]] = {"calls": [], "transcripts": [], "tool_executions": []}
        self.requests: list[tuple[str, str, Row]] = []
        self.failures = deque(failures)
        self.always: int | None = None
        self.transport = httpx.MockTransport(self._answer)
        self._was_asked = asyncio.Event()

    async def asked(self, times: int) -> None:
        """Returns when it was asked so many times."""
        while len(self.requests) < times:
            self._was_asked.clear()
            await self._was_asked.wait()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        table = request.url.path.removeprefix("/rest/v1/")
        body: Row = json.loads(request.content)
        self.requests.append((request.method, table, body))
        self._was_asked.set()
        failure = self.failures.popleft() if self.failures else self.always
        if isinstance(failure, int):
            return httpx.Response(failure, text="no")
        self._take(request, table, body)
        if isinstance(failure, Exception):
            raise failure
        return httpx.Response(201)

    def _take(self, request: httpx.Request, table: str, body: Row) -> None:
        rows, query = self.tables[table], request.url.params
        if request.method == "POST":
            key = query["on_conflict"]
            if "ignore-duplicates" not in request.headers["prefer"] or all(row[key] != body[key] for row in rows):
                rows.append(body)
            return
        wanted = {column: said.removeprefix("eq.") for column, said in query.items()}
        for row in rows:
            if all(row[column] == said for column, said in wanted.items()):
                row.update(body)
