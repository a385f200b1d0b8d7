"""Locust's side of the load: one due plan is one task of a User. ``locust -f harness/load/locustfile.py --headless --run-dir DIR``.

The plans of the run directory set the arrivals; users and spawn rate are refused. Truth is in the callers' event files, never in Locust's
statistics, which round.
"""

from __future__ import annotations

import math
import os
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped] # ships none
from gevent.queue import Queue  # type: ignore[import-untyped]
from locust import LoadTestShape, User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from harness.errors import HarnessError
from harness.load.pool import CALLERS_PER_PROCESS, CallerPool
from harness.model import CallOutcome, CallPlan
from harness.rundir import read_plans

_READY_TIMEOUT_S = 30.0
_FINISH_TIMEOUT_S = 20.0


class Load:
    """The plans of one run on their way to callers."""

    def __init__(self, plans: tuple[CallPlan, ...], pool: CallerPool) -> None:
        self.pool = pool
        self.users = min(len(plans), pool.capacity)
        """One a call that may be in progress."""
        self.idle = 0
        self.due: Queue[CallPlan] = Queue()
        self.dropped = 0
        self.left = len(plans)
        self._plans = plans

    def dispatch(self) -> None:
        """Hands each plan over when it is due. A plan that finds no free caller is dropped and counted, never delayed."""
        while self.idle < self.users:
            gevent.sleep(0.01)
        started = time.monotonic()
        for plan in self._plans:
            gevent.sleep(max(0.0, started + plan.due_s - time.monotonic()))
            if self.idle:
                self.idle -= 1
                self.due.put(plan)
            else:
                self.dropped += 1
                self.left -= 1
                sys.stderr.write(f"{plan.call_id}: dropped, all {self.users} callers are busy\n")
        while self.left:
            gevent.sleep(0.05)
        self.pool.finish(_FINISH_TIMEOUT_S)


class CallFailed(Exception):
    """For Locust's statistics only."""


class Caller(User):
    """Places one due call after the other."""

    load: Load

    def on_start(self) -> None:
        self.load.idle += 1

    @task
    def place_call(self) -> None:
        """Waits until a plan is due, places it, and is busy until the call ends."""
        plan = self.load.due.get()
        began = time.monotonic()
        result = self.load.pool.place(plan)
        self.load.left -= 1
        self.load.idle += 1
        report = self.environment.events.request.fire
        failure = None if result.outcome is CallOutcome.COMPLETED else CallFailed(result.outcome)
        common = {"response_length": 0, "context": {"call_id": plan.call_id}}
        report(request_type="call", name="call", response_time=(time.monotonic() - began) * 1e3, exception=failure, **common)
        for ttfw_s in result.ttfw_s:
            report(request_type="turn", name="time to first word", response_time=ttfw_s * 1e3, exception=None, **common)


class Planned(LoadTestShape):
    """As many users as calls may be in progress; their number says nothing of arrivals."""

    def tick(self) -> tuple[int, float] | None:
        return Caller.load.users, Caller.load.users


def _add_arguments(parser: LocustArgumentParser, **_: Any) -> None:
    _refuse_workers()
    parser.add_argument("--run-dir", metavar="DIR", help="run directory that holds plans.jsonl", is_required=True)


def _prepare(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    assert options is not None
    try:
        _refuse_rates(options)
        if not options.run_dir:
            msg = "--run-dir is missing: the directory that holds plans.jsonl; voxproof run makes one"
            raise HarnessError(msg)
        Caller.load = _load(Path(options.run_dir))
    except HarnessError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(2)


def _start(environment: Environment, **_: Any) -> None:
    def dispatch() -> None:
        Caller.load.dispatch()
        environment.process_exit_code = 0
        assert environment.runner is not None
        environment.runner.quit()

    gevent.spawn(dispatch)


def _stop(**_: Any) -> None:
    Caller.load.pool.stop()


def _refuse_rates(options: Namespace) -> None:
    if options.num_users is not None or options.spawn_rate is not None:
        msg = "-u and -r are refused: the scenario's arrival model sets when calls are placed; change 'calls' or 'arrival' there"
        raise HarnessError(msg)


def _refuse_workers() -> None:
    """Before Locust forks: a child that gives up leaves its parent waiting for it."""
    if any(word.split("=")[0] in ("--processes", "--master", "--worker") for word in sys.argv):
        msg = "--processes, --master and --worker are refused: caller processes carry the calls, as many as the plan needs; leave them out"
        sys.stderr.write(f"{msg}\n")
        sys.exit(2)


def _load(run_dir: Path) -> Load:
    plans = read_plans(run_dir)
    if not plans:
        msg = f"{run_dir}: no plans.jsonl with plans in it; voxproof run writes one"
        raise HarnessError(msg)
    processes = min(os.cpu_count() or 1, math.ceil(len(plans) / CALLERS_PER_PROCESS))
    pool = CallerPool(run_dir=run_dir, processes=processes, env=os.environ)
    try:
        pool.wait_ready(_READY_TIMEOUT_S)
    except HarnessError:
        pool.stop()
        raise
    return Load(plans, pool)


for _hook, _listener in (
    (events.init_command_line_parser, _add_arguments),
    (events.init, _prepare),
    (events.test_start, _start),
    (events.test_stop, _stop),
):
    _hook.add_listener(_listener)  # type: ignore[no-untyped-call] # locust leaves it untyped
