"""``/realtime/v1``: Phoenix channels with postgres_changes, fed by a replication slot that exists while somebody listens.

Row security is PostgreSQL's own: an event reaches a subscriber only if the row is visible under its claims when it is delivered. A lost slot
loses the changes until the next one; every channel is told so, as there is no replay. Lag measured here says nothing of Supabase's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import struct
import time
from collections.abc import AsyncIterator, Iterable, Iterator

import psycopg
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway import changes
from gateway.changes import Binding
from gateway.pgoutput import Change
from gateway.replication import PUBLICATION, Pool, Slot, TableFacts, missing, visible
from gateway.sockets import Channel, Frame, Subscriber, parsed
from gateway.tokens import Claims, TokenError, Tokens

POLL_S = 0.05
"""Pause between two readings of an idle slot: the grain of this gateway's lag (Supabase polls its own slot, too)."""
LINGER_S = 5.0
"""How long the slot is kept after the last channel with postgres_changes has gone."""
SILENCE_S = 60.0
"""A socket that sends nothing, not even a heartbeat, is closed: Phoenix's default."""
RECONNECT_S = 0.5
READY = "Subscribed to PostgreSQL"
SLOT_LOST = f"replication slot lost: changes until the next '{READY}' are not delivered"

log = logging.getLogger("gateway.realtime")


