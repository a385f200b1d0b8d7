"""The responder's ruler held against the callers' truth."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.calibrate import _exchanges
from harness.measure.calibration import RESPONDER, load
from harness.model import CallOutcome, CallRecord, Impairment, TurnRecord, UnixNs
from tests.caller.plans import plan

MS = 1_000_000
TURN = TurnRecord(
    index=1,
    prompt="weather",
    text="what is the weather in london today",
    user_speech_started_at=UnixNs(1000 * MS),
    user_speech_ended_at=UnixNs(3000 * MS),
    first_word_at=UnixNs(3600 * MS),
    agent_speech_ended_at=None,
)
NOTES: list[dict[str, Any]] = [
    {"kind": "said", "room": "room-1", "due_at": None, "started_at": 500 * MS},
    {"kind": "heard", "room": "room-1", "started_at": 1001 * MS, "ended_at": 3005 * MS},
    {"kind": "said", "room": "room-1", "due_at": 3595 * MS, "started_at": 3601 * MS},
    {"kind": "heard", "room": "room-2", "started_at": 1, "ended_at": 3001 * MS},
]


def record(turn: TurnRecord = TURN, *impairments: Impairment) -> CallRecord:
    return CallRecord(plan=dataclasses.replace(plan(), impairments=impairments), outcome=CallOutcome.COMPLETED, turns=(turn,))


def test_a_turn_is_held_against_what_the_responder_noted_in_its_room() -> None:
    """5 ms until it took the speech as ended; the onset found 1 ms before it left, which the codec's smear does; sent 6 ms after it was due."""
    (found,) = _exchanges(record(), NOTES)

    assert (found.uplink_s, found.downlink_s, found.ask_delay_s, found.push_delay_s) == (0.005, -0.001, 0.0, 0.006)


def test_void_missed_and_impaired_turns_calibrate_nothing() -> None:
    """Our own evidence, and networks of our own making."""
    void, missed = dataclasses.replace(TURN, void="late"), dataclasses.replace(TURN, first_word_at=None)
    lossy = Impairment(direction="up", loss_ratio=0.1)

    assert [list(_exchanges(each, NOTES)) for each in (record(void), record(missed), record(TURN, lossy))] == [[], [], []]


def test_the_committed_calibration_keeps_the_issues_bounds() -> None:
    """On the machine where it was made: TTFW within 1 ms of bias and 5 ms, in both grades; losses exact to the packet."""
    figures = {figure.name: figure for figure in load(RESPONDER).figures}

    for grade in ("full", "light"):
        assert abs(figures[f"TTFW, {grade} grade"].bias) <= 0.001
        assert figures[f"TTFW, {grade} grade"].bound <= 0.005
    assert (figures["loss, uplink"].bound, figures["loss, downlink"].bound) == (0, 0)
