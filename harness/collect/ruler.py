"""The agent's ruler: what its stages really took, by its own clock and apart from all telemetry. Only the reference agent has one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from harness.clock import Clock
from harness.model import Gap, Observation, Poll, Row, Source, UnixNs

TABLE = "stages"
"""Table of the observations."""
NO_RULER = "only the reference agent notes what its stages really took"
NO_STAGES = "this agent has no stages: nothing recognises, thinks or synthesises"


def read(path: Path | None, rooms: Collection[str], *, clock: Clock) -> tuple[Observation | Gap, ...]:
    """Every stage that worked in ``rooms``; a blind Gap where no agent notes any."""
    at = clock.now()
    if path is None:
        return (Gap(source=Source.AGENT_RULER, at=at, reason=NO_RULER, request="", is_blind=True),)
    request = path.name
    try:
        notes = [note for note in _notes(path.read_text()) if note.get("room") in rooms]
    except OSError as exc:
        return (Gap(source=Source.AGENT_RULER, at=at, reason=f"{type(exc).__name__}: {exc.strerror}", request=request),)
    if notes and not any(note["kind"] == "delays" for note in notes):
        return (Gap(source=Source.AGENT_RULER, at=at, reason=NO_STAGES, request=request, is_blind=True),)
    rows = tuple(_row(note, request) for note in notes if note["kind"] == "stage")
    return (Poll(source=Source.AGENT_RULER, at=at, took_s=(clock.now() - at) / 1e9, count=len(rows), request=request), *rows)


def _notes(text: str) -> Iterator[dict[str, Any]]:
    """A torn last line is passed over: the agent was ended in the middle of it."""
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _row(note: dict[str, Any], request: str) -> Row:
    columns = {name: what for name, what in note.items() if name not in ("at", "kind")}
    return Row(source=Source.AGENT_RULER, table=TABLE, columns=columns, at=UnixNs(note["at"]), request=request)
