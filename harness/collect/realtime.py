"""Supabase Realtime as a listener: what was heard and when, proven by canaries, never silenced by a callback of its own.

``subscribed`` is no readiness: a channel is ready when a row that was written after it came back. REST stays the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import httpx
from realtime import AsyncRealtimeChannel, RealtimeSubscribeStates
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from harness.clock import Clock
from harness.collect.naming import OURS, Translator
from harness.measure.delivery import Break, Canary, Heard, ServerClock, Told
from harness.model import UnixNs, value

WISHES = (("INSERT", "calls"), ("UPDATE", "calls"), ("INSERT", "alerts_history"))
"""The dashboard's subscriptions: a call begins, a call changes, an alert."""
CANARIES = "realtime_canary"
CANARY_EVERY_S = 1.0
PATIENCE_S = 10.0
"""A canary not heard for so long: the client is given up for a new one. Longer than any lag worth the name."""
NEVER_READY = "never ready"
"""Why a session ended that was given up at the end of the run."""
_PAUSE_S = 0.5
_EAGER_S = 0.2
"""Between canaries until the first one is heard: whoever waits for it waits no longer than it takes."""
_TIMEOUT_S = 10.0

Sink = Callable[[Told], None]
_MOST_IDS = 100
"""Values that Realtime takes in one filter."""


@value
class Access:
    """How to get in."""

    url: str
    key: str
    """A key of the project: every request and socket brings it."""
    token: str | None = None
    """Whose eyes to hear with: of a user or of the judge. None: the key's own."""
    names: Translator = OURS
    """What the project calls its tables and columns."""
    call_ids: tuple[str, ...] = ()
    """Whose changes to hear; of more than a server lets us ask for at once, everybody's come, and only ours are kept."""
    canary_key: str | None = None
    """A key that may write canaries. None: ready means only that the server says so, which is the weaker proof."""


