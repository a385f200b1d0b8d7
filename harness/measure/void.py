"""When a turn's latency may not be used: on the caller's own evidence only, never because two numbers differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from harness.model import CallRecord, GeneratorHealth, TurnRecord, UnixNs


def void_reason(turn: TurnRecord, late: Iterable[tuple[UnixNs, UnixNs]]) -> str | None:
    """Why the latency of ``turn`` is void. None: it may be used.

    late: intervals in which a media tick was more than 10 ms late. One that touches the time between the start of the prompt and the first
    word (or, if none was heard, the end of the prompt) may have moved either end of the measurement.
    """
    until = max(turn.user_speech_ended_at, turn.first_word_at or turn.user_speech_ended_at)
    for start, end in late:
        if start <= until and end >= turn.user_speech_started_at:
            return f"our media thread ran {(end - start) / 1e6:.0f} ms late while the turn was measured"
    return None


def with_voids(record: CallRecord, health: Iterable[GeneratorHealth]) -> CallRecord:
    """The record with every turn marked that ``health`` of its caller processes forbids using; marks already there stay."""
    late = tuple(interval for process in health for interval in process.late)
    reasons = [turn.void or void_reason(turn, late) for turn in record.turns]
    if all(reason is turn.void for turn, reason in zip(record.turns, reasons, strict=True)):
        return record
    turns = tuple(dataclasses.replace(turn, void=reason) for turn, reason in zip(record.turns, reasons, strict=True))
    return dataclasses.replace(record, turns=turns)
