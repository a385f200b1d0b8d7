"""What is wired to what in one embedded stack: ports, credentials and configuration decided before anything starts, and the starts themselves."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import harness
from harness.model import Part, Target
from harness.stack import agent, alerting, breakage, database, livekit, processes, prometheus, responder, supabase, tool_endpoint
from harness.stack.breakage import Defect
from harness.stack.ports import LOOPBACK
from harness.stack.provision import Obtained
from harness.stack.proxy import Proxy, Rule
from harness.stack.sabotage import Sabotage, alertmanager_rule, seeded_route, seeded_rules, store_rule, webhook_rule
from harness.stack.supervise import Supervisor

REPOSITORY = Path(__file__).resolve().parents[2]
MONITORING = REPOSITORY / "deploy" / "monitoring"
SERVICES = REPOSITORY / "deploy" / "services"
NAME = "embedded"

BINARIES = {
    "livekit": "livekit-server",
    "prometheus": "prometheus",
    "postgres": "postgres",
    "postgrest": "postgrest",
    "agent": "agent-python",
    "alertmanager": "alertmanager",
    "blackbox_exporter": "blackbox_exporter",
    "node_exporter": "node_exporter",
}
"""What each part is obtained as."""
PORTS = (
    *("livekit", "livekit-udp", "livekit-metrics", "prometheus", "postgres", "postgrest"),
    *("gateway", "agent-health", "agent-metrics"),
    *("alertmanager", "receiver", "blackbox_exporter", "node_exporter"),
)


_NOT_SCALED = "dates (CertificateExpiring), the media server's look at its streams every 5 s, Alertmanager's pause after a failed delivery"
"""What a fast stack has as slow as production: it proves the arithmetic, and one run at a time scale of 1 proves the text that is shipped."""


class Wiring:
    """One stack."""

    def __init__(
        self,
        obtained: Mapping[str, Obtained],
        time_scale: float,
        defect: Defect | None,
        supervisor: Supervisor,
        port: Mapping[str, int],
        exits: ExitStack,
        *,
        agent_name: str | None,
        sabotage: tuple[Sabotage, ...] = (),
        expressions: Mapping[str, str] | None = None,
    ) -> None:
        """agent_name: what dispatches ask for, and so who answers. None: nobody does."""
        self.obtained = obtained
        self.time_scale = time_scale
        self.supervisor = supervisor
        self.port = port
        self.agent_name = agent_name
        self.has_agent = agent_name is not None
        self.keys = supabase.Keys.signed(secrets.token_urlsafe(32))
        self.database = database.Database(
            port=port["postgres"], superuser_password=secrets.token_urlsafe(16), service_password=secrets.token_urlsafe(16)
        )
        self.api = (f"API{secrets.token_hex(6)}", secrets.token_urlsafe(32))
        self.configuration = prometheus.configuration(MONITORING, time_scale, seed=_seed(defect, sabotage, expressions or {}))
        self.routing = alerting.routing(MONITORING / "alertmanager.yml", time_scale, seed=lambda route: seeded_route(route, sabotage))
        self.webhook_token = secrets.token_urlsafe(16)
        self.monitoring = supervisor.scratch / "monitoring"
        """Where the running Prometheus has its configuration, rules and targets."""
        self.seams = exits.enter_context(breakage.seams(defect, scratch=supervisor.scratch))
        self.exporter = self.seams.before_exporter(f"{LOOPBACK}:{port['agent-metrics']}")
        self.sfu_exporter = self.seams.before_sfu_exporter(f"{LOOPBACK}:{port['livekit-metrics']}")
        self._webhook = self._before("receiver", webhook_rule(sabotage), exits)
        self._store = self._before("gateway", store_rule(sabotage), exits)
        self._alertmanager_address = self._before("alertmanager", alertmanager_rule(sabotage), exits)
        self._exits, self._defect = exits, defect
        self.rest = self.seams.before_rest(f"http://{LOOPBACK}:{port['gateway']}")

    @property
    def has_reference_agent(self) -> bool:
        return self.has_agent and self.agent_name != responder.NAME

    @property
    def _tool_log(self) -> Path:
        return (self.supervisor.logs / tool_endpoint.LOG).resolve()

    @property
    def _ruler(self) -> str:
        return str((self.supervisor.logs / agent.RULER).resolve())

    def branches(self) -> tuple[Callable[[], None], ...]:
        """Chains of starts that do not need each other."""
        return (self._media, self._database, self._gateway, self._exporters, self._prometheus)

    @property
    def starts(self) -> Mapping[str, Callable[[], None]]:
        """Parts that can be started again after their end."""
        return {
            "receiver": self._receiver,
            "alertmanager": self._alertmanager,
            "prometheus": self._start_prometheus,
            "postgrest": self._postgrest,
            "node_exporter": self._node_exporter,
            "blackbox_exporter": self._blackbox,
        }

    def end_of_start(self) -> None:
        """Prometheus has scraped every part at least once."""
        jobs = tuple(self._targets())
        (child,) = (child for child in self.supervisor.children if child.name == "prometheus")
        prometheus.wait_scraped(
            self.supervisor, child, port=self.port["prometheus"], jobs=jobs, scrape_s=self.settings()["scrape_interval_s"]
        )

    def target(self) -> Target:
        """Where the stack is, for everything that reads or calls it."""
        return Target(
            name=NAME,
            livekit_url=f"ws://{LOOPBACK}:{self.port['livekit']}",
            livekit_api_key=self.api[0],
            livekit_api_secret=self.api[1],
            prometheus_url=f"http://{LOOPBACK}:{self.port['prometheus']}",
            agent_metrics_url=f"http://{self.exporter}/metrics" if self.has_agent else None,
            sfu_metrics_url=f"http://{self.sfu_exporter}/metrics",
            supabase_url=f"http://{LOOPBACK}:{self.port['gateway']}",
            supabase_key=self.keys.service,
            supabase_token=self.keys.token("voxproof_judge"),
            blind={},
            is_embedded=True,
            agent_ruler=self._ruler if self.has_agent else None,
            tool_log=str(self._tool_log) if self.has_reference_agent else None,
        )

    def parts(self) -> tuple[Part, ...]:
        """What runs, in which version, from where, and how long its start took."""
        started = {child.name: child.ready_s for child in self.supervisor.children}
        parts = [
            Part(name=part, version=found.version, origin=str(found.origin), location=str(found.path), started_s=started.get(part))
            for part, found in self.obtained.items()
        ]
        ours = tuple(
            Part(name=name, version=harness.__version__, origin="package", location=str(SERVICES / name), started_s=started.get(name))
            for name in ("gateway", "receiver")
        )
        if self.agent_name != responder.NAME:
            return (*parts, *ours)
        answering = Part(
            name="agent",
            version=f"responder {harness.__version__}",
            origin="package",
            location=str(REPOSITORY / "fixtures" / "responder"),
            started_s=started.get("agent"),
        )
        return (*parts, answering, *ours)

    def settings(self) -> dict[str, Any]:
        """The intervals that the judgement needs, and what is otherwise here than in production."""
        intervals = self.configuration.main["global"]
        return {
            "scrape_interval_s": prometheus.seconds(intervals["scrape_interval"]),
            "evaluation_interval_s": prometheus.seconds(intervals["evaluation_interval"]),
            "lookback_s": prometheus.seconds(self.configuration.lookback),
            "time_scale": self.time_scale,
            "departure_timeout_s": livekit.DEPARTURE_TIMEOUT_S,
            "changes": [
                f"{each.setting}: {each.production} -> {each.here}" for each in (*self.configuration.changes, *self.routing.changes)
            ],
            **({"not scaled": _NOT_SCALED} if self.time_scale != 1 else {}),
            "livekit": self._media_priority(),
            "postgres": "throw-away data: fsync off",
            "backend": "embedded: PostgREST behind a thin gateway, not Supabase",
        }

    def alerting(self) -> dict[str, Any]:
        """What the judgement of alerts needs of Alertmanager and of Prometheus' flags: as shipped, whatever was seeded."""
        shipped = alerting.routing(MONITORING / "alertmanager.yml", self.time_scale)
        return {
            "alertmanager": shipped.document,
            "maintenance_s": prometheus.seconds(shipped.maintenance),
            "resend_s": prometheus.seconds(self.configuration.flags["--rules.alert.resend-delay"]),
        }

    def _media_priority(self) -> str:
        level = next((processes.level_of(child.pid) for child in self.supervisor.children if child.name == "livekit"), None)
        return "no priority" if level is None else f"SCHED_RR {level}: it shares the machine with what calls it"

    def digests(self) -> dict[str, str]:
        """SHA-256 of the shared configuration as it is in the repository."""
        migrations = MONITORING / "supabase" / "migrations"
        files = (
            *(MONITORING / name for name in ("prometheus.yml", "alertmanager.yml", "blackbox.yml")),
            *(MONITORING / "rules").glob("*.yml"),
            *migrations.glob("*.sql"),
        )
        return {str(path.relative_to(MONITORING)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}

    def _media(self) -> None:
        settings = livekit.config(
            port=self.port["livekit"],
            udp_port=self.port["livekit-udp"],
            metrics_port=self.port["livekit-metrics"],
            api_key=self.api[0],
            api_secret=self.api[1],
        )
        livekit.start(self.supervisor, self.obtained["livekit"].path, settings)
        if self.agent_name is not None:
            extra = {"AGENT_RULER_FILE": self._ruler, **self._tools(), **self.seams.agent_environment()}
            env = self._agent_environment(self.agent_name, self.port["agent-health"], self.port["agent-metrics"], extra)
            if self.agent_name == responder.NAME:
                responder.start(self.supervisor, repository=REPOSITORY, env=env)
            else:
                agent.start(self.supervisor, self.obtained["agent"].path, repository=REPOSITORY, env=env)

    def start_responder(self, name: str, *, delay_s: float, health_port: int, metrics_port: int) -> None:
        """One more responder, under a name of its own and with a delay of its own."""
        env = self._agent_environment(name, health_port, metrics_port, {})
        responder.start(self.supervisor, repository=REPOSITORY, env=env, part=name, delay_s=delay_s)

    def _agent_environment(self, name: str, health_port: int, metrics_port: int, extra: Mapping[str, str]) -> dict[str, str]:
        return agent.environment(
            repository=REPOSITORY,
            livekit=(f"ws://{LOOPBACK}:{self.port['livekit']}", *self.api),
            supabase=(self.rest, self.keys.service),
            health_port=health_port,
            metrics_port=metrics_port,
            extra={"AGENT_NAME": name, **extra},
        )

    def _tools(self) -> dict[str, str]:
        if not self.has_reference_agent:
            return {}
        endpoint = tool_endpoint.ToolEndpoint(self._tool_log)
        self._exits.callback(endpoint.close)
        return {"TOOL_ENDPOINT": endpoint.url}

    def _database(self) -> None:
        database.start(self.supervisor, self.obtained["postgres"].path, self.database)
        database.migrate(self.database, roles=SERVICES / "gateway" / "roles.sql")
        if statements := breakage.statements(self._defect):
            database.seed(self.database, statements)
        self._postgrest()

    def _postgrest(self) -> None:
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

    def _exporters(self) -> None:
        self._node_exporter()
        self._blackbox()

    def _node_exporter(self) -> None:
        alerting.start_node_exporter(self.supervisor, self.obtained["node_exporter"].path, port=self.port["node_exporter"])

    def _blackbox(self) -> None:
        binary = self.obtained["blackbox_exporter"].path
        alerting.start_blackbox(self.supervisor, binary, MONITORING / "blackbox.yml", port=self.port["blackbox_exporter"])

    def _receiver(self) -> None:
        alerting.start_receiver(
            self.supervisor,
            SERVICES,
            port=self.port["receiver"],
            supabase=(f"http://{self._store}", self.keys.service),
            token=self.webhook_token,
            prometheus=self._url("prometheus"),
            sweep_s=60.0 / self.time_scale,
        )

    def _alertmanager(self) -> None:
        alerting.start_alertmanager(
            self.supervisor,
            self.obtained["alertmanager"].path,
            self.routing,
            port=self.port["alertmanager"],
            webhook=f"http://{self._webhook}",
            token=self.webhook_token,
        )

    def _start_prometheus(self) -> None:
        prometheus.start(
            self.supervisor,
            self.obtained["prometheus"].path,
            self.configuration,
            config=self.monitoring / "prometheus.yml",
            port=self.port["prometheus"],
        )

    def _prometheus(self) -> None:
        prometheus.write(self.configuration, self.monitoring, self._targets())
        self._receiver()
        self._alertmanager()
        self._start_prometheus()

    def _targets(self) -> dict[str, tuple[Mapping[str, Any], ...]]:
        """By job. Prometheus scrapes each of them before anybody is told that the stack is up."""
        here = {name: f"{LOOPBACK}:{port}" for name, port in self.port.items()}
        targets = {
            "livekit": prometheus.at(self.sfu_exporter),
            "prometheus": prometheus.at(here["prometheus"]),
            "node": prometheus.at(here["node_exporter"]),
            "blackbox": prometheus.at(here["blackbox_exporter"]),
            "alertmanager": prometheus.at(self._alertmanager_address),
            "probe": prometheus.at(
                f"{self._url('gateway')}/health", self._url("livekit"), __prober=here["blackbox_exporter"], __param_module="http_2xx"
            ),
        }
        return targets | ({"voice-agent": prometheus.at(self.exporter)} if self.has_agent else {})

    def _before(self, part: str, rule: Rule | None, exits: ExitStack) -> str:
        """``host:port`` to reach the part by: its own, or a proxy's."""
        if rule is None:
            return f"{LOOPBACK}:{self.port[part]}"
        proxy = Proxy(self._url(part), rule)
        exits.callback(proxy.close)
        return proxy.address

    def _url(self, part: str) -> str:
        return f"http://{LOOPBACK}:{self.port[part]}"


def _seed(defect: Defect | None, sabotage: tuple[Sabotage, ...], expressions: Mapping[str, str]) -> prometheus.Seed:
    rules = breakage.rules_seed(defect)
    return lambda document: seeded_rules(breakage.with_expressions(rules(document), expressions), sabotage)
