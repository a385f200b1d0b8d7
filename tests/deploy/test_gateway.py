"""The gateway's part of the Supabase contract, before a recorded upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from gateway import app as gateway

KEYS = ("the-anon-key", "the-service-key")
Upstream = Callable[[httpx.Request], httpx.Response]


def ask(
    method: str, url: str, *, upstream: Upstream | None = None, headers: dict[str, str] | None = None, body: bytes = b""
) -> httpx.Response:
    """One request to a gateway before ``upstream``."""

    def refuses(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async def asked() -> httpx.Response:
        app = gateway.gateway(postgrest_url="http://postgrest:3000", keys=KEYS, transport=httpx.MockTransport(upstream or refuses))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return await client.request(method, url, headers=headers, content=body)

    return asyncio.run(asked())


class Recorder:
    """An upstream that remembers what it was asked."""

    def __init__(self, answer: httpx.Response | None = None) -> None:
        self.answer = answer or httpx.Response(200, json=[])
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer


def test_no_key_is_refused() -> None:
    """Without apikey nothing reaches PostgREST."""
    upstream = Recorder()
    answer = ask("GET", "/rest/v1/calls", upstream=upstream)

    assert (answer.status_code, answer.json()) == (401, {"message": "No API key found in request"})
    assert upstream.requests == []


def test_a_wrong_key_is_refused() -> None:
    """A token that PostgREST might accept is no key of this project."""
    answer = ask("GET", "/rest/v1/calls", upstream=Recorder(), headers={"apikey": "another"})

    assert (answer.status_code, answer.json()) == (401, {"message": "Invalid API key"})


def test_the_key_stands_in_for_a_token() -> None:
    """Without Authorization the role is the key's; the key itself is not passed on."""
    upstream = Recorder()
    ask("GET", "/rest/v1/calls", upstream=upstream, headers={"apikey": "the-anon-key"})

    (request,) = upstream.requests
    assert request.headers["authorization"] == "Bearer the-anon-key"
    assert "apikey" not in request.headers


def test_a_users_token_is_kept() -> None:
    """With Authorization the role is the token's."""
    upstream = Recorder()
    ask("GET", "/rest/v1/calls", upstream=upstream, headers={"apikey": "the-anon-key", "authorization": "Bearer a-user"})

    assert upstream.requests[0].headers["authorization"] == "Bearer a-user"


def test_the_key_may_be_a_parameter() -> None:
    """As in Supabase's own URLs; the rest of the query passes byte for byte."""
    upstream = Recorder()
    ask("GET", "/rest/v1/calls?select=a%2Cb&apikey=the-service-key&room_name=in.(a,%22b,c%22)", upstream=upstream)

    assert upstream.requests[0].url.raw_path == b"/calls?select=a%2Cb&room_name=in.(a,%22b,c%22)"


def test_bodies_and_preferences_pass() -> None:
    """Method, body, Prefer and profile headers arrive; status and Content-Range come back."""
    upstream = Recorder(httpx.Response(206, content=b"[1]", headers={"content-range": "0-0/42", "content-type": "application/json"}))
    answer = ask(
        "POST",
        "/rest/v1/calls?on_conflict=id",
        upstream=upstream,
        headers={"apikey": "the-service-key", "prefer": "resolution=merge-duplicates", "content-profile": "public"},
        body=b'{"a": 1}',
    )

    (request,) = upstream.requests
    assert (request.method, request.content) == ("POST", b'{"a": 1}')
    assert (request.headers["prefer"], request.headers["content-profile"]) == ("resolution=merge-duplicates", "public")
    assert (answer.status_code, answer.content, answer.headers["content-range"]) == (206, b"[1]", "0-0/42")


@pytest.mark.parametrize("url", ["/rest/v1/calls", "/rest/v1/nothing", "/auth/v1/token", "/realtime/v1/websocket"])
def test_every_answer_says_that_it_is_not_supabase(url: str) -> None:
    """Nobody takes a figure measured here for one of Supabase's."""
    answer = ask("GET", url, upstream=Recorder(), headers={"apikey": "the-anon-key"})

    assert "not Supabase" in answer.headers["x-voxproof-backend"]


def test_a_dead_postgrest_is_named() -> None:
    """502 with what did not answer, and health is bad."""
    answer = ask("GET", "/rest/v1/calls", headers={"apikey": "the-anon-key"})

    assert answer.status_code == 502
    assert answer.json() == {"message": "PostgREST at http://postgrest:3000 did not answer: ConnectError"}
    assert ask("GET", "/health").status_code == 503


def test_health_is_postgrests() -> None:
    """A gateway before a living PostgREST is healthy."""

    assert ask("GET", "/health", upstream=Recorder()).status_code == 200


def test_a_page_of_another_origin_may_ask() -> None:
    """The dashboard is served from elsewhere; a preflight brings no key."""
    headers = {"origin": "http://dashboard", "access-control-request-method": "GET", "access-control-request-headers": "apikey"}
    answer = ask("OPTIONS", "/rest/v1/calls", headers=headers)

    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")


def test_postgrests_own_cors_headers_are_not_doubled() -> None:
    """Two values would be refused by a browser."""
    upstream = Recorder(httpx.Response(200, json=[], headers={"access-control-allow-origin": "http://dashboard"}))
    answer = ask("GET", "/rest/v1/calls", upstream=upstream, headers={"apikey": "the-anon-key", "origin": "http://dashboard"})

    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
