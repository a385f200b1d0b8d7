"""Locust's side of the load: one due plan is one task of a User.

    locust -f harness/load/locustfile.py --run-dir DIR | --scenario NAME [--headless] [--processes N] [--csv PREFIX] [--html FILE]

Plans set the arrivals, so users, spawn rate and the fields of the web page are refused. With ``--processes N`` each worker drives every N-th plan;
all begin at one instant. Callers are processes of their own in any case, started by exec. Truth is in their event files, never in Locust's
statistics, which round.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped] # ships none
from gevent.queue import Queue  # type: ignore[import-untyped]
from locust import LoadTestShape, User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from harness.clock import Clock
from harness.errors import HarnessError
from harness.load.pool import CallerPool, Shares
from harness.model import CallOutcome, CallPlan
from harness.rundir import STOP, RunDir, read_plans

_READY_TIMEOUT_S = 30.0
_FINISH_TIMEOUT_S = 20.0
_BEGIN_S = 0.5
"""From the order to begin until the load begins: every worker has it by then. They share one machine and its monotonic clock."""
_NOTICE_S = 0.25
"""How soon an order to stop is noticed."""


class Load:
    """The plans of this process on their way to callers."""

    def __init__(self) -> None:
        self.idle = 0
        """Users that wait for a plan."""
        self.due: Queue[CallPlan] = Queue()
        self.dropped = 0
        self.left = 0
        self.pool: CallerPool | None = None

    def dispatch(self, plans: tuple[CallPlan, ...], *, users: int, begin_at_s: float, stop: Path) -> None:
        """Hands each plan over when it is due, and returns when the last call has ended.

        A plan that finds no free caller is dropped and counted, never delayed. begin_at_s: by the monotonic clock. stop: once this file is there, no
        plan is handed over any more.
        """
        self.left = len(plans)
        while self.idle < users:
            gevent.sleep(0.01)
        begin_at_s = max(begin_at_s, time.monotonic())
        for place, plan in enumerate(plans):
            while (wait_s := begin_at_s + plan.due_s - time.monotonic()) > 0 and not stop.exists():
                gevent.sleep(min(wait_s, _NOTICE_S))
            if stop.exists():
                self.left -= len(plans) - place
                break
            self._hand_over(plan, users)
        while self.left:
            gevent.sleep(0.05)
        if self.pool is not None:
            self.pool.finish(_FINISH_TIMEOUT_S)

    def _hand_over(self, plan: CallPlan, users: int) -> None:
        if self.idle:
            self.idle -= 1
            self.due.put(plan)
            return
        self.dropped += 1
        self.left -= 1
        sys.stderr.write(f"{plan.call_id}: dropped, all {users} callers are busy\n")
        told = {"request_type": "call", "name": "dropped: no caller free", "response_time": 0.0, "response_length": 0}
        failed = CallFailed(CallOutcome.DROPPED)
        events.request.fire(**told, exception=failed, context={"call_id": plan.call_id})  # type: ignore[no-untyped-call] # locust leaves it untyped


class CallFailed(Exception):
    """For Locust's statistics only."""


class Caller(User):
    """Places one due call after the other."""

    load = Load()

    def on_start(self) -> None:
        self.load.idle += 1

    @task
    def place_call(self) -> None:
        """Waits until a plan is due, places it, and is busy until the call ends."""
        plan = self.load.due.get()
        began = time.monotonic()
        assert self.load.pool is not None
        result = self.load.pool.place(plan)
        self.load.left -= 1
        self.load.idle += 1
        report = self.environment.events.request.fire
        failure = None if result.outcome in (CallOutcome.COMPLETED, CallOutcome.HUNG_UP) else CallFailed(result.outcome)
        common = {"response_length": 0, "context": {"call_id": plan.call_id}}
        report(request_type="call", name="call", response_time=(time.monotonic() - began) * 1e3, exception=failure, **common)
        for ttfw_s in result.ttfw_s:
            report(request_type="turn", name="time to first word", response_time=ttfw_s * 1e3, exception=None, **common)


