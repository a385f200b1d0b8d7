"""One call on one clock, as a drawing: who spoke when, how long the caller waited, when each source was written and read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from harness.model import CallRecord, Evidence, Row, Sample, Source, TurnRecord, UnixNs, value
from reports.words import seconds, since

WIDTH = 1000
LEFT = 104
"""Space for the names of the lanes."""
RIGHT = 16
_ROW_TIMES = ("timestamp", "executed_at", "start_time", "end_time")
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
_MOST_TICKS = 14
_CHARACTER = 6.4
"""Width of one character of a label, so that no label leaves its bar."""
_GREETING_S = 0.7
"""Drawn length of a greeting: its end was not recorded."""


@value
class Bar:
    """A stretch of time in one lane; x and width in units of the drawing."""

    lane: str
    """``caller``, ``wait`` or ``agent``."""
    kind: str
    """``caller``, ``agent``, ``greeting``, ``wait``, ``missed`` or ``over``: the agent talked over the caller."""
    x: float
    width: float
    label: str
    title: str
    audio_at_s: float


@value
class Ticks:
    """Instants at which one source was written or read."""

    name: str
    title: str
    xs: tuple[float, ...]


@value
class Mark:
    """A place that a failed claim points to."""

    x: float
    audio_at_s: float
    claim: str


@value
class Drawing:
    """One call; what the template draws."""

    bars: tuple[Bar, ...]
    lanes: tuple[Ticks, ...]
    axis: tuple[tuple[float, str], ...]
    marks: tuple[Mark, ...]
    audio_x: float
    """Where the recording's first sample lies."""
    px_per_s: float


@value
class Scale:
    """Instants to units of the drawing."""

    start: UnixNs
    px_per_s: float
    audio_started_at: UnixNs

    def x(self, at: UnixNs) -> float:
        return round(LEFT + since(self.start, at) * self.px_per_s, 1)

    def audio_at_s(self, at: UnixNs) -> float:
        """Place in the recording, seconds from its first sample."""
        return round(max(since(self.audio_started_at, at), 0.0), 2)


def drawing(evidence: Evidence, record: CallRecord, marks: Iterable[tuple[float, str]] = ()) -> Drawing | None:
    """The timeline of ``record``. None if it was never placed.

    marks: places in its recording, in seconds, with the claims that point to them.
    """
    if record.placed_at is None:
        return None
    start, end = record.placed_at, _end(record)
    length_s = max(since(start, end), 1.0)
    scale = Scale(start=start, px_per_s=(WIDTH - LEFT - RIGHT) / length_s, audio_started_at=record.audio_started_at or start)
    return Drawing(
        bars=tuple(_bars(record, scale, end)),
        lanes=tuple(_lanes(evidence, record, scale, end)),
        axis=_axis(length_s, scale),
        marks=tuple(
            Mark(x=scale.x(UnixNs(scale.audio_started_at + round(at_s * 1e9))), audio_at_s=at_s, claim=claim) for at_s, claim in marks
        ),
        audio_x=scale.x(scale.audio_started_at),
        px_per_s=round(scale.px_per_s, 3),
    )


def _end(record: CallRecord) -> UnixNs:
    known = [record.placed_at, record.greeted_at, record.left_at]
    for turn in record.turns:
        known += [turn.user_speech_ended_at, turn.first_word_at, turn.agent_speech_ended_at]
    return UnixNs(max(at for at in known if at is not None) + 300_000_000)


