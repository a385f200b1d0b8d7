"""The peer connections of one caller: aiortc negotiates what signalling commands, one connection or two behind one face."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiortc import RTCPeerConnection, RTCRtpSender, RTCRtpTransceiver, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from harness.caller import aiortc_adapter
from harness.caller.aiortc_adapter import Wire
from harness.caller.signaling import AddCandidate, Peer
from harness.model import PeerMode


class Peers:
    """A publisher connection, and in dual mode the subscriber connection that the server offers."""

    def __init__(self, mode: PeerMode, *, up: Callable[[], None], down: Callable[[str], None]) -> None:
        """up: called once, when every connection is connected. down: called with the reason when one of them fails."""
        self._mode = mode
        self._up = up
        self._down = down
        self._is_up = False
        self._publisher = self._open("publisher")
        self._sender = self._add_section("sendonly")
        if mode is PeerMode.SINGLE:
            self._add_section("recvonly")  # a spare one spares a round trip when the agent's track comes
        self._subscriber: RTCPeerConnection | None = None

    @property
    def track_id(self) -> str:
        """The id of our track, for signalling."""
        return aiortc_adapter.track_id(self._sender)

    async def offer(self, free_sections: int = 0) -> str:
        """Our offer for the publisher connection, candidates included. Adds receiving sections until ``free_sections`` are unused."""
        unused = sum(
            transceiver.direction == "recvonly" and transceiver.currentDirection in (None, "inactive")
            for transceiver in self._publisher.getTransceivers()
        )
        for _ in range(free_sections - unused):
            self._add_section("recvonly")
        await self._publisher.setLocalDescription(await self._publisher.createOffer())
        return self._publisher.localDescription.sdp

    async def accept_answer(self, sdp: str) -> None:
        """The server's answer to our last offer."""
        if self._publisher.signalingState == "have-local-offer":
            await self._publisher.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def accept_offer(self, sdp: str) -> str | None:
        """Our answer to the server's offer. None: the connection is closed and nothing may be sent."""
        if self._subscriber is None:
            self._subscriber = self._open("subscriber")
        if self._subscriber.connectionState == "closed":
            return None
        await self._subscriber.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await self._subscriber.setLocalDescription(await self._subscriber.createAnswer())
        return self._subscriber.localDescription.sdp

    async def add_candidate(self, command: AddCandidate) -> None:
        """A candidate that the server trickled; its descriptions hold none."""
        peer = self._subscriber if command.peer is Peer.SUBSCRIBER else self._publisher
        if peer is None or peer.connectionState == "closed":
            return
        candidate = candidate_from_sdp(command.candidate)
        candidate.sdpMid = command.mid
        candidate.sdpMLineIndex = command.index
        await peer.addIceCandidate(candidate)

    def wires(self) -> tuple[Wire, Wire | None]:
        """The transports of the connected peers, once, for the media engine: publisher and, in dual mode, subscriber."""
        subscriber = None if self._subscriber is None else aiortc_adapter.take_over(self._subscriber, None)
        return aiortc_adapter.take_over(self._publisher, self._sender), subscriber

    async def close(self) -> None:
        """Closes every connection."""
        self._is_up = True
        await asyncio.gather(*(peer.close() for peer in (self._publisher, self._subscriber) if peer is not None))

    def _add_section(self, direction: str) -> RTCRtpTransceiver:
        section = self._publisher.addTransceiver("audio", direction=direction)
        codecs = RTCRtpSender.getCapabilities("audio").codecs
        section.setCodecPreferences([codec for codec in codecs if codec.mimeType.lower() == "audio/opus"])
        return section

    def _open(self, name: str) -> RTCPeerConnection:
        peer = aiortc_adapter.peer_connection()

        def changed() -> None:
            if peer.connectionState == "failed":
                self._down(f"{name} connection: ICE {peer.iceConnectionState}")
            elif peer.connectionState == "connected" and not self._is_up and self._are_all_connected():
                self._is_up = True
                self._up()

        peer.on("connectionstatechange", changed)
        return peer

    def _are_all_connected(self) -> bool:
        peers = (self._publisher,) if self._mode is PeerMode.SINGLE else (self._publisher, self._subscriber)
        return all(peer is not None and peer.connectionState == "connected" for peer in peers)