class Planned(LoadTestShape):
    """As many users as calls may be in progress; their number says nothing of arrivals."""

    users = 1

    def tick(self) -> tuple[int, float] | None:
        return self.users, self.users


class Conductor:
    """Where plans are kept and when the load begins and ends: in the only process, or in the one that workers report to."""

    def __init__(self, environment: Environment, run_dir: Path, workers: int) -> None:
        self._environment = environment
        self._run_dir = run_dir
        self._workers = workers
        self._told: dict[str, list[str | None]] = {"prepared": [], "placed": []}
        self.was_placed = False
        """The plans of a run directory are placed once."""

    def start(self) -> None:
        """Everybody makes its callers ready; then all begin at once."""
        self.was_placed = True
        runner = self._environment.runner
        order = {"run_dir": str(self._run_dir)}
        if isinstance(runner, MasterRunner):
            for kind in self._told:
                runner.register_message(kind, self._hear)
            runner.send_message("prepare", order)
            return
        gevent.spawn(self._alone)

    def _alone(self) -> None:
        self._over(_placed(self._run_dir, 1, 0, time.monotonic))

    def _hear(self, environment: Environment, msg: Any, **_: Any) -> None:
        """A worker is ready, or done; the last one decides."""
        found = self._told[msg.type]
        found.append(msg.data["failure"])
        failed = next((said for said in found if said is not None), None)
        if failed is None and len(found) < self._workers:
            return
        if failed is None and msg.type == "prepared":
            assert environment.runner is not None
            environment.runner.send_message("begin", {"at_s": time.monotonic() + _BEGIN_S})
            return
        # Not here: ending the runner ends the greenlet that told us.
        gevent.spawn(self._over, failed)

    def _over(self, failure: str | None) -> None:
        if failure is not None:
            sys.stderr.write(f"{failure}\n")
        self._environment.process_exit_code = 0 if failure is None else 2
        runner, options = self._environment.runner, self._environment.parsed_options
        assert runner is not None
        assert options is not None
        # Whoever looks at the page wants to go on looking.
        (runner.quit if options.headless else runner.stop)()


class Worker:
    """One of ``--processes``: drives its share of the plans when it is told to."""

    def __init__(self, environment: Environment, workers: int) -> None:
        self._environment = environment
        self._workers = workers
        self._begins: Queue[float] = Queue()
        runner = environment.runner
        assert isinstance(runner, WorkerRunner)
        self._runner = runner
        runner.register_message("prepare", lambda msg, **_: gevent.spawn(self._place, msg.data))
        runner.register_message("begin", lambda msg, **_: self._begins.put(msg.data["at_s"]))

    def _place(self, order: dict[str, str]) -> None:
        def begin_at_s() -> float:
            self._runner.send_message("prepared", {"failure": None})
            at_s: float = self._begins.get()
            return at_s

        self._environment.process_exit_code = 0
        failure = _placed(Path(order["run_dir"]), self._workers, self._runner.worker_index, begin_at_s)
        self._runner.send_message("placed", {"failure": failure})


def _placed(run_dir: Path, workers: int, worker: int, begin_at_s: Callable[[], float]) -> str | None:
    """Places a worker's share. Returns when it has ended; not None: why it could not be placed."""
    load, plans = Caller.load, read_plans(run_dir)
    shares = Shares(calls=len(plans), workers=workers)
    load.pool = CallerPool(run_dir=run_dir, processes=shares.processes, first=worker * shares.processes + 1, env=os.environ)
    try:
        load.pool.wait_ready(_READY_TIMEOUT_S)
    except HarnessError as exc:
        load.pool.stop()
        return str(exc)
    load.dispatch(plans[worker::workers], users=shares.users, begin_at_s=begin_at_s(), stop=run_dir / STOP)
    return None


