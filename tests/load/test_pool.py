"""Caller processes: results come back, a dead process cuts its calls, nothing is left behind."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import EnvironmentFault
from harness.load.pool import CALLERS_PER_PROCESS, CallerPool, CallResult
from harness.model import CallOutcome
from tests.fakes.evidence import healthy

FAKE = Path(__file__).parents[1] / "fakes" / "caller.py"
PLAN = healthy()[0].plans[0]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


@pytest.fixture
def pool(run_dir: Path) -> Iterator[CallerPool]:
    with CallerPool(run_dir=run_dir, processes=2, env=os.environ, argv=(sys.executable, "-I", "-S", str(FAKE))) as pool:
        pool.wait_ready(10)
        yield pool


def test_a_placed_call_comes_back_with_its_result(pool: CallerPool) -> None:
    """The outcome and the latencies that its process said."""
    assert pool.place(PLAN) == CallResult(call_id=PLAN.call_id, outcome=CallOutcome.COMPLETED, ttfw_s=(1.5,))


def test_capacity_is_known_before_the_first_call(pool: CallerPool) -> None:
    """A plan beyond it is dropped, not delayed."""
    assert pool.capacity == 2 * CALLERS_PER_PROCESS


def test_a_process_that_dies_cuts_its_calls(pool: CallerPool) -> None:
    """The waiting caller is released, and the next call finds the living process."""
    assert pool.place(replace(PLAN, room="die")).outcome is CallOutcome.CUT
    assert pool.place(PLAN).outcome is CallOutcome.COMPLETED


def test_a_pool_without_living_processes_cuts_at_once(pool: CallerPool) -> None:
    """Nobody waits for a process that is gone."""
    pool.stop()

    assert pool.place(PLAN).outcome is CallOutcome.CUT


def test_stopping_ends_a_process_that_hangs(pool: CallerPool) -> None:
    """Killed after the grace; its call is cut."""
    results: list[CallResult] = []
    waiting = threading.Thread(target=lambda: results.append(pool.place(replace(PLAN, room="hang"))))
    waiting.start()
    while not any(caller.calls for caller in pool._callers):
        pass
    pool.stop(grace_s=0.2)
    waiting.join(5)

    assert [result.outcome for result in results] == [CallOutcome.CUT]


def test_finishing_ends_every_process(pool: CallerPool) -> None:
    """End of input is the end of an idle caller."""
    pool.finish(10)

    assert [caller.process.returncode for caller in pool._callers] == [0, 0]


def test_a_process_that_is_not_ready_is_reported_with_its_last_words(run_dir: Path) -> None:
    """The sentence carries the log."""
    with (
        CallerPool(run_dir=run_dir, processes=1, env=os.environ, argv=(sys.executable, "-I", "-S", str(FAKE), "--deaf")) as pool,
        pytest.raises(EnvironmentFault, match=r"caller process caller-1 ended with exit code 1; its last lines:\n    no network here"),
    ):
        pool.wait_ready(10)
