"""One line in an entrypoint, one below the server, and what they refuse."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import voxproof_telemetry
from prometheus_client import REGISTRY
from voxproof_telemetry import TelemetryError

from tests.fakes.livekit_agents import Event, Job, Room, Session

MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MULTIPROC, "SUPABASE_URL", "SUPABASE_SERVICE_KEY"):
        monkeypatch.delenv(name, raising=False)


def server(executor: str, multiproc_dir: str | None = None) -> Any:
    return Event(_job_executor_type=Event(name=executor), _prometheus_multiproc_dir=multiproc_dir)


def test_a_worker_of_processes_does_not_start_without_the_directory() -> None:
    """Its scrape would be green and empty; the message names the variable."""
    with pytest.raises(TelemetryError, match=MULTIPROC):
        voxproof_telemetry.prepare(server("PROCESS"))


def test_a_call_of_such_a_worker_does_not_begin() -> None:
    """For a team that did not say prepare()."""
    with pytest.raises(TelemetryError, match=MULTIPROC):
        voxproof_telemetry.attach(Session(), Job(Room(), executor="PROCESS"))


@pytest.mark.parametrize("worker", [server("THREAD"), server("PROCESS", "/somewhere")], ids=["thread", "directory by argument"])
def test_a_worker_whose_metrics_arrive_starts(worker: Any) -> None:
    """Threads share the worker's registry; the worker sets the variable from its own argument."""
    voxproof_telemetry.prepare(worker)


def test_prepared_tools_stand_at_0() -> None:
    """Before any call."""
    voxproof_telemetry.prepare(server("THREAD"), tools=["transfer"])
    assert REGISTRY.get_sample_value("voice_agent_tool_calls_total", {"tool": "transfer", "success": "false"}) == 0


def test_without_supabase_there_are_metrics_only(caplog: pytest.LogCaptureFixture) -> None:
    """And the log says so."""
    job = Job(Room())
    voxproof_telemetry.attach(Session(), job)
    asyncio.run(job.shut_down())
    assert "no call history" in caplog.text


def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than losing every row."""
    monkeypatch.setenv("SUPABASE_URL", "project.supabase.co")
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", "service")
    with pytest.raises(TelemetryError, match="https://"):
        voxproof_telemetry.attach(Session(), Job(Room()))


@pytest.mark.parametrize("metadata", ["", "not json", "[1]", '{"direction": "sideways"}'])
def test_metadata_of_somebody_else_says_nothing(metadata: str) -> None:
    """The call gets an id of its own."""
    dispatch = voxproof_telemetry.attach.__globals__["Dispatch"].parsed(metadata)
    assert (len(dispatch.call_id), dispatch.phone_number, dispatch.direction) == (36, None, "inbound")
