"""One transport: what leaves it, what it makes of what arrives."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest
from pylibsrtp import Policy, Session

from harness.caller.aiortc_adapter import Stream, Wire
from harness.caller.kernel import Batch
from harness.caller.outgoing import Outgoing
from harness.caller.port import Port
from harness.clock import Clock, offset_ns
from harness.measure import rtcp
from harness.model import UnixNs


class End:
    """A port on a loopback socket, driven by hand."""

    def __init__(self, ours: socket.socket, keys: tuple[bytes, bytes], clock: Clock, ssrc: int | None) -> None:
        outbound, inbound = (
            Session(Policy(key=key, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_256_GCM))
            for key, kind in zip(keys, (Policy.SSRC_ANY_OUTBOUND, Policy.SSRC_ANY_INBOUND), strict=True)
        )
        self.handed_back: list[bytes] = []
        stream = None if ssrc is None else Stream(ssrc=ssrc, payload_type=111)
        self.wire = Wire(
            socket=ours,
            outbound=outbound,
            inbound=inbound,
            tag_bytes=16,
            stream=stream,
            hand_back=self.handed_back.append,
            call_soon=lambda *_: None,
        )
        self.port = Port(self.wire, None if ssrc is None else Outgoing(ssrc, 111, clock), clock)

    def speak(self, packets: int = 1) -> None:
        for _ in range(packets):
            self.port.speak(time.monotonic_ns())

    def listen(self) -> None:
        self.port.drain(Batch(), offset_ns())
        self.port.digest()

    def received(self, ssrc: int) -> int:
        stream = self.port.incoming.get(ssrc)
        return 0 if stream is None or stream.reception is None else stream.reception.received


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    """A publisher with SSRC 1 and one with SSRC 2, connected to each other."""
    yield from _ends(2)


@pytest.fixture
def dual() -> Iterator[tuple[End, End]]:
    """A publisher with SSRC 1, and an end that only receives."""
    yield from _ends(None)


def _ends(second: int | None) -> Iterator[tuple[End, End]]:
    clock = Clock.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        for end in (a, b):
            end.bind(("127.0.0.1", 0))
        a.connect(b.getsockname())
        b.connect(a.getsockname())
        there, back = os.urandom(44), os.urandom(44)
        yield End(a, (there, back), clock, 1), End(b, (back, there), clock, second)


def reports(end: End) -> tuple[rtcp.Report, ...]:
    """The reports in the next datagram at ``end``."""
    ((_, datagram),) = Batch().receive(end.wire.socket.fileno())
    return rtcp.unpack(end.wire.inbound.unprotect_rtcp(datagram))


def test_what_one_says_the_other_receives(ends: tuple[End, End]) -> None:
    """Encrypted, sent, stamped, counted."""
    here, there = ends
    here.speak(5)
    there.listen()

    assert there.received(1) == 5
    assert (here.port.send_errors, there.port.unreadable) == (0, 0)


def test_stun_and_dtls_are_handed_back(ends: tuple[End, End]) -> None:
    """aiortc answers them; the media thread keeps RTP and RTCP."""
    here, there = ends
    for datagram in (b"\x00\x01stun", b"\x16\xfe\xfddtls"):
        here.wire.socket.send(datagram)
    here.speak()
    there.listen()

    assert there.handed_back == [b"\x00\x01stun", b"\x16\xfe\xfddtls"]
    assert there.received(1) == 1


def test_what_cannot_be_read_is_counted(ends: tuple[End, End]) -> None:
    """Too short, not ours, of no known stream: none of them stops the thread."""
    here, there = ends
    for datagram in (b"\x80", b"\x80\xc9\x00\x01\x00\x00\x00\x01", b"\x80\x6f" + bytes(40)):
        here.wire.socket.send(datagram)
    there.listen()

    assert there.port.unreadable == 3


def test_reports_are_two_packets_in_one_datagram(ends: tuple[End, End]) -> None:
    """A sender report without blocks, then a receiver report with one: LiveKit reads blocks only there."""
    here, there = ends
    here.speak(3)
    there.speak(2)
    for end in ends:
        end.listen()
    there.port.report(time.monotonic_ns())
    sent, heard = reports(here)

    assert isinstance(sent, rtcp.SenderReport)
    assert isinstance(heard, rtcp.ReceiverReport)
    assert (sent.ssrc, sent.packets, sent.blocks) == (2, 2, ())
    assert (heard.ssrc, [(block.ssrc, block.lost) for block in heard.blocks]) == (2, [(1, 0)])


def test_an_end_that_only_receives_reports_what_it_heard(dual: tuple[End, End]) -> None:
    """The subscriber of a dual-PC caller: a receiver report alone, under a name of its own."""
    here, there = dual
    here.speak(3)
    there.listen()
    there.port.report(time.monotonic_ns())
    (heard,) = reports(here)

    assert isinstance(heard, rtcp.ReceiverReport)
    assert [block.ssrc for block in heard.blocks] == [1]


def test_nothing_is_reported_before_there_is_anything(dual: tuple[End, End]) -> None:
    """No empty datagram."""
    here, there = dual
    there.port.report(time.monotonic_ns())

    assert list(Batch().receive(here.wire.socket.fileno())) == []


def test_the_round_trip_comes_from_the_others_report(ends: tuple[End, End]) -> None:
    """Our sender report, its answer: on loopback below 50 ms, even on a busy machine."""
    here, there = ends
    here.speak()
    here.port.report(time.monotonic_ns())
    there.listen()
    there.port.report(time.monotonic_ns())
    here.listen()

    (round_trip_s,) = here.port.round_trips_s
    assert 0 <= round_trip_s < 0.05
    assert [block.ssrc for block in here.port.peer_blocks] == [1]
    assert [rtt_s for _, rtt_s in here.port.peer_blocks_at] == [round_trip_s]
    assert [block.ssrc for _, block in there.port.own_blocks] == [1]


def test_an_impairment_loses_and_doubles_what_leaves(ends: tuple[End, End]) -> None:
    """Packet by packet: nothing, once, twice. What is lost was sent, as far as the stream is concerned."""
    here, there = ends
    fates = iter([(0,), (), (0, 0), (0,)])
    here.port.up = lambda at, datagram: next(fates)
    here.speak(4)
    there.listen()
    reception = there.port.incoming[1].reception

    assert reception is not None
    assert (reception.expected, reception.lost, reception.duplicates) == (4, 1, 1)


def test_an_impairment_holds_back_what_leaves(ends: tuple[End, End]) -> None:
    """Until its time has come, not before."""
    here, there = ends
    here.port.up = lambda at, datagram: (1_000_000_000,)
    here.speak()
    there.listen()
    before = there.received(1)
    here.port.release(time.monotonic_ns() + 2_000_000_000)
    there.listen()

    assert (before, there.received(1)) == (0, 1)


def test_an_impairment_of_what_arrives_moves_its_stamp(ends: tuple[End, End]) -> None:
    """One packet lost, the next as if it had arrived 1 ms later."""
    here, there = ends
    fates = iter([(), (1_000_000,)])
    arrivals: list[UnixNs] = []

    def fate(at: UnixNs, datagram: bytes) -> tuple[int, ...]:
        arrivals.append(at)
        return next(fates)

    there.port.down = fate
    here.speak(2)
    while not there.received(1):
        there.listen()
    list(there.port.incoming[1].sounds(arrivals[1], is_final=True))

    assert [frame.at for frame in there.port.incoming[1].ear.frames] == [arrivals[1] + 1_000_000]
