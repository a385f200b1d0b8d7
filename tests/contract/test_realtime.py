"""Realtime by supabase-py: the dashboard's three subscriptions, who sees what, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
import websockets
from realtime import RealtimeSubscribeStates
from supabase import Client

from tests.contract.listening import PATIENCE_S, THREE, Wish, listening
from tests.contract.project import Project, call_id

pytestmark = pytest.mark.stack
INSERTS: tuple[Wish, ...] = (("INSERT", "calls", None),)
CALL = {"phone_number": "+15550100", "direction": "inbound", "status": "active"}
ALERT = {"service": "vp-contract", "severity": "info"}


@pytest.fixture
def writer(project: Project) -> Client:
    """Whoever writes rows."""
    return project.service()


def run(scene: Coroutine[Any, Any, None]) -> None:
    """One scene, with an end."""

    async def limited() -> None:
        async with asyncio.timeout(60):
            await scene

    asyncio.run(limited())


def place(writer: Client, *, count: int = 1, **columns: Any) -> list[str]:
    """So many calls; their ids, in order."""
    names = [call_id() for _ in range(count)]
    writer.table("calls").insert([{"call_id": name, **CALL, **columns} for name in names], returning="minimal").execute()  # type: ignore[arg-type]
    return names


def test_the_three_subscriptions_of_the_dashboard(project: Project, writer: Client, token: str) -> None:
    """A call appears, changes, and an alert comes: each once, to a signed-in user, with the row as it is."""

    async def scene() -> None:
        async with listening(project, *THREE, token=token) as heard:
            (name,) = place(writer)
            writer.table("calls").update({"status": "completed", "duration_seconds": 7}).eq("call_id", name).execute()
            writer.table("alerts_history").insert({**ALERT, "message": f"about {name}"}).execute()
            assert await heard.until(lambda: bool(heard.of("alerts_history")))

            (begun,) = [row for row in heard.of("calls") if row["call_id"] == name]
            (ended,) = [row for row in heard.of("calls", "UPDATE") if row["call_id"] == name]
            (alert,) = [row for row in heard.of("alerts_history") if row["message"] == f"about {name}"]
            assert (begun["status"], begun["duration_seconds"], begun["phone_number"]) == ("active", None, "+15550100")
            assert (ended["status"], ended["duration_seconds"]) == ("completed", 7)
            assert (alert["severity"], alert["acknowledged"]) == ("info", False)

    run(scene())


def test_a_row_is_told_as_rest_tells_it(project: Project, writer: Client) -> None:
    """Value by value, for every type that the tables have; instants may be written in another way."""

    async def scene() -> None:
        async with listening(project, *INSERTS, key=project.service_key) as heard:
            (name,) = place(writer, start_time="2026-01-01T10:00:00.25+02:00", duration_seconds=3, room_name='"quoted" ünïcode\n')
            assert await heard.until(lambda: bool([row for row in heard.of("calls") if row["call_id"] == name]))
            told = next(row for row in heard.of("calls") if row["call_id"] == name)
            read: Any = writer.table("calls").select("*").eq("call_id", name).single().execute().data
            assert told == read

    run(scene())


def test_a_filter_holds(project: Project, writer: Client, token: str) -> None:
    """Only rows that pass it come; a null passes none."""

    async def scene() -> None:
        async with listening(project, ("UPDATE", "calls", "status=eq.completed"), token=token) as heard:
            first, second = place(writer, count=2)
            writer.table("calls").update({"status": "failed"}).eq("call_id", first).execute()
            writer.table("calls").update({"status": "completed"}).eq("call_id", second).execute()
            assert await heard.until(lambda: bool(heard.changes))
            assert [row["call_id"] for row in heard.of("calls", "UPDATE")] == [second]

    run(scene())


def test_a_visitor_is_told_nothing(project: Project, writer: Client, token: str) -> None:
    """The anonymous key subscribes in vain, while a user beside it hears."""

    async def scene() -> None:
        async with listening(project, *THREE) as visitor, listening(project, *THREE, token=token) as user:
            (name,) = place(writer)
            writer.table("calls").update({"status": "completed"}).eq("call_id", name).execute()
            assert await user.until(lambda: bool(user.of("calls", "UPDATE")))
            await asyncio.sleep(0.5)
            assert [change for change in visitor.changes if change["record"]] == []

    run(scene())


def test_the_judge_is_told_of_its_own_calls_only(project: Project, writer: Client) -> None:
    """Row security decides for each subscriber."""
    if project.jwt_secret is None:
        pytest.skip("needs the project's JWT secret")
    foreign = f"contract-{call_id()}"

    async def scene() -> None:
        async with listening(project, *INSERTS, token=project.token("voxproof_judge")) as heard:
            writer.table("calls").insert({"call_id": foreign, **CALL}).execute()
            (own,) = place(writer)
            assert await heard.until(lambda: bool([row for row in heard.of("calls") if row["call_id"] == own]))
            assert foreign not in [row["call_id"] for row in heard.of("calls")]

    try:
        run(scene())
    finally:
        writer.table("calls").delete().eq("call_id", foreign).execute()


def test_changes_come_in_order(project: Project, writer: Client, token: str) -> None:
    """Of one transaction and of many."""

    async def scene() -> None:
        async with listening(project, *INSERTS, token=token) as heard:
            names = [*place(writer, count=100), *(place(writer)[0] for _ in range(20))]
            assert await heard.until(lambda: len(heard.changes) >= len(names))
            assert [row["call_id"] for row in heard.of("calls") if row["call_id"] in names] == names

    run(scene())


def test_a_deleted_row_is_told_by_its_key(project: Project, writer: Client, token: str) -> None:
    """Nothing else of it: a row that is gone cannot be held against a policy."""

    async def scene() -> None:
        async with listening(project, ("DELETE", "calls", None), token=token) as heard:
            (name,) = place(writer)
            row: Any = writer.table("calls").delete().eq("call_id", name).execute().data[0]
            assert await heard.until(lambda: bool(heard.of("calls", "DELETE")))
            assert row["id"] in [old["id"] for old in heard.of("calls", "DELETE")]
            assert {key for old in heard.of("calls", "DELETE") for key in old} == {"id"}

    run(scene())


def test_a_large_row_comes_whole(project: Project, writer: Client, token: str) -> None:
    """A quarter of a megabyte, far beyond what NOTIFY would carry."""

    async def scene() -> None:
        async with listening(project, ("INSERT", "alerts_history", None), token=token) as heard:
            text = secrets.token_hex(125_000)
            writer.table("alerts_history").insert({**ALERT, "message": text}, returning="minimal").execute()  # type: ignore[arg-type]
            assert await heard.until(lambda: bool([row for row in heard.of("alerts_history") if row.get("message") == text]))

    run(scene())


def test_of_a_row_beyond_a_megabyte_the_key_comes(project: Project, writer: Client) -> None:
    """With an error that says so: whoever needs the rest asks REST."""

    async def scene() -> None:
        async with listening(project, ("INSERT", "alerts_history", None), key=project.service_key) as heard:
            row = {**ALERT, "message": secrets.token_hex(700_000), "id": "5d2f8600-91a5-4c2e-8f0e-" + secrets.token_hex(6)}
            writer.table("alerts_history").insert(row, returning="minimal").execute()  # type: ignore[arg-type]
            assert await heard.until(lambda: row["id"] in [told["id"] for told in heard.of("alerts_history")])
            (change,) = [change for change in heard.changes if change["record"]["id"] == row["id"]]
            assert "message" not in change["record"]
            assert "413" in str(change["errors"])

    run(scene())


@pytest.mark.filterwarnings("ignore:ConnectionClosed")  # realtime-py asks for it when it reconnects
def test_a_broken_connection_is_made_again(project: Project, writer: Client, token: str) -> None:
    """Later rows come; those of the gap do not, and REST has them."""

    async def scene() -> None:
        async with listening(project, *INSERTS, token=token) as heard:
            before = place(writer)
            assert await heard.until(lambda: bool(heard.changes))
            said = len(heard.system)
            connection = heard.client.realtime._ws_connection
            assert connection is not None
            connection.transport.abort()
            assert await heard.until(lambda: len(heard.system) > said), "never subscribed again"
            after = place(writer)
            assert await heard.until(lambda: [row["call_id"] for row in heard.of("calls")][-1:] == after)
            found = writer.table("calls").select("call_id").in_("call_id", [*before, *after]).execute().data
            assert len(found) == 2

    run(scene())


def test_a_renewed_token_goes_on(project: Project, writer: Client) -> None:
    """After the first one has run out the channel is still served, by the second."""
    if project.jwt_secret is None:
        pytest.skip("needs the project's JWT secret")

    async def scene() -> None:
        async with listening(project, *INSERTS, token=project.token("authenticated", lifetime_s=3)) as heard:
            await heard.client.realtime.set_auth(project.token("authenticated"))
            await asyncio.sleep(4)
            names = place(writer)
            assert await heard.until(lambda: [row["call_id"] for row in heard.of("calls")][-1:] == names)

    run(scene())


def test_a_token_that_runs_out_ends_the_channel(project: Project, writer: Client) -> None:
    """And it is said; what is written then is not told."""
    if project.jwt_secret is None:
        pytest.skip("needs the project's JWT secret")

    async def scene() -> None:
        states: list[RealtimeSubscribeStates] = []
        async with listening(project, *INSERTS, token=project.token("authenticated", lifetime_s=2)) as heard:
            heard.channel.subscribe_callback = lambda state, _: states.append(state)
            await asyncio.sleep(4)
            place(writer)
            await asyncio.sleep(0.5)
            assert heard.changes == []
            assert set(states) & {RealtimeSubscribeStates.CLOSED, RealtimeSubscribeStates.CHANNEL_ERROR}

    run(scene())


@pytest.mark.parametrize("forgery", ["foreign", "expired", "garbage"])
def test_a_token_that_is_not_the_projects_joins_nothing(project: Project, forgery: str) -> None:
    """The join is refused, with a reason."""
    if forgery == "expired" and project.jwt_secret is None:
        pytest.skip("needs the project's JWT secret")
    made = "garbage"
    if forgery == "foreign":
        made = project.token("service_role", secret="another secret, of the same length as any")
    elif forgery == "expired":
        made = project.token("service_role", lifetime_s=-60)

    async def scene() -> None:
        async with raw(project) as socket:
            await send(socket, "realtime:x", "phx_join", join(made, "INSERT"))
            answer = await reply(socket, "phx_reply")
            assert answer["payload"]["status"] == "error"
            assert answer["payload"]["response"]["reason"]

    run(scene())


def test_a_key_that_is_not_the_projects_opens_no_socket(project: Project) -> None:
    """The handshake is refused."""

    async def scene() -> None:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with raw(project, key=project.token("anon", secret="another secret, of the same length as any")):
                pass
        assert caught.value.response.status_code in (401, 403)

    run(scene())


def test_a_heartbeat_is_answered(project: Project) -> None:
    """Or clients would think the connection dead."""

    async def scene() -> None:
        async with raw(project) as socket:
            await send(socket, "phoenix", "heartbeat", {})
            assert (await reply(socket, "phx_reply"))["payload"]["status"] == "ok"

    run(scene())


def test_frames_may_be_arrays(project: Project, writer: Client) -> None:
    """Version 2.0.0 of the protocol, of newer clients."""

    async def scene() -> None:
        async with raw(project, key=project.service_key, vsn="2.0.0") as socket:
            await socket.send(json.dumps(["1", "1", "realtime:x", "phx_join", join(project.service_key, "INSERT")]))
            while (frame := json.loads(await socket.recv()))[3] != "system":
                pass
            assert frame[4]["message"] == "Subscribed to PostgreSQL"
            names = place(writer)
            while (frame := json.loads(await socket.recv()))[3] != "postgres_changes":
                pass
            assert (frame[0], frame[2], frame[4]["data"]["record"]["call_id"]) == ("1", "realtime:x", names[0])

    run(scene())


def test_what_is_not_published_is_refused(project: Project) -> None:
    """Said on the channel: silence would look like no changes."""

    async def scene() -> None:
        async with raw(project, key=project.service_key) as socket:
            await send(socket, "realtime:x", "phx_join", join(project.service_key, "INSERT", table="no_such_table"))
            said = await reply(socket, "system")
            assert said["payload"]["status"] == "error"

    run(scene())


def test_fifty_subscribers_each_hear_everything(project: Project, writer: Client, token: str) -> None:
    """Nothing is lost or doubled for any of them."""

    async def scene() -> None:
        async with asyncio.TaskGroup() as tasks:
            opened = [tasks.create_task(open_raw(project, token)) for _ in range(50)]
        sockets = [task.result() for task in opened]
        names = [place(writer)[0] for _ in range(20)]
        try:
            async with asyncio.TaskGroup() as tasks:
                counted = [tasks.create_task(names_of(socket, 20)) for socket in sockets]
            assert [task.result() for task in counted] == [names] * 50
        finally:
            for socket in sockets:
                await socket.close()

    run(scene())


def test_a_slow_subscriber_delays_nobody(project: Project, writer: Client, token: str) -> None:
    """One that reads nothing is cut off, or waits alone; the others hear all."""

    async def scene() -> None:
        async with (
            raw(project, key=project.service_key) as slow,
            listening(project, ("INSERT", "alerts_history", None), token=token) as heard,
        ):
            await send(slow, "realtime:slow", "phx_join", join(project.service_key, "INSERT", table="alerts_history"))
            await reply(slow, "system")
            slow.transport.pause_reading()
            count, text = 40, secrets.token_hex(100_000)
            for number in range(count):
                row = {**ALERT, "message": f"{number} {text}"}
                writer.table("alerts_history").insert(row, returning="minimal").execute()  # type: ignore[arg-type]
            assert await heard.until(lambda: len(heard.changes) >= count)
            slow.transport.abort()

    run(scene())


def test_a_lost_slot_is_said_and_made_again(project: Project, writer: Client, token: str) -> None:
    """Changes of the gap are lost, the channel says so, and later ones come."""
    if project.dsn is None:
        pytest.skip("needs a hand in the database")
    dsn = project.dsn

    async def scene() -> None:
        states: list[RealtimeSubscribeStates] = []
        async with listening(project, *INSERTS, token=token) as heard:
            heard.channel.subscribe_callback = lambda state, _: states.append(state)
            said = len(heard.system)
            with psycopg.connect(dsn, autocommit=True) as database:
                database.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
            assert await heard.until(lambda: len(heard.system) > said), "never subscribed again"
            assert RealtimeSubscribeStates.CHANNEL_ERROR in states
            names = place(writer)
            assert await heard.until(lambda: [row["call_id"] for row in heard.of("calls")][-1:] == names)

    run(scene())


def raw(project: Project, *, key: str | None = None, vsn: str = "1.0.0") -> websockets.connect:
    """A socket without a client's help."""
    query = urlencode({"apikey": key or project.anon_key, "vsn": vsn})
    return websockets.connect(f"{project.url.replace('http', 'ws', 1)}/realtime/v1/websocket?{query}", max_size=None, proxy=None)


def join(token: str, event: str, table: str = "calls") -> dict[str, Any]:
    """Payload of a join with one subscription."""
    return {"config": {"postgres_changes": [{"event": event, "schema": "public", "table": table}]}, "access_token": token}


async def send(socket: websockets.ClientConnection, topic: str, event: str, payload: dict[str, Any]) -> None:
    """One frame."""
    await socket.send(json.dumps({"topic": topic, "event": event, "payload": payload, "ref": "1"}))


async def reply(socket: websockets.ClientConnection, event: str) -> Any:
    """The next frame of that event."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            frame = json.loads(await socket.recv())
            if frame["event"] == event:
                return frame


async def open_raw(project: Project, token: str) -> websockets.ClientConnection:
    """A socket that is subscribed to new calls."""
    socket = await raw(project)
    await send(socket, "realtime:x", "phx_join", join(token, "INSERT"))
    assert (await reply(socket, "system"))["payload"]["status"] == "ok"
    return socket


async def names_of(socket: websockets.ClientConnection, count: int) -> list[str]:
    """The calls that so many changes speak of."""
    return [(await reply(socket, "postgres_changes"))["payload"]["data"]["record"]["call_id"] for _ in range(count)]
