"""The embedded stack: real servers as child processes on loopback, started in dependency order, gone when the block ends."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
from harness.clock import Clock
from harness.errors import StackError
from harness.model import Part, Target
from harness.stack import agent, breakage, database, livekit, ports, processes, prometheus, supabase
from harness.stack.breakage import Defect
from harness.stack.ports import LOOPBACK
from harness.stack.provision import Obtained, obtain
from harness.stack.supervise import Death, Supervisor

REPOSITORY = Path(__file__).resolve().parents[2]
MONITORING = REPOSITORY / "deploy" / "monitoring"
SERVICES = REPOSITORY / "deploy" / "services"
NAME = "embedded"

_BINARIES = {
    "livekit": "livekit-server",
    "prometheus": "prometheus",
    "postgres": "postgres",
    "postgrest": "postgrest",
    "agent": "agent-python",
}
_PORTS = (
    *("livekit", "livekit-udp", "livekit-metrics", "prometheus", "postgres", "postgrest"),
    *("gateway", "agent-health", "agent-metrics"),
)


class RunningStack:
    """The stack while it runs."""

    def __init__(
        self,
        *,
        target: Target,
        parts: tuple[Part, ...],
        settings: Mapping[str, Any],
        digests: Mapping[str, str],
        keys: supabase.Keys,
        where: database.Database,
        supervisor: Supervisor,
    ) -> None:
        self.target = target
        self.keys = keys
        """Of the Supabase that it stands for: the page needs the anonymous one."""
        self.database = where
        self.parts = parts
        self.settings = settings
        """What is set here otherwise than in production, and the intervals that the judgement needs."""
        self.digests = digests
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


@contextmanager
def up(
    *,
    home: Path,
    logs: Path,
    progress: Callable[[str], None],
    time_scale: float = 15,
    defect: Defect | None = None,
    with_agent: bool = True,
    fixed_ports: Mapping[str, int] | None = None,
) -> Iterator[RunningStack]:
    """Obtains the binaries, starts every part, and yields when our own children answer and Prometheus scrapes them all.

    time_scale: production seconds in one second here. defect: seeded from outside.
    Raises StackError with a part's last log lines, or EnvironmentFault with the holder of a taken port; nothing is left behind then either.
    """
    wanted = {part: name for part, name in _BINARIES.items() if with_agent or part != "agent"}
    obtained = {part: obtain(name, home=home, progress=progress) for part, name in wanted.items()}
    with ExitStack() as exits:
        supervisor = exits.enter_context(Supervisor(logs=logs, clock=Clock.start()))
        plan = _Plan(obtained, time_scale, defect, supervisor, ports.free(_PORTS, fixed=fixed_ports), exits)
        _together(supervisor, (*plan.branches(), plan.end_of_start), progress)
        progress(f"stack is up after {supervisor.elapsed_s:.1f} s")
        yield plan.running()


class _Plan:
    """What is wired to what, decided before anything starts."""

    def __init__(
        self,
        obtained: Mapping[str, Obtained],
        time_scale: float,
        defect: Defect | None,
        supervisor: Supervisor,
        port: Mapping[str, int],
        exits: ExitStack,
    ) -> None:
        self.obtained = obtained
        self.time_scale = time_scale
        self.defect = defect
        self.supervisor = supervisor
        self.port = port
        self.has_agent = "agent" in obtained
        self.keys = supabase.Keys.signed(secrets.token_urlsafe(32))
        self.database = database.Database(
            port=port["postgres"], superuser_password=secrets.token_urlsafe(16), service_password=secrets.token_urlsafe(16)
        )
        self.api = (f"API{secrets.token_hex(6)}", secrets.token_urlsafe(32))
        self.configuration = prometheus.configuration(MONITORING, time_scale, seed=breakage.rules_seed(defect))
        self.seams = exits.enter_context(breakage.seams(defect, scratch=supervisor.scratch))
        self.exporter = self.seams.before_exporter(f"{LOOPBACK}:{port['agent-metrics']}")
        self.rest = self.seams.before_rest(f"http://{LOOPBACK}:{port['gateway']}")

    def branches(self) -> tuple[Callable[[], None], ...]:
        """Chains of starts that do not need each other."""
        return (self._media, self._database, self._gateway, self._prometheus)

    def end_of_start(self) -> None:
        """Prometheus has scraped every part at least once."""
        jobs = ("livekit", "prometheus", *(("voice-agent",) if self.has_agent else ()))
        (child,) = (child for child in self.supervisor.children if child.name == "prometheus")
        prometheus.wait_scraped(self.supervisor, child, port=self.port["prometheus"], jobs=jobs)

    def running(self) -> RunningStack:
        return RunningStack(
            target=self._target(),
            parts=self._parts(),
            settings=self._settings(),
            digests=_digests(),
            keys=self.keys,
            where=self.database,
            supervisor=self.supervisor,
        )

    def _media(self) -> None:
        settings = livekit.config(
            port=self.port["livekit"],
            udp_port=self.port["livekit-udp"],
            metrics_port=self.port["livekit-metrics"],
            api_key=self.api[0],
            api_secret=self.api[1],
        )
        livekit.start(self.supervisor, self.obtained["livekit"].path, settings)
        if self.has_agent:
            env = agent.environment(
                repository=REPOSITORY,
                livekit=(f"ws://{LOOPBACK}:{self.port['livekit']}", *self.api),
                supabase=(self.rest, self.keys.service),
                health_port=self.port["agent-health"],
                metrics_port=self.port["agent-metrics"],
                extra={"AGENT_RULER_FILE": str((self.supervisor.logs / agent.RULER).resolve()), **self.seams.agent_environment()},
            )
            agent.start(self.supervisor, self.obtained["agent"].path, repository=REPOSITORY, env=env)

    def _database(self) -> None:
        database.start(self.supervisor, self.obtained["postgres"].path, self.database)
        database.migrate(self.database, roles=SERVICES / "gateway" / "roles.sql")
        supabase.start_postgrest(
            self.supervisor, self.obtained["postgrest"].path, port=self.port["postgrest"], database=self.database, keys=self.keys
        )

    def _gateway(self) -> None:
        supabase.start_gateway(
            self.supervisor,
            SERVICES,
            port=self.port["gateway"],
            postgrest_port=self.port["postgrest"],
            database=self.database,
            keys=self.keys,
        )

    def _prometheus(self) -> None:
        targets = {"livekit": f"{LOOPBACK}:{self.port['livekit-metrics']}", "prometheus": f"{LOOPBACK}:{self.port['prometheus']}"}
        if self.has_agent:
            targets["voice-agent"] = self.exporter
        config = prometheus.write(self.configuration, self.supervisor.scratch / "monitoring", targets)
        prometheus.start(
            self.supervisor,
            self.obtained["prometheus"].path,
            config=config,
            port=self.port["prometheus"],
            lookback=self.configuration.lookback,
        )

    def _target(self) -> Target:
        return Target(
            name=NAME,
            livekit_url=f"ws://{LOOPBACK}:{self.port['livekit']}",
            livekit_api_key=self.api[0],
            livekit_api_secret=self.api[1],
            prometheus_url=f"http://{LOOPBACK}:{self.port['prometheus']}",
            agent_metrics_url=f"http://{self.exporter}/metrics" if self.has_agent else None,
            sfu_metrics_url=f"http://{LOOPBACK}:{self.port['livekit-metrics']}/metrics",
            supabase_url=f"http://{LOOPBACK}:{self.port['gateway']}",
            supabase_key=self.keys.service,
            blind={},
            is_embedded=True,
        )

    def _parts(self) -> tuple[Part, ...]:
        started = {child.name: child.ready_s for child in self.supervisor.children}
        parts = [
            Part(name=part, version=found.version, origin=str(found.origin), location=str(found.path), started_s=started.get(part))
            for part, found in self.obtained.items()
        ]
        gateway = Part(
            name="gateway",
            version=harness.__version__,
            origin="package",
            location=str(SERVICES / "gateway"),
            started_s=started.get("gateway"),
        )
        return (*parts, gateway)

    def _settings(self) -> dict[str, Any]:
        intervals = self.configuration.main["global"]
        return {
            "scrape_interval_s": prometheus.seconds(intervals["scrape_interval"]),
            "evaluation_interval_s": prometheus.seconds(intervals["evaluation_interval"]),
            "lookback_s": prometheus.seconds(self.configuration.lookback),
            "time_scale": self.time_scale,
            "departure_timeout_s": livekit.DEPARTURE_TIMEOUT_S,
            "changes": [f"{each.setting}: {each.production} -> {each.here}" for each in self.configuration.changes],
            "postgres": "throw-away data: fsync off, synchronous_commit off",
            "backend": "embedded: PostgREST behind a thin gateway, not Supabase",
        }


def _together(supervisor: Supervisor, steps: tuple[Callable[[], None], ...], progress: Callable[[str], None]) -> None:
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


def _digests() -> dict[str, str]:
    """SHA-256 of the shared configuration as it is in the repository."""
    files = (MONITORING / "prometheus.yml", *(MONITORING / "rules").glob("*.yml"), *(MONITORING / "supabase" / "migrations").glob("*.sql"))
    return {str(path.relative_to(MONITORING)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}
