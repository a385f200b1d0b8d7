"""Panels asked of a target that opens with a token and calls things otherwise: a server on loopback that answers as Prometheus and PostgREST do."""

from __future__ import annotations

import http.server
import json
from collections.abc import Iterator
from typing import Any

import pytest

from harness.clock import Clock
from harness.collect.naming import Translator
from harness.collect.panels import Panels, in_our_words
from harness.model import Door, Names, Naming, Observation, Row, Sample, Source, TableNaming, UnixNs
from harness.rules.panelfile import REFUSED, SHARE, TOLD, Line, lines, panels, retold
from tests.fakes import targets
from tests.fakes.serving import serving

NAMES = Names(
    metrics={
        "voice_agent_turns_total": Naming(name="bot_turns", labels={"role": "speaker"}, values={"role": {"assistant": "bot"}}),
        "voice_agent_ttfw_seconds": Naming(name="my_ttfw_ms", scale=0.001),
        "voice_agent_stt_latency_seconds": Naming(name="stage_seconds", where={"stage": "stt"}),
    },
    tables={
        "calls": TableNaming(name="call_log", columns={"duration_seconds": Naming(name="length_ms", scale=0.001)}),
        "tool_executions": TableNaming(name="actions", columns={"tool_name": Naming(name="what")}),
        "transcripts": TableNaming(name="utterances", columns={"role": Naming(name="speaker", values={"": {"user": "caller"}})}),
    },
)
HEAD = "{name: p/%s, page: p, title: t, unit: u, poll: 1s, says: s, quantity: q, %s}"
FILE = "schema: 1\npanels:\n" + "".join(
    f"  - {HEAD % (name, rest)}\n"
    for name, rest in {
        "turns": "query: 'sum by (speaker) (rate(bot_turns[5m]))', computes: {a: growth, of: [bot_turns], over: 5m, by: [speaker]}",
        "bots": "query: 'sum(bot_turns{speaker=\"bot\"})', computes: {a: sum, of: [bot_turns], where: {speaker: bot}}",
        "ttfw": "query: sum(my_ttfw_ms_sum) / sum(my_ttfw_ms_count), computes: {a: mean, of: [my_ttfw_ms], over: 5m, times: 1000}",
        "heard": "query: sum(my_ttfw_ms_count), computes: {a: growth, of: [my_ttfw_ms_count], over: 5m}",
        "stage": "query: sum(stage_seconds_sum), computes: {a: mean, of: [stage_seconds], over: 5m}",
        "tools": "read: {from: top_actions, columns: [what, calls]}, computes: {a: count, of: [actions], by: [what]}",
        "share": "read: {from: actions, among: utterances}, "
        "computes: {a: share, of: [actions], among: utterances, where: {speaker: caller}, times: 100}",
        "mean": "read: {from: call_log, columns: [length_ms.avg()]}, computes: {a: mean, of: [call_log.length_ms], times: 1000}",
    }.items()
)


def line(name: str) -> Line:
    """A line of the file, in our words."""
    (found,) = (each for _, each in lines(panels(FILE, file="theirs.yml")) if each.name == f"p/{name}")
    return in_our_words(found, Translator(NAMES))


@pytest.mark.parametrize(
    ("name", "query", "unlike"),
    [
        ("turns", "sum by (role) (rate(voice_agent_turns_total[5m]))", None),
        ("bots", 'sum(voice_agent_turns_total{role="bot"})', "the values of speaker are called otherwise"),
        ("ttfw", "sum(voice_agent_ttfw_seconds_sum) / sum(voice_agent_ttfw_seconds_count)", "my_ttfw_ms_sum has another unit than ours"),
        ("heard", "sum(voice_agent_ttfw_seconds_count)", None),
        ("stage", "sum(voice_agent_stt_latency_seconds_sum)", "stage_seconds_sum holds other series, too"),
    ],
)
def test_a_query_is_told_in_our_words(name: str, query: str, unlike: str | None) -> None:
    """Where it would say something else of our series, it is said why."""
    assert (line(name).query, line(name).unlike) == (query, unlike)


