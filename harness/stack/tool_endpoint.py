"""The endpoint that the reference agent's tools call: it answers after a programmed time, and writes down that a tool really ran, with what."""

from __future__ import annotations

import http.server
import json
import threading
import time
from pathlib import Path

from harness.clock import Clock
from harness.stack.ports import LOOPBACK

LOG = "tool-endpoint.jsonl"
"""Beside the parts' logs: one line a request, on disk before it is answered."""
DELAY_S = 0.05


class ToolEndpoint:
    """Serves ``POST /NAME`` with ``{"room": ..., "arguments": {...}}`` on a free loopback port until ``close``."""

    def __init__(self, log: Path, *, delay_s: float = DELAY_S) -> None:
        self._log, self._delay_s, self._clock = log, delay_s, Clock.start()
        self._lock = threading.Lock()
        log.touch()
        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="tools", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _ran(self, tool: str, body: bytes) -> tuple[int, str]:
        """Status and what the tool answers."""
        at, began = self._clock.now(), time.perf_counter()
        try:
            asked = json.loads(body)
            room, arguments = str(asked["room"]), dict(asked["arguments"])
        except (ValueError, KeyError, TypeError):
            return 400, "wanted a JSON object with room and arguments"
        time.sleep(self._delay_s)
        took_s = time.perf_counter() - began
        line = json.dumps({"at": at, "room": room, "tool_name": tool, "arguments": arguments, "took_s": took_s, "status": 200})
        with self._lock, self._log.open("a") as out:
            out.write(line + "\n")
        return 200, f"sunny in {arguments.get('city', 'an unknown place')}"

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, output = endpoint._ran(self.path.strip("/"), body)
                answer = json.dumps({"output": output}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing: what was asked is in the log of the run."""

        return Handler