def _bars(record: CallRecord, scale: Scale, end: UnixNs) -> Iterable[Bar]:
    if record.greeted_at is not None:
        until = UnixNs(record.greeted_at + round(_GREETING_S * 1e9))
        yield _bar(scale, "agent", "greeting", record.greeted_at, until, "greeting", record.plan.greeting or "greeting")
    for number, turn in enumerate(record.turns):
        upcoming = record.turns[number + 1].user_speech_started_at if number + 1 < len(record.turns) else end
        yield _bar(scale, "caller", "caller", turn.user_speech_started_at, turn.user_speech_ended_at, turn.text, f"caller: {turn.text}")
        yield _wait(scale, turn, upcoming)
        if turn.first_word_at is not None:
            until = turn.agent_speech_ended_at or upcoming
            reply = record.plan.turns[turn.index - 1].reply if turn.index <= len(record.plan.turns) else None
            yield _bar(scale, "agent", "agent", turn.first_word_at, until, reply or "reply", f"agent: {reply or 'reply'}")


def _wait(scale: Scale, turn: TurnRecord, upcoming: UnixNs) -> Bar:
    told = (
        f"turn {turn.index}, {turn.prompt}" + (f", tool {turn.tool}" if turn.tool else "") + (f", void: {turn.void}" if turn.void else "")
    )
    latency_s = turn.response_latency_s
    if latency_s is None or turn.first_word_at is None:
        return _bar(scale, "wait", "missed", turn.user_speech_ended_at, upcoming, "no reply", f"{told}: no reply was heard")
    if latency_s < 0:
        return _bar(
            scale,
            "wait",
            "over",
            turn.first_word_at,
            turn.user_speech_ended_at,
            seconds(latency_s),
            f"{told}: the agent talked over the caller",
        )
    return _bar(
        scale, "wait", "wait", turn.user_speech_ended_at, turn.first_word_at, seconds(latency_s), f"{told}: TTFW heard {seconds(latency_s)}"
    )


def _bar(scale: Scale, lane: str, kind: str, start: UnixNs, end: UnixNs, label: str, title: str) -> Bar:
    x = scale.x(start)
    width = round(max(scale.x(end) - x, 2.0), 1)
    room = int((width - 10) / _CHARACTER)
    shown = label if lane == "wait" or len(label) <= room else (label[: room - 1] + "…" if room >= 4 else "")
    return Bar(lane=lane, kind=kind, x=x, width=width, label=shown, title=title, audio_at_s=scale.audio_at_s(start))


def _lanes(evidence: Evidence, record: CallRecord, scale: Scale, end: UnixNs) -> Iterable[Ticks]:
    rows = [at for row in evidence.observations if isinstance(row, Row) for at in _row_times(row, record.plan.call_id)]
    samples = [one for one in evidence.observations if isinstance(one, Sample)]
    scraped = [one.at for one in samples if one.source is Source.PROMETHEUS and one.name.startswith("voice_agent")]
    ruled = [one.at for one in samples if one.source is Source.RULES and one.name.startswith("voice_agent")]
    for name, title, instants in (
        ("rows", "times that the rows of this call carry", rows),
        ("scrapes", "instants at which Prometheus scraped the agent", scraped),
        ("rules", "instants at which recording rules were evaluated", ruled),
    ):
        xs = sorted({scale.x(at) for at in instants if scale.start <= at <= end})
        if xs:
            yield Ticks(name=name, title=title, xs=tuple(xs))


def _row_times(row: Row, call_id: str) -> Iterable[UnixNs]:
    if row.columns.get("call_id") != call_id:
        return
    for column in _ROW_TIMES:
        at = _instant(row.columns.get(column))
        if at is not None:
            yield at


def _instant(stamp: Any) -> UnixNs | None:
    """A timestamptz as PostgREST writes it. None if it is none."""
    if not isinstance(stamp, str):
        return None
    try:
        return UnixNs(round(datetime.fromisoformat(stamp).timestamp() * 1e9))
    except ValueError:
        return None


def _axis(length_s: float, scale: Scale) -> tuple[tuple[float, str], ...]:
    step = next((step for step in _STEPS_S if length_s / step <= _MOST_TICKS), _STEPS_S[-1])
    return tuple(
        (scale.x(UnixNs(scale.start + at * 1_000_000_000)), f"{at} s" if at < 120 else f"{at // 60}:{at % 60:02d}")
        for at in range(0, int(length_s) + 1, step)
    )
