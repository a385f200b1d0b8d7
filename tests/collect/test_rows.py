"""Rows: every page of our own calls, in a total order, and a Gap where the tables cannot be read."""

from __future__ import annotations

import httpx
import pytest

from harness.clock import Clock
from harness.collect.rows import Rows
from harness.model import Gap, Poll, Row


class FakeRest:
    """PostgREST's answers over rows in memory; offset and limit are honoured, and every request is kept."""

    def __init__(self, **tables: list[dict[str, object]]) -> None:
        self.tables = tables
        self.requests: list[httpx.Request] = []
        self.cap = 1000
        """Most rows of an answer, whatever was asked for."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        query = request.url.params
        rows = self.tables.get(request.url.path.rpartition("/")[2], [])
        ids = query["call_id"].removeprefix("in.(").removesuffix(")").split(",")
        found = [row for row in rows if row["call_id"] in ids]
        start, most = int(query.get("offset", 0)), min(int(query.get("limit", 1000)), self.cap)
        counted = {"content-range": f"0-0/{len(found)}"} if "count=exact" in request.headers.get("prefer", "") else {}
        return httpx.Response(200, json=found[start : start + most], headers=counted, request=request)


def rows(handler: object, token: str | None = None) -> Rows:
    transport = httpx.MockTransport(handler)  # type: ignore[arg-type]
    return Rows("http://127.0.0.1:1", "key.key.key", token=token, clock=Clock.start(), client=httpx.Client(transport=transport))


def call(call_id: str, end_time: str | None = "2026-11-23T20:00:00+00:00") -> dict[str, object]:
    return {"id": f"id-{call_id}", "call_id": call_id, "end_time": end_time}


def test_only_our_own_calls_are_asked_for() -> None:
    """Every request filters by call id."""
    rest = FakeRest(calls=[call("ours"), call("theirs")])
    with rows(rest) as client:
        read = client.read(["ours"])

    assert [item.columns["call_id"] for item in read if isinstance(item, Row)] == ["ours"]
    assert all(request.url.params["call_id"] == "in.(ours)" for request in rest.requests)


@pytest.mark.parametrize(("token", "bearer"), [(None, "key.key.key"), ("judge.judge.judge", "judge.judge.judge")])
def test_a_token_reads_in_place_of_the_key(token: str | None, bearer: str) -> None:
    """The key only opens the door: whose rows are read is the token's to say. What the key itself would see is counted, not read."""
    rest = FakeRest(calls=[call("ours")])
    with rows(rest, token) as client:
        client.read(["ours"])

    read = [request for request in rest.requests if request.method == "GET"]
    counted = {request.headers["authorization"] for request in rest.requests if request.method == "HEAD"}
    assert {(request.headers["apikey"], request.headers["authorization"]) for request in read} == {("key.key.key", f"Bearer {bearer}")}
    assert counted == ({"Bearer key.key.key"} if token else set())


def test_all_pages_are_read_in_a_total_order() -> None:
    """Servers cap answers silently; the id breaks ties."""
    rest = FakeRest(transcripts=[{"call_id": "a", "id": number} for number in range(1203)])
    with rows(rest) as client:
        read = client.read(["a"])

    assert [item.columns["id"] for item in read if isinstance(item, Row)] == list(range(1203))
    assert {request.url.params["order"] for request in rest.requests} == {
        "start_time.asc,id.asc",
        "timestamp.asc,id.asc",
        "executed_at.asc,id.asc",
    }


def test_a_server_that_caps_answers_below_a_page_is_read_to_the_end() -> None:
    """It says how many there are."""
    rest = FakeRest(transcripts=[{"call_id": "a", "id": number} for number in range(230)])
    rest.cap = 100
    with rows(rest) as client:
        read = client.read(["a"])

    assert len([item for item in read if isinstance(item, Row)]) == 230
    assert [(item.count, item.total) for item in read if isinstance(item, Poll)] == [(0, 0), (230, 230), (0, 0)]


def test_many_calls_are_asked_for_in_several_requests() -> None:
    """Their ids travel in the URL, which has a limit."""
    ids = [f"call-{number}" for number in range(120)]
    rest = FakeRest(calls=[call(name) for name in ids])
    with rows(rest) as client:
        read = client.read(ids)

    assert [item.count for item in read if isinstance(item, Poll)] == [120, 0, 0]


def test_a_call_without_an_end_is_open() -> None:
    """The drain waits for it."""
    with rows(FakeRest(calls=[call("a"), call("b", end_time=None)])) as client:
        assert client.open_calls(["a", "b"]) == 1


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, {"message": "boom", "code": "XX000", "hint": None, "details": None}, "calls: refused: XX000 boom"),
        (401, {"message": "JWT expired", "code": "PGRST303", "hint": None, "details": None}, "calls: refused: PGRST303 JWT expired"),
    ],
)
def test_a_refusal_is_a_gap(status: int, body: dict[str, object], reason: str) -> None:
    """Denied is not empty."""
    with rows(lambda request: httpx.Response(status, json=body, request=request)) as client:
        first = client.read(["a"])[0]

    assert isinstance(first, Gap)
    assert first.reason == reason


def test_an_unreachable_project_is_a_gap_for_each_table() -> None:
    """No retries, no exception."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with rows(refuse) as client:
        read = client.read(["a"])
        is_open = client.open_calls(["a"])

    assert [item.reason for item in read if isinstance(item, Gap)] == [
        f"{table}: ConnectError: refused" for table in ("calls", "transcripts", "tool_executions")
    ]
    assert is_open is None
