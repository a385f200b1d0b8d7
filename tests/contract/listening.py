"""A listener of Realtime by supabase-py, ready when the server says so and a row of ours has come back."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from realtime import AsyncRealtimeChannel
from supabase import AsyncClient

from tests.contract.project import Project

PATIENCE_S = 15.0
THREE = (("INSERT", "calls", None), ("UPDATE", "calls", None), ("INSERT", "alerts_history", None))
"""The subscriptions of the dashboard: a call begins, a call ends, an alert."""
Wish = tuple[str, str, str | None]


class Heard:
    """What one channel received, in order."""

    def __init__(self, client: AsyncClient, channel: AsyncRealtimeChannel) -> None:
        self.client, self.channel = client, channel
        self.changes: list[dict[str, Any]] = []
        self.system: list[Any] = []
        self._news = asyncio.Event()

    def take_change(self, payload: Any) -> None:
        """Callback."""
        self.changes.append(payload["data"])
        self._news.set()

    def take_system(self, payload: Any) -> None:
        """Callback."""
        self.system.append(payload)
        self._news.set()

    def of(self, table: str, kind: str = "INSERT") -> list[dict[str, Any]]:
        """New rows (old ones of a DELETE) of a table."""
        side = "old_record" if kind == "DELETE" else "record"
        return [change[side] for change in self.changes if (change["table"], change["type"]) == (table, kind)]

    async def until(self, is_so: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
        """Whether it became so in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def listening(project: Project, *wishes: Wish, key: str | None = None, token: str | None = None) -> AsyncIterator[Heard]:
    """A channel with these subscriptions, once the server says that it is subscribed to PostgreSQL."""
    http = httpx.AsyncClient(trust_env=False)
    client = await project.async_client(http, key, token)
    heard = Heard(client, client.channel(f"contract-{secrets.token_hex(4)}"))
    for event, table, condition in wishes:
        heard.channel.on_postgres_changes(event, heard.take_change, table=table, schema="public", filter=condition)  # type: ignore[arg-type]
    heard.channel.on_system(heard.take_system)
    try:
        await heard.channel.subscribe()
        assert await heard.until(lambda: bool(heard.system)), "the server never said that it is subscribed"
        yield heard
    finally:
        await client.remove_all_channels()
        await client.realtime.close()
        await http.aclose()
