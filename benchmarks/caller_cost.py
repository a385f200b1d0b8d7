"""CPU of one caller for one second: 50 packets each way through a real media server, callers in pairs that take turns speaking.

python -m benchmarks.caller_cost --callers 60 --seconds 20 --json
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.sfu import Sfu, lone_sfu
from harness.caller import aiortc_adapter, tokens
from harness.caller.clip import Clip, load
from harness.caller.engine import Engine
from harness.caller.leg import Leg
from harness.caller.native.build import library
from harness.caller.participant import participant
from harness.caller.prompts import PROMPTS
from harness.clock import Clock
from harness.model import Grade, PeerMode, value
from harness.stack.home import home_dir
from harness.stack.provision import obtain

_SETTLE_S = 4.0
"""The first turn is over."""
_PAUSE_S = 1.2
"""Silence between two turns of a conversation."""
_JOINS_AT_ONCE = 4


def main() -> None:
    """Prints one row for each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--callers", type=int, default=30, help="even: two to a room")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--peers", type=PeerMode, choices=tuple(PeerMode), default=PeerMode.SINGLE)
    parser.add_argument("--engines", nargs="+", choices=("python", "compiled"), default=["python", "compiled"])
    parser.add_argument(
        "--grades",
        type=Grade,
        nargs="+",
        choices=tuple(Grade),
        default=[Grade.LIGHT],
        help="light carries load; full decodes and keeps everything",
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often the rows are measured, interleaved")
    parser.add_argument(
        "--sdk", type=int, default=0, metavar="N", help="also N participants of the official SDK, run by the agent's Python"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as logs, lone_sfu(Path(logs)) as sfu:
        for grade, engine in list(itertools.product(arguments.grades, arguments.engines)) * arguments.rounds:
            # Each row in a process of its own: what another one left behind would be in its memory and its collections.
            row = in_process(cost, sfu, arguments.callers, arguments.seconds, arguments.peers, grade, engine)
            rows.append(row)
        if arguments.sdk:
            rows.append(sdk_cost(sfu, arguments.sdk, arguments.seconds))
    result = {"conditions": conditions(), "rows": rows}
    print(json.dumps(result, indent=2) if arguments.json else "\n\n".join(_table(row) for row in rows))


def in_process(
    measure: Callable[..., Coroutine[Any, Any, dict[str, Any]]], *given: Any, prepare: Callable[[], None] | None = None
) -> dict[str, Any]:
    """What ``measure`` returns, run in a fresh interpreter. prepare: called there before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=prepare) as process:
        return process.submit(_run, measure, *given).result()


def _run(measure: Callable[..., Coroutine[Any, Any, dict[str, Any]]], *given: Any) -> dict[str, Any]:
    return asyncio.run(measure(*given))


def _table(row: dict[str, Any]) -> str:
    return "\n".join(f"{key:28} {figure}" for key, figure in row.items())


async def cost(sfu: Sfu, callers: int, seconds: float, mode: PeerMode, grade: Grade, kind: str) -> dict[str, Any]:
    """Figures of ``seconds`` in the middle of conversations: one speaks a prompt, a pause, the other one speaks, a pause."""
    aiortc_adapter.offer_loopback()
    await aiortc_adapter.self_test()
    clock = Clock.start()
    engine = Engine(clock, library(home_dir()) if kind == "compiled" else None)
    clips = [load(path) for path in sorted(PROMPTS.glob("*.wav"))]
    engine.start()
    try:
        async with AsyncExitStack() as joined:
            resident, began, joining_s = _resident_mib(), time.monotonic(), time.process_time()
            legs = await _join_all(joined, sfu, clock, engine, callers, mode, grade)
            join_s, joining_s = time.monotonic() - began, time.process_time() - joining_s
            talks = [
                asyncio.create_task(_converse(pair, clips, index)) for index, pair in enumerate(zip(legs[::2], legs[1::2], strict=True))
            ]
            await asyncio.sleep(_SETTLE_S)
            before, heard = _Reading.now(legs, sfu), sum(len(leg.utterances()) for leg in legs)
            await asyncio.sleep(seconds)
            after = _Reading.now(legs, sfu)
            heard = sum(len(leg.utterances()) for leg in legs) - heard
            memory_mib = (_resident_mib() - resident) / callers
            for talk in talks:
                talk.cancel()
            health = engine.health("benchmark")
            lost = sum(leg.wire_stats()[1].lost for leg in legs)
            caller_s = (after.at_s - before.at_s) * callers
            threads = {
                name: round((cpu_s - before.threads_s.get(name, 0.0)) / caller_s * 1e3, 3) for name, cpu_s in after.threads_s.items()
            }
    finally:
        engine.stop()
    return {
        "engine": health.engine,
        "grade": grade.value,
        "callers": callers,
        "peers": mode.value,
        "seconds": seconds,
        "cpu_ms_per_caller_s": round((after.cpu_s - before.cpu_s) / caller_s * 1e3, 3),
        "cpu_ms_per_caller_s_by_thread": threads,
        "sfu_ms_per_caller_s": round((after.sfu_s - before.sfu_s) / caller_s * 1e3, 3),
        "others_cores": round(
            (after.busy_s - before.busy_s - (after.cpu_s - before.cpu_s) - (after.sfu_s - before.sfu_s)) / (caller_s / callers), 2
        ),
        "packets_sent_per_caller_s": round((after.sent - before.sent) / caller_s, 2),
        "packets_received_per_caller_s": round((after.received - before.received) / caller_s, 2),
        "utterances_heard_per_caller_s": round(heard / caller_s, 3),
        "lost": lost,
        "pacing_p50_ms": health.pacing_p50_ms,
        "pacing_p99_ms": health.pacing_p99_ms,
        "pacing_max_ms": health.pacing_max_ms,
        "late_ticks": len(health.late),
        "priority": health.priority,
        "joins_per_s": round(callers / join_s, 1),
        "join_cpu_ms": round(joining_s / callers * 1e3, 1),
        "memory_mib_per_caller": round(memory_mib, 3),
    }


def sdk_cost(sfu: Sfu, participants: int, seconds: float) -> dict[str, Any]:
    """The same traffic by the official SDK, which encodes and decodes."""
    python = obtain("agent-python", home=home_dir(), progress=lambda line: print(line, file=sys.stderr)).path
    run = secrets.token_hex(4)
    key, secret = sfu.server.api_key, sfu.server.api_secret
    admitted = [
        tokens.plain_token(room=f"{run}-{index // 2}", identity=f"sdk-{index}", api_key=key, api_secret=secret)
        for index in range(participants)
    ]
    argv = [str(python), str(Path(__file__).with_name("sdk_peer.py")), sfu.server.url, str(PROMPTS / "book-table.wav"), str(seconds)]
    done = subprocess.run(argv, input="\n".join(admitted), capture_output=True, text=True, timeout=seconds + 60, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    return {"engine": "livekit-sdk", "callers": participants, "seconds": seconds, **figures}


@value
class _Reading:
    """Counters at one moment."""

    at_s: float
    cpu_s: float
    threads_s: Mapping[str, float]
    sfu_s: float
    busy_s: float
    """Of all cores, by everybody."""
    sent: int
    received: int

    @staticmethod
    def now(legs: list[Leg], sfu: Sfu) -> _Reading:
        stats = [leg.wire_stats() for leg in legs]
        busy = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return _Reading(
            at_s=time.monotonic(),
            cpu_s=time.process_time(),
            threads_s=_threads_s(),
            sfu_s=_cpu_s(sfu.pid),
            busy_s=(sum(busy) - busy[3] - busy[4]) / os.sysconf("SC_CLK_TCK"),
            sent=sum(up.packets for up, _ in stats),
            received=sum(down.packets for _, down in stats),
        )


def _threads_s() -> dict[str, float]:
    """CPU seconds of each Python thread; what is missing from the whole ran in threads of compiled code."""
    spent = {}
    for thread in threading.enumerate():
        schedule = Path(f"/proc/self/task/{thread.native_id}/schedstat")
        name = "loop" if thread is threading.main_thread() else thread.name
        if thread.native_id and schedule.exists() and name in ("loop", "media", "listening"):
            spent[name] = int(schedule.read_text().split()[0]) / 1e9
    return spent


async def _converse(pair: tuple[Leg, Leg], clips: list[Clip], index: int) -> None:
    await asyncio.sleep(index * 0.37 % 5.0)  # conversations are not in step
    while True:
        for leg in pair:
            clip = clips[index % len(clips)]
            leg.play(clip)
            await asyncio.sleep(len(clip.frames) * 0.02 + _PAUSE_S)
            index += 1


async def _join_all(
    joined: AsyncExitStack, sfu: Sfu, clock: Clock, engine: Engine, callers: int, mode: PeerMode, grade: Grade
) -> list[Leg]:
    run, turn = secrets.token_hex(4), asyncio.Semaphore(_JOINS_AT_ONCE)

    async def join(index: int) -> Leg:
        async with turn:
            room, identity = f"{run}-{index // 2}", f"caller-{index}"
            return await joined.enter_async_context(participant(sfu.network(mode), clock, engine, room, identity, grade))

    return list(await asyncio.gather(*map(join, range(callers))))


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def conditions() -> dict[str, Any]:
    """What a figure is worth nothing without."""
    return {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(), "load_1m": os.getloadavg()[0]}


if __name__ == "__main__":
    main()
