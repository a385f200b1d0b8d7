"""Frames in and out, and a socket that reads too slowly."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from gateway import sockets
from gateway.sockets import Channel, Frame, Subscriber, parsed
from gateway.tokens import Claims

NOBODY = Claims(role="anon", user_id=None, session_id=None, expires_at=None, as_json="{}")


class FakeSocket:
    """As much of a WebSocket as a subscriber needs: it keeps what it is sent, or never takes it."""

    def __init__(self, *, vsn: str = "1.0.0", is_stuck: bool = False) -> None:
        self.query_params = {"vsn": vsn}
        self.sent: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self._is_stuck = is_stuck

    async def send_text(self, text: str) -> None:
        if self._is_stuck:
            await asyncio.Event().wait()
        self.sent.append(json.loads(text))

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)


def scene(socket: FakeSocket, *told: Any) -> FakeSocket:
    """Tells the subscriber of that socket everything, serves it, and lets the client leave once all is sent."""

    async def played() -> None:
        subscriber = Subscriber(socket)  # type: ignore[arg-type]
        for tell in told:
            tell(subscriber)

        async def leaves() -> None:
            for _ in range(50):
                await asyncio.sleep(0)

        await subscriber.serve(asyncio.create_task(leaves()))

    asyncio.run(played())
    return socket


def channel(topic: str = "realtime:x") -> Channel:
    """Without subscriptions."""
    return Channel(topic=topic, join_ref="1", claims=NOBODY, bindings=())


@pytest.mark.parametrize(
    "raw",
    [
        '{"topic": "t", "event": "e", "payload": {"a": 1}, "ref": "2", "join_ref": "1"}',
        '["1", "2", "t", "e", {"a": 1}]',
    ],
)
def test_frames_of_both_versions_are_the_same(raw: str) -> None:
    """Objects and arrays."""
    assert parsed(raw) == Frame(topic="t", event="e", payload={"a": 1}, ref="2", join_ref="1")


@pytest.mark.parametrize("raw", ["", "{", "[]", "{}", '{"topic": 1, "event": "e"}', '"text"', "[1, 2, 3]"])
def test_what_is_no_frame_is_refused(raw: str) -> None:
    """By a ValueError, whatever it is."""
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words, too
        parsed(raw)


@pytest.mark.parametrize(
    ("vsn", "frame"),
    [
        ("1.0.0", {"topic": "realtime:x", "event": "postgres_changes", "payload": {"ids": [5], "data": {"a": "é"}}, "ref": None}),
        ("2.0.0", ["1", None, "realtime:x", "postgres_changes", {"ids": [5], "data": {"a": "é"}}]),
    ],
)
def test_a_change_is_framed_for_the_clients_version(vsn: str, frame: Any) -> None:
    """Its JSON is shared by all whom it reaches; only the frame around it differs."""
    assert scene(FakeSocket(vsn=vsn), lambda who: who.change(channel(), [5], '{"a":"é"}')).sent == [frame]


def test_frames_leave_in_order() -> None:
    """As they were told."""
    told = [lambda who, n=number: who.send("t", "e", n) for number in range(20)]

    assert [frame["payload"] for frame in scene(FakeSocket(), *told).sent] == list(range(20))


def test_a_socket_that_reads_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reason; memory does not grow with what waits for it."""
    monkeypatch.setattr(sockets, "QUEUE_FRAMES", 3)
    closed = scene(FakeSocket(is_stuck=True), *[lambda who: who.send("t", "e", {})] * 5).closed

    assert closed == (1013, "this socket reads too slowly: 3 frames were waiting for it")


def test_large_frames_fill_the_queue_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bounded by size, too."""
    monkeypatch.setattr(sockets, "QUEUE_CHARS", 1000)
    closed = scene(FakeSocket(is_stuck=True), *[lambda who: who.send("t", "e", "x" * 400)] * 3).closed

    assert closed is not None
    assert closed[0] == 1013


def test_a_channel_that_ends_says_why() -> None:
    """Then it is closed; the socket stays."""

    def told(who: Subscriber) -> None:
        mine = channel()
        who.channels[mine.topic] = mine
        who.end(mine, "Token has expired")

    socket = scene(FakeSocket(), told)
    assert [(frame["event"], frame["payload"].get("message")) for frame in socket.sent] == [
        ("system", "Token has expired"),
        ("phx_close", None),
    ]
    assert socket.closed is None
