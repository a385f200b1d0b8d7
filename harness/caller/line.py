"""One participant's connection to the media server: websocket, signalling and peer connections, kept until it is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import httpx
from google.protobuf.message import DecodeError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from harness.caller import signaling
from harness.caller.aiortc_adapter import Wire
from harness.caller.dialogue import JOIN_TIMEOUT_S, MediaDown, MediaUp, Rejected, SignalLost
from harness.caller.network import Network
from harness.caller.peers import Peers
from harness.caller.signaling import Signaling
from harness.clock import Clock
from harness.model import PeerMode

News = signaling.Event | MediaUp | MediaDown | SignalLost | Rejected
"""What a line tells of itself."""

_SILENCE_S = 15.0
"""Pings unanswered this long: the signalling connection is dead, whatever TCP believes. The server's own ``ping_timeout``."""
_FAREWELL_S = 2.0
"""Longest wait for each thing that is only polite: sending leave, closing handshakes."""


class Line:
    """``hold`` it in a task of its own; ``leave`` and ``close`` it whatever happens."""

    def __init__(
        self,
        network: Network,
        token: str,
        clock: Clock,
        tell: Callable[[News], None],
        tap: Callable[[str, bytes], None] | None = None,
        *,
        source: str = "MICROPHONE",
    ) -> None:
        """tell: called in the loop with everything that happens. tap: sees each frame and its way, ``in`` or ``out``.

        source: of the track that we publish.
        """
        self._network = network
        self._headers = {"Authorization": f"Bearer {token}"}
        self._clock = clock
        self._tell = tell
        self._tap = tap
        self._peers = Peers(network.mode, up=lambda: tell(MediaUp()), down=lambda reason: tell(MediaDown(reason=reason)))
        self._signaling = Signaling(mode=network.mode, track_id=self._peers.track_id, source=source)
        self._websocket: ClientConnection | None = None
        self._ponged_at = clock.now()

    async def hold(self) -> None:
        """Connects, obeys the server's frames and pings, until it is cancelled or the line is dead. How it died is told, not raised."""
        offer = await self._peers.offer() if self._network.mode is PeerMode.SINGLE else None
        path = self._signaling.join_path(offer)
        try:
            self._websocket = await connect(
                self._network.websocket_url + path,
                additional_headers=self._headers,
                compression=None,
                ping_interval=None,
                open_timeout=JOIN_TIMEOUT_S,
                close_timeout=_FAREWELL_S,
                proxy=None if self._network.is_loopback else True,
            )
        except (OSError, InvalidHandshake, InvalidURI) as exc:
            self._tell(Rejected(reason=await self._refusal(path, exc)))
            return
        self._ponged_at = self._clock.now()
        async with asyncio.TaskGroup() as tasks:
            pings = tasks.create_task(self._ping())
            reason = await self._read(self._websocket)
            pings.cancel()
        self._tell(SignalLost(reason=reason))

    def wires(self) -> tuple[Wire, Wire | None]:
        """The transports for the media engine, once, after ``MediaUp``: publisher and, in dual mode, subscriber."""
        return self._peers.wires()

    async def leave(self) -> bool:
        """Tells the server that we go. False: it could not be told."""
        if self._websocket is None:
            return False
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(_FAREWELL_S):
                await self._write(self._websocket, self._signaling.leave())
                return True
        return False

    async def close(self) -> None:
        """Closes everything; the media engine must have let go of the wires."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._peers.close()
                if self._websocket is not None:
                    await self._websocket.close()

    async def _read(self, websocket: ClientConnection) -> str:
        """Why the connection ended."""
        try:
            async for frame in websocket:
                if isinstance(frame, str):
                    continue
                if self._tap is not None:
                    self._tap("in", frame)
                for effect in self._signaling.receive(frame):
                    await self._obey(effect)
        except ConnectionClosed as exc:
            return f"the signalling connection broke: {exc}"
        except DecodeError as exc:
            return f"the media server sent what is no signalling frame: {exc}"
        return "the media server closed the signalling connection"

    async def _obey(self, effect: signaling.Command | signaling.Event) -> None:
        match effect:
            case signaling.Send():
                await self._send(effect.frame)
            case signaling.MakeOffer():
                await self._send(self._signaling.offered(await self._peers.offer(effect.free_sections)))
            case signaling.AcceptAnswer():
                await self._peers.accept_answer(effect.sdp)
            case signaling.AcceptOffer():
                if answer := await self._peers.accept_offer(effect.sdp):
                    await self._send(self._signaling.answered(answer, effect.offer_id))
            case signaling.AddCandidate():
                await self._peers.add_candidate(effect)
            case signaling.Pong():
                self._ponged_at = self._clock.now()
            case _:
                self._tell(effect)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(signaling.PING_S)
            now = self._clock.now()
            if now - self._ponged_at > _SILENCE_S * 1e9:
                self._tell(SignalLost(reason=f"the media server answered no ping for {_SILENCE_S:g} s"))
                return
            await self._send(self._signaling.ping(now // 1_000_000))

    async def _send(self, frame: bytes) -> None:
        """Sends a frame; a connection that is gone is told of by its reader."""
        if self._websocket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._write(self._websocket, frame)

    async def _write(self, websocket: ClientConnection, frame: bytes) -> None:
        if self._tap is not None:
            self._tap("out", frame)
        await websocket.send(frame)

    async def _refusal(self, path: str, cause: Exception) -> str:
        """The server's own words, which a failed websocket upgrade keeps to itself: ``/rtc/validate`` says them."""
        server = f"livekit at {self._network.url}"
        if not isinstance(cause, InvalidHandshake):
            return f"{server} cannot be reached ({str(cause) or type(cause).__name__}); is the server up?"
        route, _, query = path.partition("?")
        try:
            said = await self._get(f"{self._network.http_url}{route}/validate?{query}", self._headers)
        except httpx.HTTPError:
            return f"{server} refused the join: {cause}"
        if said.is_success:
            return f"{server} finds the join valid and refused it all the same: {cause}"
        return f"{server} refused the join: {said.status_code} {said.text.strip()}"

    async def _get(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        async with httpx.AsyncClient(timeout=_FAREWELL_S, trust_env=not self._network.is_loopback) as client:
            return await client.get(url, headers=dict(headers))
