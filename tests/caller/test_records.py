"""Call records derived from events."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from harness import codec
from harness.caller.records import call_records
from harness.model import (
    AgentStay,
    CallEvent,
    CallOutcome,
    CallPlan,
    CallRecord,
    GeneratorHealth,
    Grade,
    Impaired,
    TurnRecord,
    UnixNs,
    Uplink,
    WireStats,
)
from tests.caller.plans import plan

MS = 1_000_000
UP = WireStats(direction="up", packets=500, expected=500, lost=0, jitter_s=0.0001, jitter_max_s=0.0004, rtt_s=(0.0011, 0.0012))


def event(at: int, kind: str, call: CallPlan | None = None, **fields: Any) -> CallEvent:
    """One event of call 1."""
    return CallEvent(at=UnixNs(at * MS), call_id=(call or plan()).call_id, kind=kind, fields=fields)


PLACED = event(0, "placed", process="caller-1", room="room-1", identity="caller-1")
WHOLE = (
    PLACED,
    event(10, "admitted", sid="PA_1", room_sid="RM_1", server_version="1.13.5"),
    event(40, "joined"),
    event(500, "agent-joined", identity="agent-1", sid="PA_2"),
    event(1010, "greeted", first_word_at=1000 * MS),
    event(5010, "speech", index=1, prompt="weather", started_at=3000 * MS, ended_at=5000 * MS),
    event(6010, "reply", index=1, first_word_at=6000 * MS),
    event(8010, "reply-ended", index=1, ended_at=7000 * MS),
    event(10010, "speech", index=2, prompt="goodbye", started_at=8000 * MS, ended_at=10000 * MS),
    event(20010, "missed", index=2),
    event(20020, "left"),
    event(20030, "wire", **codec.to_json(UP)),
    event(20040, "recorded", path="audio/call-1.wav", started_at=41 * MS),
    event(20050, "ended", outcome=CallOutcome.SILENT, error="the agent left at least one sentence unanswered"),
)


def health(process: str, *late: tuple[int, int]) -> GeneratorHealth:
    """A caller process that was late in these milliseconds."""
    return GeneratorHealth(
        process=process,
        callers=1,
        ticks=1000,
        pacing_p50_ms=0.1,
        pacing_p99_ms=0.5,
        pacing_max_ms=20.0,
        late=tuple((UnixNs(start * MS), UnixNs(end * MS)) for start, end in late),
        priority="normal",
        engine="python",
        cpu_s=1.0,
        receive_drops=0,
        clock_steps=0,
    )


def record(*events: CallEvent) -> CallRecord:
    """The record of call 1."""
    (only,) = call_records([plan()], events)
    return only


def test_a_whole_call_becomes_its_record() -> None:
    """Every fact of the events stands in the record, and the missed turn has no first word."""
    assert record(*WHOLE) == CallRecord(
        plan=plan(),
        outcome=CallOutcome.SILENT,
        placed_at=UnixNs(0),
        joined_at=UnixNs(40 * MS),
        agent_joined_at=UnixNs(500 * MS),
        agents=(AgentStay(identity="agent-1", joined_at=UnixNs(500 * MS), left_at=None),),
        greeted_at=UnixNs(1000 * MS),
        left_at=UnixNs(20020 * MS),
        turns=(
            TurnRecord(
                index=1,
                prompt="weather",
                text="weather",
                user_speech_started_at=UnixNs(3000 * MS),
                user_speech_ended_at=UnixNs(5000 * MS),
                first_word_at=UnixNs(6000 * MS),
                agent_speech_ended_at=UnixNs(7000 * MS),
            ),
            TurnRecord(
                index=2,
                prompt="goodbye",
                text="goodbye",
                user_speech_started_at=UnixNs(8000 * MS),
                user_speech_ended_at=UnixNs(10000 * MS),
                first_word_at=None,
                agent_speech_ended_at=None,
            ),
        ),
        wire=(UP,),
        audio="audio/call-1.wav",
        audio_started_at=UnixNs(41 * MS),
        error="the agent left at least one sentence unanswered",
    )


def test_every_agent_of_a_room_is_kept() -> None:
    """Each with when it came and went; the first stands for all where one is asked for."""
    found = record(
        *WHOLE[:4],
        event(520, "agent-joined", identity="agent-2", sid="PA_3"),
        event(9000, "agent-left", identity="agent-2", reason="CLIENT_INITIATED", remaining=1),
    )

    assert [(stay.identity, stay.joined_at, stay.left_at) for stay in found.agents] == [
        ("agent-1", 500 * MS, None),
        ("agent-2", 520 * MS, 9000 * MS),
    ]
    assert found.agent_joined_at == 500 * MS


def test_a_call_that_never_started_was_dropped() -> None:
    """A plan without events: the generator fell short."""
    assert record().outcome is CallOutcome.DROPPED


def test_a_call_without_an_end_was_cut() -> None:
    """Started, and its process wrote no end; what happened until then is kept."""
    cut = record(*WHOLE[:8])

    assert (cut.outcome, len(cut.turns), cut.left_at) == (CallOutcome.CUT, 1, None)


def test_records_follow_the_plans() -> None:
    """Events of several calls may be mixed; each record gets its own, in the order of the plans."""
    second = plan(index=2)

    records = call_records([second, plan()], (event(5, "placed", second, process="caller-1"), PLACED))

    assert [(one.plan.index, one.placed_at) for one in records] == [(2, 5 * MS), (1, 0)]


def test_events_read_from_a_file_with_a_torn_end_give_the_same_record(tmp_path: Path) -> None:
    """The process was killed while it wrote ``ended``: everything before counts."""
    lines = "".join(codec.line(entry) for entry in WHOLE)
    path = tmp_path / "caller-1.jsonl"
    path.write_text(lines[:-40])

    assert record(*codec.read_lines(path, CallEvent)) == record(*WHOLE[:-1])


def test_our_own_doubt_voids_the_turn() -> None:
    """The engine's doubt, written beside the reply, forbids using the turn's latency."""
    doubted = record(*WHOLE, event(6020, "doubt", index=1, reason="a media tick was 31 ms late"))

    assert [turn.void for turn in doubted.turns] == ["a media tick was 31 ms late", None]


def test_a_late_tick_voids_the_turns_that_it_touches() -> None:
    """Lateness of the call's own process between the prompt's start and the first word voids that turn only."""
    (only,) = call_records([plan()], WHOLE, [health("caller-1", (5500, 5531))])

    assert [turn.void for turn in only.turns] == ["our media thread ran 31 ms late while the turn was measured", None]


def test_lateness_of_another_process_voids_nothing() -> None:
    """Only the process that placed the call has evidence about it."""
    (only,) = call_records([plan()], WHOLE, [health("caller-2", (5500, 5531))])

    assert [turn.void for turn in only.turns] == [None, None]


def test_an_impaired_call_carries_what_was_done_to_it() -> None:
    """By window, and beside the server's reports."""
    window = Impaired(
        direction="up", since=UnixNs(0), until=UnixNs(5), packets=2, lost=1, lost_sequences=(7,), duplicated=0, reordered=0,
        delay_min_s=0.01, delay_mean_s=0.01, delay_max_s=0.01,
    )  # fmt: skip
    uplink = Uplink(reported_jitter_s=(0.01,), true_jitter_s=(0.0101,), reported_lost=(1,), true_lost=(1,))
    found = record(*WHOLE, event(20031, "impaired", **codec.to_json(window)), event(20032, "uplink", **codec.to_json(uplink)))

    assert (found.impaired, found.uplink) == ((window,), uplink)


def test_a_turn_says_how_it_was_measured() -> None:
    """As the plan of its call has it."""
    light = dataclasses.replace(plan(), grade=Grade.LIGHT)
    (found,) = call_records([light], WHOLE)

    assert {turn.grade for turn in found.turns} == {Grade.LIGHT}


def test_a_reply_that_was_talked_over_ended_when_the_agent_fell_silent() -> None:
    """If that was after our next prompt began; one that was over before was heard to its end."""
    speech = event(9000, "speech", index=2, prompt="goodbye", started_at=9000 * MS, ended_at=10000 * MS)
    before, after = (event(9500, "talked-over", index=1, started_at=6000 * MS, ended_at=ended * MS) for ended in (8900, 9400))
    events = [
        one for one in WHOLE if not (one.kind in ("reply-ended", "speech") and one.fields["index"] in (1, 2) and one.kind == "reply-ended")
    ]
    events = [one for one in events if not (one.kind == "speech" and one.fields["index"] == 2)]

    assert record(*events, speech, before).talked_over == ()
    cut = record(*events, speech, before, after)
    assert (cut.talked_over, cut.turns[0].agent_speech_ended_at) == ((1,), 9400 * MS)
