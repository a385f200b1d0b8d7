"""One caller process: ``python -m harness.caller --run-dir DIR --name caller-1``, started by exec so that Locust is never in it.

stdin    one CallPlan a line: place it now; end of file: finish the calls, then exit
stdout   ``{"ready": true}``, then a line for each call that ended
SIGTERM  and SIGINT: leave every call, write every end, exit
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import codec
from harness.caller import aiortc_adapter
from harness.caller.clip import clip
from harness.caller.engine import Engine
from harness.caller.native.build import Library, library
from harness.caller.network import Network
from harness.caller.prompts import PROMPTS, load_prompts
from harness.caller.session import Kit, Session
from harness.clock import Clock
from harness.errors import HarnessError, UsageError
from harness.measure.pacing import Lateness
from harness.model import CallPlan, GeneratorHealth

_LOOK_NS = 20_000_000
_HEALTH_S = 5.0
"""How often the process says how punctual it is; a killed process loses less than this."""


def main() -> int:
    """Runs until stdin ends or a signal comes. Exit codes: 0, 1 for a bug of ours, 2 for a HarnessError, told in one sentence."""
    arguments = _arguments()
    try:
        return asyncio.run(_serve(arguments))
    except HarnessError as exc:
        sys.stderr.write(f"{arguments.name}: {exc}\n")
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.caller", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--name", required=True, help="name of this process in events and health")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="directory of recorded prompts")
    parser.add_argument(
        "--engine", choices=("auto", "python", "compiled"), default="auto", help="media core; auto: compiled where it builds"
    )
    parser.add_argument("--home", type=Path, default=_home(), help="where the compiled core is kept")
    return parser.parse_args()


def _home() -> Path:
    return Path(os.environ.get("VOXPROOF_HOME") or Path.home() / ".cache" / "voxproof")


def _core(arguments: argparse.Namespace) -> Library | None:
    core = None if arguments.engine == "python" else library(arguments.home.absolute())
    if core is None and arguments.engine == "compiled":
        msg = "the compiled media core does not build here; the line above says why. Use --engine auto"
        raise UsageError(msg)
    return core


def _network() -> Network:
    try:
        return Network(
            url=os.environ["LIVEKIT_URL"],
            api_key=os.environ["LIVEKIT_API_KEY"],
            api_secret=os.environ["LIVEKIT_API_SECRET"],
        )
    except KeyError as exc:
        msg = f"the environment lacks {exc.args[0]}; callers want LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET"
        raise UsageError(msg) from exc


async def _serve(arguments: argparse.Namespace) -> int:
    network = _network()
    if network.is_loopback:
        aiortc_adapter.offer_loopback()
    await aiortc_adapter.self_test()
    prompts = load_prompts(arguments.prompts)
    clips = {
        prompt.name: clip(prompt.name, prompt.pcm, (prompt.first_speech_sample, prompt.last_speech_sample)) for prompt in prompts.values()
    }
    clock = Clock.start()
    engine = Engine(clock, _core(arguments))
    engine.start()
    try:
        with contextlib.ExitStack() as files:
            kit = Kit(
                process=arguments.name,
                network=network,
                clock=clock,
                engine=engine,
                clips=clips,
                run_dir=arguments.run_dir,
                record=_appender(files, arguments.run_dir / "events" / f"{arguments.name}.jsonl"),
            )
            tell_health = _appender(files, arguments.run_dir / "generator.jsonl")
            loop = Loop()

            def tell() -> None:
                tell_health(loop.beside(engine.health(arguments.name)))

            beside = (asyncio.create_task(_tell_health(tell)), asyncio.create_task(loop.watch()))
            failures = await Exchange(kit).serve()
            for task in beside:
                task.cancel()
            tell()
            return 1 if failures else 0
    finally:
        engine.stop()


class Loop:
    """How late the event loop is, by a task that wants to run every 20 ms."""

    def __init__(self) -> None:
        self._lateness = Lateness()
        self._began_ns = time.monotonic_ns()

    async def watch(self) -> None:
        """Until it is cancelled."""
        due_ns = time.monotonic_ns()
        while True:
            due_ns = max(due_ns + _LOOK_NS, time.monotonic_ns())
            await asyncio.sleep((due_ns - time.monotonic_ns()) / 1e9)
            self._lateness.add(time.monotonic_ns() - due_ns)

    def beside(self, health: GeneratorHealth) -> GeneratorHealth:
        """What the engine says of itself, and the loop beside it."""
        return dataclasses.replace(
            health,
            loop_p99_ms=self._lateness.quantile_ms(0.99),
            loop_max_ms=self._lateness.max_ns / 1e6,
            wall_s=(time.monotonic_ns() - self._began_ns) / 1e9,
        )


class Exchange:
    """Places calls as their plans arrive."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._sessions: set[Session] = set()
        self._failures = 0
        self._is_stopping = False

    async def serve(self) -> int:
        """Returns, when every call has ended, how many of them met a bug of ours."""
        loop = asyncio.get_running_loop()
        plans: asyncio.Queue[CallPlan | None] = asyncio.Queue()
        # A thread, because an event loop reads no plain file; a daemon on the bare descriptor, because a signal ends us while it waits.
        threading.Thread(target=_read_plans, args=(loop, plans), daemon=True, name="plans").start()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, plans, signal.Signals(number).name)
        _tell({"ready": True})
        async with asyncio.TaskGroup() as calls:
            while (plan := await plans.get()) is not None and not self._is_stopping:
                calls.create_task(self._place(plan))
        return self._failures

    async def _place(self, plan: CallPlan) -> None:
        session = Session(plan, self._kit)
        self._sessions.add(session)
        try:
            ended = await session.run()
            _tell(codec.to_json(ended))
        except Exception:
            # One call's bug must not end the others: it has written its end, and the traceback goes to the process's log.
            traceback.print_exc()
            self._failures += 1
            _tell({"call_id": plan.call_id, "outcome": "cut", "ttfw_s": []})
        finally:
            self._sessions.discard(session)

    def _stop(self, plans: asyncio.Queue[CallPlan | None], name: str) -> None:
        self._is_stopping = True
        plans.put_nowait(None)
        for session in self._sessions:
            session.stop(f"the caller process was told to stop ({name})")


def _read_plans(loop: asyncio.AbstractEventLoop, plans: asyncio.Queue[CallPlan | None]) -> None:
    rest = b""
    while chunk := os.read(sys.stdin.fileno(), 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            plan: CallPlan = codec.from_json(CallPlan, json.loads(line))
            loop.call_soon_threadsafe(plans.put_nowait, plan)
    loop.call_soon_threadsafe(plans.put_nowait, None)


async def _tell_health(tell: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_HEALTH_S)
        tell()


def _appender(files: contextlib.ExitStack, path: Path) -> Callable[[Any], None]:
    """Appends values to ``path``, one line each, on disk when the call returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = files.enter_context(path.open("ab", buffering=0))

    def append(item: Any) -> None:
        out.write(codec.line(item).encode())

    return append


def _tell(said: dict[str, Any]) -> None:
    # Whoever started us may be gone: the calls and their events go on.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
