"""Rows of the call history, written during the call by one ordered queue: nothing waits for the end, a retry doubles nothing.

Ids are made here, from the call's id and the row's place in it, so that the same row sent twice is one row.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import logging
import ssl
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

log = logging.getLogger("voxproof.telemetry")

HEARTBEAT_S = 5.0
"""Pause between two touches of ``calls.heartbeat_at``; ``end_dead_calls`` ends calls that missed several."""
TIMEOUT_S = 5.0
BACKOFF_S = (0.1, 0.3, 1.0, 3.0)
"""Pauses between attempts; the last one repeats."""
FLUSH_S = 8.0
"""Longest wait at the end of a call: livekit-agents kills a job process 10 s after its shutdown began."""

_NAMESPACE = uuid.UUID("5f6b9c0e-6a51-4b0e-9a53-0d1f4f6d7a10")


@dataclass(frozen=True, slots=True)
class Write:
    """One request to PostgREST."""

    method: str
    table: str
    query: Mapping[str, str]
    body: Mapping[str, Any]


def row_id(call_id: str, table: str, ordinal: int) -> str:
    """The id of the ``ordinal``-th row of a call: the same whenever it is asked for."""
    return str(uuid.uuid5(_NAMESPACE, f"{call_id}/{table}/{ordinal}"))


def iso(at: float) -> str:
    """Unix seconds as ISO 8601, UTC."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat()


class RowWriter:
    """Writes one call's rows in order, in the background of the running event loop.

    on_error: called with the table's name for every attempt that failed.
    """

    def __init__(self, *, url: str, key: str, call_id: str, on_error: Callable[[str], None]) -> None:
        self.call_id = call_id
        self._url, self._key, self._on_error = url, key, on_error
        self._queue: asyncio.Queue[Write | None] = asyncio.Queue()
        self._ordinals = {"transcripts": 0, "tool_executions": 0}
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._beat())]
        self._is_started = self._is_ended = False

    def start(self, *, phone_number: str, direction: str, room_name: str, agent_version: str, at: float) -> None:
        """The call's own row, ``active``. Said once; a second time is ignored."""
        if self._is_started:
            return
        self._is_started = True
        body = {
            "id": row_id(self.call_id, "calls", 0),
            "call_id": self.call_id,
            "phone_number": phone_number,
            "direction": direction,
            "status": "active",
            "start_time": iso(at),
            "room_name": room_name,
            "agent_version": agent_version,
            "heartbeat_at": iso(at),
        }
        self._put("POST", "calls", {"on_conflict": "call_id"}, body)

    def transcript(self, role: str, content: str, at: float) -> None:
        """One turn; ``at`` is the instant at which it began to be spoken."""
        body = {"role": role, "content": content, "timestamp": iso(at)}
        self._put("POST", "transcripts", {"on_conflict": "id"}, self._numbered("transcripts", body))

    def tool_execution(self, name: str, parameters: Any, result: Any, *, success: bool, latency_s: float | None, at: float) -> None:
        body = {
            "tool_name": name,
            "parameters": parameters,
            "result": result,
            "success": success,
            "latency_ms": None if latency_s is None else round(latency_s * 1000),
            "executed_at": iso(at),
        }
        self._put("POST", "tool_executions", {"on_conflict": "id"}, self._numbered("tool_executions", body))

    def end(self, status: str, *, started_at: float, ended_at: float) -> None:
        """Closes the call's row. Said once; a second time is ignored."""
        if self._is_ended:
            return
        self._is_ended = True
        body = {"status": status, "end_time": iso(ended_at), "duration_seconds": round(ended_at - started_at)}
        self._put("PATCH", "calls", {"call_id": f"eq.{self.call_id}"}, body)

    async def close(self) -> None:
        """Waits until all is written, at most `FLUSH_S`; what is left then is logged with its number."""
        self._queue.put_nowait(None)
        writer, beat = self._tasks
        beat.cancel()
        done, _ = await asyncio.wait([writer], timeout=FLUSH_S)
        if not done:
            log.error("call %s: %d rows were not written within %.0f s", self.call_id, self._queue.qsize(), FLUSH_S)
            writer.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _numbered(self, table: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        ordinal = self._ordinals[table]
        self._ordinals[table] += 1
        return {"id": row_id(self.call_id, table, ordinal), "call_id": self.call_id, **body}

    def _put(self, method: str, table: str, query: Mapping[str, str], body: Mapping[str, Any]) -> None:
        self._queue.put_nowait(Write(method, table, query, body))

    async def _beat(self) -> None:
        while not self._is_ended:
            await asyncio.sleep(HEARTBEAT_S)
            # A backlog says already that the database does not keep up; heartbeats behind it would only come late.
            if self._is_started and not self._is_ended and self._queue.empty():
                now = dt.datetime.now(dt.UTC).isoformat()
                self._put("PATCH", "calls", {"call_id": f"eq.{self.call_id}", "status": "eq.active"}, {"heartbeat_at": now})

    async def _run(self) -> None:
        headers = {
            "apikey": self._key,
            "authorization": f"Bearer {self._key}",
            "prefer": "return=minimal,resolution=ignore-duplicates",
        }
        verify = await asyncio.to_thread(_tls) if self._url.startswith("https") else False
        async with httpx.AsyncClient(base_url=f"{self._url}/rest/v1", headers=headers, timeout=TIMEOUT_S, verify=verify) as client:
            while (write := await self._queue.get()) is not None:
                await self._send(client, write)

    async def _send(self, client: httpx.AsyncClient, write: Write) -> None:
        """Tries until the database took the row, or refused it for good (a 4xx that no retry mends)."""
        attempt = 0
        while True:
            try:
                answer = await client.request(write.method, f"/{write.table}", params=dict(write.query), json=dict(write.body))
                if answer.is_success:
                    return
                said = f"HTTP {answer.status_code}: {answer.text[:200]}"
                is_final = 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429)
            except httpx.HTTPError as exc:
                said, is_final = repr(exc), False
            self._on_error(write.table)
            if is_final:
                log.error("call %s: %s %s refused, not written: %s", self.call_id, write.method, write.table, said)
                return
            log.warning("call %s: %s %s failed, will be sent again: %s", self.call_id, write.method, write.table, said)
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            attempt += 1


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once, off the event loop: loading the certificates blocks for a quarter of a second."""
    return ssl.create_default_context()
