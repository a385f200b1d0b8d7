"""Error of the callers' time to first word, held against packets captured on loopback: callers and repliers in pairs, in two processes.

python -m benchmarks.ttfw_error --callers 1,10,30,60 --seconds 40 --json

Truth is an AF_PACKET capture of the callers' sockets and what is known of the clips: from the last voiced sample of the prompt, leaving, to the first
sample of the reply, arriving. It needs CAP_NET_RAW. A turn that the caller's own evidence voids is counted and left out, as in a run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import multiprocessing
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.caller_cost import conditions
from benchmarks.capture import Capture, Packet, bursts, sample_ns
from benchmarks.replies import Beginning, replies
from benchmarks.sfu import Sfu, lone_sfu
from harness.caller import aiortc_adapter
from harness.caller.clip import Clip, load
from harness.caller.engine import Engine
from harness.caller.leg import Leg, Spoken, Utterance
from harness.caller.native.build import library
from harness.caller.participant import participant
from harness.caller.prompts import PROMPTS
from harness.clock import Clock
from harness.model import Grade, UnixNs, value
from harness.stack.home import home_dir

PROMPT = "goodbye"
KINDS_EACH = 24
LEAST_BYTES = 32
"""Of payload and tag: ordinary silence is not captured."""
TARGETS_MS = {"words": (1.0, 5.0), "cut, soft, noisy": (None, 10.0)}
"""Largest bias and 99th percentile."""
_SETTLE_S, _ANSWER_S = 2.0, 4.0
_AT_ONCE = 4
_AROUND_NS, _UNEVEN_NS = 100_000_000, 10_000_000


@value
class Turn:
    """What a caller says of one exchange."""

    port: int
    room: str
    speech_started_at: UnixNs
    speech_ended_at: UnixNs
    first_word_at: UnixNs | None
    doubt: str | None


@value
class Reply:
    """What a replier said."""

    room: str
    clip: str
    started_at: UnixNs


def main() -> None:
    """Prints rows for each number of callers: one for plain words, one for harder beginnings, and one for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--callers", default="1,10,30,60", help="numbers of callers, with commas")
    parser.add_argument("--seconds", type=float, default=40.0, help="of conversation, for each number")
    parser.add_argument("--engine", choices=("python", "compiled"), default="compiled")
    parser.add_argument("--grade", type=Grade, choices=tuple(Grade), default=Grade.LIGHT)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for callers in map(int, arguments.callers.split(",")):
        rows += _measured(callers, arguments.seconds, arguments.engine, arguments.grade)
        print(f"{callers} callers: done", file=sys.stderr)
    print(json.dumps({"conditions": conditions(), "rows": rows}, indent=2) if arguments.json else "\n".join(map(_line, rows)))


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"N {row['callers']:3}  {row['beginnings']:18} turns {row['turns']:4} void {row['void']:3} unmatched {row['unmatched']:2}"
        f"  bias {row['bias_ms']} ms  sd {row['sd_ms']}  p99 {row['p99_ms']}  max {row['max_ms']}"
        f"  kept time: {row['where_the_server_kept_time']}"
    )


def _measured(callers: int, seconds: float, kind: str, grade: Grade) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    are_there, is_over, said, told = context.Event(), context.Event(), context.SimpleQueue(), context.SimpleQueue()
    with tempfile.TemporaryDirectory() as logs, lone_sfu(Path(logs)) as sfu:
        capture = Capture(sfu.server.udp_port, LEAST_BYTES)
        repliers = context.Process(target=_run_repliers, args=(sfu, callers, are_there, is_over, said))
        speakers = context.Process(target=_run_callers, args=(sfu, callers, seconds, kind, grade, are_there, told))
        repliers.start()
        speakers.start()
        try:
            turns, health = told.get()
            is_over.set()
            answers = said.get()
        finally:
            for process in (speakers, repliers):
                process.join(10)
                process.kill()
            capture.close()
    return _rows(turns, answers, capture.packets, {"callers": callers, "grade": grade.value, **health})


def _run_repliers(sfu: Sfu, count: int, are_there: Any, is_over: Any, said: Any) -> None:
    said.put(asyncio.run(_reply(sfu, count, are_there, is_over)))


def _run_callers(sfu: Sfu, count: int, seconds: float, kind: str, grade: Grade, are_there: Any, told: Any) -> None:
    told.put(asyncio.run(_call(sfu, count, seconds, kind, grade, are_there)))


