"""Every private seam of aiortc, aioice, pylibsrtp and asyncio that the engine stands on, and a self-test that names the one that broke.

aiortc negotiates (ICE, DTLS, SDP) and answers STUN consent; its sender, receiver, jitter buffer and decoder never start.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import aioice.ice
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCDtlsTransport, RTCIceServer, RTCPeerConnection, RTCRtpTransceiver
from pylibsrtp import Error as SrtpError
from pylibsrtp import Session

from harness.errors import EnvironmentFault
from harness.measure import rtcp, rtp
from harness.model import value

_PACKET = 2048
_SELF_TEST_S = 10.0
_TRAILER = {b"SRTP_AEAD_AES_256_GCM": 16, b"SRTP_AEAD_AES_128_GCM": 16, b"SRTP_AES128_CM_SHA1_80": 10}


@contextmanager
def seam(name: str) -> Iterator[None]:
    """What is done inside uses the private attribute ``name``. Raises EnvironmentFault that names it if it is not what it was."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError) as exc:
        versions = ", ".join(f"{package} {version(package)}" for package in ("aiortc", "aioice", "pylibsrtp"))
        msg = f"the media engine reaches into {name}, which is not there as it was ({exc}); installed: {versions}; wanted: aiortc>=1.13,<2"
        raise EnvironmentFault(msg) from exc


@value
class Stream:
    """The RTP stream we send, as negotiated."""

    ssrc: int
    payload_type: int


class Protector:
    """A buffer in which libsrtp encrypts RTP packets without copying them; for one thread."""

    def __init__(self, outbound: Session) -> None:
        with seam("pylibsrtp._binding"):
            from pylibsrtp._binding import ffi, lib  # type: ignore[import-not-found]

            self._protect = lib.srtp_protect
            self._buffer = ffi.new("unsigned char[]", _PACKET)
            self._length = ffi.new("int *")
            self.view = memoryview(ffi.buffer(self._buffer))
        with seam("pylibsrtp.Session._srtp"):
            self._context = outbound._srtp[0]
        self._keeps = outbound

    def protect(self, length: int) -> int:
        """Encrypts the packet of ``length`` bytes that stands in ``view``. Returns its new length."""
        self._length[0] = length
        status = self._protect(self._context, self._buffer, self._length)
        if status:
            msg = f"srtp_protect answered {status}"
            raise SrtpError(msg)
        return int(self._length[0])


def protect_functions() -> tuple[int, int]:
    """Addresses of libsrtp's ``srtp_protect`` and ``srtp_protect_rtcp``, for compiled code: no second libsrtp is needed."""
    with seam("pylibsrtp._binding"):
        from pylibsrtp._binding import ffi, lib

        names = ("srtp_protect", "srtp_protect_rtcp")
        protect, protect_rtcp = (int(ffi.cast("uintptr_t", ffi.addressof(lib, name))) for name in names)
        return protect, protect_rtcp


def context_address(session: Session) -> int:
    """Address of libsrtp's context of a session, which must outlive its use."""
    with seam("pylibsrtp.Session._srtp"):
        from pylibsrtp._binding import ffi

        return int(ffi.cast("uintptr_t", session._srtp[0]))


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
    hand_back: Callable[[bytes], object]
    """Gives a STUN or DTLS datagram to aiortc; may be called from any thread."""
    call_soon: Callable[..., object]
    """``loop.call_soon_threadsafe`` of the loop that aiortc runs in."""

    def protector(self) -> Protector:
        """For the thread that sends."""
        return Protector(self.outbound)


def offer_loopback() -> None:
    """Lets every later PeerConnection of this process gather 127.0.0.1 only: aioice skips loopback, where the embedded SFU listens."""
    with seam("aioice.ice.get_host_addresses"):
        assert callable(aioice.ice.get_host_addresses)
        aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


