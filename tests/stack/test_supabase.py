"""The call history as supabase-py and psycopg see it: the gateway's contract, who may do what, the calls of dead jobs, the ledger of migrations."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from postgrest.exceptions import APIError
from supabase import Client, ClientOptions, create_client

from harness.stack.embedded import RunningStack, up
from harness.stack.home import home_dir

pytestmark = pytest.mark.stack

COLUMNS = {
    "calls": {"id", "call_id", "phone_number", "direction", "status", "start_time", "end_time", "duration_seconds"}
    | {"room_name", "agent_version"},
    "transcripts": {"id", "call_id", "role", "content", "timestamp"},
    "tool_executions": {"id", "call_id", "tool_name", "parameters", "result", "success", "latency_ms", "executed_at"},
    "alerts_history": {"id", "severity", "service", "message", "triggered_at", "resolved_at", "acknowledged"},
}
TABLES = tuple(COLUMNS)


class History:
    """A running stack, its database and a client for each key."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack, self.keys = stack, stack.keys
        self.opened: list[httpx.Client] = []
        self.service, self.anon = self.client(self.keys.service), self.client(self.keys.anon)

    def client(self, key: str, *, token: str | None = None) -> Client:
        """Without retries, which hide what we look for."""
        self.opened.append(httpx.Client(timeout=10, trust_env=False))
        options = ClientOptions(httpx_client=self.opened[-1], auto_refresh_token=False, persist_session=False, headers={})
        client = create_client(str(self.stack.target.supabase_url), key, options)
        if token:
            client.postgrest.auth(token)
        return client

    def signed_in(self) -> Client:
        """As somebody with an account."""
        claims = {"role": "authenticated", "sub": str(uuid.uuid4()), "exp": 4_102_444_800}
        return self.client(self.keys.anon, token=jwt.encode(claims, self.keys.secret, algorithm="HS256"))

    def call(self, **columns: Any) -> str:
        """A new call's id."""
        call_id = f"call-{uuid.uuid4()}"
        row = {"call_id": call_id, "phone_number": "+447700900001", "direction": "inbound", "status": "active", **columns}
        self.service.table("calls").insert(row).execute()
        return call_id

    def row(self, call_id: str) -> dict[str, Any]:
        """That call's row."""
        found = self.service.table("calls").select("*").eq("call_id", call_id).single().execute().data
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """One stack for all of them."""
    with up(home=home_dir(), logs=tmp_path_factory.mktemp("logs"), progress=lambda _: None, with_agent=False) as stack:
        found = History(stack)
        yield found
        for client in found.opened:
            client.close()


def test_rows_come_back_with_defaults_and_the_servers_clock(history: History) -> None:
    """Ids and instants are made where the client brings none; recorded_at is the server's."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    row = history.row(history.call())

    assert str(uuid.UUID(row["id"])) == row["id"]
    assert datetime.fromisoformat(row["recorded_at"]) > before
    assert datetime.fromisoformat(row["heartbeat_at"]) > before
    assert (row["status"], row["end_time"], row["duration_seconds"]) == ("active", None, None)


def test_a_retried_insert_doubles_nothing(history: History) -> None:
    """A row with the client's own id is one row, however often it is sent; the first stays."""
    call_id, row_id = history.call(), str(uuid.uuid4())
    for text in ("first", "second"):
        row = {"id": row_id, "call_id": call_id, "role": "user", "content": text}
        history.service.table("transcripts").upsert(row, on_conflict="id", ignore_duplicates=True).execute()

    found = history.service.table("transcripts").select("content").eq("call_id", call_id).execute()
    assert found.data == [{"content": "first"}]


def test_transcripts_and_tools_go_with_their_call(history: History) -> None:
    """Deleted with it; and none without one."""
    call_id = history.call()
    history.service.table("transcripts").insert({"call_id": call_id, "role": "user", "content": "hello"}).execute()
    history.service.table("tool_executions").insert({"call_id": call_id, "tool_name": "t", "parameters": {"a": [1]}}).execute()
    history.service.table("calls").delete().eq("call_id", call_id).execute()

    for table in ("transcripts", "tool_executions"):
        assert history.service.table(table).select("id").eq("call_id", call_id).execute().data == []
    with pytest.raises(APIError, match="23503"):
        history.service.table("transcripts").insert({"call_id": "nobody", "role": "user", "content": "x"}).execute()


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("calls", {"call_id": "x", "phone_number": "y", "status": "ringing"}),
        ("calls", {"call_id": "x", "phone_number": "y", "direction": "sideways"}),
        ("transcripts", {"role": "robot", "content": "x"}),
        ("alerts_history", {"severity": "huge", "service": "s", "message": "m"}),
    ],
)
def test_values_beyond_the_closed_sets_are_refused(history: History, table: str, row: dict[str, str]) -> None:
    """The sets of the specification are checked by the database itself."""

    with pytest.raises(APIError, match="23514"):
        history.service.table(table).insert(row).execute()


def test_filters_order_and_pages(history: History) -> None:
    """As supabase-py sends them: repeated keys, quoted lists, paging by parameters, counting by header."""
    rooms = [f'room "{uuid.uuid4()}", {number}' for number in range(5)]
    for room in rooms:
        history.call(room_name=room)
    table = history.service.table("calls")

    page = table.select("room_name").in_("room_name", rooms).order("recorded_at").range(1, 2).execute()
    counted = table.select("*", count="exact", head=True).in_("room_name", rooms).execute()  # type: ignore[arg-type]
    assert [row["room_name"] for row in page.data] == rooms[1:3]  # type: ignore[index,call-overload]
    assert (counted.count, counted.data) == (5, [])


