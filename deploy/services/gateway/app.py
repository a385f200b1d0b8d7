"""Supabase's paths and keys in front of PostgreSQL and a real PostgREST, for the embedded stack; every reply says that it is not Supabase.

``/rest/v1`` goes to PostgREST, ``/auth/v1`` and ``/realtime/v1`` are ours. Environment: ``POSTGREST_URL``, ``SUPABASE_ANON_KEY``,
``SUPABASE_SERVICE_KEY``, ``JWT_SECRET``, and connection strings of three roles, none of them superuser: ``AUTHENTICATOR_DATABASE_URL``,
``AUTH_DATABASE_URL``, ``REPLICATION_DATABASE_URL``; ``REFRESH_REUSE_S`` if not GoTrue's ten seconds. Run by uvicorn: ``gateway.app:application``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

import httpx
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth import REUSE_S, Auth
from gateway.realtime import Realtime
from gateway.tokens import Tokens

BACKEND = "x-voxproof-backend"
NOTICE = "embedded: PostgREST behind a thin gateway, not Supabase"
_METHODS = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"]
# RFC 9110 7.6.1, and those that httpx and uvicorn set anew.
_NOT_FORWARDED = frozenset(
    (
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "accept-encoding",
        "apikey",
        "date",
        "server",
    )
)
_TIMEOUT_S = 30.0


def application() -> Starlette:
    """The gateway, configured from the environment."""
    tokens = Tokens(os.environ["JWT_SECRET"])
    as_anyone, as_auth = (_pool(os.environ[name]) for name in ("AUTHENTICATOR_DATABASE_URL", "AUTH_DATABASE_URL"))
    return gateway(
        postgrest_url=os.environ["POSTGREST_URL"],
        keys=(os.environ["SUPABASE_ANON_KEY"], os.environ["SUPABASE_SERVICE_KEY"]),
        auth=Auth(pool=as_auth, tokens=tokens, reuse_s=float(os.environ.get("REFRESH_REUSE_S", REUSE_S))),
        realtime=Realtime(replication_dsn=os.environ["REPLICATION_DATABASE_URL"], pool=as_anyone, tokens=tokens),
        pools=(as_anyone, as_auth),
    )


def gateway(
    *,
    postgrest_url: str,
    keys: tuple[str, ...],
    transport: httpx.AsyncBaseTransport | None = None,
    auth: Auth | None = None,
    realtime: Realtime | None = None,
    pools: tuple[AsyncConnectionPool, ...] = (),
) -> Starlette:
    """An ASGI application.

    keys: the project's API keys; a request must bring one of them as ``apikey``, as header or parameter. pools: opened and closed with it.
    """
    rest = _Rest(httpx.URL(postgrest_url), transport)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as exits:
            exits.push_async_callback(rest.client.aclose)
            for pool in pools:
                await exits.enter_async_context(pool)
            if realtime is not None:
                await exits.enter_async_context(realtime.running())
            yield

    routes: list[BaseRoute] = [Route("/health", rest.health), Route("/rest/v1/{path:path}", rest.pass_on, methods=_METHODS)]
    routes += [*(auth.routes() if auth else ()), *(realtime.routes() if realtime else ())]
    # Outside in: whatever answers is marked, pages of other origins may read it, and nothing passes without a key.
    middleware = [
        Middleware(_Marked),
        Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=["*", "content-range"]),
        Middleware(_Keyed, keys=keys),
    ]
    return Starlette(routes=routes, lifespan=lifespan, middleware=middleware)


class _Rest:
    """``/rest/v1``, passed on."""

    def __init__(self, upstream: httpx.URL, transport: httpx.AsyncBaseTransport | None) -> None:
        self._upstream = upstream
        # No connection is kept: one that the other end gives up while a request is on its way costs an answer (once in eighty runs), a new one to
        # this machine costs nothing.
        self.client = httpx.AsyncClient(
            timeout=_TIMEOUT_S, transport=transport, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def pass_on(self, request: Request) -> Response:
        headers = {name: text for name, text in request.headers.items() if name not in _NOT_FORWARDED and name != "origin"}
        # As Supabase's own gateway does: the key stands in for a token of a signed-in user.
        headers.setdefault("authorization", f"Bearer {_apikey(request.scope)}")
        url = self._upstream.copy_with(raw_path=_target(request))
        try:
            answer = await self.client.request(request.method, url, headers=headers, content=await request.body())
        except httpx.HTTPError as exc:
            return self._silent(502, exc)
        response = Response(answer.content, answer.status_code)
        for name, text in answer.headers.items():
            if name not in _NOT_FORWARDED and not name.startswith("access-control-"):
                response.headers[name] = text
        return response

    async def health(self, _: Request) -> Response:
        try:
            answer = await self.client.get(self._upstream, headers={"accept": "application/openapi+json"})
        except httpx.HTTPError as exc:
            return self._silent(503, exc)
        status = 200 if answer.status_code < 500 else 503
        return JSONResponse({"name": "voxproof gateway", "backend": NOTICE, "rest": answer.status_code}, status)

    def _silent(self, status: int, exc: Exception) -> Response:
        return JSONResponse({"message": f"PostgREST at {str(self._upstream).rstrip('/')} did not answer: {type(exc).__name__}"}, status)


class _Marked:
    """Every answer names the backend."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[BACKEND] = NOTICE
            await send(message)

        await self._app(scope, receive, marked)


class _Keyed:
    """No path below ``/x/v1`` without one of the project's keys."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(_apikey(scope))
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await JSONResponse({"message": refusal}, 401)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 4001, "reason": refusal})

    def _refusal(self, apikey: str | None) -> str | None:
        if apikey is None:
            return "No API key found in request"
        if not any(secrets.compare_digest(apikey.encode(), key.encode()) for key in self._keys):
            return "Invalid API key"
        return None


def _apikey(scope: Scope) -> str | None:
    """The key of a request: header, else parameter."""
    found = Headers(scope=scope).get("apikey")
    return found or next(iter(parse_qs(scope["query_string"].decode("latin-1")).get("apikey", ())), None)


def _target(request: Request) -> bytes:
    """Path and query for PostgREST, byte for byte as they came but for the key."""
    path = request.scope["raw_path"].partition(b"?")[0].removeprefix(b"/rest/v1") or b"/"
    query = b"&".join(part for part in request.scope["query_string"].split(b"&") if part and not part.startswith(b"apikey="))
    return bytes(path + b"?" + query) if query else bytes(path)


def _pool(dsn: str) -> AsyncConnectionPool:
    """Connections made when they are first needed: the gateway may be up before the database."""
    return AsyncConnectionPool(dsn, min_size=0, max_size=4, open=False, timeout=_TIMEOUT_S)
