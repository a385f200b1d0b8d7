"""A media server of its own, without the rest of a stack: for a probe, a benchmark or a test of the media engine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.clock import Clock
from harness.model import value
from harness.stack import livekit, ports
from harness.stack.ports import LOOPBACK
from harness.stack.supervise import Supervisor


@value
class MediaServer:
    """A running livekit-server on loopback."""

    url: str
    api_key: str
    api_secret: str
    metrics_url: str
    udp_port: int
    """Of all media."""
    pid: int


@contextmanager
def lone_media_server(binary: Path, logs: Path) -> Iterator[MediaServer]:
    """Starts ``binary`` and ends it with the block."""
    free = ports.free(("port", "udp_port", "metrics_port"))
    key, secret = "API" + secrets.token_hex(6), secrets.token_hex(20)
    with Supervisor(logs=logs, clock=Clock.start()) as supervisor:
        child = livekit.start(supervisor, binary, livekit.config(**free, api_key=key, api_secret=secret))
        yield MediaServer(
            url=f"ws://{LOOPBACK}:{free['port']}",
            api_key=key,
            api_secret=secret,
            metrics_url=f"http://{LOOPBACK}:{free['metrics_port']}/metrics",
            udp_port=free["udp_port"],
            pid=child.pid,
        )
