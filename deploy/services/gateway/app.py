"""Supabase's paths and keys in front of a real PostgREST, for the embedded stack; every reply says that it is not Supabase.

Here: ``/rest/v1`` and ``/health``. ``/auth/v1`` and ``/realtime/v1`` answer 501 until they exist. Environment: ``POSTGREST_URL``,
``SUPABASE_ANON_KEY``, ``SUPABASE_SERVICE_KEY``. Run by uvicorn: ``app:application``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Mapping

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

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
    return gateway(
        postgrest_url=os.environ["POSTGREST_URL"],
        keys=(os.environ["SUPABASE_ANON_KEY"], os.environ["SUPABASE_SERVICE_KEY"]),
    )


def gateway(*, postgrest_url: str, keys: tuple[str, ...], transport: httpx.AsyncBaseTransport | None = None) -> Starlette:
    """An ASGI application.

    keys: the project's API keys; a request must bring one of them as ``apikey``, as header or parameter.
    """
    upstream = httpx.URL(postgrest_url)
    client = httpx.AsyncClient(timeout=_TIMEOUT_S, transport=transport, trust_env=False)

    async def rest(request: Request) -> Response:
        apikey = request.headers.get("apikey") or request.query_params.get("apikey")
        if refusal := _refusal(apikey, keys):
            return refusal
        headers = {name: text for name, text in request.headers.items() if name not in _NOT_FORWARDED}
        # As Supabase's own gateway does: the key stands in for a token of a signed-in user.
        headers.setdefault("authorization", f"Bearer {apikey}")
        try:
            answer = await client.request(
                request.method,
                upstream.copy_with(raw_path=_target(request)),
                headers=headers,
                content=await request.body(),
            )
        except httpx.HTTPError as exc:
            return _said(502, f"PostgREST at {postgrest_url} did not answer: {type(exc).__name__}")
        return _with_headers(Response(answer.content, answer.status_code), answer.headers)

    async def health(_: Request) -> Response:
        try:
            answer = await client.get(upstream, headers={"accept": "application/openapi+json"})
        except httpx.HTTPError as exc:
            return _said(503, f"PostgREST at {postgrest_url} did not answer: {type(exc).__name__}")
        status = 200 if answer.status_code < 500 else 503
        return JSONResponse({"name": "voxproof gateway", "backend": NOTICE, "rest": answer.status_code}, status)

    async def not_yet(request: Request) -> Response:
        return _said(501, f"this gateway has no {request.url.path.split('/')[1]} yet: {NOTICE}")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    routes = [
        Route("/health", health),
        Route("/rest/v1/{path:path}", rest, methods=_METHODS),
        Route("/auth/v1/{path:path}", not_yet, methods=_METHODS),
        Route("/realtime/v1/{path:path}", not_yet, methods=_METHODS),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _target(request: Request) -> bytes:
    """Path and query for PostgREST, byte for byte as they came but for the key."""
    path = request.scope["raw_path"].partition(b"?")[0].removeprefix(b"/rest/v1") or b"/"
    query = b"&".join(part for part in request.scope["query_string"].split(b"&") if part and not part.startswith(b"apikey="))
    return bytes(path + b"?" + query) if query else bytes(path)


def _refusal(apikey: str | None, keys: tuple[str, ...]) -> Response | None:
    if apikey is None:
        return _said(401, "No API key found in request")
    if not any(secrets.compare_digest(apikey.encode(), key.encode()) for key in keys):
        return _said(401, "Invalid API key")
    return None


def _said(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status, headers={BACKEND: NOTICE})


def _with_headers(response: Response, headers: Mapping[str, str]) -> Response:
    for name, text in headers.items():
        if name.lower() not in _NOT_FORWARDED:
            response.headers[name] = text
    response.headers[BACKEND] = NOTICE
    return response
