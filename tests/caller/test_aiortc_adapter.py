"""The seams of aiortc."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import ParamSpec

import aioice.ice
import pytest
from aiortc import RTCDtlsTransport, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender

from harness.caller import aiortc_adapter
from harness.errors import EnvironmentFault

P = ParamSpec("P")


class Without:
    """A transport of an aiortc that renamed one attribute."""

    def __init__(self, transport: RTCDtlsTransport, renamed: str) -> None:
        self.transport = transport.transport
        self._renamed = renamed
        self._was = transport

    def __getattr__(self, name: str) -> object:
        if name == self._renamed:
            raise AttributeError(name)
        return getattr(self._was, name)


def in_loop(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def connected() -> tuple[RTCPeerConnection, RTCPeerConnection]:
    """Two peers of this process: the first sends audio, the second offers nothing of its own."""
    caller, other = aiortc_adapter.peer_connection(), aiortc_adapter.peer_connection()
    caller.addTransceiver("audio", direction="sendonly")
    await aiortc_adapter.connect(caller, other)
    for peer in (caller, other):
        while peer.connectionState != "connected":
            changed = asyncio.Event()
            peer.once("connectionstatechange", changed.set)
            await changed.wait()
    return caller, other


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever addresses this machine has: the tests stay on 127.0.0.1."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@in_loop
async def test_the_self_test_passes_here() -> None:
    """With the versions of the lock."""
    await aiortc_adapter.self_test()


@in_loop
async def test_the_self_test_leaves_address_gathering_as_it_was() -> None:
    """A caller of a hosted SFU does not gather loopback."""
    before = aioice.ice.get_host_addresses
    await aiortc_adapter.self_test()

    assert aioice.ice.get_host_addresses is before


@pytest.mark.parametrize("attribute", ["_rx_srtp", "_tx_srtp", "_ssl"])
@in_loop
async def test_a_seam_that_is_gone_is_named(attribute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the attribute, the versions installed and the one wanted."""
    found = aiortc_adapter._dtls
    monkeypatch.setattr(aiortc_adapter, "_dtls", lambda peer: Without(found(peer), attribute))

    with pytest.raises(EnvironmentFault, match=rf"{attribute}.*aiortc \d.*wanted: aiortc>="):
        await aiortc_adapter.self_test()


@in_loop
async def test_address_gathering_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one seam of aioice that is a function."""
    monkeypatch.delattr(aioice.ice, "get_host_addresses")

    with pytest.raises(EnvironmentFault, match="get_host_addresses"):
        await aiortc_adapter.self_test()


@in_loop
async def test_aiortc_never_starts_its_media(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after the first negotiation nor after a repeated offer, on either side."""
    started: list[object] = []

    async def start(self: object, parameters: object) -> None:
        started.append(self)

    monkeypatch.setattr(RTCRtpSender, "send", start)
    monkeypatch.setattr(RTCRtpReceiver, "receive", start)
    caller, other = await connected()
    caller.addTransceiver("audio", direction="recvonly")
    other.getTransceivers()[0].direction = "sendrecv"
    await aiortc_adapter.connect(caller, other)
    await asyncio.gather(caller.close(), other.close())

    assert started == []


@in_loop
async def test_media_share_one_socket() -> None:
    """Audio added later runs over the transport that was taken over."""
    caller, other = await connected()
    caller.addTransceiver("audio", direction="recvonly")
    await aiortc_adapter.connect(caller, other)
    transports = {id(transceiver.receiver.transport) for transceiver in caller.getTransceivers()}
    await asyncio.gather(caller.close(), other.close())

    assert len(transports) == 1


@in_loop
async def test_a_peer_that_is_not_connected_has_nothing_to_take_over() -> None:
    """A mistake of ours, not of aiortc."""
    peer = aiortc_adapter.peer_connection()

    with pytest.raises(RuntimeError, match="the peer is new, not connected"):
        aiortc_adapter.take_over(peer, None)


@in_loop
async def test_our_track_has_the_name_of_the_offer() -> None:
    """LiveKit pairs AddTrackRequest and m-line by it."""
    peer = aiortc_adapter.peer_connection()
    transceiver = peer.addTransceiver("audio", direction="sendonly")
    offer = await peer.createOffer()
    await peer.close()

    assert f" {aiortc_adapter.track_id(transceiver)}\r\n" in offer.sdp