def peer_connection(ice_servers: Sequence[RTCIceServer] = ()) -> RTCPeerConnection:
    """An ordinary PeerConnection whose media tasks can never start, whoever adds the transceivers, however often the offer is repeated.

    Negotiate as usual after ``addTransceiver("audio", direction="sendonly")``. All media share one socket.
    """
    # BALANCED, the default, gathers a second socket for the data channel and throws it away.
    peer = RTCPeerConnection(RTCConfiguration(iceServers=list(ice_servers), bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    add = peer.addTransceiver

    def add_muted(*args: Any, **options: Any) -> RTCRtpTransceiver:
        transceiver = add(*args, **options)
        mute(transceiver)
        return transceiver

    def mute_all(_: object) -> None:
        for transceiver in peer.getTransceivers():
            mute(transceiver)

    peer.addTransceiver = add_muted  # type: ignore[method-assign]
    # A transceiver that the other side's offer made is announced by its track before anything is started.
    peer.on("track", mute_all)
    return peer


def mute(transceiver: RTCRtpTransceiver) -> None:
    """Overrides, on these instances, the two public methods that start aiortc's media. A repeated offer calls them in vain."""

    async def nothing(parameters: object) -> None:
        pass

    with seam("RTCRtpSender.send, RTCRtpReceiver.receive"):
        assert callable(transceiver.sender.send)
        assert callable(transceiver.receiver.receive)
        transceiver.sender.send = nothing  # type: ignore[method-assign]
        transceiver.receiver.receive = nothing  # type: ignore[method-assign]


def track_id(transceiver: RTCRtpTransceiver) -> str:
    """The ``cid`` that LiveKit's AddTrackRequest wants: the track id in our offer."""
    with seam("RTCRtpSender._track_id"):
        return str(transceiver.sender._track_id)


def take_over(peer: RTCPeerConnection, sender: RTCRtpTransceiver | None) -> Wire:
    """The transport of a connected peer. Call it in the peer's loop, once. sender: the transceiver that we send on.

    From here on aiortc reads nothing from the socket by itself. Raises RuntimeError if the peer is not connected.
    """
    if peer.connectionState != "connected":
        msg = f"the peer is {peer.connectionState}, not connected: it has no transport to take over"
        raise RuntimeError(msg)
    loop = asyncio.get_running_loop()
    dtls = _dtls(peer)
    with seam("RTCDtlsTransport._tx_srtp, ._rx_srtp"):
        outbound, inbound = dtls._tx_srtp, dtls._rx_srtp
        # What aiortc has queued it must not decrypt while our thread does: the session is not thread-safe.
        dtls._rx_srtp = None  # type: ignore[assignment]
    with seam("RTCDtlsTransport._ssl.get_selected_srtp_profile"):
        tag_bytes = _TRAILER[dtls._ssl.get_selected_srtp_profile()]  # type: ignore[union-attr]
    with seam("RTCIceTransport._connection, aioice.Connection._nominated"):
        pair = dtls.transport._connection._nominated[1]
        protocol, address = pair.protocol, pair.remote_addr
    with seam("aioice.StunProtocol.transport"):
        theirs = protocol.transport.get_extra_info("socket")
        descriptor = theirs.fileno()
    with seam("asyncio loop._remove_reader"):
        loop._remove_reader(descriptor)  # type: ignore[attr-defined]
    ours = socket.socket(fileno=os.dup(descriptor))
    ours.setblocking(False)
    ours.connect(address)
    with seam("aioice.StunProtocol.datagram_received"):
        received = protocol.datagram_received
    return Wire(
        socket=ours,
        outbound=outbound,
        inbound=inbound,
        tag_bytes=tag_bytes,
        stream=None if sender is None else _stream(sender),
        hand_back=lambda datagram: loop.call_soon_threadsafe(received, datagram, address),
        call_soon=loop.call_soon_threadsafe,
    )


def _dtls(peer: RTCPeerConnection) -> RTCDtlsTransport:
    transceivers = peer.getTransceivers()
    if transceivers:
        return transceivers[0].receiver.transport
    # A subscriber starts with nothing but a data channel.
    if peer.sctp is None:
        msg = "the peer negotiated neither audio nor a data channel"
        raise RuntimeError(msg)
    return peer.sctp.transport


def _stream(sender: RTCRtpTransceiver) -> Stream:
    with seam("RTCRtpSender._ssrc, RTCRtpTransceiver._codecs"):
        codec = next(codec for codec in sender._codecs if codec.mimeType.lower() == "audio/opus")
        return Stream(ssrc=sender.sender._ssrc, payload_type=int(codec.payloadType or 0))


async def self_test() -> None:
    """Connects two peers in this process and exchanges packets through every seam.

    Raises EnvironmentFault naming the seam that a new aiortc broke.
    """
    with seam("aioice.ice.get_host_addresses"):
        gathered = aioice.ice.get_host_addresses
    offer_loopback()
    caller, other = peer_connection(), peer_connection()
    try:
        sender = caller.addTransceiver("audio", direction="sendonly")
        await connect(caller, other)
        for peer in (caller, other):
            await _until_connected(peer)
        await _exchange(take_over(caller, sender), take_over(other, None))
    finally:
        aioice.ice.get_host_addresses = gathered
        await caller.close()
        await other.close()


async def connect(caller: RTCPeerConnection, other: RTCPeerConnection) -> None:
    """One offer and its answer between two peers of this process."""
    await caller.setLocalDescription(await caller.createOffer())
    await other.setRemoteDescription(caller.localDescription)
    await other.setLocalDescription(await other.createAnswer())
    await caller.setRemoteDescription(other.localDescription)


async def _until_connected(peer: RTCPeerConnection) -> None:
    changed = asyncio.Event()
    peer.on("connectionstatechange", changed.set)
    try:
        async with asyncio.timeout(_SELF_TEST_S):
            while peer.connectionState != "connected":
                await changed.wait()
                changed.clear()
    except TimeoutError as exc:
        state = f"{peer.connectionState}, ICE {peer.iceConnectionState}"
        msg = f"two aiortc peers in one process did not connect within {_SELF_TEST_S:.0f} s: {state}"
        raise EnvironmentFault(msg) from exc


async def _exchange(sending: Wire, receiving: Wire) -> None:
    """One RTP and one RTCP packet through what was taken over."""
    assert sending.stream is not None
    protector = sending.protector()
    head = rtp.Header(payload_type=sending.stream.payload_type, is_marked=True, sequence=7, timestamp=960, ssrc=sending.stream.ssrc)
    plain, report = rtp.packed(head, b"self-test"), rtcp.pack(rtcp.ReceiverReport(ssrc=head.ssrc, blocks=()))
    protector.view[: len(plain)] = plain
    size = protector.protect(len(plain))
    loop = asyncio.get_running_loop()
    try:
        for datagram, decrypt, wanted in (
            (bytes(protector.view[:size]), receiving.inbound.unprotect, plain),
            (sending.outbound.protect_rtcp(report), receiving.inbound.unprotect_rtcp, report),
        ):
            sending.socket.send(datagram)
            async with asyncio.timeout(_SELF_TEST_S):
                arrived = await _next_media(loop, receiving)
            if decrypt(arrived) != wanted or len(arrived) - len(wanted) > receiving.tag_bytes + 4:
                msg = f"the media engine sent {wanted.hex()} through aiortc {version('aiortc')} and received {arrived.hex()}"
                raise EnvironmentFault(msg)
    except (TimeoutError, SrtpError) as exc:
        msg = f"the media engine's packets do not pass between two peers of aiortc {version('aiortc')}: {exc!r}"
        raise EnvironmentFault(msg) from exc
    finally:
        sending.socket.close()
        receiving.socket.close()


async def _next_media(loop: asyncio.AbstractEventLoop, wire: Wire) -> bytes:
    while True:
        datagram = await loop.sock_recv(wire.socket, _PACKET)
        if rtp.kind(datagram) is not rtp.Kind.OTHER:
            return datagram
        wire.hand_back(datagram)
