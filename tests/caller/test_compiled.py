"""The compiled core against the Python one: the same packets out, the same truth about what came in."""

from __future__ import annotations

import itertools
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pylibsrtp import Policy, Session

from harness.caller import port
from harness.caller.aiortc_adapter import Stream, Wire
from harness.caller.clip import Clip, clip
from harness.caller.compiled import CompiledThread
from harness.caller.kernel import Batch
from harness.caller.native.build import Library, library
from harness.caller.outgoing import Outgoing
from harness.caller.pacing import MediaThread
from harness.caller.port import Port
from harness.clock import Clock
from harness.measure import rtcp, rtp
from harness.measure.rfc3550 import Receiver, Reception
from harness.model import Grade, value

KEYS = (bytes(range(44)), bytes(range(44, 88)))
FRAME_NS = 20_000_000


@value
class Pair:
    """A port, and the other end of its socket."""

    port: Port
    other: socket.socket
    inbound: Session
    """Decrypts what the port sends."""
    outbound: Session
    """Encrypts what the port is to receive."""
    handed_back: list[bytes]


def session(key: bytes, kind: int) -> Session:
    return Session(Policy(key=key, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_256_GCM))


@contextmanager
def pair(clock: Clock, grade: Grade = Grade.FULL) -> Iterator[Pair]:
    """Always with the same keys, sequence numbers and RTP time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for end in (ours, other):
            end.bind(("127.0.0.1", 0))
        ours.connect(other.getsockname())
        other.connect(ours.getsockname())
        handed_back: list[bytes] = []
        wire = Wire(
            socket=ours,
            outbound=session(KEYS[0], Policy.SSRC_ANY_OUTBOUND),
            inbound=session(KEYS[1], Policy.SSRC_ANY_INBOUND),
            tag_bytes=16,
            stream=Stream(ssrc=7, payload_type=111),
            hand_back=handed_back.append,
            call_soon=lambda *_: None,
        )
        random.seed(4)
        outgoing = Outgoing(7, 111, clock)
        yield Pair(
            port=Port(wire, outgoing, clock, grade),
            other=other,
            inbound=session(KEYS[0], Policy.SSRC_ANY_INBOUND),
            outbound=session(KEYS[1], Policy.SSRC_ANY_OUTBOUND),
            handed_back=handed_back,
        )


def word() -> Clip:
    """0.2 s of sound between silences."""
    sound = 6000 * np.cos(2 * np.pi * 180 * np.arange(9_600) / 48_000)
    return clip("word", np.concatenate([np.zeros(960), sound, np.zeros(960)]).astype(np.int16))


def sent(media: MediaThread | CompiledThread, ends: Pair, seconds: float) -> tuple[bytes, ...]:
    """The RTP packets of ``media`` while it says the word twice, and is hushed in the second one's middle."""
    ends.other.settimeout(seconds)
    assert ends.port.outgoing is not None
    packets: list[bytes] = []
    media.add(ends.port)
    ends.port.outgoing.play(word())
    ends.port.outgoing.play(word())
    media.start()
    try:
        while len(packets) < 40:
            packet = ends.other.recv(2048)
            if rtp.kind(packet) is rtp.Kind.RTP:
                packets.append(packet)
    finally:
        media.stop()
        media.remove(ends.port).wait(1)
    ends.port.digest()
    return tuple(packets)


