"""The media server's rooms and participants, by its API; only rooms that our run made are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp
from livekit.api import ListParticipantsRequest, ListRoomsRequest, LiveKitAPI, ServerError

from harness.clock import Clock
from harness.door import Meter
from harness.model import Gap, Observation, Poll, Sample, Source

_TIMEOUT_S = 5.0


class Sfu:
    """One media server, over its API."""

    def __init__(self, url: str, api_key: str, api_secret: str, *, clock: Clock, meter: Meter | None = None) -> None:
        """meter: counts requests and their time; the client does not say how long an answer was."""
        self._url = url
        self._key = api_key
        self._secret = api_secret
        self._clock = clock
        self._meter = meter

    def read(self, rooms: Sequence[str]) -> tuple[Observation | Gap, ...]:
        """How many of ``rooms`` exist (``rooms``), who is in them (``participants``), and in each (``room_participants``)."""
        at = self._clock.now()
        request = f"{self._url}/twirp/livekit.RoomService/ListRooms names={rooms[0]}..{len(rooms)}" if rooms else self._url
        try:
            present = asyncio.run(self._present(rooms))
        except ServerError as exc:
            return (Gap(source=Source.SFU_API, at=at, reason=f"answered {exc.status} {exc.code}: {exc.message}", request=request),)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            return (Gap(source=Source.SFU_API, at=at, reason=f"{type(exc).__name__}: {exc}", request=request),)
        took_s = (self._clock.now() - at) / 1e9
        if self._meter:
            self._meter.add(took_s=took_s, size_bytes=0, requests=1 + len(present))
        said = (
            Sample(source=Source.SFU_API, name="rooms", labels={}, value=len(present), at=at, request=request),
            Sample(source=Source.SFU_API, name="participants", labels={}, value=sum(present.values()), at=at, request=request),
            *(
                Sample(source=Source.SFU_API, name="room_participants", labels={"room": room}, value=count, at=at, request=request)
                for room, count in present.items()
            ),
        )
        return (Poll(source=Source.SFU_API, at=at, took_s=took_s, count=len(said), request=request), *said)

    async def _present(self, rooms: Sequence[str]) -> dict[str, int]:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with LiveKitAPI(self._url, self._key, self._secret, timeout=timeout, failover=False) as api:
            listed = (await api.room.list_rooms(ListRoomsRequest(names=list(rooms)))).rooms
            return {room.name: await _participants(api, room.name) for room in listed}


async def _participants(api: LiveKitAPI, room: str) -> int:
    try:
        return len((await api.room.list_participants(ListParticipantsRequest(room=room))).participants)
    except ServerError as exc:
        if exc.status == 404:  # it closed since it was listed
            return 0
        raise
