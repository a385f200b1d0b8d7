"""Prometheus: raw samples with their instants, rules apart, a Gap for each query that failed."""

from __future__ import annotations

import json

import httpx
import pytest

from harness.clock import Clock
from harness.collect.prometheus import Prometheus, intervals, seconds
from harness.model import Gap, Poll, Sample, Source, UnixNs

S = 1_000_000_000
CONFIG = """\
global: {scrape_interval: 15s, evaluation_interval: 1m30s}
scrape_configs: [{job_name: livekit}, {job_name: voice-agent, scrape_interval: 5s}]
"""


def answer(request: httpx.Request) -> httpx.Response:
    query = request.url.params.get("query", "")
    if "buildinfo" in request.url.path:
        return httpx.Response(200, json={"data": {"version": "3.13.5", "goVersion": "go1.26"}})
    if request.url.path == "/metrics":
        return httpx.Response(200, text='prometheus_build_info{version="3.13.5"} 1\n')
    if "config" in request.url.path:
        return httpx.Response(200, json={"data": {"yaml": CONFIG}})
    if "min(timestamp" in query:
        return httpx.Response(200, json={"data": {"result": [{"metric": {}, "value": [9.0, "8.5"]}]}})
    name = "voice_agent:ttfw_seconds:p95" if "voice_agent:" in query else "up" if "up|" in query else "voice_agent_turns_total"
    result = [{"metric": {"__name__": name, "job": "a"}, "values": [[1.001, "1"], [2.001, "NaN"]]}]
    return httpx.Response(200, json={"data": {"resultType": "matrix", "result": result}})


def prometheus(handler: httpx.MockTransport) -> Prometheus:
    return Prometheus("http://127.0.0.1:9090/", clock=Clock.start(), client=httpx.Client(transport=handler))


def test_samples_carry_the_servers_instants() -> None:
    """To the millisecond, as Prometheus keeps them."""
    read = prometheus(httpx.MockTransport(answer)).read(UnixNs(0), UnixNs(10 * S))

    turns = [item for item in read if isinstance(item, Sample) and item.name == "voice_agent_turns_total"]
    assert [(sample.at, sample.labels) for sample in turns] == [(1_001_000_000, {"job": "a"}), (2_001_000_000, {"job": "a"})]


def test_what_rules_wrote_is_a_source_of_its_own() -> None:
    """A rule can lie where the samples do not."""
    read = prometheus(httpx.MockTransport(answer)).read(UnixNs(0), UnixNs(10 * S))

    assert {item.name: item.source for item in read if isinstance(item, Sample)} == {
        "voice_agent_turns_total": Source.PROMETHEUS,
        "up": Source.PROMETHEUS,
        "voice_agent:ttfw_seconds:p95": Source.RULES,
    }
    assert [(item.source, item.count) for item in read if isinstance(item, Poll)] == [
        (Source.PROMETHEUS, 2),
        (Source.PROMETHEUS, 2),
        (Source.RULES, 2),
    ]


@pytest.mark.parametrize(
    ("response", "reason"),
    [(httpx.Response(500, text="boom"), "answered 500: boom"), (httpx.Response(200, text="<html>"), "no query result")],
)
def test_a_query_that_fails_is_a_gap(response: httpx.Response, reason: str) -> None:
    """Its URL finds it again."""
    read = prometheus(httpx.MockTransport(lambda request: response)).read(UnixNs(0), UnixNs(10 * S))

    assert all(isinstance(item, Gap) and item.reason.startswith(reason) for item in read)
    assert [item.source for item in read] == [Source.PROMETHEUS, Source.PROMETHEUS, Source.RULES]
    assert all("/api/v1/query?query=" in item.request for item in read)


def test_a_server_that_is_gone_is_a_gap() -> None:
    """A refused connection is no exception."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    read = prometheus(httpx.MockTransport(refuse)).read(UnixNs(0), UnixNs(10 * S))

    assert [item.reason for item in read if isinstance(item, Gap)] == ["ConnectError: refused"] * 3


def test_settings_tell_version_and_intervals() -> None:
    """Jobs that differ are listed by name."""
    assert json.loads(json.dumps(prometheus(httpx.MockTransport(answer)).settings())) == {
        "prometheus_version": "3.13.5",
        "prometheus_flavour": "prometheus",
        "scrape_interval_s": 15.0,
        "scrape_timeout_s": 10.0,
        "evaluation_interval_s": 90.0,
        "scrape_interval_s_by_job": {"voice-agent": 5.0},
    }


def test_a_server_that_hides_its_configuration_is_known_by_its_samples() -> None:
    """VictoriaMetrics, by its own metrics; scraped as its samples of `up` are spaced; asked past what it holds back."""
    asked: list[httpx.URL] = []

    def hiding(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        if request.url.path == "/metrics":
            return httpx.Response(200, text='vm_app_version{version=""} 1\n')
        if request.url.path == "/api/v1/query":
            values = [[second, "1"] for second in (100, 105, 110, 115.1)]
            return httpx.Response(
                200, json={"status": "success", "data": {"result": [{"metric": {"job": "x"}, "values": values, "value": [115.1, "115"]}]}}
            )
        return httpx.Response(200, json={"status": "success", "data": {}})

    server = prometheus(httpx.MockTransport(hiding))

    assert server.settings() == {
        "prometheus_version": "unknown",
        "prometheus_flavour": "victoriametrics",
        "scrape_interval_s": 5.0,
    }
    server.has_tried_all(UnixNs(0))
    assert asked[-1].params["nocache"] == "1"


def test_the_slowest_target_decides_whether_all_were_scraped() -> None:
    """The oldest `up` sample is at 8.5 s."""
    server = prometheus(httpx.MockTransport(answer))

    assert (server.has_tried_all(UnixNs(8 * S)), server.has_tried_all(UnixNs(9 * S))) == (True, False)


def test_defaults_of_prometheus_apply_to_an_empty_configuration() -> None:
    """A minute each."""
    assert intervals("{}") == {"scrape_interval_s": 60.0, "scrape_timeout_s": 10.0, "evaluation_interval_s": 60.0}


@pytest.mark.parametrize(("text", "value"), [("15s", 15.0), ("1m30s", 90.0), ("500ms", 0.5), ("1d", 86400.0)])
def test_durations_are_seconds(text: str, value: float) -> None:
    """In Prometheus' own notation."""
    assert seconds(text) == value
