"""The agent's ruler as a source: what its stages really took."""

from __future__ import annotations

import json
from pathlib import Path

from harness.clock import Clock
from harness.collect import ruler
from harness.model import Gap, Poll, Row

STAGE = {
    "kind": "stage",
    "room": "ours",
    "stage": "LLM",
    "programmed_s": 0.2,
    "waited_s": 0.0,
    "took_s": 0.201,
    "turn_s": 0.005,
    "is_cut": False,
}
DELAYS = {"kind": "delays", "room": "ours", "LLM": 0.2}


def noted(tmp_path: Path, *notes: object, end: str = "") -> str:
    """A ruler file."""
    path = tmp_path / "agent-ruler.jsonl"
    path.write_text("".join(json.dumps({"at": 5, **note}) + "\n" for note in notes if isinstance(note, dict)) + end)
    return str(path)


def test_stages_of_our_rooms_are_read(tmp_path: Path) -> None:
    """A stack that stays up has noted those of other runs, too; a torn last line is passed over."""
    path = noted(tmp_path, DELAYS, STAGE, {**STAGE, "room": "of another run"}, end='{"kind": "st')
    poll, row = ruler.stages(path, {"ours"}, clock=Clock.start())

    assert isinstance(poll, Poll)
    assert isinstance(row, Row)
    assert (poll.count, row.table, row.columns["took_s"]) == (1, "stages", 0.201)


def test_an_agent_without_stages_is_blind(tmp_path: Path) -> None:
    """The responder notes what it hears and says, and programs no delay of a stage."""
    (gap,) = ruler.stages(noted(tmp_path, {"kind": "heard", "room": "ours"}), {"ours"}, clock=Clock.start())

    assert isinstance(gap, Gap)
    assert (gap.is_blind, gap.reason) == (True, ruler.NO_STAGES)


def test_an_agent_without_a_ruler_is_blind() -> None:
    """Anyone else's."""
    (gap,) = ruler.stages(None, {"ours"}, clock=Clock.start())

    assert isinstance(gap, Gap)
    assert (gap.is_blind, gap.reason) == (True, ruler.NO_RULER)


def test_a_ruler_that_is_gone_is_a_gap(tmp_path: Path) -> None:
    """Not blindness: it should be there."""
    (gap,) = ruler.stages(str(tmp_path / "gone.jsonl"), {"ours"}, clock=Clock.start())

    assert isinstance(gap, Gap)
    assert (gap.is_blind, gap.reason) == (False, "FileNotFoundError: No such file or directory")


def test_what_a_tool_asked_is_read(tmp_path: Path) -> None:
    """Of our rooms only."""
    asked = {"room": "ours", "tool_name": "lookup_weather", "arguments": {"city": "London"}, "took_s": 0.05, "status": 200}
    poll, row = ruler.requests(noted(tmp_path, asked, {**asked, "room": "theirs"}), {"ours"}, clock=Clock.start())

    assert isinstance(row, Row)
    assert (row.table, row.columns["arguments"]) == ("tool-requests", {"city": "London"})
    assert isinstance(poll, Poll)
