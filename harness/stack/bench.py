"""What faults act on: hosts whose real node_exporter text is served with scripted levels, an exporter of telephone calls, an endpoint, a certificate.

Levels are held, counters are their integrals up to the instant of each scrape. Everything listens on loopback and ends with the stack.
"""

from __future__ import annotations

import datetime as dt
import http.server
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.stack import ports
from harness.stack.embedded import RunningStack
from harness.stack.ports import LOOPBACK
from harness.stack.prometheus import at
from harness.stack.proxy import Answer, Forward, Proxy, Request
from harness.stack.real import DISK_HOST, Real

CALM_PERCENT = {"cpu": 10.0, "memory": 30.0, "disk": 30.0}
CALLS_PER_S = 5.0
"""Telephone calls that the scripted exporter says have ended."""
VANISHING = "blackbox"
"""The job that leaves the discovery: nothing else reads it."""
SLOW, SLOW_S = "slow-responder", 4.0
"""An agent that takes its time, and how much."""
SILENCED = "voice_agent"
"""The group of recording rules that is taken away."""
_TEXT = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_LINE = re.compile(r"^(?P<name>node_\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$", re.MULTILINE)


class Host:
    """A host's exporter: the real text, in which idle time, available memory and available disk are as scripted."""

    def __init__(self, upstream: str, *, real: Collection[str] = ()) -> None:
        """real: levels that are as the exporter says."""
        self._lock = threading.Lock()
        self._used = {name: percent for name, percent in CALM_PERCENT.items() if name not in real}
        self._idle_s, self._since = 1000.0, time.monotonic()
        self.proxy = Proxy(upstream, self._rule)

    def hold(self, **percent: float) -> None:
        """Levels from now on: ``cpu``, ``memory``, ``disk``, in percent used."""
        with self._lock:
            self._advance()
            self._used.update(percent)

    def restart(self) -> None:
        """Its counters begin anew, as after a boot."""
        with self._lock:
            self._advance()
            self._idle_s = 0.0

    def _advance(self) -> None:
        now = time.monotonic()
        self._idle_s += (now - self._since) * (1 - self._used.get("cpu", 0.0) / 100)
        self._since = now

    def _rule(self, request: Request, forward: Forward) -> Answer:
        # Before the real exporter takes its time: a sample bears the instant at which its scrape began.
        with self._lock:
            self._advance()
            idle_s, used = self._idle_s, dict(self._used)
        answer = forward(request)
        if answer.status != 200:
            return answer
        return Answer(status=200, headers=answer.headers, body=scripted(answer.body.decode(), idle_s, used).encode())


def scripted(text: str, idle_s: float, used: dict[str, float]) -> str:
    """An exposition of node_exporter with these levels in ``used``; whatever else it says stays. Every processor idles alike."""
    sizes = {
        (found["name"], found["labels"]): float(found["value"])
        for found in _LINE.finditer(text)
        if found["name"] in ("node_memory_MemTotal_bytes", "node_filesystem_size_bytes")
    }

    def line(found: re.Match[str]) -> str:
        name, labels = found["name"], found["labels"]
        number: float | None = None
        if "cpu" in used and name == "node_cpu_seconds_total" and 'mode="idle"' in labels:
            number = idle_s
        elif "memory" in used and name == "node_memory_MemAvailable_bytes":
            number = sizes["node_memory_MemTotal_bytes", None] * (1 - used["memory"] / 100)
        elif "disk" in used and name == "node_filesystem_avail_bytes" and 'mountpoint="/"' in labels:
            number = sizes["node_filesystem_size_bytes", labels] * (1 - used["disk"] / 100)
        return found[0] if number is None else f"{name}{'' if labels is None else '{' + labels + '}'} {number!r}"

    return _LINE.sub(line, text)


class Telephone:
    """livekit-sip's exporter as far as the rule reads it, under its real names; the server itself is in no registry."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing, self._since = 0.0, time.monotonic()
        self._ended = {"success": 0.0, "server_error": 0.0}
        self.proxy = Proxy(f"http://{LOOPBACK}", self._rule)

    def hold(self, *, failing_percent: float) -> None:
        """Share of the calls that fail from now on."""
        with self._lock:
            self._advance()
            self._failing = failing_percent / 100

    def _advance(self) -> None:
        now = time.monotonic()
        calls = (now - self._since) * CALLS_PER_S
        self._ended["success"] += calls * (1 - self._failing)
        self._ended["server_error"] += calls * self._failing
        self._since = now

    def _rule(self, request: Request, forward: Forward) -> Answer:
        with self._lock:
            self._advance()
            lines = [f'livekit_sip_calls_terminated{{dir="inbound",result="{result}"}} {count!r}' for result, count in self._ended.items()]
        body = "\n".join(("# TYPE livekit_sip_calls_terminated counter", *lines, ""))
        return Answer(status=200, headers=_TEXT, body=body.encode())


class Flapper:
    """A host's exporter that answers every fourth scrape only, while it flaps."""

    def __init__(self, upstream: str) -> None:
        self._lock = threading.Lock()
        self._scrapes: int | None = None
        self.proxy = Proxy(upstream, self._rule)

    def flap(self, *, is_on: bool) -> None:
        with self._lock:
            self._scrapes = 0 if is_on else None

    def _rule(self, request: Request, forward: Forward) -> Answer:
        with self._lock:
            if self._scrapes is not None:
                self._scrapes += 1
                if self._scrapes % 4:
                    return Answer(status=503, headers=_TEXT, body=b"overloaded\n")
        return forward(request)


