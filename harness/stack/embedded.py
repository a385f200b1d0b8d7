"""The embedded stack: real servers as child processes on loopback, started in dependency order, gone when the block ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.clock import Clock
from harness.errors import StackError
from harness.model import Part, Target
from harness.stack import agent, alerting, fault, ports, processes, prometheus, responder
from harness.stack.breakage import Defect
from harness.stack.provision import obtain
from harness.stack.sabotage import Sabotage
from harness.stack.supervise import Command, Death, Supervisor
from harness.stack.wiring import BINARIES, PORTS, Wiring


class RunningStack:
    """The stack while it runs."""

    def __init__(self, wiring: Wiring, supervisor: Supervisor) -> None:
        self.target: Target = wiring.target()
        self.parts: tuple[Part, ...] = wiring.parts()
        self.settings: Mapping[str, Any] = wiring.settings()
        """What is set here otherwise than in production, and the intervals that the judgement needs."""
        self.digests: Mapping[str, str] = wiring.digests()
        self.alerting: Mapping[str, Any] = wiring.alerting()
        """What the judgement of alerts needs."""
        self.keys = wiring.keys
        """Of the Supabase that it stands for: the page needs the anonymous one."""
        self.database = wiring.database
        self._wiring = wiring
        self._supervisor = supervisor

    def deaths(self) -> tuple[Death, ...]:
        """Parts that ended by themselves, in order."""
        return self._supervisor.deaths()

    def usage(self) -> tuple[Part, ...]:
        """The parts with their memory (shared pages counted once) and CPU time so far."""
        by_name = {child.name: processes.usage(child.pid) for child in self._supervisor.children}
        return tuple(
            replace(part, rss_mib=by_name[part.name][0], cpu_s=by_name[part.name][1]) if part.name in by_name else part
            for part in self.parts
        )

    def pids(self) -> Mapping[str, int]:
        """Process ids by part: for a person who wants to end one."""
        return {child.name: child.pid for child in self._supervisor.children}

    def end(self, name: str, *, number: int | None = None) -> None:
        """Ends one part on purpose; see ``Supervisor.end``."""
        self._supervisor.end(name, number=number)

    def start(self, name: str) -> None:
        """Starts a part that was ended on purpose again, on its own port; what it had on disk it still has."""
        self._wiring.starts[name]()

    def port(self, name: str) -> int:
        """Of a part, as ``harness.stack.wiring.PORTS`` names it."""
        return self._wiring.port[name]

    @property
    def scratch(self) -> Path:
        """Gone with the stack."""
        return self._supervisor.scratch

    def retarget(self, job: str, groups: Sequence[Mapping[str, Any]]) -> None:
        """Replaces the targets of a job; Prometheus notices within a fraction of a second."""
        prometheus.write_targets(self._wiring.monitoring, job, groups)

    def start_responder(self, name: str, *, delay_s: float) -> str:
        """One more agent, that takes its time; ``host:port`` of its metrics."""
        chosen = ports.free(("health", "metrics"))
        self._wiring.start_responder(name, delay_s=delay_s, health_port=chosen["health"], metrics_port=chosen["metrics"])
        return f"{ports.LOOPBACK}:{chosen['metrics']}"

    @property
    def agent_metrics(self) -> str:
        """``host:port`` of the agent's own exporter."""
        return self._wiring.exporter

    def seed_rules(self, *, without: str | None) -> None:
        """Prometheus reloads its rules; without one group, or all of them as at the start."""
        prometheus.rewrite_rules(self._wiring.configuration, self._wiring.monitoring, without=without)
        os.kill(self.pids()["prometheus"], signal.SIGHUP)

    def start_node(self, name: str, *, port: int | None = None, **options: tuple[str, ...]) -> int:
        """One more node_exporter; its port. options: see ``alerting.start_node_exporter``."""
        chosen = port or ports.free((name,))[name]
        alerting.start_node_exporter(self._supervisor, self._wiring.obtained["node_exporter"].path, port=chosen, name=name, **options)
        return chosen

    def start_fault(self, name: str, *arguments: str) -> None:
        """A process that burns or holds; see ``harness.stack.fault``."""
        argv = (sys.executable, "-I", "-S", fault.__file__, *arguments)
        self._supervisor.start(Command(name=name, argv=argv, env={}, cwd=self.scratch))

    def said(self, name: str, words: str) -> str | None:
        """The last line of a part's log that begins so. None: there is none since its start."""
        return next((child.line(words) for child in self._supervisor.children if child.name == name), None)


@contextmanager
def up(
    *,
    home: Path,
    logs: Path,
    progress: Callable[[str], None],
    time_scale: float = 15,
    defect: Defect | None = None,
    with_agent: bool = True,
    agent_name: str = agent.NAME,
    fixed_ports: Mapping[str, int] | None = None,
    sabotage: tuple[Sabotage, ...] = (),
    expressions: Mapping[str, str] | None = None,
) -> Iterator[RunningStack]:
    """Obtains the binaries, starts every part, and yields when our own children answer and Prometheus scrapes them all.

    time_scale: production seconds in one second here. defect, sabotage: seeded from outside. agent_name: ``responder`` is answered by the calibrated
    responder, every other name by the reference agent under that name. expressions: of alerts, at production speed, instead of the shipped ones.
    Raises StackError with a part's last log lines, or EnvironmentFault with the holder of a taken port; nothing is left behind then either.
    """
    has_reference_agent = with_agent and agent_name != responder.NAME
    wanted = {part: name for part, name in BINARIES.items() if has_reference_agent or part != "agent"}
    obtained = {part: obtain(name, home=home, progress=progress) for part, name in wanted.items()}
    with ExitStack() as exits:
        port = ports.free(PORTS, fixed=fixed_ports)
        exits.callback(ports.release, port)
        supervisor = exits.enter_context(Supervisor(logs=logs, clock=Clock.start()))
        wiring = Wiring(
            obtained,
            time_scale,
            defect,
            supervisor,
            port,
            exits,
            agent_name=agent_name if with_agent else None,
            sabotage=sabotage,
            expressions=expressions or {},
        )
        _together(supervisor, (*wiring.branches(), wiring.end_of_start))
        progress(f"stack is up after {supervisor.elapsed_s:.1f} s")
        yield RunningStack(wiring, supervisor)


def _together(supervisor: Supervisor, steps: tuple[Callable[[], None], ...]) -> None:
    """Runs all steps but the last at the same time, then the last. The first failure ends the others and is raised."""
    *branches, last = steps
    with ThreadPoolExecutor(len(branches), thread_name_prefix="start") as pool:
        started: list[Future[None]] = []
        try:
            started = [pool.submit(branch) for branch in branches]
            done, _ = wait(started, return_when=FIRST_EXCEPTION)
            if failed := [each for each in done if each.exception() is not None]:
                failed[0].result()
            last()
        except BaseException:
            # Before the pool joins its threads: they give up at once.
            supervisor.stop()
            raise
    if dead := supervisor.deaths():
        raise StackError("; ".join(death.sentence for death in dead))
