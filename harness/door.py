"""The way into one HTTP source: its client, with what opens the door, and what passing it cost."""

from __future__ import annotations

import ssl
import threading

import httpx

from harness.model import Cost, Door, Source


class Meter:
    """Counts what our requests of one source come to. Threads may share it."""

    def __init__(self, source: Source) -> None:
        self._cost = Cost(source=source)
        self._lock = threading.Lock()

    @property
    def cost(self) -> Cost:
        return self._cost

    def add(self, *, took_s: float, size_bytes: int, requests: int = 1) -> None:
        with self._lock:
            before = self._cost
            self._cost = Cost(
                source=before.source,
                requests=before.requests + requests,
                size_bytes=before.size_bytes + size_bytes,
                took_s=before.took_s + took_s,
            )

    def take(self, response: httpx.Response) -> None:
        """An event hook: the whole answer, with the time from the request to its last byte."""
        response.read()
        self.add(took_s=response.elapsed.total_seconds(), size_bytes=response.num_bytes_downloaded)


def client(door: Door, *, trust_env: bool, timeout_s: float, meter: Meter | None = None) -> httpx.Client:
    """A client that brings the door's headers and certificate with every request.

    Raises OSError if a file of the door cannot be read, ssl.SSLError if it is no certificate or key.
    """
    hooks = {"response": [meter.take]} if meter else {}
    # HTTP/1.1: a shared HTTP/2 connection breaks across threads.
    return httpx.Client(
        http2=False, headers=dict(door.headers), verify=_trusted(door), timeout=timeout_s, trust_env=trust_env, event_hooks=hooks
    )


def _trusted(door: Door) -> ssl.SSLContext | bool:
    if door.ca is None and door.certificate is None:
        return True
    context = ssl.create_default_context(cafile=door.ca)
    if door.certificate is not None:
        context.load_cert_chain(door.certificate, door.key)
    return context
