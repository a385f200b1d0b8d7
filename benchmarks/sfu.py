"""A media server of its own for a benchmark or a test of the media engine, and participants in it without dialogue."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from livekit import api

from harness.caller.dialogue import MediaUp
from harness.caller.engine import Engine
from harness.caller.leg import Leg
from harness.caller.line import Line, News
from harness.caller.network import Network
from harness.caller.signaling import PeerMode
from harness.clock import Clock
from harness.model import Grade, value
from harness.stack import livekit, ports
from harness.stack.home import home_dir
from harness.stack.ports import LOOPBACK
from harness.stack.provision import obtain
from harness.stack.supervise import Supervisor

_JOIN_S = 20.0


@value
class Sfu:
    """A running livekit-server on loopback."""

    url: str
    api_key: str
    api_secret: str
    metrics_url: str
    udp_port: int
    """Of all media."""
    pid: int

    def network(self, mode: PeerMode = PeerMode.SINGLE) -> Network:
        """As callers reach it."""
        return Network(url=self.url, api_key=self.api_key, api_secret=self.api_secret, mode=mode)


@contextmanager
def lone_sfu(logs: Path) -> Iterator[Sfu]:
    """Starts livekit-server, provisioned if need be, and ends it."""
    part = obtain("livekit-server", home=home_dir(), progress=lambda line: print(line, file=sys.stderr))
    free = ports.free(("port", "udp_port", "metrics_port"))
    key, secret = "API" + secrets.token_hex(6), secrets.token_hex(20)
    with Supervisor(logs=logs, clock=Clock.start()) as supervisor:
        child = livekit.start(supervisor, part.path, livekit.config(**free, api_key=key, api_secret=secret))
        yield Sfu(
            url=f"ws://{LOOPBACK}:{free['port']}",
            api_key=key,
            api_secret=secret,
            metrics_url=f"http://{LOOPBACK}:{free['metrics_port']}/metrics",
            udp_port=free["udp_port"],
            pid=child.pid,
        )


def token(network: Network, room: str, identity: str) -> str:
    """Lets ``identity`` join ``room``, speak and hear."""
    grants = api.VideoGrants(room_join=True, room=room, can_publish=True, can_subscribe=True)
    return api.AccessToken(network.api_key, network.api_secret).with_identity(identity).with_grants(grants).to_jwt()


@asynccontextmanager
async def participant(
    network: Network, clock: Clock, engine: Engine, room: str, identity: str, grade: Grade = Grade.FULL
) -> AsyncIterator[Leg]:
    """Joins ``room``, sends and hears until the block ends, then leaves."""
    news: asyncio.Queue[News] = asyncio.Queue()
    line = Line(network, token(network, room, identity), clock, news.put_nowait)
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
