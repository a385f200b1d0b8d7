"""A media server of its own for a benchmark or a test of the media engine, provisioned if need be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.caller.network import Network
from harness.model import PeerMode, value
from harness.stack.home import home_dir
from harness.stack.lone import MediaServer, lone_media_server
from harness.stack.provision import obtain


@value
class Sfu:
    """A running livekit-server on loopback."""

    server: MediaServer

    @property
    def metrics_url(self) -> str:
        """Its series."""
        return self.server.metrics_url

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.server.pid

    def network(self, mode: PeerMode = PeerMode.SINGLE) -> Network:
        """As callers reach it."""
        return Network(url=self.server.url, api_key=self.server.api_key, api_secret=self.server.api_secret, mode=mode)


@contextmanager
def lone_sfu(logs: Path) -> Iterator[Sfu]:
    """Starts livekit-server and ends it."""
    part = obtain("livekit-server", home=home_dir(), progress=lambda line: print(line, file=sys.stderr))
    with lone_media_server(part.path, logs) as server:
        yield Sfu(server=server)
