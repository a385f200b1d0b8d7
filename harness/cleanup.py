"""What our own runs left at a target: rows of their calls and rooms that are still open. Only ids that a run planned are asked for or removed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import aiohttp
import httpx
from livekit.api import DeleteRoomRequest, ListRoomsRequest, LiveKitAPI, ServerError

from harness import door
from harness.collect.naming import Translator
from harness.errors import StackError
from harness.model import CallPlan, Door, Source, Target, value

TABLES = ("tool_executions", "transcripts", "calls")
"""Rows that belong to a call first."""
_TIMEOUT_S = 10.0
_IDS = 50
"""Call ids a request: they travel in its URL."""


@value
class Leftovers:
    """What is there of ours."""

    rows: Mapping[str, int]
    """By our name of the table."""
    rooms: tuple[str, ...]
    call_ids: tuple[str, ...]
    """Of the runs that were asked for."""

    def sentence(self, *, is_removed: bool) -> str:
        told = [f"{count} rows of {table}" for table, count in self.rows.items() if count]
        told += [f"{len(self.rooms)} rooms"] if self.rooms else []
        if not told:
            return "nothing of these runs is left"
        return f"removed: {', '.join(told)}" if is_removed else f"would remove: {', '.join(told)}; with --yes it does"


def find(target: Target, plans: Sequence[CallPlan]) -> Leftovers:
    """Counts what is left of these plans. Raises StackError if a source that could be asked refuses."""
    call_ids = tuple(plan.call_id for plan in plans)
    rows = {table: _count(target, table, call_ids) for table in _tables(target)}
    return Leftovers(rows=rows, rooms=asyncio.run(_rooms(target, [plan.room for plan in plans], is_removing=False)), call_ids=call_ids)


def remove(target: Target, left: Leftovers) -> None:
    """Removes it: rows of these call ids, rooms of these names, nothing else. Raises StackError."""
    for table in _tables(target):
        if left.rows.get(table):
            _ask(target, "DELETE", table, left.call_ids)
    asyncio.run(_rooms(target, left.rooms, is_removing=True))


def _tables(target: Target) -> tuple[str, ...]:
    if not target.supabase_url or Source.ROWS in target.blind:
        return ()
    return tuple(table for table in TABLES if table not in target.names.lacking)


def _count(target: Target, table: str, call_ids: Sequence[str]) -> int:
    return sum(int(answer.headers["content-range"].rpartition("/")[2]) for answer in _ask(target, "HEAD", table, call_ids))


def _ask(target: Target, method: str, table: str, call_ids: Sequence[str]) -> list[httpx.Response]:
    """One request for some ids each. The project's key: a token that only reads could remove nothing."""
    names = Translator(target.names)
    url = f"{str(target.supabase_url).rstrip('/')}/rest/v1/{names.table(table)}"
    key = str(target.supabase_key)
    headers = {"apikey": key, "Authorization": f"Bearer {key}", "Prefer": "count=exact" if method == "HEAD" else "return=minimal"}
    answers = []
    opened = door.client(target.doors.get(Source.ROWS, Door()), trust_env=not target.is_embedded, timeout_s=_TIMEOUT_S)
    with opened as client:
        for start in range(0, len(call_ids), _IDS):
            ids = ",".join(call_ids[start : start + _IDS])
            try:
                answer = client.request(method, url, params={names.column(table, "call_id"): f"in.({ids})"}, headers=headers)
                answers.append(answer.raise_for_status())
            except httpx.HTTPStatusError as exc:
                what = f"{table}: {method} answered {exc.response.status_code}"
                raise StackError(f"{what}; the key of supabase.key_env must be one that may do it, such as the service key") from exc
            except httpx.HTTPError as exc:
                raise StackError(f"{table}: {url} did not answer: {exc}") from exc
    return answers


async def _rooms(target: Target, rooms: Sequence[str], *, is_removing: bool) -> tuple[str, ...]:
    """Which of these rooms are there; afterwards gone, if they are to be removed."""
    if not rooms or Source.SFU_API in target.blind:
        return ()
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    credentials = (target.livekit_url, target.livekit_api_key, target.livekit_api_secret)
    try:
        async with LiveKitAPI(*credentials, timeout=timeout, failover=False) as api:
            there = tuple(room.name for room in (await api.room.list_rooms(ListRoomsRequest(names=list(rooms)))).rooms)
            for name in there if is_removing else ():
                await api.room.delete_room(DeleteRoomRequest(room=name))
    except (ServerError, aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise StackError(f"{target.livekit_url}: rooms could not be asked for: {exc}") from exc
    return there
