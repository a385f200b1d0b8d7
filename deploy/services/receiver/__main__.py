"""``python -m receiver``: the server. Environment:

SUPABASE_URL, SUPABASE_SERVICE_KEY   where rows go
RECEIVER_TOKEN                       what Alertmanager must bring (its ``webhook-token``)
RECEIVER_PORT, RECEIVER_HOST         9199 on 127.0.0.1
RECEIVER_LOG                         append-only JSON lines, one a delivery: what came when, and whether it was stored; none if not set
PROMETHEUS_URL                       asked whether an alert that ends is really over; not asked if not set
RECEIVER_SWEEP_S                     how often open rows are held against Prometheus (60); a row that it has not spoken of three times is closed
"""

from __future__ import annotations

import datetime as dt
import hmac
import http.server
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from receiver.episodes import Active, active_of, rows
from receiver.sweep import Sweep

_MOST_BYTES = 8_000_000
_STORE_S = 5.0
_ASK_S = 2.0
_MOST_SWEPT = 500


class Store:
    """The table, behind PostgREST."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/") + "/rest/v1"
        self._headers = {"apikey": key, "authorization": f"Bearer {key}", "content-type": "application/json"}

    def record(self, episodes: list[dict[str, Any]]) -> None:
        """All of them or none. Raises OSError saying why not."""
        self._ask("/rpc/record_alerts", json.dumps({"alerts": episodes}).encode())

    def open_rows(self) -> list[dict[str, Any]]:
        """Episodes without an end. Raises OSError saying why they cannot be read."""
        columns = "fingerprint,starts_at,severity,service,message,labels"
        found: list[dict[str, Any]] = json.loads(
            self._ask(f"/alerts_history?select={columns}&resolved_at=is.null&fingerprint=not.is.null&limit={_MOST_SWEPT}")
        )
        return found

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self._url + path, data=body, headers=self._headers, method="POST" if body else "GET")
        try:
            with _open(request, _STORE_S) as answer:
                said: bytes = answer.read()
                return said
        except urllib.error.HTTPError as exc:
            raise OSError(f"{exc.code}: {exc.read(300).decode(errors='replace')}") from exc


class Log:
    """Append-only; a line is on disk, or in the kernel's hands, before the delivery is answered."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._lock = threading.Lock()

    def write(self, line: dict[str, Any]) -> None:
        if self._path is not None:
            # Opened anew each time: it may be moved away.
            with self._lock, Path(self._path).open("a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")


class Receiver(http.server.BaseHTTPRequestHandler):
    """POST / is Alertmanager's; GET /health says that the process is there."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    store: Store
    log: Log
    token: str
    prometheus: str | None

    def do_GET(self) -> None:
        is_known = self.path == "/health"
        self._answer(200 if is_known else 404, "alive" if is_known else "POST notifications to /, GET /health")

    def do_POST(self) -> None:
        at = time.time_ns()
        size = int(self.headers.get("content-length") or 0)
        if size > _MOST_BYTES:
            self.close_connection = True
            self._answer(413, f"more than {_MOST_BYTES} bytes")
            return
        body = self.rfile.read(size)
        if not hmac.compare_digest(self.headers.get("authorization") or "", f"Bearer {self.token}"):
            self._answer(401, "wrong or no token")
            return
        try:
            told = json.loads(body)
            episodes = list(rows(told, active(self.prometheus), is_asked=self.prometheus is not None))
        except ValueError as exc:
            self._answer(400, str(exc))
            return
        error = self._stored(episodes)
        self.log.write(
            {
                "at": at,
                "stored_at": None if error else time.time_ns(),
                "error": error,
                "group": told.get("groupKey"),
                "truncated": told.get("truncatedAlerts", 0),
                "alerts": [
                    {key: alert.get(key) for key in ("status", "fingerprint", "startsAt", "endsAt", "labels")} for alert in told["alerts"]
                ],
                "episodes": [{key: row[key] for key in ("fingerprint", "starts_at", "ends_at", "resolution")} for row in episodes],
            }
        )
        # 5xx, whatever the store said: Alertmanager tells a notification again then, and drops it after any 4xx.
        self._answer(503 if error else 200, error or "stored")

    def _stored(self, episodes: list[dict[str, Any]]) -> str | None:
        """Why they were not. None: they were."""
        try:
            self.store.record(episodes)
        except OSError as exc:
            sys.stderr.write(f"not stored: {exc}\n")
            return f"not stored: {exc}"
        return None

    def _answer(self, status: int, text: str) -> None:
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what matters is in the log of deliveries."""


def active(prometheus: str | None) -> Active | None:
    """What Prometheus says now. None: there is none, or it does not answer."""
    if prometheus is None:
        return None
    try:
        with _open(urllib.request.Request(prometheus.rstrip("/") + "/api/v1/alerts"), _ASK_S) as answer:
            return active_of(json.loads(answer.read()))
    except (OSError, ValueError, KeyError):
        return None


def sweep(store: Store, prometheus: str, log: Log, every_s: float, is_over: threading.Event) -> None:
    """Closes open rows of which nobody speaks any more, until it is over."""
    swept = Sweep()
    while not is_over.wait(every_s):
        now = active(prometheus)
        if now is None:
            continue
        try:
            gone = swept.look(store.open_rows(), now, at=dt.datetime.now(dt.UTC))
            if gone:
                store.record(gone)
                log.write({"at": time.time_ns(), "swept": gone})
        except OSError as exc:
            sys.stderr.write(f"not swept: {exc}\n")


def _open(request: urllib.request.Request, timeout_s: float) -> Any:
    # No proxy of the environment: both ends are neighbours.
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_s)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True  # a delivery that is cut off is told again
    allow_reuse_address = True


def main() -> None:
    """Serves until SIGTERM."""
    Receiver.store = Store(os.environ["SUPABASE_URL"], os.environ["SUPABASE_SERVICE_KEY"])
    Receiver.log = Log(os.environ.get("RECEIVER_LOG"))
    Receiver.token = os.environ["RECEIVER_TOKEN"]
    Receiver.prometheus = os.environ.get("PROMETHEUS_URL") or None
    server = _Server((os.environ.get("RECEIVER_HOST", "127.0.0.1"), int(os.environ.get("RECEIVER_PORT", "9199"))), Receiver)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    is_over = threading.Event()
    if Receiver.prometheus is not None:
        every_s = float(os.environ.get("RECEIVER_SWEEP_S", "60"))
        threading.Thread(target=sweep, args=(Receiver.store, Receiver.prometheus, Receiver.log, every_s, is_over), daemon=True).start()
    server.serve_forever(poll_interval=0.1)
    is_over.set()
    server.server_close()


if __name__ == "__main__":
    main()
