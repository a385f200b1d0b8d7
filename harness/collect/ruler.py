"""The reference agent's truths apart from all telemetry: what its stages took by its own ruler, and what its tools asked of our endpoint."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from harness.clock import Clock
from harness.model import Gap, Observation, Poll, Row, Source, UnixNs

STAGES, REQUESTS = "stages", "tool-requests"
"""Tables of the observations."""
NO_RULER = "only the reference agent notes what its stages really took"
NO_STAGES = "this agent has no stages: nothing recognises, thinks or synthesises"
NO_ENDPOINT = "only the reference agent's tools call an endpoint of ours"

Notes = list[dict[str, Any]]


def stages(path: str | None, rooms: Collection[str], *, clock: Clock) -> tuple[Observation | Gap, ...]:
    """Every stage that worked in ``rooms``; a blind Gap where no agent notes any."""
    found = _read(Source.AGENT_RULER, path, NO_RULER, rooms, clock)
    if isinstance(found, Gap):
        return (found,)
    request, notes = found
    if notes and not any(note["kind"] == "delays" for note in notes):
        return (Gap(source=Source.AGENT_RULER, at=clock.now(), reason=NO_STAGES, request=request, is_blind=True),)
    return _rows(Source.AGENT_RULER, STAGES, request, [note for note in notes if note["kind"] == "stage"], clock)


def requests(path: str | None, rooms: Collection[str], *, clock: Clock) -> tuple[Observation | Gap, ...]:
    """Every request that a tool made in ``rooms``; a blind Gap where no tool makes any."""
    found = _read(Source.TOOL_ENDPOINT, path, NO_ENDPOINT, rooms, clock)
    return (found,) if isinstance(found, Gap) else _rows(Source.TOOL_ENDPOINT, REQUESTS, *found, clock)


def _read(source: Source, path: str | None, why_not: str, rooms: Collection[str], clock: Clock) -> Gap | tuple[str, Notes]:
    if path is None:
        return Gap(source=source, at=clock.now(), reason=why_not, request="", is_blind=True)
    request = Path(path).name
    try:
        return request, [note for note in _notes(Path(path).read_text()) if note.get("room") in rooms]
    except OSError as exc:
        return Gap(source=source, at=clock.now(), reason=f"{type(exc).__name__}: {exc.strerror}", request=request)


def _notes(text: str) -> Iterator[dict[str, Any]]:
    """A torn last line is passed over: its writer was ended in the middle of it."""
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _rows(source: Source, table: str, request: str, notes: Notes, clock: Clock) -> tuple[Observation, ...]:
    poll = Poll(source=source, at=clock.now(), took_s=0.0, count=len(notes), request=request)
    return (poll, *(_row(source, table, request, note) for note in notes))


def _row(source: Source, table: str, request: str, note: dict[str, Any]) -> Row:
    columns = {name: what for name, what in note.items() if name not in ("at", "kind")}
    return Row(source=source, table=table, columns=columns, at=UnixNs(note["at"]), request=request)
