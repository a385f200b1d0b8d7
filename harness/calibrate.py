"""Recorded runs of the reference agent into a calibration: its ruler against the callers' truth, turn by turn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import rundir
from harness.errors import UsageError
from harness.measure.calibration import Exchange, calibrate
from harness.model import Calibration, CallRecord, UnixNs

RULER = Path("logs/agent-ruler.jsonl")
ENDPOINTING_S = 0.5
"""The reference agent's programmed endpointing delay."""


def from_runs(paths: Sequence[Path], *, made_at: str) -> Calibration:
    """The bounds that these runs show. Raises UsageError for runs without the agent's ruler, with a seeded defect, or too few."""
    exchanges: list[Exchange] = []
    versions = set()
    for path in paths:
        evidence = rundir.read_evidence(path)
        if evidence.info.defect:
            raise UsageError(f"{path}: the defect {evidence.info.defect} was seeded into this run; calibrate with healthy ones")
        notes = _notes(path / RULER)
        versions |= {f"{part.name} {part.version}" for part in evidence.info.parts if part.name in ("livekit", "agent")}
        exchanges += [exchange for record in evidence.records for exchange in _exchanges(record, notes)]
    words = f"{len(paths)} runs of the reference agent with programmed delays, on {', '.join(sorted(versions))}, loopback"
    try:
        return calibrate(exchanges, made_at=made_at, method=words)
    except ValueError as exc:
        raise UsageError(f"cannot calibrate: {exc}; give more runs") from exc


def _notes(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}; only runs of the embedded stack hold the agent's ruler") from exc


def _exchanges(record: CallRecord, notes: list[dict[str, Any]]) -> Iterator[Exchange]:
    """Turns that our own evidence does not void, with what the agent noted between the end of our speech and its reply."""
    here = [note for note in notes if note["room"] == record.plan.room]
    for turn in record.turns:
        if turn.void is not None or turn.first_word_at is None:
            continue
        between = [note for note in here if turn.user_speech_ended_at < note["at"] < turn.first_word_at]
        asked = [note["at"] for note in between if note["kind"] == "asked" and not note["is_tool_reply"]]
        spoken = [note["at"] for note in between if note["kind"] == "spoken"]
        if asked and spoken:
            yield Exchange(
                speech_ended_at=turn.user_speech_ended_at,
                asked_at=UnixNs(asked[0]),
                pushed_at=UnixNs(spoken[0]),
                heard_at=turn.first_word_at,
                endpointing_s=ENDPOINTING_S,
            )
