"""The agent's own instants, for calibrations."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.fakes.livekit_agents import Session

SOURCE = Path(__file__).parents[2] / "fixtures" / "agent" / "ruler.py"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ruler.jsonl"
    monkeypatch.setenv("AGENT_RULER_FILE", str(path))
    return path


def loaded() -> ModuleType:
    """The module as a worker would import it now."""
    spec = importlib.util.spec_from_file_location("ruler", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_turn_has_its_instants_in_nanoseconds(log: Path) -> None:
    """Those that livekit-agents knows; one that it does not know is not there."""
    session = Session()
    loaded().watch(session, "room-1", {})
    session.says("user", "weather", stopped_speaking_at=12.5)

    turn = lines(log)[-1]
    assert (turn["kind"], turn["role"], turn["stopped_speaking_at"]) == ("turn", "user", 12_500_000_000)
    assert "started_speaking_at" not in turn


def test_programmed_delays_are_said_once_a_call(log: Path) -> None:
    """A calibration's transfer standard is kept with what was measured under it."""
    loaded().watch(Session(), "room-1", {"LLM": 0.2})

    (line,) = lines(log)
    assert (line["kind"], line["room"], line["LLM"]) == ("delays", "room-1", 0.2)


def test_without_a_file_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs nothing in a run that does not calibrate."""
    monkeypatch.delenv("AGENT_RULER_FILE", raising=False)
    session = Session()
    loaded().watch(session, "room-1", {})

    assert session.heard_by("agent_state_changed") == 0


def test_a_stage_notes_what_it_took(log: Path) -> None:
    """How long it waited to begin, how long it worked, and the longest turn of the loop meanwhile."""
    ruler = loaded()

    async def work() -> None:
        async with ruler.stage("LLM", "room-1", 0.01, asked=time.perf_counter() - 0.001):
            await asyncio.sleep(0.01)
        await asyncio.gather(*ruler._writing)

    asyncio.run(work())

    (line,) = lines(log)
    assert (line["kind"], line["stage"], line["programmed_s"], line["is_cut"]) == ("stage", "LLM", 0.01, False)
    assert line["took_s"] >= 0.01
    assert line["waited_s"] >= 0.001
    assert line["turn_s"] >= ruler.BEAT_S


def test_a_stage_that_is_cut_short_says_so(log: Path) -> None:
    """Nobody waited for it any more."""
    ruler = loaded()

    async def work() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01), ruler.stage("TTS", "room-1", 60.0):
                await asyncio.sleep(60)
        await asyncio.gather(*ruler._writing)

    asyncio.run(work())

    assert lines(log)[0]["is_cut"]
