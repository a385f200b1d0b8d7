"""Rows of the call history, written during the call by one ordered queue: nothing waits for the end, a retry doubles nothing.

Each row's id is made here, once, and goes with it through every attempt, so that the same row sent twice is one row.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import importlib
import logging
import ssl
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

log = logging.getLogger("voxproof.telemetry")

# httpx would import them with its first request, which blocks the event loop of a call for up to half a second.
for _late in ("httpcore", "httpcore._async.http11", "httpcore._backends.anyio", "anyio._backends._asyncio"):
    with contextlib.suppress(ImportError):
        importlib.import_module(_late)

HEARTBEAT_S = 5.0
"""Pause between two touches of ``calls.heartbeat_at``; ``end_dead_calls`` ends calls that missed several."""
TIMEOUT_S = 5.0
BACKOFF_S = (0.1, 0.3, 1.0, 3.0)
"""Pauses between attempts; the last one repeats."""
FLUSH_S = 8.0
"""Longest wait at the end of a call: livekit-agents kills a job process 10 s after its shutdown began."""

_AGAIN = frozenset((408, 425, 429))
"""The 4xx that another attempt may mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One request to PostgREST."""

    method: str
    table: str
    query: Mapping[str, str]
    body: Mapping[str, Any]


def iso(at: float) -> str:
    """Unix seconds as ISO 8601, UTC."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat()


class RowWriter:
    """Writes one call's rows in order, in the background of the running event loop.

    url, key: of the Supabase project. on_error: called with the table's name for every attempt that failed; on_lost: for every row given up.
    The rest is for tests: the transport, and pauses in seconds.
    """

    def __init__(
        self,
        *,
        url: str,
        key: str,
        call_id: str,
        on_error: Callable[[str], None],
        on_lost: Callable[[str], None],
        transport: httpx.AsyncBaseTransport | None = None,
        backoff_s: Sequence[float] = BACKOFF_S,
        heartbeat_s: float = HEARTBEAT_S,
        flush_s: float = FLUSH_S,
    ) -> None:
        self.call_id = call_id
        self._url, self._key = url.rstrip("/"), key
        self._on_error, self._on_lost = on_error, on_lost
        self._transport, self._backoff_s, self._heartbeat_s, self._flush_s = transport, backoff_s, heartbeat_s, flush_s
        self._waiting: deque[Write] = deque()  # a row leaves it when it is written or given up
        self._has_work = asyncio.Event()
        self._is_started = self._is_ended = self._is_closing = False
        self._tasks = (asyncio.create_task(self._run()), asyncio.create_task(self._beat()))

    def start(self, *, phone_number: str, direction: str, room_name: str, agent_version: str, at: float) -> None:
        """The call's own row, ``active``. Said once; a second time is ignored."""
        if self._is_started:
            return
        self._is_started = True
        body = {
            "phone_number": phone_number,
            "direction": direction,
            "status": "active",
            "start_time": iso(at),
            "room_name": room_name,
            "agent_version": agent_version,
        }
        self._insert("calls", body, on_conflict="call_id")

    def phone_number(self, number: str) -> None:
        """Corrects the number that the call's row was started with."""
        self._update({"phone_number": number})

    def transcript(self, role: str, content: str, at: float) -> None:
        """One turn; ``at`` is the instant at which it began to be spoken."""
        self._insert("transcripts", {"role": role, "content": content, "timestamp": iso(at)})

    def tool_execution(self, name: str, parameters: Any, result: Any, *, success: bool, latency_s: float | None, at: float) -> None:
        """One tool call that ended. latency_s: None if it never ran."""
        body = {
            "tool_name": name,
            "parameters": parameters,
            "result": result,
            "success": success,
            "latency_ms": None if latency_s is None else round(latency_s * 1000),
            "executed_at": iso(at),
        }
        self._insert("tool_executions", body)

    def end(self, status: str, *, started_at: float, ended_at: float) -> None:
        """Closes the call's row; a later word corrects an earlier one. No heartbeat follows."""
        self._is_ended = True
        self._update({"status": status, "end_time": iso(ended_at), "duration_seconds": round(ended_at - started_at)})

    async def close(self) -> None:
        """Waits until all is written, at most ``flush_s``; what is left then is given up, each row with a line in the log."""
        self._is_closing = True
        self._has_work.set()
        writer, beat = self._tasks
        beat.cancel()
        await asyncio.wait([writer], timeout=self._flush_s)
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for write in self._waiting:
            self._give_up(write, f"not taken within {self._flush_s:.0f} s after the call")
        self._waiting.clear()

    def _insert(self, table: str, body: Mapping[str, Any], *, on_conflict: str = "id") -> None:
        identified = {"id": str(uuid.uuid4()), "call_id": self.call_id, **body}
        self._put(Write(method="POST", table=table, query={"on_conflict": on_conflict}, body=identified))

    def _update(self, body: Mapping[str, Any], **only: str) -> None:
        self._put(Write(method="PATCH", table="calls", query={"call_id": f"eq.{self.call_id}", **only}, body=body))

    def _put(self, write: Write) -> None:
        self._waiting.append(write)
        self._has_work.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            if self._is_ended:
                return
            # Rows that wait say already that the database does not keep up; a heartbeat behind them would only come late.
            if self._is_started and not self._waiting:
                # PostgreSQL reads "now" by its own clock, which is the one that end_dead_calls compares it with.
                self._update({"heartbeat_at": "now"}, status="eq.active")

    async def _run(self) -> None:
        headers = {
            "apikey": self._key,
            "authorization": f"Bearer {self._key}",
            "prefer": "return=minimal,resolution=ignore-duplicates",
        }
        verify = await asyncio.to_thread(_tls) if self._url.startswith("https") else False
        async with httpx.AsyncClient(
            base_url=f"{self._url}/rest/v1", headers=headers, timeout=TIMEOUT_S, verify=verify, transport=self._transport
        ) as client:
            while self._waiting or not self._is_closing:
                if not self._waiting:
                    self._has_work.clear()
                    await self._has_work.wait()
                    continue
                await self._send(client, self._waiting[0])
                self._waiting.popleft()

    async def _send(self, client: httpx.AsyncClient, write: Write) -> None:
        """Tries until the database took the row, or refused it for good: one bad row does not hold up those behind it."""
        attempt = 0
        while True:
            try:
                answer = await client.request(write.method, f"/{write.table}", params=dict(write.query), json=dict(write.body))
                if answer.is_success:
                    return
                said = f"HTTP {answer.status_code}: {answer.text[:200]}"
                is_final = 400 <= answer.status_code < 500 and answer.status_code not in _AGAIN
            except httpx.HTTPError as exc:
                said, is_final = repr(exc), False
            except (httpx.InvalidURL, TypeError, ValueError) as exc:  # no request can be made of it
                said, is_final = repr(exc), True
            self._on_error(write.table)
            if is_final:
                self._give_up(write, said)
                return
            log.warning("call %s: %s %s failed, will be sent again: %s", self.call_id, write.method, write.table, said)
            await asyncio.sleep(self._backoff_s[min(attempt, len(self._backoff_s) - 1)])
            attempt += 1

    def _give_up(self, write: Write, why: str) -> None:
        self._on_lost(write.table)
        log.error("call %s: %s %s is lost: %s", self.call_id, write.method, write.table, why)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once, off the event loop: loading the certificates blocks for a quarter of a second."""
    return ssl.create_default_context()