class Realtime:
    """The hub: one reader of the slot, any number of subscribers.

    replication_dsn: signs in as a role with REPLICATION. pool: signs in as ``authenticator``, to ask as any subscriber.
    """

    def __init__(self, *, replication_dsn: str, pool: Pool, tokens: Tokens, silence_s: float = SILENCE_S) -> None:
        self._dsn, self._pool, self._tokens, self._silence_s = replication_dsn, pool, tokens, silence_s
        self._subscribers: set[Subscriber] = set()
        self._is_wanted = asyncio.Event()
        self._is_streaming = False

    def routes(self) -> list[BaseRoute]:
        """For the application; the API key was checked before."""
        return [WebSocketRoute("/realtime/v1/websocket", self._serve)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The hub's own tasks, for the life of the application."""
        async with asyncio.TaskGroup() as tasks:
            own = [tasks.create_task(self._replicate()), tasks.create_task(self._expire())]
            yield
            for task in own:
                task.cancel()

    async def _serve(self, socket: WebSocket) -> None:
        try:
            claims = self._tokens.decode(socket.query_params.get("apikey") or socket.headers.get("apikey") or "")
        except TokenError as exc:
            await socket.close(4001, reason=str(exc)[:100])
            return
        await socket.accept()
        subscriber = Subscriber(socket)
        self._subscribers.add(subscriber)
        listener = asyncio.create_task(self._listen(subscriber, claims))
        try:
            await subscriber.serve(listener)
        finally:
            self._subscribers.discard(subscriber)

    async def _listen(self, subscriber: Subscriber, claims: Claims) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                try:
                    async with asyncio.timeout(self._silence_s):
                        raw = await subscriber.socket.receive_text()
                except TimeoutError:
                    subscriber.cut(1002, f"no frame for {self._silence_s:.0f} s")
                    return
                try:
                    frame = parsed(raw)
                except ValueError as exc:
                    subscriber.send("phoenix", "phx_error", {"reason": f"not a Phoenix frame: {exc}"})
                    continue
                await self._handle(subscriber, claims, frame)

    async def _handle(self, subscriber: Subscriber, claims: Claims, frame: Frame) -> None:
        match frame.event:
            case "heartbeat":
                subscriber.reply(frame, "ok", {})
            case "phx_join":
                await self._join(subscriber, claims, frame)
            case "phx_leave":
                subscriber.reply(frame, "ok", {})
                subscriber.leave(frame.topic)
            case "access_token" if frame.topic in subscriber.channels:
                self._renew(subscriber, subscriber.channels[frame.topic], frame.payload.get("access_token"))
            case _:
                subscriber.reply(frame, "error", {"reason": "unmatched topic"})

    async def _join(self, subscriber: Subscriber, claims: Claims, frame: Frame) -> None:
        try:
            if token := frame.payload.get("access_token"):
                claims = self._tokens.decode(str(token))
            config = frame.payload.get("config") or {}
            bindings = tuple(Binding.parse(wish) for wish in config.get("postgres_changes") or ())
        except (TokenError, ValueError, AttributeError) as exc:
            subscriber.reply(frame, "error", {"reason": str(exc)})
            return
        # The same topic again replaces the channel, as in Phoenix.
        channel = Channel(topic=frame.topic, join_ref=frame.join_ref or frame.ref, claims=claims, bindings=bindings)
        subscriber.channels[frame.topic] = channel
        subscriber.reply(frame, "ok", {"postgres_changes": [binding.echo() for binding in bindings]})
        subscriber.send(frame.topic, "presence_state", {}, join_ref=channel.join_ref)
        if not bindings:
            return
        try:
            refused = await missing(self._pool, bindings)
        except psycopg.Error as exc:
            log.warning("the publication cannot be read: %s", exc)
            refused = None
        if refused is not None:
            wish = ", ".join(f"{name}: {entry}" for name, entry in refused.asked.items())
            subscriber.system(channel, "error", f"Unable to subscribe to changes with given parameters: is it in {PUBLICATION}? [{wish}]")
            channel.bindings = ()
            return
        self._is_wanted.set()
        if self._is_streaming:
            subscriber.system(channel, "ok", READY)

    def _renew(self, subscriber: Subscriber, channel: Channel, token: object) -> None:
        try:
            channel.claims = self._tokens.decode(str(token or ""))
        except TokenError as exc:
            subscriber.end(channel, str(exc))

    async def _expire(self) -> None:
        """Ends channels whose token has run out, as Supabase does: a client renews before."""
        while True:
            now = time.time()
            for subscriber, channel in list(self._channels()):
                if channel.claims.expires_at is not None and channel.claims.expires_at <= now:
                    subscriber.end(channel, "Token has expired")
            await asyncio.sleep(1)

    async def _replicate(self) -> None:
        """Keeps a slot while somebody listens. A lost one is announced on every channel, and the next one, too."""
        while True:
            await self._is_wanted.wait()
            try:
                async with Slot.opened(self._dsn) as slot:
                    self._is_streaming = True
                    self._tell_all("ok", READY)
                    await self._pump(slot)
            except (psycopg.Error, ValueError, struct.error) as exc:
                log.warning("replication slot lost: %s", exc)
                if self._is_streaming:
                    self._is_streaming = False
                    self._tell_all("error", SLOT_LOST)
                await asyncio.sleep(RECONNECT_S)

    async def _pump(self, slot: Slot) -> None:
        """Delivers until nobody has wanted a change for a while."""
        idle_since = None
        while True:
            is_quiet = True
            async for batch in slot.read(self._pool):
                is_quiet = False
                for relation_batch in _runs(batch):
                    await self._deliver(relation_batch, slot.tables[relation_batch[0].relation.oid])
            if any(channel.bindings for _, channel in self._channels()):
                idle_since = None
            elif idle_since is None:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > LINGER_S:
                self._is_wanted.clear()
                self._is_streaming = False
                return
            if is_quiet:
                await asyncio.sleep(POLL_S)

    async def _deliver(self, batch: list[Change], facts: TableFacts) -> None:
        """Changes of one table, in order, to whoever wants and may see them."""
        seen: dict[str, set[int]] = {}
        for at, change in enumerate(batch):
            text: str | None = None
            for subscriber, channel in list(self._channels()):
                ids = [binding.id for binding in channel.bindings if binding.wants(change)]
                if not ids:
                    continue
                who = channel.claims.as_json
                if who not in seen:
                    seen[who] = await self._visible(batch, facts, channel.claims)
                if at not in seen[who]:
                    continue
                text = text or changes.payload(change, key=facts.key, has_row_security=facts.has_row_security)
                subscriber.change(channel, ids, text)
            if text is not None:
                await asyncio.sleep(0)  # the senders' turn: a burst is on its way while it is still being decided

    async def _visible(self, batch: list[Change], facts: TableFacts, claims: Claims) -> set[int]:
        if claims.role == "service_role":
            return set(range(len(batch)))
        try:
            return await visible(self._pool, claims, batch[0].relation, facts, batch)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
            return set()  # a role that may not be taken sees nothing
        except psycopg.Error as exc:
            log.warning("row security could not be asked: %s", exc)
            for subscriber, channel in list(self._channels()):
                if channel.claims.as_json == claims.as_json:
                    subscriber.system(channel, "error", f"row security could not be asked: {len(batch)} changes are not delivered")
            return set()

    def _tell_all(self, status: str, message: str) -> None:
        for subscriber, channel in self._channels():
            if channel.bindings:
                subscriber.system(channel, status, message)

    def _channels(self) -> Iterator[tuple[Subscriber, Channel]]:
        return ((subscriber, channel) for subscriber in self._subscribers for channel in list(subscriber.channels.values()))


def _runs(batch: Iterable[Change]) -> Iterator[list[Change]]:
    """Neighbours of the same table."""
    for _, run in itertools.groupby(batch, key=lambda change: change.relation.oid):
        yield list(run)
