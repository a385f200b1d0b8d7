"""The media engine against a real livekit-server: two pairs of callers, single and dual, speak for ten seconds; both sides of every figure."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack

import aioice.ice
import httpx
import pytest

from benchmarks.sfu import Sfu, lone_sfu
from harness.caller import aiortc_adapter
from harness.caller.clip import load
from harness.caller.engine import Engine
from harness.caller.leg import Leg, Spoken, Utterance
from harness.caller.participant import participant
from harness.caller.prompts import PROMPTS
from harness.clock import Clock
from harness.model import GeneratorHealth, PeerMode, WireStats, value

pytestmark = pytest.mark.stack

SECONDS = 11
"""Two ticks of the server's five-second statistics."""


@value
class Pair:
    """Two callers in one room: the first says one prompt, the second hears it and answers."""

    asked: Spoken
    asked_heard: Utterance
    answered: Spoken
    answered_heard: Utterance
    wire: tuple[WireStats, WireStats]
    """Of the first."""
    rates: tuple[float, float]
    """Its packets per second, sent and received, once both are in."""


@value
class Talk:
    pairs: dict[PeerMode, Pair]
    health: GeneratorHealth
    metrics: str


async def heard(leg: Leg) -> Utterance:
    """The next utterance that has ended."""
    told: asyncio.Queue[Utterance] = asyncio.Queue()
    leg.listen(told.put_nowait)
    while (utterance := await told.get()).ended_at is None:
        pass
    return utterance


async def converse(sfu: Sfu, clock: Clock, engine: Engine, mode: PeerMode) -> Pair:
    async with AsyncExitStack() as joined:
        first, second = [
            await joined.enter_async_context(participant(sfu.network(mode), clock, engine, f"room-{mode}", name)) for name in ("ann", "bob")
        ]
        until = asyncio.get_running_loop().time() + SECONDS
        await asyncio.sleep(1)
        since, before = clock.now(), first.wire_stats()
        first.play(load(PROMPTS / "goodbye.wav"))
        asked_heard = await heard(second)
        second.play(load(PROMPTS / "opening-hours.wav"))
        answered_heard = await heard(first)
        await asyncio.sleep(until - asyncio.get_running_loop().time())
        after, seconds = first.wire_stats(), (clock.now() - since) / 1e9
        return Pair(
            asked=first.spoken()[0],
            asked_heard=asked_heard,
            answered=second.spoken()[0],
            answered_heard=answered_heard,
            wire=after,
            rates=((after[0].packets - before[0].packets) / seconds, (after[1].packets - before[1].packets) / seconds),
        )


async def talked(sfu: Sfu) -> Talk:
    clock = Clock.start()
    engine = Engine(clock)
    engine.start()
    try:
        async with asyncio.timeout(SECONDS + 30):
            single, dual = await asyncio.gather(*(converse(sfu, clock, engine, mode) for mode in (PeerMode.SINGLE, PeerMode.DUAL)))
        async with httpx.AsyncClient(trust_env=False) as client:
            metrics = (await client.get(sfu.metrics_url)).text
        return Talk(pairs={PeerMode.SINGLE: single, PeerMode.DUAL: dual}, health=engine.health("test"), metrics=metrics)
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    with pytest.MonkeyPatch.context() as patch, lone_sfu(tmp_path_factory.mktemp("logs")) as sfu:
        patch.setattr(aioice.ice, "get_host_addresses", aioice.ice.get_host_addresses)
        aiortc_adapter.offer_loopback()
        yield asyncio.run(talked(sfu))


@pytest.fixture(params=list(PeerMode))
def pair(talk: Talk, request: pytest.FixtureRequest) -> Pair:
    return talk.pairs[request.param]


def metric(talk: Talk, name: str, direction: str) -> float:
    """Sum of a series of the server over its labels."""
    pattern = rf'^{name}\{{[^}}]*direction="{direction}"[^}}]*\}} (\S+)$'
    return sum(float(number) for number in re.findall(pattern, talk.metrics, re.MULTILINE))


def test_fifty_packets_a_second_each_way(pair: Pair) -> None:
    """Of our own clock, silence included."""
    sent, received = pair.rates

    assert sent == pytest.approx(50, abs=1.5)
    assert received == pytest.approx(50, abs=1.5)


def test_nothing_is_lost(pair: Pair) -> None:
    """Neither by our count nor by the server's."""
    up, down = pair.wire

    assert (up.lost, down.lost) == (0, 0)


def test_the_server_answers_our_reports(pair: Pair) -> None:
    """A round trip a second over loopback; and the jitter that it sees: a wrong sender report would make it 66 ms."""
    up, down = pair.wire

    assert len(up.rtt_s) >= SECONDS - 3
    assert min(up.rtt_s) < 0.01
    assert up.jitter_s is not None
    assert down.jitter_s is not None
    assert max(up.jitter_s, down.jitter_s) < 0.02


def test_what_is_heard_is_what_was_spoken(pair: Pair) -> None:
    """From mouth to ear there are the server and the codec's smear: milliseconds, in both directions."""
    asked_ms = (pair.asked_heard.started_at - pair.asked.started_at) / 1e6
    answered_ms = (pair.answered_heard.started_at - pair.answered.started_at) / 1e6

    assert -8 < asked_ms < 20
    assert -8 < answered_ms < 20


def test_an_answer_is_heard_after_the_question(pair: Pair) -> None:
    """The order of four instants on one clock."""
    assert pair.asked.started_at < pair.asked.ended_at < pair.answered.started_at < pair.answered_heard.started_at + 8_000_000


def test_the_server_accepts_our_receiver_reports(talk: Talk) -> None:
    """Its outgoing round trip, jitter and loss exist: it reads report blocks only in a packet of type 201."""
    for name in ("livekit_rtt_ms_count", "livekit_jitter_us_count", "livekit_packet_loss_percent_count"):
        assert metric(talk, name, "outgoing") > 0, name


def test_the_server_sees_little_jitter(talk: Talk) -> None:
    """Mean of its maxima, in both directions, in microseconds."""
    for direction in ("incoming", "outgoing"):
        mean = metric(talk, "livekit_jitter_us_sum", direction) / max(1, metric(talk, "livekit_jitter_us_count", direction))
        assert mean < 20_000, direction


def test_the_pace_is_kept(talk: Talk) -> None:
    """With real-time priority; without, a busy machine may be late, and then says so."""
    if talk.health.priority.startswith("SCHED_RR"):
        assert talk.health.pacing_p99_ms < 5
    assert talk.health.receive_drops == 0
