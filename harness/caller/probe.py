"""What callers cost here: ``python -m harness.caller.probe --steps 10,20,40 --seconds 2``, in a process of its own as in a run.

Callers in pairs take turns speaking, listened to in light grade. stdout: one line of JSON for each step, as soon as it is measured.
Environment: LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from harness import codec
from harness.caller import aiortc_adapter
from harness.caller.clip import Clip, load
from harness.caller.engine import Engine
from harness.caller.leg import Leg
from harness.caller.native.build import library
from harness.caller.network import Network
from harness.caller.participant import participant
from harness.caller.prompts import PROMPTS
from harness.clock import Clock
from harness.measure.capacity import Tried
from harness.measure.pacing import Lateness
from harness.model import Grade, value

_SETTLE_S, _PAUSE_S = 0.8, 1.2
_JOINS_AT_ONCE = 4


def main() -> None:
    """Until the last step is measured."""
    parser = argparse.ArgumentParser(prog="python -m harness.caller.probe", description=__doc__)
    parser.add_argument("--steps", required=True, help="even numbers of callers, rising, with commas")
    parser.add_argument("--seconds", type=float, required=True, help="that each step is measured")
    parser.add_argument("--server-pid", type=int, required=True, help="the media server's process, on this machine")
    parser.add_argument("--home", type=Path, required=True, help="where the compiled core is kept")
    arguments = parser.parse_args()
    asyncio.run(_probe(tuple(map(int, arguments.steps.split(","))), arguments.seconds, arguments.server_pid, arguments.home))


async def _probe(steps: tuple[int, ...], seconds: float, server_pid: int, home: Path) -> None:
    network = Network(url=os.environ["LIVEKIT_URL"], api_key=os.environ["LIVEKIT_API_KEY"], api_secret=os.environ["LIVEKIT_API_SECRET"])
    aiortc_adapter.offer_loopback()
    clock = Clock.start()
    engine = Engine(clock, library(home))
    clips = [load(path) for path in sorted(PROMPTS.glob("*.wav"))]
    engine.start()
    try:
        async with AsyncExitStack() as joined:
            legs: list[Leg] = []
            talks = await joined.enter_async_context(_Talks())
            turn = asyncio.Semaphore(_JOINS_AT_ONCE)

            async def join(index: int) -> Leg:
                async with turn:
                    return await joined.enter_async_context(
                        participant(network, clock, engine, f"probe-{index // 2}", f"probe-{index}", Grade.LIGHT)
                    )

            for callers in steps:
                new = await asyncio.gather(*map(join, range(len(legs), callers)))
                for number, pair in enumerate(zip(new[::2], new[1::2], strict=True), len(legs) // 2):
                    talks.begin(pair, clips, number)
                legs += new
                await asyncio.sleep(_SETTLE_S)
                step = await _measured(engine, callers, seconds, server_pid)
                sys.stdout.write(json.dumps(codec.to_json(step)) + "\n")
                sys.stdout.flush()
    finally:
        engine.stop()


class _Talks:
    """Conversations, until the block ends."""

    def __init__(self) -> None:
        self._talks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> _Talks:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for talk in self._talks:
            talk.cancel()

    def begin(self, pair: tuple[Leg, Leg], clips: list[Clip], number: int) -> None:
        """One speaks, the other one speaks, with pauses between."""
        self._talks.append(asyncio.create_task(_converse(pair, clips, number)))


async def _converse(pair: tuple[Leg, Leg], clips: list[Clip], number: int) -> None:
    await asyncio.sleep(number * 0.37 % 3.0)
    while True:
        for leg in pair:
            clip = clips[number % len(clips)]
            leg.play(clip)
            await asyncio.sleep(len(clip.frames) * 0.02 + _PAUSE_S)
            number += 1


async def _measured(engine: Engine, callers: int, seconds: float, server_pid: int) -> Tried:
    before = _Reading.now(engine, server_pid)
    await asyncio.sleep(seconds)
    after = _Reading.now(engine, server_pid)
    spent_s, server_s = after.cpu_s - before.cpu_s, after.server_s - before.server_s
    lasted_s = after.at_s - before.at_s
    health = engine.health("probe")
    return Tried(
        callers=callers,
        cpu_ms_per_caller_s=round(spent_s / lasted_s / callers * 1e3, 3),
        server_ms_per_caller_s=round(server_s / lasted_s / callers * 1e3, 3),
        others_cores=round(max(0.0, (after.busy_s - before.busy_s - spent_s - server_s) / lasted_s), 2),
        pacing_p99_ms=after.lateness.since(before.lateness).quantile_ms(0.99),
        priority=health.priority,
        engine=health.engine,
    )


@value
class _Reading:
    """Counters at one moment."""

    at_s: float
    cpu_s: float
    server_s: float
    busy_s: float
    """Of all cores, by everybody."""
    lateness: Lateness

    @staticmethod
    def now(engine: Engine, server_pid: int) -> _Reading:
        busy = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        fields = Path(f"/proc/{server_pid}/stat").read_text().rsplit(")", 1)[1].split()
        tick = os.sysconf("SC_CLK_TCK")
        return _Reading(
            at_s=time.monotonic(),
            cpu_s=time.process_time(),
            server_s=(int(fields[11]) + int(fields[12])) / tick,
            busy_s=(sum(busy) - busy[3] - busy[4]) / tick,
            lateness=engine.lateness,
        )


if __name__ == "__main__":
    main()