def test_both_send_the_same_bytes(core: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Header, payload, encryption: 40 packets of two words and the silence after them."""
    monkeypatch.setattr(port, "REPORT_NS", 1 << 60)
    clock = Clock.start()
    with pair(clock) as here, pair(clock) as there:
        reference, compiled = sent(MediaThread(clock), here, 5), sent(CompiledThread(clock, core), there, 5)
        spoken = [end.port.outgoing.spoken() for end in (here, there) if end.port.outgoing is not None]

    assert compiled == reference
    assert [[each.clip for each in said] for said in spoken] == [["word", "word"]] * 2


def test_both_say_when_a_word_left(core: Library) -> None:
    """First and last voiced sample: as far apart as in the clip, to the pacing's punctuality."""
    clock = Clock.start()
    said = word()
    length_ns = (said.last_voiced_sample - said.first_voiced_sample) * 1_000_000_000 // 48_000
    for media in (MediaThread(clock), CompiledThread(clock, core)):
        with pair(clock) as ends:
            sent(media, ends, 5)
            assert ends.port.outgoing is not None
            spoken = ends.port.outgoing.spoken()[0]

        assert abs(spoken.ended_at - spoken.started_at - length_ns) < 15_000_000
        assert media.lateness.ticks >= 40


def test_a_hushed_word_ends_where_it_was_broken_off(core: Library) -> None:
    """Not whole; the next one is."""
    clock = Clock.start()
    long = clip("long", np.concatenate([word().pcm] * 20))
    with pair(clock) as ends:
        media = CompiledThread(clock, core)
        outgoing = ends.port.outgoing
        assert outgoing is not None
        media.add(ends.port)
        outgoing.play(long)
        media.start()
        while outgoing.packets < 20:
            ends.port.digest()
        outgoing.hush()
        outgoing.play(word())
        while outgoing.is_speaking:
            ends.port.digest()
        media.stop()

    assert [(each.clip, each.is_whole) for each in outgoing.spoken()] == [("long", False), ("word", True)]


ORDERS = {
    "in order": tuple(range(200)),
    "over the wrap": tuple(range(65_400, 65_700)),
    "lost": tuple(n for n in range(300) if n % 7),
    "doubled and reordered": tuple(itertools.chain.from_iterable((n + 2, n, n + 1, n) for n in range(0, 300, 3))),
    "an earlier one late": (10, 9, 8, 11, 12),
    "far jump": (*range(20), *range(5_000, 5_040)),
    "one stray": (*range(20), 40_000, *range(20, 60)),
    "long outage": (*range(20), *range(2_500, 2_520)),
}


@pytest.mark.parametrize("name", ORDERS)
def test_both_count_the_same(name: str, core: Library) -> None:
    """RFC 3550's sequence numbers, loss, duplicates, reordering and jitter, from the same arrivals."""
    clock = Clock.start()
    with pair(clock, Grade.LIGHT) as ends:
        reference = Receiver(48_000)
        media = CompiledThread(clock, core)
        media.add(ends.port)
        memory = media.memory(ends.port)
        numbers, arrivals = [], []
        for number in ORDERS[name]:
            header = rtp.Header(payload_type=111, is_marked=False, sequence=number & 0xFFFF, timestamp=number * 960 & 0xFFFFFFFF, ssrc=9)
            ends.other.send(rtp.packed(header, bytes(60)))
            before = memory.arrived
            core.functions.core_drain(media.core, memory, 0)
            if memory.arrived > before:
                kept = memory.ring[before % 64]
                numbers.append(kept.number)
            arrivals.append((memory.streams[0].last_at, header.sequence, header.timestamp))
        ends.port.digest()
        heard = ends.port.incoming[9].reception
    expected = [number for at, sequence, timestamp in arrivals if (number := reference.arrived(at, sequence, timestamp)) is not None]
    want = reference.reception()

    assert heard is not None
    assert want is not None
    assert numbers == expected
    assert counts(heard) == counts(want)
    if name not in ("doubled and reordered", "far jump", "one stray"):  # where a packet is not counted, its arrival is not known here
        assert (heard.jitter, heard.jitter_max) == pytest.approx((want.jitter, want.jitter_max))


def counts(reception: Reception) -> tuple[int, ...]:
    return reception.received, reception.expected, reception.highest_sequence, reception.duplicates, reception.reordered


def test_both_report_the_same(core: Library) -> None:
    """Sender report and receiver report after the same packets: all but the instants, and those agree with each other."""
    clock = Clock.start()
    reports = []
    for is_compiled in (False, True):
        with pair(clock) as ends:
            media = CompiledThread(clock, core)
            if is_compiled:
                media.add(ends.port)
            due_ns = time.monotonic_ns()
            for number in range(5):
                if is_compiled:
                    core.functions.core_send(media.core, media.memory(ends.port), due_ns + number * FRAME_NS)
                else:
                    ends.port.speak(due_ns + number * FRAME_NS)
            for number in (0, 1, 3, 4):
                header = rtp.Header(payload_type=111, is_marked=False, sequence=number, timestamp=number * 960, ssrc=9)
                ends.other.send(ends.outbound.protect(rtp.packed(header, bytes(60))))
            theirs = rtcp.SenderReport(ssrc=9, ntp=rtcp.ntp(clock.now()), rtp_timestamp=0, packets=4, octets=240)
            ends.other.send(ends.outbound.protect_rtcp(rtcp.pack(theirs)))
            ends.other.send(b"\x00\x01stun")
            if is_compiled:
                core.functions.core_drain(media.core, media.memory(ends.port), clock.anchor_ns)
            else:
                ends.port.drain(Batch(), clock.anchor_ns)
            ends.port.digest()
            now_ns = due_ns + 1_000_000_000
            if is_compiled:
                core.functions.core_report(media.core, media.memory(ends.port), now_ns)
            else:
                ends.port.report(now_ns)
            datagrams = [ends.other.recv(2048) for _ in range(6)]
            (report,) = (datagram for datagram in datagrams if rtp.kind(datagram) is rtp.Kind.RTCP)
            mine, heard = rtcp.unpack(ends.inbound.unprotect_rtcp(report))
            assert ends.handed_back == [b"\x00\x01stun"]
            assert isinstance(mine, rtcp.SenderReport)
            assert mine.ntp == rtcp.ntp(clock.at_monotonic(now_ns))
            assert heard.blocks[0].last_report == rtcp.middle(theirs.ntp)
            assert 0 < heard.blocks[0].delay < 1 << 17
            reports.append((mine.packets, mine.octets, mine.rtp_timestamp, heard.ssrc, summary(heard.blocks[0])))

    assert reports[0] == reports[1]


def summary(block: rtcp.Block) -> tuple[int, ...]:
    return block.ssrc, block.fraction_lost, block.lost, block.highest_sequence


def test_a_removed_port_is_not_touched_any_more(core: Library) -> None:
    """Once ``wait`` returned, its socket may be closed; another port may take its place."""
    clock = Clock.start()
    media = CompiledThread(clock, core)
    media.start()
    try:
        with pair(clock) as ends:
            media.add(ends.port)
            assert media.remove(ends.port).wait(5)
            ends.port.digest()
            assert ends.port.outgoing is not None
            before = ends.port.outgoing.packets
            time.sleep(0.05)
            ends.port.digest()

        assert ends.port.outgoing.packets == before
    finally:
        media.stop()


def test_without_a_compiler_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One line says so, and callers use the Python core."""
    monkeypatch.setenv("CC", "no-such-compiler")
    library.cache_clear()

    assert library(tmp_path) is None
    assert "no C compiler 'no-such-compiler'" in caplog.text


def test_a_core_that_does_not_compile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Its compiler's last words are logged."""
    monkeypatch.setenv("CC", "false")
    library.cache_clear()

    assert library(tmp_path) is None
    assert "callers use the Python one" in caplog.text