class Listener:
    """Runs in a thread with an event loop of its own. ``sink`` is told from that thread."""

    def __init__(self, access: Access, sink: Sink, *, clock: Clock, trust_env: bool = True, every_s: float = CANARY_EVERY_S) -> None:
        self._access, self._sink, self._clock, self._trust_env, self._every_s = access, sink, clock, trust_env, every_s
        self._canaries = f"{access.url.rstrip('/')}/rest/v1/{CANARIES}"
        self._writing = {
            "apikey": access.canary_key or "",
            "authorization": f"Bearer {access.canary_key}",
            "prefer": "return=minimal",
        }
        self._ready, self._over = threading.Event(), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        """``_over`` for the loop's own tasks: a thread that waited for it in each session would be one that stays."""
        self._pending: dict[str, UnixNs] = {}
        """Canaries that were written and may still be heard."""
        self._written: list[str] = []
        """Canaries that are done, to be deleted."""
        self._news = asyncio.Event()

    def wait_ready(self, timeout_s: float) -> bool:
        """Whether the subscription was proven to deliver before the time was up."""
        return self._ready.wait(timeout_s)

    def stop(self) -> None:
        """Asks for the end: one canary more, since whoever hears it has heard everything before it."""
        self._over.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ended.set)

    def run(self) -> None:
        """Listens until stopped."""
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._over.is_set():
            self._ended.set()
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=self._trust_env) as http:
            with contextlib.suppress(httpx.HTTPError, ValueError):  # without it lags of rows of others are unknown
                self._sink(await clock_offset(http, self._access, self._clock))
            while True:
                try:
                    await self._until_over(self._session(http))
                # Whatever a client of a socket raises, listening goes on, and what was lost is said.
                except Exception as exc:
                    self._break(f"{type(exc).__name__}: {exc}")
                self._give_up_pending()
                await self._delete_canaries(http)
                if self._over.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE_S):
                        await self._ended.wait()

    async def _until_over(self, session: Coroutine[Any, Any, None]) -> None:
        """A session that never became ready is not waited for at the end."""
        running = asyncio.create_task(session)
        over = asyncio.create_task(self._ended.wait())
        await asyncio.wait({running, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if not running.done() and not self._ready.is_set():
            running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            self._break(NEVER_READY)

    async def _session(self, http: httpx.AsyncClient) -> None:
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        client = await acreate_client(self._access.url, self._access.key, options)
        if self._access.token is not None:
            await client.realtime.set_auth(self._access.token)
        try:
            await self._subscribe(client)
            await (self._proven(http) if self._access.canary_key else self._told())
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await client.realtime.close()

    async def _subscribe(self, client: AsyncClient) -> None:
        channel: AsyncRealtimeChannel = client.channel(f"voxproof-{uuid.uuid4().hex[:8]}")
        for event, table in (*((event, self._access.names.table(table)) for event, table in WISHES), ("INSERT", CANARIES)):
            if table != CANARIES or self._access.canary_key:
                channel.on_postgres_changes(
                    event,  # type: ignore[arg-type]
                    self._guarded(self._take),
                    table=table,
                    schema="public",
                    filter=self._filter(table),
                )
        channel.on_system(self._guarded(self._take_system))
        await channel.subscribe(self._guarded(self._take_state))

    def _filter(self, table: str) -> str | None:
        names, ids = self._access.names, self._access.call_ids
        if table != names.table("calls") or not 0 < len(ids) <= _MOST_IDS:
            return None
        return f"{names.column('calls', 'call_id')}=in.({','.join(ids)})"

    async def _proven(self, http: httpx.AsyncClient) -> None:
        """Writes canaries until stopped and the last one was heard. Raises TimeoutError if one is not."""
        while not self._over.is_set():
            await self._write_canary(http)
            await self._delete_canaries(http)
            pause_s = self._every_s if self._ready.is_set() else min(self._every_s, _EAGER_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ended.wait()
            oldest = min(self._pending.values(), default=None)
            if oldest is not None and self._clock.now() - oldest > PATIENCE_S * 1e9:
                raise TimeoutError(f"a canary was not heard for {PATIENCE_S:.0f} s")
        await self._write_canary(http)
        async with asyncio.timeout(PATIENCE_S):
            while self._pending:
                self._news.clear()
                await self._news.wait()

    async def _told(self) -> None:
        await self._ended.wait()
        await asyncio.sleep(1.0)  # what is still on its way

    async def _write_canary(self, http: httpx.AsyncClient) -> None:
        number = str(uuid.uuid4())
        self._pending[number] = self._clock.now()
        try:
            answer = await http.post(self._canaries, json={"id": number}, headers=self._writing)
            answer.raise_for_status()
        except httpx.HTTPError as exc:
            self._pending.pop(number, None)
            self._break(f"no canary could be written: {type(exc).__name__}: {exc}")

    async def _delete_canaries(self, http: httpx.AsyncClient) -> None:
        """Those that are done, and not before: a row that is gone is visible to nobody, hence told to nobody."""
        while self._written:
            some, self._written = self._written[:50], self._written[50:]
            with contextlib.suppress(httpx.HTTPError):
                await http.delete(self._canaries, params={"id": f"in.({','.join(some)})"}, headers=self._writing)

    def _guarded(self, take: Callable[..., None]) -> Callable[..., None]:
        """A callback that cannot raise: the client's task would end with it, and every later change would be lost without a word."""

        def call(*told: Any) -> None:
            try:
                take(*told)
            except Exception as exc:
                self._break(f"{take.__name__} failed: {type(exc).__name__}: {exc}")

        return call

    def _take(self, payload: Mapping[str, Any]) -> None:
        at, data = self._clock.now(), payload["data"]
        table, record = data["table"], data["record"]
        if table == CANARIES:
            self._take_canary(record["id"], at)
            return
        table = self._access.names.ours(table)
        record = self._access.names.row(table, record)
        self._sink(
            Heard(
                table=table,
                kind=str(data["type"].value),
                key=change_key(record, data["type"]),
                at=at,
                commit_timestamp=data["commit_timestamp"],
                call_id=record.get("call_id"),
            )
        )

    def _take_canary(self, number: str, at: UnixNs) -> None:
        """Changes come in order: one that was written before this one and was not heard is lost."""
        written_at = self._pending.pop(number, None)
        if written_at is None:
            return  # of another listener
        self._give_up_pending(before=written_at)
        self._written.append(number)
        self._sink(Canary(written_at=written_at, heard_at=at))
        self._ready.set()
        self._news.set()

    def _take_system(self, said: Any) -> None:
        if said.status == "ok" and not self._access.canary_key:
            at = self._clock.now()
            self._sink(Canary(written_at=at, heard_at=at))
            self._ready.set()

    def _take_state(self, state: RealtimeSubscribeStates, error: Exception | None) -> None:
        if state is not RealtimeSubscribeStates.SUBSCRIBED and not self._over.is_set():
            self._break(f"{state.value}: {error}" if error else state.value)

    def _give_up_pending(self, before: UnixNs | None = None) -> None:
        for number, written_at in list(self._pending.items()):
            if before is None or written_at < before:
                del self._pending[number]
                self._written.append(number)
                self._sink(Canary(written_at=written_at, heard_at=None))

    def _break(self, reason: str) -> None:
        self._sink(Break(at=self._clock.now(), reason=reason))


def change_key(row: Mapping[str, Any], kind: str) -> str:
    """Names a change of a row: an UPDATE by the status that it left the row in, since a call has many heartbeats and one end."""
    return f"{row['id']} {row.get('status')}" if kind == "UPDATE" else str(row["id"])


@contextlib.contextmanager
def record(access: Access, sink: Sink, *, clock: Clock, trust_env: bool = True, every_s: float = CANARY_EVERY_S) -> Iterator[Listener]:
    """Listens in the background until the block ends and everything written before its end was heard, or could not be."""
    listener = Listener(access, sink, clock=clock, trust_env=trust_env, every_s=every_s)
    thread = threading.Thread(target=listener.run, daemon=True, name="realtime")
    thread.start()
    try:
        yield listener
    finally:
        listener.stop()
        thread.join(2 * PATIENCE_S + _TIMEOUT_S)


async def clock_offset(http: httpx.AsyncClient, access: Access, clock: Clock, *, tries: int = 5) -> ServerClock:
    """How the server's clock stands to ours, by the tightest of some round trips.

    Raises httpx.HTTPError or ValueError if the server does not say its time.
    """
    token = access.token or access.key
    headers = {"apikey": access.key, "authorization": f"Bearer {token}"}
    found = []
    for _ in range(tries):
        before = clock.now()
        answer = await http.post(f"{access.url.rstrip('/')}/rest/v1/rpc/server_now", json={}, headers=headers)
        after = clock.now()
        theirs = dt.datetime.fromisoformat(answer.raise_for_status().json()).timestamp()
        found.append(ServerClock(offset_s=theirs - (before + after) / 2e9, error_s=(after - before) / 2e9))
    return min(found, key=lambda each: each.error_s)