def test_what_a_line_must_compute_is_told_in_our_words() -> None:
    """Metrics, tables, columns, labels and their values."""
    turns, bots, tools, share, mean = (line(name).computes for name in ("turns", "bots", "tools", "share", "mean"))

    assert (turns.of, turns.by) == (("voice_agent_turns_total",), ("role",))
    assert bots.where == {"role": "assistant"}
    assert (tools.of, tools.by) == (("tool_executions",), ("tool_name",))
    assert (share.of, share.among, share.where) == (("tool_executions",), "transcripts", {"role": "user"})
    assert mean.of == ("calls.duration_seconds",)


def test_a_line_is_kept_as_it_was_told() -> None:
    """Whoever judges offline has the file in their words, and the rows."""
    (theirs,) = (each for _, each in lines(panels(FILE, file="theirs.yml")) if each.name == "p/turns")
    (kept,) = (row for row in asked("http://127.0.0.1:9", before=True) if row.table == TOLD and row.columns["line"] == "p/turns")

    assert retold(theirs, json.loads(json.dumps(kept.columns))) == line("turns")


class Handler(http.server.BaseHTTPRequestHandler):
    """Both servers, shut for whoever does not bring the token."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body: Any = []
        status, total = 200, 4
        if self.headers.get("X-Token") != "let-me-in":
            status = 403
        elif path == "/api/v1/query":
            body = {"data": {"resultType": "vector", "result": [{"metric": {"speaker": "bot"}, "value": [1.0, "3"]}]}}
        elif "avg" in query:
            status, body = 400, {"message": "Use of aggregate functions is not allowed"}
        elif path.endswith("/top_actions"):
            body = [{"what": "lookup", "calls": 3}]
        elif path.endswith("/utterances"):
            total = 16
        said = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-range", f"*/{total}" if "count=exact" in self.headers.get("Prefer", "") else "*/*")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Where it listens."""
    with serving(Handler) as address:
        yield f"http://{address}"


def opened(url: str, *, token: str = "let-me-in") -> Panels:
    """The file's panels at a target whose doors want a token."""
    door = Door(headers={"X-Token": token})
    theirs = targets.target(
        livekit_url="ws://127.0.0.1:9",
        prometheus_url=url,
        supabase_url=url,
        supabase_key="key",
        names=NAMES,
        doors={Source.PROMETHEUS: door, Source.ROWS: door},
        is_embedded=True,
    )
    return Panels(theirs, ("theirs.yml", FILE), scale=1.0, clock=Clock.start())


def asked(url: str, *, before: bool = False) -> tuple[Row, ...]:
    """Rows of one asking."""
    with opened(url) as pages:
        found: tuple[Observation | object, ...] = pages.before() if before else pages.after(UnixNs(0), scrape_s=1.0)
    return tuple(item for item in found if isinstance(item, Row))


def test_answers_are_told_in_our_words(url: str) -> None:
    """Labels with their values, and what rows are split by."""
    with opened(url) as pages:
        found = pages.after(UnixNs(0), scrape_s=1.0)

    assert {tuple(item.labels.items()) for item in found if isinstance(item, Sample) and item.name == "p/turns"} == {
        (("role", "assistant"),)
    }
    assert [item.columns for item in found if isinstance(item, Row) and item.table == "p/tools"] == [
        {"tool_name": "lookup", "calls": 3, "#": 0}
    ]


def test_rows_of_two_tables_are_counted_and_not_read(url: str) -> None:
    """4 of the one for 16 of the other."""
    assert [row.columns[SHARE] for row in asked(url) if row.table == "p/share"] == [25.0]


def test_an_aggregate_that_the_server_refuses_is_told(url: str) -> None:
    """In its own words."""
    assert [row.columns["error"] for row in asked(url) if row.table == REFUSED] == ["Use of aggregate functions is not allowed"]


def test_what_asking_cost_is_metered(url: str) -> None:
    """Each request of each panel, with the numbers that came back."""
    with opened(url) as pages:
        pages.before()
        cost = pages.cost()

    assert (cost.source, cost.requests, cost.items) == (Source.PANELS, 4, 2)


def test_a_target_that_does_not_let_us_in_is_a_gap(url: str) -> None:
    """With its status."""
    with opened(url, token="no") as pages:
        found = pages.before()

    assert next(getattr(item, "reason", "") for item in found if not isinstance(item, Row)).startswith(
        "p/tools: HTTPStatusError: Client error '403"
    )
