"""The telemetry takes the responder for any other agent."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import voxproof_telemetry
from prometheus_client import REGISTRY

from fixtures.responder.livekit_agents import JobContext, Session


def participant(**fields: object) -> SimpleNamespace:
    return SimpleNamespace(**{"identity": "caller-1", "kind": 0, "attributes": {}, "disconnect_reason": 1} | fields)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_call_is_counted_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns, time to first word and tools, from the events; nothing is left active, no event is refused."""
    for name in ("SUPABASE_URL", "SUPABASE_SERVICE_KEY", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.delenv(name, raising=False)
    names = (
        "voice_agent_ttfw_seconds_count",
        "voice_agent_ttfw_seconds_sum",
        "voice_agent_active_calls",
        "voice_agent_telemetry_errors_total",
    )
    before = [value(name) for name in names]
    tools = value("voice_agent_tool_calls_total", tool="lookup_weather", success="true")
    session, context = Session(), JobContext("room-1", '{"call_id": "a"}')
    voxproof_telemetry.attach(session, context)
    context.room.came(participant())
    session.state("listening", 1.0)
    session.item("user", "what is the weather", stopped_speaking_at=10.0)
    session.tool("t1", "lookup_weather", '{"city": "London"}', "sunny", started_s=10.0, ended_s=10.1)
    session.state("speaking", 10.75)
    session.item("assistant", "sunny")
    assert context.room.left(participant())
    session.close("participant_disconnected")
    asyncio.run(context.shut_down("over"))

    assert [value(name) - earlier for name, earlier in zip(names, before, strict=True)] == [1, pytest.approx(0.75), 0, 0]
    assert value("voice_agent_tool_calls_total", tool="lookup_weather", success="true") == tools + 1


def test_a_caller_leaves_once() -> None:
    """The server may say so again."""
    context = JobContext("room-1", "")
    context.room.came(participant())

    assert (context.room.left(participant()), context.room.left(participant())) == (True, False)