def test_one_thousand_rows_at_most(history: History) -> None:
    """Silently, as Supabase does; only the count tells."""
    call_id = history.call()
    history.service.table("transcripts").insert([{"call_id": call_id, "role": "user", "content": str(n)} for n in range(1001)]).execute()
    found = history.service.table("transcripts").select("id", count="exact").eq("call_id", call_id).execute()  # type: ignore[arg-type]

    assert (len(found.data), found.count) == (1000, 1001)


def test_no_single_row_is_an_error(history: History) -> None:
    """PostgREST's own code, through the gateway."""

    with pytest.raises(APIError, match="PGRST116"):
        history.service.table("calls").select("*").eq("call_id", "nobody").single().execute()


@pytest.mark.parametrize("table", TABLES)
def test_a_stranger_is_denied(history: History, table: str) -> None:
    """Denied, not shown an empty table: the grants are explicit."""

    with pytest.raises(APIError, match="42501"):
        history.anon.table(table).select("id").execute()


@pytest.mark.parametrize("table", TABLES)
def test_somebody_signed_in_reads_and_does_not_write(history: History, table: str) -> None:
    """R8: every page needs sign-in; only the service key writes."""
    history.call()
    reader = history.signed_in()

    assert reader.table(table).select("id").limit(1).execute().data is not None
    with pytest.raises(APIError, match="42501"):
        reader.table(table).delete().not_.is_("id", "null").execute()


def test_a_forged_token_is_refused(history: History) -> None:
    """A key of the project does not make another's token good."""
    forged = history.client(history.keys.anon, token=jwt.encode({"role": "service_role"}, "x" * 43, algorithm="HS256"))

    with pytest.raises(APIError, match="PGRST301"):
        forged.table("calls").select("id").execute()


def test_without_a_key_nothing_is_answered(history: History) -> None:
    """As Supabase's gateway says it; and every reply says that this one is not Supabase."""
    answer = httpx.get(f"{history.stack.target.supabase_url}/rest/v1/calls", trust_env=False)

    assert (answer.status_code, answer.json()["message"]) == (401, "No API key found in request")
    assert "not Supabase" in answer.headers["x-voxproof-backend"]


def test_calls_of_dead_jobs_are_ended(history: History) -> None:
    """Silent for longer than allowed: failed, ended at the last heartbeat. A living call and an ended one are left alone."""
    start = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    beat = start + timedelta(seconds=41.6)
    dead = history.call(start_time=start.isoformat(), heartbeat_at=beat.isoformat())
    ended = history.call(start_time=start.isoformat(), heartbeat_at=beat.isoformat(), status="completed", duration_seconds=7)
    alive = history.call()

    answer = history.service.rpc("end_dead_calls", {"max_silence": "30 seconds"}).execute()
    assert answer.data == [dead]
    row = history.row(dead)
    assert (row["status"], row["duration_seconds"], datetime.fromisoformat(row["end_time"])) == ("failed", 42, beat)
    assert (history.row(ended)["status"], history.row(ended)["duration_seconds"]) == ("completed", 7)
    assert history.row(alive)["status"] == "active"
    assert history.service.rpc("end_dead_calls", {"max_silence": "30 seconds"}).execute().data == []


def test_a_call_whose_heartbeat_was_before_its_start_lasts_zero_seconds(history: History) -> None:
    """Clocks of worker and database differ; a duration is never negative."""
    start = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    call_id = history.call(start_time=start.isoformat(), heartbeat_at=(start - timedelta(seconds=5)).isoformat())
    history.service.rpc("end_dead_calls").execute()

    assert history.row(call_id)["duration_seconds"] == 0


@pytest.mark.parametrize("who", ["anon", "signed in"])
def test_nobody_else_ends_calls(history: History, who: str) -> None:
    """The function is the service key's."""
    client = history.anon if who == "anon" else history.signed_in()

    with pytest.raises(APIError, match="42501"):
        client.rpc("end_dead_calls").execute()


def test_only_the_superuser_has_the_superusers_password(history: History) -> None:
    """Passwords are asked for on loopback too."""

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(replace(history.stack.database, superuser_password="guess").dsn())


def test_every_table_is_guarded(history: History) -> None:
    """Row level security on each table of the API, and no grant to strangers."""
    with psycopg.connect(history.stack.database.dsn()) as connection:
        open_tables = connection.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' and not relrowsecurity"
        )
        assert open_tables.fetchall() == []
        granted = connection.execute(
            "select table_name, privilege_type from information_schema.role_table_grants"
            " where grantee in ('anon', 'PUBLIC') and table_schema = 'public'"
        )
        assert granted.fetchall() == []


def test_the_api_has_the_columns_of_the_specification(history: History) -> None:
    """PostgREST's own description names them; none is renamed or dropped."""
    url, key = history.stack.target.supabase_url, history.keys.service
    described = httpx.get(f"{url}/rest/v1/", headers={"apikey": key, "accept": "application/openapi+json"}, trust_env=False)
    columns = {name: set(table["properties"]) for name, table in json.loads(described.text)["definitions"].items()}

    for table, names in COLUMNS.items():
        assert columns[table] >= names
