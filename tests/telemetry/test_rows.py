"""The queue of rows, before a database that fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from voxproof_telemetry.rows import RowWriter, iso

from tests.fakes.rest import Rest

NEVER_S = 3600.0


class Losses:
    """What a writer says of its attempts and rows."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()


def written(rest: Rest, talk: Callable[[RowWriter], Awaitable[None] | None], **settings: Any) -> Losses:
    """After ``talk`` and the end of the writer."""
    losses = Losses()

    async def main() -> None:
        writer = RowWriter(
            url="http://supabase.test/",
            key="service",
            call_id="c-1",
            on_error=lambda table: losses.errors.update([table]),
            on_lost=lambda table: losses.lost.update([table]),
            transport=rest.transport,
            **{"backoff_s": (0.0,), "heartbeat_s": NEVER_S, **settings},
        )
        if (awaited := talk(writer)) is not None:
            await awaited
        await writer.close()

    asyncio.run(main())
    return losses


def start(writer: RowWriter, number: str = "+15550100") -> None:
    writer.start(phone_number=number, direction="inbound", room_name="room-1", agent_version="1", at=0.0)


def call(writer: RowWriter) -> None:
    start(writer)
    writer.transcript("assistant", "Hello", 1.0)
    writer.transcript("user", "weather", 2.0)
    writer.tool_execution("look", {"city": "London"}, {"output": "sunny"}, success=True, latency_s=0.0546, at=3.0)
    writer.transcript("assistant", "sunny", 4.0)
    writer.end("completed", started_at=0.0, ended_at=9.6)


def test_rows_come_in_the_order_in_which_they_were_said() -> None:
    """Across tables: no transcript before its call, no end before the last word."""
    rest = Rest()
    written(rest, call)
    assert [(method, table) for method, table, _ in rest.requests] == [
        ("POST", "calls"),
        ("POST", "transcripts"),
        ("POST", "transcripts"),
        ("POST", "tool_executions"),
        ("POST", "transcripts"),
        ("PATCH", "calls"),
    ]


def test_a_call_becomes_its_rows() -> None:
    """Columns of the specification; durations in whole seconds and milliseconds."""
    rest = Rest()
    written(rest, call)
    (row,) = rest.tables["calls"]
    assert (row["status"], row["duration_seconds"], row["end_time"], row["room_name"]) == ("completed", 10, iso(9.6), "room-1")
    (tool,) = rest.tables["tool_executions"]
    assert (tool["tool_name"], tool["parameters"], tool["success"], tool["latency_ms"]) == ("look", {"city": "London"}, True, 55)
    assert [each["timestamp"] for each in rest.tables["transcripts"]] == [iso(1.0), iso(2.0), iso(4.0)]


@pytest.mark.parametrize("failure", [500, 503, 429, 408, httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
def test_a_retry_doubles_nothing(failure: int | Exception) -> None:
    """Whether the database had taken the row before the answer was lost, or not."""
    rest = Rest(None, failure, failure)
    losses = written(rest, call)
    assert [each["content"] for each in rest.tables["transcripts"]] == ["Hello", "weather", "sunny"]
    assert (losses.errors, losses.lost) == ({"transcripts": 2}, {})


def test_every_attempt_at_a_row_bears_the_same_id() -> None:
    """Otherwise the database could not tell a retry from a second row."""
    rest = Rest(None, 500, 500)
    written(rest, call)
    assert len({body["id"] for _, table, body in rest.requests if table == "transcripts"}) == 3


def test_two_jobs_of_one_call_lose_no_row_to_each_other() -> None:
    """A call that is dispatched again after its job died goes on in the same call."""
    rest = Rest()
    written(rest, call)
    written(rest, call)
    assert (len(rest.tables["calls"]), len(rest.tables["transcripts"])) == (1, 6)


def test_a_refused_row_holds_up_none_behind_it() -> None:
    """A 4xx is final; it is counted as lost."""
    rest = Rest(None, 400)
    losses = written(rest, call)
    assert [each["content"] for each in rest.tables["transcripts"]] == ["weather", "sunny"]
    assert losses.lost == {"transcripts": 1}


def test_rows_are_written_while_the_call_lasts() -> None:
    """Nothing waits for the end: a killed job has lost nothing that was said before."""
    rest = Rest()

    async def talk(writer: RowWriter) -> None:
        start(writer)
        writer.transcript("assistant", "Hello", 1.0)
        await rest.asked(times=2)

    written(rest, talk)
    assert rest.tables["calls"][0]["status"] == "active"


def test_what_the_database_does_not_take_is_given_up_after_the_bound() -> None:
    """Each row is counted, and the job may end."""
    rest = Rest()
    rest.always = 503
    losses = written(rest, call, flush_s=0.01)
    assert losses.lost == {"calls": 2, "transcripts": 3, "tool_executions": 1}


def test_a_row_that_is_no_json_is_lost_alone() -> None:
    """The writer lives on."""
    rest = Rest()

    def talk(writer: RowWriter) -> None:
        start(writer)
        writer.tool_execution("look", object(), {}, success=True, latency_s=None, at=1.0)
        writer.transcript("assistant", "Hello", 1.0)

    assert written(rest, talk).lost == {"tool_executions": 1}
    assert len(rest.tables["transcripts"]) == 1


def test_the_heartbeat_touches_active_calls_only() -> None:
    """By the server's clock; and it cannot revive a call that ended."""
    rest = Rest()

    async def talk(writer: RowWriter) -> None:
        start(writer)
        await rest.asked(times=3)
        writer.end("completed", started_at=0.0, ended_at=1.0)

    written(rest, talk, heartbeat_s=0.0)
    (row,) = rest.tables["calls"]
    assert row["heartbeat_at"] == "now"
    assert row["status"] == "completed"
    assert rest.requests[-1][2]["status"] == "completed"


def test_no_heartbeat_before_the_call_has_its_row() -> None:
    """It would touch nothing."""
    rest = Rest()

    async def talk(_: RowWriter) -> None:
        for _turn in range(20):
            await asyncio.sleep(0)

    written(rest, talk, heartbeat_s=0.0)
    assert rest.requests == []


def test_a_second_start_is_ignored_and_a_number_can_be_corrected() -> None:
    """The SIP attribute may come after the row."""
    rest = Rest()

    def talk(writer: RowWriter) -> None:
        start(writer)
        start(writer, "+15550111")
        writer.phone_number("+15550122")

    written(rest, talk)
    assert [row["phone_number"] for row in rest.tables["calls"]] == ["+15550122"]
