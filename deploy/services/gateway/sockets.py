"""One client's socket: Phoenix frames in and out, its channels, and the frames that wait because it reads slowly."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.changes import Binding
from gateway.tokens import Claims

QUEUE_FRAMES, QUEUE_CHARS = 5_000, 32 * 1_048_576
"""What may wait for one slow socket. Beyond it the socket is closed: a gap that the client sees beats memory that grows."""
OVERRUN = 1013
"""Close code: try again later."""
_FAREWELL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A message of a client."""

    topic: str
    event: str
    payload: dict[str, Any]
    ref: str | None
    join_ref: str | None


@dataclass(slots=True, kw_only=True, eq=False)
class Channel:
    """What a client subscribed to under one topic."""

    topic: str
    join_ref: str | None
    claims: Claims
    bindings: tuple[Binding, ...]


class Subscriber:
    """Sends in order, never blocks whoever tells it something."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.channels: dict[str, Channel] = {}
        # vsn 2.0.0 has frames as arrays, 1.0.0 as objects.
        self._is_array = socket.query_params.get("vsn", "1.0.0").startswith("2")
        self._waiting: deque[tuple[str, ...]] = deque()
        self._chars = 0
        self._has_frames = asyncio.Event()
        self._farewell: tuple[int, str] | None = None
        self._is_cut = asyncio.Event()

    async def serve(self, listener: asyncio.Task[None]) -> None:
        """Sends until the client leaves or the socket is cut. Ends ``listener``, too."""
        sender = asyncio.create_task(self._send())
        cut = asyncio.create_task(self._is_cut.wait())
        tasks = {listener, sender, cut}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            self._waiting.clear()
        if self._farewell is not None:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self.socket.close(self._farewell[0], reason=self._farewell[1])
        for result in ended:
            if isinstance(result, Exception):
                raise result

    def cut(self, code: int, reason: str) -> None:
        """Closes the socket, whatever still waits to be sent."""
        self._farewell = self._farewell or (code, reason)
        self._is_cut.set()

    def send(self, topic: str, event: str, payload: Any, *, ref: str | None = None, join_ref: str | None = None) -> None:
        """Queues a frame."""
        self._put(*self._framed(topic, event, ref, join_ref, (_json(payload),)))

    def reply(self, frame: Frame, status: str, response: dict[str, Any]) -> None:
        """Answers a frame of the client."""
        self.send(frame.topic, "phx_reply", {"status": status, "response": response}, ref=frame.ref, join_ref=frame.join_ref)

    def system(self, channel: Channel, status: str, message: str) -> None:
        """A word about the channel itself."""
        said = {"message": message, "status": status, "extension": "postgres_changes", "channel": channel.topic.partition(":")[2]}
        self.send(channel.topic, "system", said, join_ref=channel.join_ref)

    def change(self, channel: Channel, ids: Sequence[int], text: str) -> None:
        """A change of a row. ``text``, JSON, is shared by all whom it reaches."""
        body = (f'{{"ids":{_json(list(ids))},"data":', text, "}")
        self._put(*self._framed(channel.topic, "postgres_changes", None, channel.join_ref, body))

    def end(self, channel: Channel, reason: str) -> None:
        """Closes one channel and says why; the socket stays."""
        if self.channels.get(channel.topic) is channel:
            self.system(channel, "error", reason)
            self.leave(channel.topic)

    def leave(self, topic: str) -> None:
        """Forgets a channel."""
        channel = self.channels.pop(topic, None)
        join_ref = channel.join_ref if channel else None
        self.send(topic, "phx_close", {}, ref=join_ref, join_ref=join_ref)

    def _framed(self, topic: str, event: str, ref: str | None, join_ref: str | None, payload: tuple[str, ...]) -> tuple[str, ...]:
        if self._is_array:
            return (f"[{_json(join_ref)},{_json(ref)},{_json(topic)},{_json(event)},", *payload, "]")
        return (f'{{"topic":{_json(topic)},"event":{_json(event)},"payload":', *payload, f',"ref":{_json(ref)}}}')

    def _put(self, *parts: str) -> None:
        size = sum(map(len, parts))
        if len(self._waiting) >= QUEUE_FRAMES or self._chars + size > QUEUE_CHARS:
            self.cut(OVERRUN, f"this socket reads too slowly: {len(self._waiting)} frames were waiting for it")
            return
        self._waiting.append(parts)
        self._chars += size
        self._has_frames.set()

    async def _send(self) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                while not self._waiting:
                    self._has_frames.clear()
                    await self._has_frames.wait()
                parts = self._waiting.popleft()
                self._chars -= sum(map(len, parts))
                await self.socket.send_text("".join(parts))


def parsed(raw: str) -> Frame:
    """A frame of either version. Raises ValueError."""
    data = json.loads(raw)
    match data:
        case [join_ref, ref, str(topic), str(event), payload]:
            pass
        case {"topic": str(topic), "event": str(event)}:
            join_ref, ref, payload = data.get("join_ref"), data.get("ref"), data.get("payload")
        case _:
            msg = "wanted topic, event, payload and ref"
            raise ValueError(msg)
    return Frame(topic=topic, event=event, payload=payload if isinstance(payload, dict) else {}, ref=ref, join_ref=join_ref)


def _json(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"))