async def _reply(sfu: Sfu, count: int, are_there: Any, is_over: Any) -> list[Reply]:
    """Whoever hears an utterance end says the next clip, up to 0.3 s later."""
    dice, clips = random.Random(7), _order(replies(KINDS_EACH))
    clock, engine = await _engine("compiled")
    try:
        async with AsyncExitStack() as joined:
            legs = await _joined(joined, sfu, clock, engine, count, "reply", Grade.LIGHT)
            for index, leg in enumerate(legs):
                leg.listen(_answering(leg, clips[index % len(clips) :] + clips[: index % len(clips)], dice))
            are_there.set()
            await asyncio.to_thread(is_over.wait)
            return [
                Reply(room=_room(index), clip=said.clip, started_at=said.started_at)
                for index, leg in enumerate(legs)
                for said in leg.spoken()
            ]
    finally:
        engine.stop()


def _order(clips: Mapping[str, Clip]) -> list[Clip]:
    """Every other one begins as words do, the others in turn as each kind does."""
    words = [clip for name, clip in clips.items() if name.startswith(f"{Beginning.WORDS}.")]
    others = [clips[f"{kind}.{number}"] for number in range(KINDS_EACH) for kind in Beginning if kind is not Beginning.WORDS]
    return list(itertools.chain(*zip(itertools.cycle(words), others, strict=False)))


def _answering(leg: Leg, clips: Sequence[Clip], dice: random.Random) -> Any:
    following = itertools.cycle(clips)

    def heard(utterance: Utterance) -> None:
        if utterance.ended_at is not None:
            asyncio.get_running_loop().call_later(dice.uniform(0, 0.3), leg.play, next(following))

    return heard


async def _call(sfu: Sfu, count: int, seconds: float, kind: str, grade: Grade, are_there: Any) -> tuple[list[Turn], dict[str, Any]]:
    clock, engine = await _engine(kind)
    await asyncio.to_thread(are_there.wait)
    try:
        async with AsyncExitStack() as joined:
            legs = await _joined(joined, sfu, clock, engine, count, "caller", grade)
            await asyncio.sleep(_SETTLE_S)
            until = asyncio.get_running_loop().time() + seconds
            turns = await asyncio.gather(*(_converse(leg, _room(index), engine, until, index) for index, leg in enumerate(legs)))
            health = engine.health("benchmark")
            said = {"engine": health.engine, "priority": health.priority, "pacing_p99_ms": health.pacing_p99_ms}
            return list(itertools.chain(*turns)), said
    finally:
        engine.stop()


async def _engine(kind: str) -> tuple[Clock, Engine]:
    aiortc_adapter.offer_loopback()
    clock = Clock.start()
    engine = Engine(clock, library(home_dir()) if kind == "compiled" else None)
    engine.start()
    return clock, engine


def _room(index: int) -> str:
    return f"room-{index}"


async def _joined(joined: AsyncExitStack, sfu: Sfu, clock: Clock, engine: Engine, count: int, name: str, grade: Grade) -> list[Leg]:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def join(index: int) -> Leg:
        async with turn:
            return await joined.enter_async_context(participant(sfu.network(), clock, engine, _room(index), f"{name}-{index}", grade))

    return list(await asyncio.gather(*map(join, range(count))))


async def _converse(leg: Leg, room: str, engine: Engine, until: float, index: int) -> list[Turn]:
    loop, clip, turns = asyncio.get_running_loop(), load(PROMPTS / f"{PROMPT}.wav"), []
    told: asyncio.Queue[Utterance] = asyncio.Queue()
    leg.listen(told.put_nowait)
    port = leg.ports[0].wire.socket.getsockname()[1]
    await asyncio.sleep(index * 0.37 % 3.0)  # conversations are not in step
    while loop.time() < until:
        said = await _spoken(leg, clip)
        first_word_at = None
        try:
            async with asyncio.timeout(_ANSWER_S):
                while (heard := await told.get()).ended_at is None or heard.started_at < said.ended_at:
                    pass
                first_word_at = heard.started_at
        except TimeoutError:
            pass
        doubt = engine.doubt(said.started_at, max(said.ended_at, first_word_at or said.ended_at))
        turns.append(
            Turn(
                port=port,
                room=room,
                speech_started_at=said.started_at,
                speech_ended_at=said.ended_at,
                first_word_at=first_word_at,
                doubt=doubt,
            )
        )
    return turns


async def _spoken(leg: Leg, clip: Clip) -> Spoken:
    before = len(leg.spoken())
    leg.play(clip)
    while True:
        await asyncio.sleep(0.05)
        if len(leg.spoken()) > before:
            return leg.spoken()[-1]


