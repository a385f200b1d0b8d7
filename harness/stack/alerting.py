"""Alertmanager, the receiver of its notifications, node_exporter and the Blackbox exporter as parts of the embedded stack."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from harness.model import value
from harness.rules.scale import Change, scaled_duration
from harness.stack.livekit import answers
from harness.stack.ports import LOOPBACK
from harness.stack.supervise import Child, Command, Supervisor

RECEIVER_LOG = "receiver.jsonl"
"""Deliveries, beside the logs: what came when, and whether it was stored."""
_READY_S = 20.0
_INTERVALS = ("group_wait", "group_interval", "repeat_interval")
_MAINTENANCE = "30s"
"""Alertmanager's default of --dispatch.maintenance-interval: how long an emptied group lives on."""
# What the rules read, and what a person who looks at a host wants; the rest of the collectors only costs.
_COLLECTORS = ("cpu", "filesystem", "meminfo", "loadavg", "netdev")


@value
class Routing:
    """What Alertmanager runs with, and what that has otherwise than production."""

    document: dict[str, Any]
    maintenance: str
    changes: tuple[Change, ...]


def routing(path: Path, factor: float, *, seed: Callable[[Mapping[str, Any]], dict[str, Any]] = dict) -> Routing:
    """The configuration in ``path`` (``alertmanager.yml``) with production time divided by ``factor``. seed: changes it before."""
    document = copy.deepcopy(seed(yaml.safe_load(path.read_text())))
    changes = []
    for name, route in _routes("route", document["route"]):
        for key in _INTERVALS:
            if key in route and (was := str(route[key])) != "0s":
                route[key] = scaled_duration(was, factor)
                if route[key] != was:
                    changes.append(Change(setting=f"alertmanager {name}.{key}", production=was, here=route[key]))
    maintenance = scaled_duration(_MAINTENANCE, factor)
    if maintenance != _MAINTENANCE:
        changes.append(Change(setting="--dispatch.maintenance-interval", production=_MAINTENANCE, here=maintenance))
    return Routing(document=document, maintenance=maintenance, changes=tuple(changes))


def start_alertmanager(supervisor: Supervisor, binary: Path, routing: Routing, *, port: int, webhook: str, token: str) -> Child:
    """Starts it and waits until it, and no other, is ready. webhook: URL of the receiver."""
    directory = supervisor.scratch / "alertmanager"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "alertmanager.yml").write_text(yaml.safe_dump(routing.document, sort_keys=False))
    (directory / "webhook-url").write_text(webhook)
    (directory / "webhook-token").write_text(token)
    child = supervisor.start(
        Command(
            name="alertmanager",
            argv=(
                str(binary),
                f"--config.file={directory / 'alertmanager.yml'}",
                f"--storage.path={directory / 'data'}",
                f"--web.listen-address={LOOPBACK}:{port}",
                f"--dispatch.maintenance-interval={routing.maintenance}",
                # A port for gossip with other instances otherwise.
                "--cluster.listen-address=",
                "--log.level=warn",
            ),
            env={"GOMAXPROCS": "2"},
            cwd=directory,
        )
    )
    _wait(supervisor, child, port, "/-/ready")
    return child


def start_receiver(
    supervisor: Supervisor, services: Path, *, port: int, supabase: tuple[str, str], token: str, prometheus: str, sweep_s: float = 60.0
) -> Child:
    """Starts the receiver (``services``: ``deploy/services``). supabase: URL and service key.

    prometheus: whom it asks about an end; empty: nobody.
    """
    child = supervisor.start(
        Command(
            name="receiver",
            argv=(sys.executable, "-S", "-m", "receiver"),
            env={
                "PATH": os.environ.get("PATH", ""),
                "PYTHONPATH": str(services),
                "SUPABASE_URL": supabase[0],
                "SUPABASE_SERVICE_KEY": supabase[1],
                "RECEIVER_TOKEN": token,
                "RECEIVER_PORT": str(port),
                "RECEIVER_LOG": str((supervisor.logs / RECEIVER_LOG).resolve()),
                "PROMETHEUS_URL": prometheus,
                "RECEIVER_SWEEP_S": str(sweep_s),
            },
            cwd=supervisor.scratch,
        )
    )
    _wait(supervisor, child, port, "/health")
    return child


def start_node_exporter(
    supervisor: Supervisor,
    binary: Path,
    *,
    port: int,
    name: str = "node_exporter",
    before: tuple[str, ...] = (),
    collectors: tuple[str, ...] = _COLLECTORS,
    more: tuple[str, ...] = (),
) -> Child:
    """Starts it with the collectors that the rules read. before: a command that becomes it. more: further flags."""
    child = supervisor.start(
        Command(
            name=name,
            argv=(
                *before,
                str(binary),
                f"--web.listen-address={LOOPBACK}:{port}",
                "--collector.disable-defaults",
                *(f"--collector.{collector}" for collector in collectors),
                *more,
                "--web.disable-exporter-metrics",
                "--log.level=warn",
            ),
            env={"GOMAXPROCS": "1"},
            cwd=supervisor.scratch,
        )
    )
    _wait(supervisor, child, port, "/")
    return child


def start_blackbox(supervisor: Supervisor, binary: Path, config: Path, *, port: int) -> Child:
    """Starts it with the shared modules. config: ``blackbox.yml``."""
    child = supervisor.start(
        Command(
            name="blackbox_exporter",
            argv=(str(binary), f"--config.file={config}", f"--web.listen-address={LOOPBACK}:{port}", "--log.level=warn"),
            env={"GOMAXPROCS": "1"},
            cwd=supervisor.scratch,
        )
    )
    _wait(supervisor, child, port, "/-/healthy")
    return child


def _routes(name: str, route: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The route and those below it, each with a name that tells where it stands."""
    found = [(name, route)]
    for number, below in enumerate(route.get("routes", ())):
        found += _routes(f"{name}.routes[{number}]", below)
    return found


def _wait(supervisor: Supervisor, child: Child, port: int, path: str) -> None:
    with httpx.Client(timeout=1.0, trust_env=False) as client:
        supervisor.wait_ready(child, lambda: answers(client, f"http://{LOOPBACK}:{port}{path}"), timeout_s=_READY_S, port=port)
