"""Every REST call that the harness, the telemetry library and the dashboard make, by the clients that make them."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from postgrest import CountMethod
from postgrest.exceptions import APIError
from supabase import Client
from voxproof_telemetry.rows import RowWriter

from harness.clock import Clock
from harness.collect.rows import Rows
from harness.model import Gap, Poll, Row
from tests.contract.project import Project, call_id

pytestmark = pytest.mark.stack
CALL = {"phone_number": "+15550100", "direction": "inbound", "status": "active"}


def placed(client: Client, **columns: Any) -> str:
    """A call's row; its call_id."""
    name = call_id()
    client.table("calls").insert({"call_id": name, **CALL, **columns}).execute()
    return name


def code(ask: Callable[[], Any]) -> str | None:
    """PostgreSQL's or PostgREST's code of what was refused. None: it was done."""
    try:
        ask()
    except APIError as exc:
        return exc.code
    return None


def test_the_harness_reads_rows_beyond_a_page(project: Project) -> None:
    """More rows than a server gives at once come whole, in order, none twice."""
    client = project.service()
    name = placed(client)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for block in range(3):
        rows = [
            {"call_id": name, "role": "user", "content": f"{number}", "timestamp": (start + dt.timedelta(seconds=number // 3)).isoformat()}
            for number in range(block * 400, block * 400 + 400)
        ]
        client.table("transcripts").insert(rows).execute()

    with Rows(project.url, project.service_key, clock=Clock.start()) as rows_of:
        read = rows_of.read([name])
    contents = [item.columns["content"] for item in read if isinstance(item, Row) and item.table == "transcripts"]
    assert [item for item in read if isinstance(item, Gap)] == []
    assert [item.count for item in read if isinstance(item, Poll)] == [1, 1200, 0]
    assert sorted(map(int, contents)) == list(range(1200))


def test_an_answer_is_capped_without_a_word(project: Project) -> None:
    """A thousand rows: why the harness pages and counts."""
    client = project.service()
    name = placed(client)
    for _ in range(2):
        client.table("transcripts").insert([{"call_id": name, "role": "user", "content": "x"}] * 600).execute()
    wanted = client.table("transcripts").select("id").eq("call_id", name).execute()
    counted = client.table("transcripts").select("id", count=CountMethod.exact, head=True).eq("call_id", name).execute()

    assert (len(wanted.data), counted.count) == (1000, 1200)


def test_the_harness_knows_which_calls_are_open(project: Project) -> None:
    """A row without an end is open."""
    client = project.service()
    open_one, ended = placed(client), placed(client, status="completed", end_time="2026-01-01T00:00:00Z")

    with Rows(project.url, project.service_key, clock=Clock.start()) as rows:
        assert rows.open_calls([open_one, ended]) == 1


def written(project: Project, talk: Callable[[RowWriter], None]) -> tuple[str, Counter[str], Counter[str]]:
    """A call written by the library; its call_id, attempts that failed and rows given up, by table."""
    name, errors, lost = call_id(), Counter[str](), Counter[str]()

    async def write() -> None:
        writer = RowWriter(
            url=project.url,
            key=project.service_key,
            call_id=name,
            on_error=lambda table: errors.update((table,)),
            on_lost=lambda table: lost.update((table,)),
        )
        talk(writer)
        await writer.close()

    asyncio.run(write())
    return name, errors, lost


def whole_call(writer: RowWriter) -> None:
    """Start, a turn, a tool call, the end."""
    writer.start(phone_number="+15550100", direction="inbound", room_name="room", agent_version="1", at=1_700_000_000.0)
    writer.transcript("user", "it's “quoted”, 100 %, a\nline", 1_700_000_001.5)
    writer.tool_execution("lookup", {"city": "London"}, {"is": ["sunny"]}, success=True, latency_s=0.25, at=1_700_000_002.0)
    writer.end("completed", started_at=1_700_000_000.0, ended_at=1_700_000_010.0)


def test_the_telemetry_writes_a_call(project: Project) -> None:
    """All of it, as it was said; nothing failed on the way."""
    name, errors, lost = written(project, whole_call)
    read = project.service().table("calls").select("*, transcripts(*), tool_executions(*)").eq("call_id", name).single().execute()
    row: Any = read.data

    assert (errors, lost) == (Counter(), Counter())
    assert (row["status"], row["duration_seconds"], row["start_time"]) == ("completed", 10, "2023-11-14T22:13:20+00:00")
    (said,) = row["transcripts"]
    assert (said["content"], said["timestamp"]) == ("it's “quoted”, 100 %, a\nline", "2023-11-14T22:13:21.5+00:00")
    (used,) = row["tool_executions"]
    assert (used["parameters"], used["result"], used["latency_ms"]) == ({"city": "London"}, {"is": ["sunny"]}, 250)


def test_a_row_sent_twice_is_one_row(project: Project) -> None:
    """The library retries what may have landed."""
    client = project.service()
    name = placed(client)
    row = {"id": "0b5d2f86-91a5-4c2e-8f0e-6d8f7a1c0001", "call_id": name, "role": "user", "content": "once"}
    for _ in range(2):
        client.table("transcripts").upsert(row, on_conflict="id", ignore_duplicates=True).execute()

    assert len(client.table("transcripts").select("id").eq("call_id", name).execute().data) == 1


def test_a_bad_row_is_refused_and_named(project: Project) -> None:
    """A status that there is not, a call that there is not, a column that there is not."""
    client = project.service()
    calls, transcripts = client.table("calls"), client.table("transcripts")

    assert code(lambda: calls.insert({**CALL, "call_id": call_id(), "status": "ringing"}).execute()) == "23514"
    assert code(lambda: transcripts.insert({"call_id": "vp-contract-nobody", "role": "user", "content": ""}).execute()) == "23503"
    assert code(lambda: calls.insert({**CALL, "call_id": call_id(), "colour": "red"}).execute()) == "PGRST204"


def test_the_server_says_when_a_row_was_written(project: Project) -> None:
    """``recorded_at`` is its clock, not the client's ``start_time``."""
    client = project.service()
    name = placed(client, start_time="2001-01-01T00:00:00Z")
    row: Any = client.table("calls").select("recorded_at").eq("call_id", name).single().execute().data
    now: Any = client.rpc("server_now", {}).execute().data

    assert 0 <= (dt.datetime.fromisoformat(now) - dt.datetime.fromisoformat(row["recorded_at"])).total_seconds() < 30


def test_a_silent_call_is_ended(project: Project) -> None:
    """At its last heartbeat; a living one is left alone."""
    client = project.service()
    dead = placed(client, start_time="2026-01-01T00:00:00Z", heartbeat_at="2026-01-01T00:01:30Z")
    alive = placed(client)
    ended: Any = client.rpc("end_dead_calls", {"max_silence": "1 hour"}).execute().data
    row: Any = client.table("calls").select("status, end_time, duration_seconds").eq("call_id", dead).single().execute().data

    assert dead in ended
    assert alive not in ended
    assert row == {"status": "failed", "end_time": "2026-01-01T00:01:30+00:00", "duration_seconds": 90}


def test_old_history_goes_with_all_that_belongs_to_it(project: Project) -> None:
    """Calls that ended, their transcripts, alerts that were resolved; never an active call. Only on a stack of our own."""
    if not project.is_ours:
        pytest.skip("would delete the history of others")
    client = project.service()
    old, active = placed(client, status="completed", start_time="2020-01-01T00:00:00Z"), placed(client, start_time="2020-01-01T00:00:00Z")
    client.table("transcripts").insert({"call_id": old, "role": "user", "content": "x"}).execute()
    times = {"triggered_at": "2020-01-01T00:00:00Z", "resolved_at": "2020-01-01T00:01:00Z"}
    client.table("alerts_history").insert({"service": "vp-contract", "message": "m", "severity": "info", **times}).execute()
    deleted: Any = client.rpc("delete_old_history", {"keep": "2000 days"}).execute().data

    assert deleted == 2
    assert client.table("transcripts").select("id").eq("call_id", old).execute().data == []
    assert len(client.table("calls").select("id").in_("call_id", [old, active]).execute().data) == 1


def test_a_retention_of_nothing_is_refused(project: Project) -> None:
    """A slip of the unit would delete today's calls."""
    assert code(lambda: project.service().rpc("delete_old_history", {"keep": "90 seconds"}).execute()) == "22023"


def dashboard(project: Project, token: str) -> Client:
    """A client with a user's token and the anonymous key."""
    client = project.client()
    client.postgrest.auth(token)
    return client


def test_the_dashboard_counts_calls_of_a_day(project: Project, token: str) -> None:
    """By a count of the server, without a row on the wire."""
    placed(project.service())
    since = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).isoformat()
    found = dashboard(project, token).table("calls").select("id", count=CountMethod.exact, head=True).gte("start_time", since).execute()

    assert found.data == []
    assert found.count is not None
    assert found.count >= 1


def test_the_dashboard_reads_durations(project: Project, token: str) -> None:
    """Of calls that ended, for their mean."""
    name = placed(project.service(), status="completed", duration_seconds=42)
    asked = dashboard(project, token).table("calls").select("duration_seconds").eq("call_id", name)

    assert asked.not_.is_("duration_seconds", "null").execute().data == [{"duration_seconds": 42}]


def test_the_dashboard_shows_the_newest_alerts_first(project: Project, token: str) -> None:
    """In order of when they were triggered."""
    client = project.service()
    rows = [
        {"service": "vp-contract", "severity": "info", "message": f"{hour}", "triggered_at": f"2026-01-01T{hour:02}:00:00Z"}
        for hour in (1, 3, 2)
    ]
    client.table("alerts_history").insert(rows).execute()
    asked = (
        dashboard(project, token).table("alerts_history").select("message").eq("service", "vp-contract").gte("triggered_at", "2026-01-01")
    )
    found: Any = asked.lt("triggered_at", "2026-01-02").order("triggered_at", desc=True).limit(2).execute().data

    assert [row["message"] for row in found] == ["3", "2"]


def test_the_dashboard_joins_a_call_with_what_was_said(project: Project, token: str) -> None:
    """Transcripts and tool calls in one answer, each in its order."""
    name, _, _ = written(project, whole_call)
    asked = dashboard(project, token).table("calls").select("call_id, transcripts(role), tool_executions(tool_name)").eq("call_id", name)

    assert asked.execute().data == [{"call_id": name, "transcripts": [{"role": "user"}], "tool_executions": [{"tool_name": "lookup"}]}]


def test_the_dashboard_filters_tools_by_their_call(project: Project, token: str) -> None:
    """A join the other way, for the list of tools."""
    name, _, _ = written(project, whole_call)
    asked = dashboard(project, token).table("tool_executions").select("tool_name, calls!inner(status)").eq("calls.call_id", name)

    assert asked.execute().data == [{"tool_name": "lookup", "calls": {"status": "completed"}}]


TABLES = ("calls", "transcripts", "tool_executions", "alerts_history", "realtime_canary")
VERBS = ("select", "insert", "update", "delete")
ROLES = ("anon", "authenticated", "voxproof_judge", "service_role")
MATRIX: dict[str, dict[str, str | None]] = {
    "anon": dict.fromkeys(VERBS, "42501"),
    "authenticated": {"select": None, "insert": "42501", "update": "42501", "delete": "42501"},
    "voxproof_judge": {"select": None, "insert": "42501", "update": "42501", "delete": "42501"},
    "service_role": dict.fromkeys(VERBS),
}
"""PostgreSQL's code for each refusal. None: allowed."""


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("role", ROLES)
def test_row_security(project: Project, token: str, role: str, table: str) -> None:
    """What each role may do with each table: anonymous nothing, a user and the judge read, the service key writes."""
    expected = dict(MATRIX[role])
    if (role, table) == ("service_role", "realtime_canary"):
        expected["update"] = "42501"  # nothing in it to change

    assert {verb: tried(client_of(project, role, token), table, verb) for verb in VERBS} == expected


def client_of(project: Project, role: str, token: str) -> Client:
    """A client that acts as ``role``."""
    if role == "service_role":
        return project.service()
    client = project.client()
    if role == "authenticated":
        client.postgrest.auth(token)
    if role == "voxproof_judge":
        if project.jwt_secret is None:
            pytest.skip("needs the project's JWT secret")
        client.postgrest.auth(project.token(role))
    return client


def tried(client: Client, table: str, verb: str) -> str | None:
    """One verb on rows that there are not, or on a row of its own."""
    nothing, rows = "00000000-0000-0000-0000-000000000000", client.table(table)
    row = {
        "calls": {**CALL, "call_id": call_id()},
        "transcripts": {"role": "user", "content": "x"},
        "tool_executions": {"tool_name": "vp-contract"},
        "alerts_history": {"service": "vp-contract", "message": "x"},
        "realtime_canary": {},
    }[table]
    match verb:
        case "select":
            return code(lambda: rows.select("*").limit(1).execute())
        case "insert":
            return code(lambda: rows.insert(row, returning="minimal").execute())  # type: ignore[arg-type]
        case "update":
            return code(lambda: rows.update({"id": nothing}).eq("id", nothing).execute())
        case _:
            return code(lambda: rows.delete().eq("id", nothing).execute())


def test_the_judge_sees_calls_of_the_harness_only(project: Project) -> None:
    """Rows of real callers are not there for it, in no table of calls."""
    if project.jwt_secret is None:
        pytest.skip("needs the project's JWT secret")
    service, foreign = project.service(), f"contract-{call_id()}"
    try:
        for name in (foreign, own := call_id()):
            service.table("calls").insert({**CALL, "call_id": name}).execute()
            service.table("transcripts").insert({"call_id": name, "role": "user", "content": "private"}).execute()
            service.table("tool_executions").insert({"call_id": name, "tool_name": "t"}).execute()
        judge = client_of(project, "voxproof_judge", "")
        seen = {
            table: [row["call_id"] for row in judge.table(table).select("call_id").in_("call_id", [foreign, own]).execute().data]  # type: ignore[index,call-overload]
            for table in ("calls", "transcripts", "tool_executions")
        }
    finally:
        service.table("calls").delete().eq("call_id", foreign).execute()

    assert seen == {table: [own] for table in seen}


@pytest.mark.parametrize("function", ["end_dead_calls", "delete_old_history"])
def test_functions_that_write_are_the_service_keys(project: Project, token: str, function: str) -> None:
    """Neither a user nor a visitor may call them."""
    visitor, user = project.client(), dashboard(project, token)

    assert code(lambda: visitor.rpc(function, {}).execute()) == "42501"
    assert code(lambda: user.rpc(function, {}).execute()) == "42501"


def test_what_is_no_table_is_told_from_what_is_empty(project: Project) -> None:
    """404, with a code: a missing migration is no absence of rows."""
    answer = httpx.get(f"{project.url}/rest/v1/no_such_table", headers=project.headers(project.service_key), trust_env=False)

    assert answer.status_code == 404
    assert answer.json()["code"] in ("42P01", "PGRST205")


def test_eight_writers_at_once_lose_nothing(project: Project) -> None:
    """Each of their rows is there, once."""
    name = placed(project.service())

    def write(writer: int) -> None:
        client = project.service()  # a client a thread
        for number in range(25):
            client.table("transcripts").insert({"call_id": name, "role": "user", "content": f"{writer}-{number}"}).execute()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    rows: Any = project.service().table("transcripts").select("content").eq("call_id", name).execute().data
    assert len({row["content"] for row in rows}) == len(rows) == 200