def _rows(turns: Iterable[Turn], answers: Sequence[Reply], packets: Sequence[Packet], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Errors by the kind of beginning, and counts of turns that say nothing."""
    clips, prompt = replies(KINDS_EACH), load(PROMPTS / f"{PROMPT}.wav")
    up, down = defaultdict(list), defaultdict(list)
    for packet in packets:
        up[packet.source].append(packet)
        down[packet.target].append(packet)
    errors: dict[str, list[float]] = defaultdict(list)
    steady: dict[str, list[float]] = defaultdict(list)
    void: dict[str, int] = defaultdict(int)
    unmatched: dict[str, int] = defaultdict(int)
    for turn in turns:
        answer = next(
            (each for each in answers if each.room == turn.room and 0 < each.started_at - turn.speech_ended_at < _ANSWER_S * 1e9), None
        )
        if answer is None:
            unmatched["-"] += 1
            continue
        kind = answer.clip.partition(".")[0]
        truth = _truth(turn, clips[answer.clip], prompt, up[turn.port], down[turn.port])
        if turn.doubt is not None:
            void[kind] += 1
        elif truth is None or turn.first_word_at is None:
            unmatched[kind] += 1
        else:
            true_ns, is_steady = truth
            errors[kind].append((turn.first_word_at - turn.speech_ended_at - true_ns) / 1e6)
            if is_steady:
                steady[kind].append(errors[kind][-1])
    groups = {
        "words": (Beginning.WORDS,),
        "cut, soft, noisy": tuple(kind for kind in Beginning if kind is not Beginning.WORDS),
        **{kind.value: (kind,) for kind in Beginning if kind is not Beginning.WORDS},
    }
    return [
        {
            **given,
            "beginnings": name,
            "void": sum(void[kind] for kind in kinds),
            "unmatched": sum(unmatched[kind] for kind in kinds),
            **_figures([error for kind in kinds for error in errors[kind]], TARGETS_MS.get(name)),
            "where_the_server_kept_time": _figures([error for kind in kinds for error in steady[kind]], None),
        }
        for name, kinds in groups.items()
    ]


def _truth(turn: Turn, reply: Clip, prompt: Clip, up: Sequence[Packet], down: Sequence[Packet]) -> tuple[int, bool] | None:
    """From the prompt's last voiced sample at the caller's socket to the reply's first one, and whether packets came evenly around that.

    None: the capture lacks one of them.
    """
    lead_ns = prompt.first_voiced_sample * 1_000_000_000 // 48_000
    spoke = min((burst[0] for burst in bursts(up)), key=lambda packet: abs(packet.at_ns + lead_ns - turn.speech_started_at), default=None)
    if spoke is None:
        return None
    ended_ns = sample_ns(up, spoke, prompt.last_voiced_sample)
    heard = next((burst for burst in bursts(down) if ended_ns is not None and burst[0].at_ns > ended_ns), None)
    if ended_ns is None or heard is None:
        return None
    began_ns = sample_ns(down, heard[0], reply.first_voiced_sample)
    if began_ns is None:
        return None
    return began_ns - ended_ns, _is_even([packet for packet in heard if abs(packet.at_ns - began_ns) < _AROUND_NS])


def _is_even(packets: Sequence[Packet]) -> bool:
    """No packet came later than half a frame after its time. A server that stalls gives many at once, and an instant between two is lost."""
    ways = [packet.at_ns - (packet.timestamp - packets[0].timestamp) % (1 << 32) * 1_000_000_000 // 48_000 for packet in packets]
    return bool(ways) and max(ways) - min(ways) < _UNEVEN_NS


def _figures(errors_ms: Sequence[float], target_ms: tuple[float | None, float] | None) -> dict[str, Any]:
    sizes = sorted(map(abs, errors_ms))
    found: dict[str, Any] = {
        "turns": len(sizes),
        "bias_ms": round(statistics.fmean(errors_ms), 2) if sizes else None,
        "sd_ms": round(statistics.pstdev(errors_ms), 2) if sizes else None,
        "p99_ms": round(sizes[math.ceil(0.99 * len(sizes)) - 1], 2) if sizes else None,
        "max_ms": round(sizes[-1], 2) if sizes else None,
    }
    if target_ms is not None:
        bias_ms, p99_ms = target_ms
        is_kept = bool(sizes) and found["p99_ms"] <= p99_ms and (bias_ms is None or abs(found["bias_ms"]) <= bias_ms)
        found |= {"target_bias_ms": bias_ms, "target_p99_ms": p99_ms, "is_kept": is_kept}
    return found


if __name__ == "__main__":
    main()
