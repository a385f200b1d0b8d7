"""Recorded runs of an agent with programmed delays into a calibration: its ruler against the callers' truth, turn by turn.

The reference agent's runs bound how far an honest agent's TTFW lies from the callers'. The responder's do so for the responder; and since it
knows when each sample left, they show what the callers' own ruler is worth, too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import rundir
from harness.errors import UsageError
from harness.measure.calibration import Exchange, calibrate
from harness.measure.figures import figures
from harness.model import Calibration, CallRecord, UnixNs

RULER = Path("logs/agent-ruler.jsonl")
ONSET_NS = 50_000_000


def from_runs(paths: Sequence[Path], *, made_at: str) -> tuple[Calibration, str]:
    """The bounds that these runs show, and the table of their turns.

    Raises UsageError for runs without the agent's ruler, with a seeded defect, or too few.
    """
    runs: list[list[Exchange]] = []
    versions = set()
    records: list[CallRecord] = []
    replies: dict[str, list[UnixNs]] = {}
    for path in paths:
        evidence = rundir.read_evidence(path)
        if evidence.info.defect:
            raise UsageError(f"{path}: the defect {evidence.info.defect} was seeded into this run; calibrate with healthy ones")
        notes = _notes(path / RULER)
        versions |= {f"{part.name} {part.version}" for part in evidence.info.parts if part.name in ("livekit", "agent")}
        runs.append([exchange for record in evidence.records for exchange in _exchanges(record, notes)])
        if any(note["kind"] == "heard" for note in notes):
            records += evidence.records
            for note in notes:
                if note["kind"] == "said" and note["due_at"] is not None:
                    replies.setdefault(note["room"], []).append(UnixNs(note["started_at"]))
    words = f"{len(paths)} runs with programmed delays, on {', '.join(sorted(versions))}, loopback"
    try:
        found = calibrate(runs, made_at=made_at, method=words)
    except ValueError as exc:
        raise UsageError(f"cannot calibrate: {exc}; give more runs") from exc
    return dataclasses.replace(found, figures=figures(records, replies)), table(runs)


def table(runs: Sequence[Sequence[Exchange]]) -> str:
    """The measurements behind a calibration, for people and for its digest: of each run its turns."""
    names = ["uplink_s", "downlink_s", "ask_delay_s", "push_delay_s"]
    turns = ",\n".join(
        " [" + ", ".join(json.dumps([round(getattr(each, name), 6) for name in names]) for each in run) + "]" for run in runs if run
    )
    return f'{{\n"columns": {json.dumps(names)},\n"runs": [\n{turns}\n]\n}}\n'


def _notes(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}; only runs of the embedded stack hold the agent's ruler") from exc


def _exchanges(record: CallRecord, notes: list[dict[str, Any]]) -> Iterator[Exchange]:
    """Turns with all that the agent noted between the end of our speech and its reply. An impaired call says nothing of the agent."""
    here = [note for note in notes if note["room"] == record.plan.room and not record.plan.impairments]
    if any(note["kind"] == "heard" for note in here):
        yield from _answers(record, here)
        return
    delays = next((note for note in here if note["kind"] == "delays"), None)
    for turn in record.turns:
        if turn.first_word_at is None or delays is None:
            continue
        start, end = turn.user_speech_started_at, turn.first_word_at
        between = [note for note in here if start < note["at"] < end]
        asked = [note["at"] for note in between if note["kind"] == "asked" and not note["is_tool_reply"]]
        handed_over = [note["at"] for note in between if note["kind"] == "spoken"]
        anchors = _instants(here, "user", "stopped_speaking_at", start, end)
        pushed = _instants(here, "assistant", "started_speaking_at", start, end)
        if asked and handed_over and anchors and pushed:
            yield Exchange(
                speech_ended_at=turn.user_speech_ended_at,
                anchor_at=UnixNs(anchors[0]),
                asked_at=UnixNs(asked[0]),
                endpointing_s=float(delays["ENDPOINTING"]),
                handed_over_at=UnixNs(handed_over[0]),
                pushed_at=UnixNs(pushed[0]),
                heard_at=turn.first_word_at,
            )


def _answers(record: CallRecord, here: list[dict[str, Any]]) -> Iterator[Exchange]:
    """Turns as the responder noted them. It asks nobody: its delay runs from the end of speech until its voice hands over."""
    for turn in record.turns:
        if turn.first_word_at is None or turn.void is not None:
            continue
        heard = [note for note in here if note["kind"] == "heard" and turn.user_speech_started_at < note["ended_at"] < turn.first_word_at]
        # An onset may be found a little before it left: the codec smears it.
        until = turn.first_word_at + ONSET_NS
        said = [note for note in here if note["kind"] == "said" and turn.user_speech_ended_at < note["started_at"] < until]
        if heard and said:
            yield Exchange(
                speech_ended_at=turn.user_speech_ended_at,
                anchor_at=UnixNs(heard[0]["ended_at"]),
                asked_at=UnixNs(heard[0]["ended_at"]),
                endpointing_s=0.0,
                handed_over_at=UnixNs(said[0]["due_at"]),
                pushed_at=UnixNs(said[0]["started_at"]),
                heard_at=turn.first_word_at,
            )


def _instants(notes: list[dict[str, Any]], role: str, name: str, start: int, end: int) -> list[int]:
    """Instants inside a turn that the agent's conversation has; written down when the item was complete, maybe long after."""
    found = (note.get(name) for note in notes if note["kind"] == "turn" and note["role"] == role)
    return [at for at in found if at is not None and start < at < end]
