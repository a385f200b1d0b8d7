"""The media server as callers reach it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.model import PeerMode, value


@value
class Network:
    """Where the calls go and with which credentials."""

    url: str
    """As the user wrote it: ``ws``, ``wss``, ``http`` or ``https``."""
    api_key: str
    api_secret: str
    mode: PeerMode = PeerMode.SINGLE

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
            msg = f"LIVEKIT_URL is {self.url!r}; wanted something like ws://127.0.0.1:7880"
            raise UsageError(msg)

    @property
    def websocket_url(self) -> str:
        """``ws`` or ``wss``, without a slash at the end."""
        return self.url.replace("http", "ws", 1).rstrip("/") if self.url.startswith("http") else self.url.rstrip("/")

    @property
    def http_url(self) -> str:
        """``http`` or ``https``, without a slash at the end."""
        return self.websocket_url.replace("ws", "http", 1)

    @property
    def is_loopback(self) -> bool:
        """The server is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"
