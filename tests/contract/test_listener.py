"""The harness's own listener on the Supabase under contract: proven ready, reconnecting, not to be silenced."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest

from harness.clock import Clock
from harness.collect import realtime
from harness.collect.realtime import Access, Listener, clock_offset, record
from harness.measure.delivery import Break, Canary, Deaf, Delivery, Fate, Heard, ServerClock, Written, deaf, deliveries
from harness.model import UnixNs
from tests.contract.project import Project, call_id

pytestmark = pytest.mark.stack
CALL = {"phone_number": "+15550100", "direction": "inbound", "status": "active"}
READY_S = 20.0


class Told(list[Heard | Canary | Break | ServerClock]):
    """Everything that a listener said."""

    def of(self, kind: type[Any]) -> list[Any]:
        """Of one kind, in order."""
        return [each for each in self if isinstance(each, kind)]

    def deaf(self, began_at: UnixNs, ended_at: UnixNs) -> tuple[Deaf, ...]:
        """When nothing proved that it delivers."""
        return deaf(self.of(Canary), self.of(Break), began_at=began_at, ended_at=ended_at)


def access(project: Project, token: str | None = None) -> Access:
    """With canaries by the service key."""
    return Access(url=project.url, key=project.anon_key, token=token or project.service_key, canary_key=project.service_key)


def place(project: Project, clock: Clock, count: int) -> list[Written]:
    """So many calls, one after the other; what is known of each."""
    client, made = project.service(), []
    for _ in range(count):
        at = clock.now()
        row: Any = client.table("calls").insert({"call_id": call_id(), **CALL}).execute().data[0]
        made.append(Written(table="calls", kind="INSERT", key=row["id"], at=at))
    return made


def listened(
    project: Project, act: Callable[[Listener, Clock], list[Written]], token: str | None = None
) -> tuple[Told, tuple[Delivery, ...]]:
    """What was heard while ``act`` wrote, and what became of it."""
    clock, told = Clock.start(), Told()
    began_at = clock.now()
    with record(access(project, token), told.append, clock=clock, trust_env=False, every_s=0.2) as listener:
        assert listener.wait_ready(READY_S), told
        written = act(listener, clock)
    return told, deliveries(written, told.of(Heard), told.deaf(began_at, clock.now()), late_after_s=10)


def test_ready_is_a_canary_that_came_back(project: Project) -> None:
    """Then everything is delivered, each once, with its lag on one clock."""
    told, found = listened(project, lambda _, clock: place(project, clock, 20))

    assert [each.fate for each in found] == [Fate.DELIVERED] * 20
    assert all(each.lag_s is not None and 0 < each.lag_s < 10 for each in found)
    assert told.of(Break) == []


def test_only_our_own_calls_are_pushed_to_us(project: Project) -> None:
    """A stranger's row that is written between two of ours never comes, whatever the key may read."""
    clock, told = Clock.start(), Told()
    mine = (call_id(), call_id())
    ours = dataclasses.replace(access(project), call_ids=mine)
    client = project.service()
    with record(ours, told.append, clock=clock, trust_env=False, every_s=0.2) as listener:
        assert listener.wait_ready(READY_S), told
        rows: list[Any] = [
            client.table("calls").insert({"call_id": name, **CALL}).execute().data[0] for name in (mine[0], call_id(), mine[1])
        ]

    assert [heard.key for heard in told.of(Heard)] == [rows[0]["id"], rows[2]["id"]]


def test_canaries_leave_nothing_behind(project: Project) -> None:
    """In somebody's project."""
    listened(project, lambda _, clock: [])

    assert project.service().table("realtime_canary").select("id").execute().data == []


def test_a_callback_that_raises_silences_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's task would end with it; here it is said, and the next change is heard."""
    is_first = True

    def fails_once(row: Any, kind: str) -> str:
        nonlocal is_first
        if is_first:
            is_first = False
            raise ValueError("a row that nobody expected")
        return str(row["id"])

    monkeypatch.setattr(realtime, "change_key", fails_once)
    told, found = listened(project, lambda _, clock: place(project, clock, 3))

    assert [each.fate for each in found][1:] == [Fate.DELIVERED] * 2
    assert [each.reason for each in told.of(Break)] == ["_take failed: ValueError: a row that nobody expected"]


def test_what_was_lost_with_a_slot_is_told_apart(project: Project) -> None:
    """Rows of the gap are missed during reconnect, or heard; none is missed without a reason, and later ones are delivered."""
    if project.dsn is None:
        pytest.skip("needs a hand in the database")
    dsn = project.dsn

    def act(listener: Listener, clock: Clock) -> list[Written]:
        before = place(project, clock, 5)
        time.sleep(0.5)
        with psycopg.connect(dsn, autocommit=True) as database:
            database.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
        during = place(project, clock, 5)
        time.sleep(4)
        return [*before, *during, *place(project, clock, 5)]

    told, found = listened(project, act)
    fates = [each.fate for each in found]
    assert fates[:5] + fates[10:] == [Fate.DELIVERED] * 10
    assert set(fates[5:10]) <= {Fate.MISSED_WHILE_DEAF, Fate.DELIVERED}
    assert Fate.MISSED_WHILE_DEAF in fates[5:10]
    assert any("replication slot lost" in each.reason for each in told.of(Break))


def test_a_listener_that_hears_nothing_starts_anew_and_ends_when_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it takes; it is not waited for, and it says why."""
    monkeypatch.setattr(realtime, "PATIENCE_S", 0.3)
    monkeypatch.setattr(realtime, "_PAUSE_S", 0.05)
    told = Told()
    deaf_access = Access(url=project.url, key=project.anon_key, canary_key=project.service_key)  # the anonymous key is told nothing
    with record(deaf_access, told.append, clock=Clock.start(), trust_env=False, every_s=0.2) as listener:
        assert not listener.wait_ready(8)
        ended_at = time.monotonic()

    assert time.monotonic() - ended_at < 5
    assert len([each for each in told.of(Break) if "a canary was not heard" in each.reason]) >= 8
    assert {each.heard_at for each in told.of(Canary)} == {None}


def test_the_servers_clock_is_known_within_a_round_trip(project: Project) -> None:
    """For lags of rows that others write."""

    async def asked() -> ServerClock:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await clock_offset(http, access(project), Clock.start())

    found = asyncio.run(asked())
    assert 0 < found.error_s < 5
    assert abs(found.offset_s) < 60


def test_the_judge_hears_calls_of_the_harness(project: Project) -> None:
    """Reading needs no more than that; canaries are written by another key."""
    if project.jwt_secret is None:
        pytest.skip("needs the project's JWT secret")
    _, found = listened(project, lambda _, clock: place(project, clock, 3), token=project.token("voxproof_judge"))

    assert [each.fate for each in found] == [Fate.DELIVERED] * 3
