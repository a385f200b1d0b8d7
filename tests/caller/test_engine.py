"""The media engine between two peers of this process: one conversation of a second and a half, looked at from all sides."""

from __future__ import annotations

import asyncio
import itertools
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import aioice.ice
import numpy as np
import pytest
from aiortc import RTCPeerConnection

from harness.caller import aiortc_adapter, port
from harness.caller.clip import Clip, clip
from harness.caller.engine import Engine
from harness.caller.leg import Leg, Spoken, Utterance
from harness.caller.native.build import Library
from harness.clock import Clock
from harness.model import GeneratorHealth, Grade, UnixNs, WireStats, value


@value
class Conversation:
    """What both sides know of it. The caller says one word of 0.4 s, the other side nothing."""

    spoken: tuple[Spoken, ...]
    heard: tuple[Utterance, ...]
    told: tuple[Utterance, ...]
    caller: tuple[WireStats, WireStats]
    doubt: str | None
    health: GeneratorHealth
    recording: Path
    recorded_at: UnixNs | None
    switch_intervals_s: tuple[float, float, float]
    """Before, during and after."""


def word() -> Clip:
    """0.4 s of a harmonic sound between silences."""
    seconds = np.arange(19_200) / 48_000
    sound = sum(np.cos(2 * np.pi * 130 * k * seconds + k) / k for k in range(1, 20))
    pcm = np.concatenate([np.zeros(1_920), 6000 * sound / np.abs(sound).max(), np.zeros(1_920)])
    return clip("word", pcm.astype(np.int16))


async def connected(peer: RTCPeerConnection) -> None:
    while peer.connectionState != "connected":
        changed = asyncio.Event()
        peer.once("connectionstatechange", changed.set)
        await changed.wait()


async def converse(recording: Path, core: Library | None, grade: Grade) -> Conversation:
    """grade: of the one who listens."""
    clock = Clock.start()
    engine = Engine(clock, core)
    before_s = sys.getswitchinterval()
    peers = [aiortc_adapter.peer_connection() for _ in range(2)]
    caller, other = peers
    mouth = caller.addTransceiver("audio", direction="sendrecv")
    other.addTransceiver("audio", direction="sendrecv")
    await aiortc_adapter.connect(caller, other)
    await asyncio.gather(*map(connected, peers))
    caller_leg = Leg(clock, aiortc_adapter.take_over(caller, mouth))
    other_leg = Leg(clock, aiortc_adapter.take_over(other, other.getTransceivers()[0]), grade=grade)
    told: asyncio.Queue[Utterance] = asyncio.Queue()
    other_leg.listen(told.put_nowait)
    engine.start()
    during_s = sys.getswitchinterval()
    try:
        started_at = clock.now()
        engine.add(caller_leg)
        engine.add(other_leg)
        caller_leg.play(word())
        async with asyncio.timeout(10):
            heard = [await told.get(), await told.get()]
        doubt = engine.doubt(started_at, clock.now())
        statistics = caller_leg.wire_stats()
        for leg in (caller_leg, other_leg):
            await engine.remove(leg)
        health = engine.health("test")
    finally:
        engine.stop()
        await asyncio.gather(*(peer.close() for peer in peers))
    return Conversation(
        spoken=caller_leg.spoken(),
        heard=other_leg.utterances(),
        told=tuple(heard),
        caller=statistics,
        doubt=doubt,
        health=health,
        recording=recording,
        recorded_at=caller_leg.write_recording(recording),
        switch_intervals_s=(before_s, during_s, sys.getswitchinterval()),
    )


@pytest.fixture(scope="module", params=itertools.product(["python", "compiled"], Grade))
def conversation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversation]:
    engine, grade = request.param
    core = request.getfixturevalue("core") if engine == "compiled" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
        patch.setattr(port, "REPORT_NS", 100_000_000)
        yield asyncio.run(converse(tmp_path_factory.mktemp("audio") / "call-1.wav", core, grade))


def test_speech_is_heard_when_it_was_spoken(conversation: Conversation) -> None:
    """Start and end on the wire, mouth to ear, apart by the path over loopback and the codec's smear; a busy machine adds to the path."""
    (spoken,) = conversation.spoken
    (heard,) = conversation.heard

    assert heard.ended_at is not None
    assert -8 < (heard.started_at - spoken.started_at) / 1e6 < 30
    assert -8 < (heard.ended_at - spoken.ended_at) / 1e6 < 60


def test_an_utterance_is_told_twice(conversation: Conversation) -> None:
    """When it begins and when it has ended, with the same beginning."""
    began, ended = conversation.told

    assert (began.started_at, began.ended_at) == (ended.started_at, None)
    assert (ended,) == conversation.heard


def test_nothing_is_lost_on_loopback(conversation: Conversation) -> None:
    """In either direction; about 50 packets a second."""
    up, down = conversation.caller

    assert (up.direction, up.lost, down.direction, down.lost) == ("up", 0, "down", 0)
    assert up.packets == up.expected > 40
    assert down.packets == down.expected > 40


def test_the_other_side_answers_our_reports(conversation: Conversation) -> None:
    """Round trips and the jitter that it saw."""
    up, _ = conversation.caller

    assert len(up.rtt_s) > 2
    assert min(up.rtt_s) < 0.02
    assert up.jitter_s is not None


def test_the_recording_holds_the_caller_left_and_the_other_right(conversation: Conversation) -> None:
    """Stereo at 24 kHz; the word is where it was spoken; the other side was silent."""
    with wave.open(str(conversation.recording)) as recording:
        shape = (recording.getnchannels(), recording.getframerate(), recording.getsampwidth())
        left, right = np.frombuffer(recording.readframes(recording.getnframes()), np.int16).reshape(-1, 2).T

    assert shape == (2, 24_000, 2)
    assert conversation.recorded_at is not None
    loud = np.flatnonzero(np.abs(left) > 500)
    started_at = conversation.recorded_at + int(loud[0]) * 1_000_000_000 // 24_000
    assert abs(started_at - conversation.spoken[0].started_at) < 2_000_000
    assert np.abs(right).max() < 10


def test_health_is_told(conversation: Conversation) -> None:
    """Every tick with something to send was counted; drops and steps were watched."""
    health = conversation.health

    assert (health.process, health.callers) == ("test", 2)
    assert health.engine in ("python", "compiled")
    assert health.ticks > 80
    assert health.pacing_p50_ms <= health.pacing_p99_ms <= health.pacing_max_ms
    assert health.receive_drops == 0


def test_doubt_speaks_of_late_ticks_only_if_there_were_any(conversation: Conversation) -> None:
    """What forbids using the measurement is what health records."""
    assert (conversation.doubt is None) == (conversation.health.late == () and conversation.health.clock_steps == 0)


def test_the_interpreter_is_left_as_it_was(conversation: Conversation) -> None:
    """Only while the engine runs do threads give way after half a millisecond."""
    before_s, during_s, after_s = conversation.switch_intervals_s

    assert during_s == pytest.approx(0.0005)
    assert after_s == before_s


def test_an_engine_that_was_never_started_stops() -> None:
    """And stops again."""
    engine = Engine(Clock.start())
    engine.stop()
    engine.stop()
