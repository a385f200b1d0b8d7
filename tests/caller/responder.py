"""The other party of our own tests: an agent of programmed delay on our own engine. It greets, and answers every utterance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.caller import tokens
from harness.caller.clip import Clip
from harness.caller.dialogue import MediaUp
from harness.caller.engine import Engine
from harness.caller.leg import Leg, Spoken
from harness.caller.line import Line, News
from harness.caller.network import Network
from harness.clock import Clock
from harness.measure.voice import Utterance


class Responder:
    """A participant of kind AGENT."""

    def __init__(
        self, network: Network, clock: Clock, engine: Engine, *, greeting: Clip | None, reply: Clip | None, delay_s: float
    ) -> None:
        """delay_s: from being told that the caller has finished to the start of the reply. reply: None to stay silent."""
        self._network = network
        self._clock = clock
        self._engine = engine
        self._greeting = greeting
        self._reply = reply
        self._delay_s = delay_s
        self._leg: Leg | None = None

    @asynccontextmanager
    async def in_room(self, room: str) -> AsyncIterator[Responder]:
        """Joins ``room`` and stays until the block ends."""
        network = self._network
        token = tokens.agent_token(room=room, identity=f"agent-{room}", api_key=network.api_key, api_secret=network.api_secret)
        news: asyncio.Queue[News] = asyncio.Queue()
        line = Line(network, token, self._clock, news.put_nowait)
        holding = asyncio.create_task(line.hold())
        try:
            async with asyncio.timeout(10):
                while not isinstance(await news.get(), MediaUp):
                    pass
            self._leg = Leg(self._clock, *line.wires())
            self._leg.listen(self._hear)
            self._engine.add(self._leg)
            if self._greeting is not None:
                asyncio.get_running_loop().call_later(1.0, self._leg.play, self._greeting)
            yield self
        finally:
            holding.cancel()
            await line.leave()
            if self._leg is not None:
                await self._engine.remove(self._leg)
            await line.close()

    def said(self) -> tuple[Spoken, ...]:
        """What it has said, greeting first, with the instants on the wire."""
        return () if self._leg is None else self._leg.spoken()

    def heard(self) -> tuple[Utterance, ...]:
        """What it has heard."""
        return () if self._leg is None else self._leg.utterances()

    def _hear(self, utterance: Utterance) -> None:
        if utterance.ended_at is not None and self._reply is not None and self._leg is not None:
            asyncio.get_running_loop().call_later(self._delay_s, self._leg.play, self._reply)
