"""A small HTTP proxy on loopback that may change, withhold or refuse what passes: the place where defects are seeded from outside."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Mapping

import httpx

from harness.model import value
from harness.stack.ports import LOOPBACK

_TIMEOUT_S = 10.0
_NOT_FORWARDED = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "host", "content-length", "accept-encoding", "content-encoding", "date", "server")
)


@value
class Request:
    method: str
    path: str
    """With its query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@value
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


Forward = Callable[[Request], Answer]
Rule = Callable[[Request, Forward], Answer | None]
"""What happens to a request; ``forward`` passes one on. None: the connection is closed without an answer, and the proxy stops listening."""


class Proxy:
    """Serves until ``close``."""

    def __init__(self, upstream: str, rule: Rule) -> None:
        self._client = httpx.Client(base_url=upstream, timeout=_TIMEOUT_S, trust_env=False)
        self._rule = rule
        self._server = _Server((LOOPBACK, 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="proxy", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{LOOPBACK}:{self._server.server_address[1]}"

    def close(self) -> None:
        self._close_server()
        self._client.close()

    def _close_server(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _forward(self, request: Request) -> Answer:
        headers = {name: text for name, text in request.headers.items() if name not in _NOT_FORWARDED}
        try:
            found = self._client.request(request.method, request.path, headers=headers, content=request.body)
        except httpx.HTTPError as exc:
            return Answer(status=502, headers={}, body=f"{type(exc).__name__}: {exc}".encode())
        kept = {name.lower(): text for name, text in found.headers.items() if name.lower() not in _NOT_FORWARDED}
        return Answer(status=found.status_code, headers=kept, body=found.content)

    def _stop_listening(self) -> None:
        # From a thread of its own: shutdown() waits for the loop that handles this very request.
        threading.Thread(target=self._close_server, daemon=True).start()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): text for name, text in self.headers.items()}
                answer = proxy._rule(Request(method=self.command, path=self.path, headers=headers, body=body), proxy._forward)
                if answer is None:
                    self.close_connection = True
                    proxy._stop_listening()
                    return
                self.send_response(answer.status)
                for name, text in answer.headers.items():
                    self.send_header(name, text)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                """Nothing: a proxy has no log."""

        return Handler


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Nothing: a client that went away in the middle is no news."""