def _add_arguments(parser: LocustArgumentParser, **_: Any) -> None:
    _refuse(word.split("=")[0] for word in sys.argv)
    # Locust's own default is every interface.
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")
    parser.add_argument("--run-dir", metavar="DIR", help="run directory that holds plans.jsonl")
    parser.add_argument("--scenario", metavar="NAME", help="plan this scenario's calls into a new run directory, and place them")


def _prepare(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    assert options is not None
    workers = options.processes or 1
    if isinstance(environment.runner, WorkerRunner):
        Worker(environment, workers)
        return
    try:
        _refuse(name for name, given in (("--users", options.num_users), ("--spawn-rate", options.spawn_rate)) if given is not None)
        run_dir = _run_dir(options)
        plans = read_plans(run_dir)
        if not plans:
            msg = f"{run_dir}: no plans.jsonl with plans in it; voxproof run writes one"
            raise HarnessError(msg)
    except HarnessError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(2)
    Planned.users = Shares(calls=len(plans), workers=workers).users * workers
    conductor = Conductor(environment, run_dir, workers)
    environment.events.test_start.add_listener(lambda **_: conductor.start())  # type: ignore[no-untyped-call] # locust leaves it untyped
    if environment.web_ui is not None:
        _guard(environment.web_ui, conductor)


def _guard(web_ui: Any, conductor: Conductor) -> None:
    """The page starts the load, and only once; what else it asks for is refused."""
    from flask import jsonify, request

    def refuse() -> Any:
        if request.path.rstrip("/") != "/swarm":
            return None
        if any(request.form.get(field) for field in ("user_count", "spawn_rate", "run_time")):
            return jsonify({"success": False, "message": _REFUSAL["--users"]})
        if conductor.was_placed:
            return jsonify({"success": False, "message": "the plans of this run directory were placed; start again with a new one"})
        return None

    web_ui.app.before_request(refuse)


def _run_dir(options: Namespace) -> Path:
    """The directory that holds the plans; a new one for a scenario."""
    if options.scenario:
        from harness import scenario
        from harness.caller.prompts import load_prompts
        from harness.check import CLAIMS
        from harness.load import schedule

        prompts = {name: prompt.text for name, prompt in load_prompts().items()}
        planned = scenario.load(scenario.find(options.scenario), prompts=prompts, claims=tuple(CLAIMS))
        run = RunDir.create()
        run.write_plans(schedule.plans(planned, prefix=f"vp-{run.run_id}-{Clock.start().now() // 1_000_000_000:x}"))
        sys.stderr.write(f"planned in {run.path}\n")
        return run.path
    if not options.run_dir:
        msg = "--run-dir is missing: the directory that holds plans.jsonl; voxproof run makes one, and so does --scenario NAME"
        raise HarnessError(msg)
    return Path(options.run_dir)


_RATES = "-u and -r are refused: the scenario's arrival model sets when calls are placed; change 'calls' or 'arrival' there"
_WORKERS = "--master and --worker are refused: the plans of a run are shared by the processes of one machine; use --processes N"
_REFUSAL = {"--users": _RATES, "--spawn-rate": _RATES, "-u": _RATES, "-r": _RATES, "--master": _WORKERS, "--worker": _WORKERS}


def _refuse(words: Iterable[str]) -> None:
    """Before Locust forks: a child that gives up leaves its parent waiting for it."""
    if refused := next((word for word in words if word in _REFUSAL), None):
        sys.stderr.write(f"{_REFUSAL[refused]}\n")
        sys.exit(2)


# What a shell starts in the background ignores SIGINT, by which ``voxproof run`` makes us leave.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(**_: Any) -> None:
    if Caller.load.pool is not None:
        Caller.load.pool.stop()


for _hook, _listener in ((events.init_command_line_parser, _add_arguments), (events.init, _prepare), (events.test_stop, _stop)):
    _hook.add_listener(_listener)  # type: ignore[no-untyped-call] # locust leaves it untyped
