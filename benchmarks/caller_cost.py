"""CPU of one caller for one second: 50 packets each way through a real media server, callers in pairs.

python -m benchmarks.caller_cost --callers 30 --seconds 20 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import secrets
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.sfu import Sfu, lone_sfu, participant
from harness.caller import aiortc_adapter
from harness.caller.clip import Clip, load
from harness.caller.engine import Engine
from harness.caller.leg import Leg
from harness.caller.prompts import PROMPTS
from harness.caller.signaling import PeerMode
from harness.clock import Clock

_SETTLE_S = 2.0
_JOINS_AT_ONCE = 4


def main() -> None:
    """Prints one row for each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--callers", type=int, default=30, help="even: two to a room")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--peers", type=PeerMode, choices=tuple(PeerMode), default=PeerMode.SINGLE)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs, lone_sfu(Path(logs)) as sfu:
        row = asyncio.run(cost(sfu, arguments.callers, arguments.seconds, arguments.peers))
    result = {"conditions": _conditions(), "rows": [row]}
    print(json.dumps(result, indent=2) if arguments.json else "\n".join(f"{key:24} {figure}" for key, figure in row.items()))


async def cost(sfu: Sfu, callers: int, seconds: float, mode: PeerMode) -> dict[str, Any]:
    """Every caller speaks all the time; figures of ``seconds`` in the middle."""
    aiortc_adapter.offer_loopback()
    clock = Clock.start()
    engine = Engine(clock)
    clips = [load(path) for path in sorted(PROMPTS.glob("*.wav"))]
    engine.start()
    try:
        async with AsyncExitStack() as joined:
            began = time.monotonic()
            legs = await _join_all(joined, sfu, clock, engine, callers, mode)
            join_s = time.monotonic() - began
            for index, leg in enumerate(legs):
                _talk(leg, clips, index, seconds + 2 * _SETTLE_S)
            await asyncio.sleep(_SETTLE_S)
            packets, cpu_s, sfu_s, started = _packets(legs), time.process_time(), _cpu_s(sfu.pid), time.monotonic()
            await asyncio.sleep(seconds)
            caller_s = (time.monotonic() - started) * callers
            cpu_s, sfu_s = time.process_time() - cpu_s, _cpu_s(sfu.pid) - sfu_s
            sent, received = (after - before for after, before in zip(_packets(legs), packets, strict=True))
            health = engine.health("benchmark")
            lost = sum(leg.wire_stats()[1].lost for leg in legs)
    finally:
        engine.stop()
    return {
        "engine": health.engine,
        "grade": "full",
        "callers": callers,
        "peers": mode.value,
        "seconds": seconds,
        "cpu_ms_per_caller_s": round(cpu_s / caller_s * 1e3, 3),
        "sfu_ms_per_caller_s": round(sfu_s / caller_s * 1e3, 3),
        "packets_sent_per_caller_s": round(sent / caller_s, 2),
        "packets_received_per_caller_s": round(received / caller_s, 2),
        "lost": lost,
        "pacing_p50_ms": health.pacing_p50_ms,
        "pacing_p99_ms": health.pacing_p99_ms,
        "pacing_max_ms": health.pacing_max_ms,
        "late_ticks": len(health.late),
        "priority": health.priority,
        "joins_per_s": round(callers / join_s, 1),
    }


async def _join_all(joined: AsyncExitStack, sfu: Sfu, clock: Clock, engine: Engine, callers: int, mode: PeerMode) -> list[Leg]:
    run, turn = secrets.token_hex(4), asyncio.Semaphore(_JOINS_AT_ONCE)

    async def join(index: int) -> Leg:
        async with turn:
            room, identity = f"{run}-{index // 2}", f"caller-{index}"
            return await joined.enter_async_context(participant(sfu.network(mode), clock, engine, room, identity))

    return list(await asyncio.gather(*map(join, range(callers))))


def _talk(leg: Leg, clips: list[Clip], index: int, seconds: float) -> None:
    """Queues prompts for so long, each caller beginning with another one."""
    frames = 0
    while frames * 0.02 < seconds:
        clip = clips[index % len(clips)]
        leg.play(clip)
        frames += len(clip.frames)
        index += 1


def _packets(legs: list[Leg]) -> tuple[int, int]:
    """Sent and received by all callers."""
    stats = [leg.wire_stats() for leg in legs]
    return sum(up.packets for up, _ in stats), sum(down.packets for _, down in stats)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _conditions() -> dict[str, Any]:
    return {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(), "load_1m": os.getloadavg()[0]}


if __name__ == "__main__":
    main()
