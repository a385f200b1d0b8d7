"""Every private seam of aiortc, aioice, pylibsrtp and asyncio that the engine stands on, and a self-test that names the one that broke.

aiortc negotiates (ICE, DTLS, SDP) and answers STUN consent; its sender, receiver, jitter buffer and decoder never start.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from aiortc import RTCIceServer, RTCPeerConnection, RTCRtpTransceiver
from pylibsrtp import Session

from harness.model import value


@value
class Stream:
    """The RTP stream we send, as negotiated."""

    ssrc: int
    payload_type: int


@value
class Wire:
    """A connected transport taken over from aiortc: what a port needs to send and receive by itself."""

    socket: socket.socket
    outbound: Session
    inbound: Session
    tag_bytes: int
    """SRTP authentication tag appended to each packet."""
    stream: Stream | None
    """What this end sends. None: it only receives (the subscriber of a dual-PC caller)."""
    hand_back: Callable[[bytes], None]
    """Gives a STUN or DTLS datagram to aiortc; may be called from any thread."""
    call_soon: Callable[..., object]
    """``loop.call_soon_threadsafe`` of the loop that aiortc runs in."""


def offer_loopback() -> None:
    """Lets every later PeerConnection of this process gather 127.0.0.1 only: aioice skips loopback, where the embedded SFU listens."""
    raise NotImplementedError


def peer_connection(ice_servers: Sequence[RTCIceServer] = ()) -> RTCPeerConnection:
    """An ordinary PeerConnection (MAX_BUNDLE: one socket) whose media tasks can never start, whoever adds the transceivers, however often
    the offer is repeated. Add ``addTransceiver("audio", direction="sendonly")`` and negotiate as usual."""
    raise NotImplementedError


def track_id(transceiver: RTCRtpTransceiver) -> str:
    """The ``cid`` that LiveKit's AddTrackRequest wants: the track id in our offer."""
    raise NotImplementedError


def take_over(peer: RTCPeerConnection, sender: RTCRtpTransceiver | None) -> Wire:
    """The transport of a connected peer. Call it in the peer's loop, once. sender: the transceiver that we send on.

    From here on aiortc reads nothing from the socket by itself. Raises RuntimeError if the peer is not connected.
    """
    raise NotImplementedError


async def self_test() -> None:
    """Connects two peers in this process and exchanges packets. Raises EnvironmentFault naming the seam that a new aiortc broke."""
    raise NotImplementedError
