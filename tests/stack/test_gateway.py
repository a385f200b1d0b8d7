"""What the gateway is when nobody looks: its slot, its limits, its rights."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import psycopg
import pytest
import websockets

from harness.stack import processes
from harness.stack.backend import Backend, up_database
from harness.stack.home import home_dir

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The gateway with what is behind it."""
    with up_database(home=home_dir(), logs=tmp_path_factory.mktemp("backend"), progress=lambda _line: None) as found:
        yield found


def asked(backend: Backend, query: str) -> list[Any]:
    """First column of a query by the superuser."""
    with psycopg.connect(backend.dsn, autocommit=True) as connection:
        return [row[0] for row in connection.execute(query.encode()).fetchall()]


def becomes(is_so: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """Whether it became so in time."""
    until = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


async def joined(backend: Backend, table: str) -> websockets.ClientConnection:
    """A socket that is subscribed to new rows."""
    query = urlencode({"apikey": backend.keys.service, "vsn": "1.0.0"})
    url = f"{backend.url.replace('http', 'ws', 1)}/realtime/v1/websocket?{query}"
    socket = await websockets.connect(url, max_size=None, proxy=None)
    payload = {"config": {"postgres_changes": [{"event": "INSERT", "schema": "public", "table": table}]}}
    await socket.send(json.dumps({"topic": "realtime:x", "event": "phx_join", "payload": payload, "ref": "1"}))
    async with asyncio.timeout(15):
        while json.loads(await socket.recv())["event"] != "system":
            pass
    return socket


def test_there_is_a_slot_only_while_somebody_listens(backend: Backend) -> None:
    """An idle slot would keep the log for ever, and polling it would cost for nothing."""
    slots = "select slot_name from pg_replication_slots"

    async def listens() -> list[Any]:
        socket = await joined(backend, "calls")
        found = await asyncio.to_thread(asked, backend, slots)
        await socket.close()
        return found

    assert asked(backend, slots) == []
    assert len(asyncio.run(listens())) == 1
    assert becomes(lambda: asked(backend, slots) == [])


def test_a_socket_that_reads_nothing_is_cut_and_costs_no_memory(backend: Backend) -> None:
    """More waits for it than it may have: it is closed with a reason, and the gateway does not grow by what it would have read."""

    async def stuck() -> tuple[int | None, str | None]:
        socket = await joined(backend, "alerts_history")
        socket.transport.pause_reading()
        rows = "insert into alerts_history (service, message) select 'x', repeat('x', 100000) from generate_series(1, 1500)"
        with psycopg.connect(backend.dsn, autocommit=True) as database:
            database.execute(rows.encode())
        await asyncio.sleep(8)
        socket.transport.resume_reading()
        try:
            async with asyncio.timeout(20):
                while True:
                    await socket.recv()
        except websockets.ConnectionClosed as exc:
            return (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (None, None)

    code, reason = asyncio.run(stuck())
    size_mib, _ = processes.usage(backend.pids["gateway"])
    assert code in (1013, None)  # the farewell itself may not get through
    assert reason is None or "reads too slowly" in reason
    assert size_mib is not None
    assert size_mib < 160


def test_passwords_cannot_be_tried_without_end(backend: Backend) -> None:
    """After thirty attempts at once an address waits; the refusal is GoTrue's."""
    headers = {"apikey": backend.keys.anon}
    with httpx.Client(base_url=backend.url, headers=headers, trust_env=False, timeout=20) as client:
        wrong = {"email": "nobody@example.org", "password": "a guess"}
        answers = [client.post("/auth/v1/token?grant_type=password", json=wrong) for _ in range(40)]

    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers[:30]} == {400}
    assert refused
    assert refused[0].json()["error_code"] == "over_request_rate_limit"


def test_the_gateway_is_nobody_special(backend: Backend) -> None:
    """None of its three roles is superuser or passes by row security."""
    query = (
        "select rolname from pg_roles where (rolsuper or rolbypassrls or rolcreaterole)"
        " and rolname in ('authenticator', 'supabase_auth_admin', 'supabase_replication_admin')"
    )

    assert asked(backend, query) == []


def test_users_are_out_of_reach_of_the_api(backend: Backend) -> None:
    """No key reads the schema that has the hashes."""
    for key in (backend.keys.anon, backend.keys.service):
        headers = {"apikey": key, "accept-profile": "auth"}
        answer = httpx.get(f"{backend.url}/rest/v1/users", headers=headers, trust_env=False)
        assert answer.status_code == 406


def test_a_password_is_kept_as_a_hash(backend: Backend) -> None:
    """bcrypt, with a salt of its own."""
    headers = {"apikey": backend.keys.service, "authorization": f"Bearer {backend.keys.service}"}
    for number in range(2):
        body = {"email": f"user-{number}@example.org", "password": "the same password"}
        assert httpx.post(f"{backend.url}/auth/v1/admin/users", json=body, headers=headers, trust_env=False).status_code == 200
    hashes = asked(backend, "select encrypted_password from auth.users")

    assert len(set(hashes)) == 2
    assert all(hashed.startswith("$2b$10$") for hashed in hashes)


@pytest.mark.parametrize("path", ["/rest/v1/calls?limit=1", "/auth/v1/health", "/health", "/auth/v1/no-such-path"])
def test_every_answer_says_that_it_is_not_supabase(backend: Backend, path: str) -> None:
    """Of every service, good or bad."""
    answer = httpx.get(f"{backend.url}{path}", headers={"apikey": backend.keys.service}, trust_env=False)

    assert "not Supabase" in answer.headers["x-voxproof-backend"]
