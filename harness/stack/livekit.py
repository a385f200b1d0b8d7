"""livekit-server on loopback: its configuration, its start, its metrics."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import yaml

from harness.stack.ports import LOOPBACK
from harness.stack.supervise import Child, Command, Supervisor

_READY_S = 20.0
DEPARTURE_TIMEOUT_S = 2
"""How long a room outlives its last participant; the server's own default is 20 s. Claims sfu/rooms and sfu/participants rely on it."""

REALTIME = 2
"""Callers and responder keep time at a higher real-time level (``harness.caller.kernel``), and do everything else at a lower one."""


def config(*, port: int, udp_port: int, metrics_port: int, api_key: str, api_secret: str) -> dict[str, Any]:
    """A single node without Redis that talks to this machine only."""
    return {
        "port": port,
        "bind_addresses": [LOOPBACK],
        "rtc": {
            # Avoids looking for an own address, and the default STUN servers.
            "node_ip": LOOPBACK,
            "use_external_ip": False,
            # The UDP mux leaves loopback out otherwise.
            "enable_loopback_candidate": True,
            "ips": {"includes": ["127.0.0.0/8"]},
            "udp_port": udp_port,
            # ICE over TCP would listen on every interface.
            "tcp_port": 0,
            # Without it livekit_forward_* stay zero whatever happens.
            "forward_stats": {"summary_interval": "1s", "report_interval": "1s", "report_window": "10s"},
        },
        "prometheus": {"port": metrics_port},
        "keys": {api_key: api_secret},
        # Claims sfu/*: a room closes 2 s after the last caller left (20 by default): the gauges return to their baseline within the run.
        "room": {"auto_create": True, "empty_timeout": 10, "departure_timeout": DEPARTURE_TIMEOUT_S},
        "logging": {"level": "info", "json": True, "pion_level": "error"},
    }


def start(supervisor: Supervisor, binary: Path, settings: dict[str, Any]) -> Child:
    """Starts the server and waits until it, and no other, answers."""
    path = supervisor.scratch / "livekit.yaml"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(settings))
    child = supervisor.start(
        Command(
            name="livekit",
            argv=(str(binary), "--config", str(path)),
            env={},
            cwd=supervisor.scratch,
            realtime=REALTIME,
            # It waits for its rooms on the first SIGTERM and leaves on the second.
            signals=(signal.SIGTERM, signal.SIGTERM, signal.SIGKILL),
            grace_s=1.0,
        )
    )
    port = int(settings["port"])
    with httpx.Client(timeout=1.0, trust_env=False) as client:
        supervisor.wait_ready(child, lambda: answers(client, f"http://{LOOPBACK}:{port}/"), timeout_s=_READY_S, port=port)
    return child


def answers(client: httpx.Client, url: str) -> bool:
    """The URL answers with success."""
    try:
        return client.get(url).is_success
    except httpx.HTTPError:
        return False
