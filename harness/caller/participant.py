"""A participant without dialogue: joins a room, sends and hears until it is told to leave. For probes and benchmarks of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.caller import tokens
from harness.caller.dialogue import MediaUp
from harness.caller.engine import Engine
from harness.caller.leg import Leg
from harness.caller.line import Line, News
from harness.caller.network import Network
from harness.clock import Clock
from harness.model import Grade

_JOIN_S = 20.0


@asynccontextmanager
async def participant(
    network: Network, clock: Clock, engine: Engine, room: str, identity: str, grade: Grade = Grade.FULL
) -> AsyncIterator[Leg]:
    """Joins ``room``, sends and hears until the block ends, then leaves. Raises TimeoutError if it does not come in."""
    news: asyncio.Queue[News] = asyncio.Queue()
    token = tokens.plain_token(room=room, identity=identity, api_key=network.api_key, api_secret=network.api_secret)
    line = Line(network, token, clock, news.put_nowait)
    holding = asyncio.create_task(line.hold())
    leg = None
    try:
        async with asyncio.timeout(_JOIN_S):
            while not isinstance(await news.get(), MediaUp):
                pass
        leg = Leg(clock, *line.wires(), grade=grade)
        engine.add(leg)
        yield leg
    finally:
        holding.cancel()
        await line.leave()
        if leg is not None:
            await engine.remove(leg)
        await line.close()
