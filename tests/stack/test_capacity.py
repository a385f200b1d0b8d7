"""What this machine carries, tried on a real media server; and what one caller uses up."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aioice.ice
import pytest

from benchmarks.sfu import Sfu, lone_sfu
from harness.caller import aiortc_adapter
from harness.caller.engine import Engine
from harness.caller.participant import participant
from harness.clock import Clock
from harness.measure.capacity import DESCRIPTORS_PER_CALLER
from harness.model import Grade

pytestmark = pytest.mark.stack

CALLERS = 4


def test_the_doctor_says_how_many_callers_fit_and_what_ends_first() -> None:
    """Within 20 seconds; the number is the smallest of the limits, and some callers were really tried."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "doctor", "--callers", "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    lasted_s = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)

    assert lasted_s < 20
    assert said["tried"][0]["callers"] == 10
    assert {limit["name"] for limit in said["limits"]} >= {"CPU", "file descriptors", "UDP ports", "caller processes"}
    assert said["callers"] == min(limit["callers"] for limit in said["limits"])
    assert said["limit"] == said["limits"][0]["name"]


def test_a_caller_opens_as_many_descriptors_as_the_limit_counts(tmp_path: Path) -> None:
    """Callers of a single connection, in the process that they are counted in."""
    with pytest.MonkeyPatch.context() as patch, lone_sfu(tmp_path) as sfu:
        patch.setattr(aioice.ice, "get_host_addresses", aioice.ice.get_host_addresses)
        aiortc_adapter.offer_loopback()
        opened = asyncio.run(_opened(sfu))

    assert opened <= CALLERS * DESCRIPTORS_PER_CALLER


async def _opened(sfu: Sfu) -> int:
    """Descriptors that so many callers added."""
    clock = Clock.start()
    engine = Engine(clock)
    engine.start()
    try:
        async with AsyncExitStack() as joined:
            await joined.enter_async_context(participant(sfu.network(), clock, engine, "first", "first", Grade.LIGHT))
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 # counts, needs no paths
            for index in range(CALLERS):
                await joined.enter_async_context(participant(sfu.network(), clock, engine, f"room-{index}", "caller", Grade.LIGHT))
            return len(os.listdir("/proc/self/fd")) - before  # noqa: PTH208
    finally:
        engine.stop()