class Muted:
    """Before an agent's exporter: while it is mute it answers, and says nothing."""

    def __init__(self, upstream: str) -> None:
        self.is_mute = False
        self.proxy = Proxy(upstream, self._rule)

    def _rule(self, request: Request, forward: Forward) -> Answer:
        return Answer(status=200, headers=_TEXT, body=b"") if self.is_mute else forward(request)


class Endpoint:
    """A public endpoint. It can be closed, so that connections are refused, and opened again on its port."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self.port = ports.free(("endpoint",))["endpoint"]
        self._server: http.server.ThreadingHTTPServer | None = None
        self.open()

    def open(self) -> None:
        self._server = _Server((LOOPBACK, self.port), _Page)
        if self._context is not None:
            # The handshake is the connection's own thread's: one client that says nothing must not stop the others.
            self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Certificate:
    """A TLS endpoint with a certificate of our own, which can be replaced by one that ends sooner."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew(days=60)
        self.endpoint = Endpoint(self._context)

    def renew(self, *, days: float) -> None:
        """Connections from now on are shown one that ends then."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=days))
            .sign(key, hashes.SHA256())
        )
        path = self._directory / "endpoint.pem"
        path.touch(mode=0o600)
        path.write_bytes(
            made.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        self._context.load_cert_chain(path)


class Bench:
    """All of it, and the names that series and alerts bear."""

    def __init__(self, stack: RunningStack, directory: Path, *, with_agents: bool, real: Real | None) -> None:
        self.stack, self.real = stack, real
        self.agents: tuple[Muted, ...] = ()
        if with_agents:
            slow = stack.start_responder(SLOW, delay_s=SLOW_S)
            self.agents = tuple(Muted(f"http://{address}") for address in (stack.agent_metrics, slow))
            fast_proxy, slow_proxy = (agent.proxy.address for agent in self.agents)
            stack.retarget("voice-agent", (*at(fast_proxy, instance="fast"), *at(slow_proxy, instance="slow")))
        node = f"http://{LOOPBACK}:{stack.port('node_exporter')}"
        self.host = Host(node, real=() if real is None else real.subjects)
        self.disk = real.mount() if real is not None and "disk" in real.subjects else None
        self.flapper = Flapper(node)
        self.telephone = Telephone()
        self.endpoint = Endpoint()
        self.certificate = Certificate(directory)
        self.second_node = stack.start_node("node_exporter_b")
        blackbox = f"{LOOPBACK}:{stack.port('blackbox_exporter')}"
        stack.retarget(
            "node",
            (
                *at(self.host.proxy.address, instance="host-a"),
                *at(f"{LOOPBACK}:{self.second_node}", instance="host-b"),
                *at(self.flapper.proxy.address, instance="host-c"),
                *(() if self.disk is None else at(f"{LOOPBACK}:{self.disk.port}", instance=DISK_HOST)),
            ),
        )
        stack.retarget("livekit-sip", at(self.telephone.proxy.address, instance="sip"))
        stack.retarget(
            "probe",
            (
                *at(self.endpoint_name, __prober=blackbox, __param_module="http_2xx"),
                *at(self.certificate_name, __prober=blackbox, __param_module="tls"),
            ),
        )

    @property
    def endpoint_name(self) -> str:
        return f"http://{LOOPBACK}:{self.endpoint.port}"

    @property
    def certificate_name(self) -> str:
        return f"{LOOPBACK}:{self.certificate.endpoint.port}"

    def stop_host(self) -> None:
        """The second host's exporter is killed."""
        self.stack.end("node_exporter_b", number=signal.SIGKILL)

    def start_host(self) -> None:
        """And comes back on its port."""
        self.stack.start_node("node_exporter_b", port=self.second_node)

    def mute(self, *, is_on: bool) -> None:
        """Agents answer their scrapes, and say nothing."""
        for agent in self.agents:
            agent.is_mute = is_on

    def silence_rule(self) -> None:
        """The recording rules of the agent are no longer loaded."""
        self.stack.seed_rules(without=SILENCED)

    def restore_rule(self) -> None:
        self.stack.seed_rules(without=None)

    def vanish(self) -> None:
        """A job's targets leave the discovery."""
        self.stack.retarget(VANISHING, ())

    def appear(self) -> None:
        self.stack.retarget(VANISHING, at(f"{LOOPBACK}:{self.stack.port('blackbox_exporter')}"))

    def close(self) -> None:
        proxied: tuple[Host | Flapper | Telephone | Muted, ...] = (self.host, self.flapper, self.telephone, *self.agents)
        for each in proxied:
            each.proxy.close()
        for endpoint in (self.endpoint, self.certificate.endpoint):
            endpoint.close()


@contextmanager
def bench(stack: RunningStack, directory: Path, *, with_agents: bool, real: Real | None = None) -> Iterator[Bench]:
    """The bench on a running stack. directory: for a key, gone with the stack. with_agents: for calls, with a slow agent beside the stack's own.

    real: what is not scripted.
    """
    made = Bench(stack, directory, with_agents=with_agents, real=real)
    try:
        yield made
    finally:
        made.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # An endpoint that was closed has connections in TIME_WAIT.
    allow_reuse_address = True

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Nothing: a probe that only looks at the certificate hangs up."""


class _Page(http.server.BaseHTTPRequestHandler):
    timeout = 5

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_: object) -> None:
        """Nothing."""
