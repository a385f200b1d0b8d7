"""What our own ruler is worth: errors of each kind, from records with known truths."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.measure.figures import figures
from harness.model import CallOutcome, CallRecord, Grade, Impaired, Impairment, TurnRecord, UnixNs, Uplink, WireStats
from tests.caller.plans import plan

S = 1_000_000_000


def turn(first_word_ns: int | None, **fields: Any) -> TurnRecord:
    said: dict[str, Any] = {"index": 1, "prompt": "weather", "text": "weather", "agent_speech_ended_at": None}
    return TurnRecord(
        **said,
        user_speech_started_at=UnixNs(S),
        user_speech_ended_at=UnixNs(2 * S),
        first_word_at=None if first_word_ns is None else UnixNs(first_word_ns),
        **fields,
    )


def record(*turns: TurnRecord, impairments: tuple[Impairment, ...] = (), **fields: Any) -> CallRecord:
    return CallRecord(plan=dataclasses.replace(plan(), impairments=impairments), outcome=CallOutcome.COMPLETED, turns=turns, **fields)


def wire(direction: str, lost: int = 0, rtt_s: tuple[float, ...] = ()) -> WireStats:
    return WireStats(direction=direction, packets=100, expected=100, lost=lost, jitter_s=None, jitter_max_s=None, rtt_s=rtt_s)


def by_name(*records: CallRecord, sent: tuple[int, ...] = ()) -> dict[str, tuple[int, float, float]]:
    """Count, bias and bound of each figure."""
    found = figures(records, {"room-1": tuple(map(UnixNs, sent))})
    return {figure.name: (figure.count, figure.bias, figure.bound) for figure in found}


def test_a_word_is_held_against_the_reply_that_brought_it() -> None:
    """The first one that left after the caller had finished; the greeting before it is none."""
    found = by_name(record(turn(3 * S + 600_000)), sent=(S, 3 * S, 9 * S))

    assert found["TTFW, full grade"] == (1, 0.0006, 0.0006)


def test_grades_are_told_apart() -> None:
    """Each has a figure of its own."""
    found = by_name(record(turn(3 * S), turn(3 * S + 2_000_000, grade=Grade.LIGHT)), sent=(3 * S,))

    assert (found["TTFW, full grade"], found["TTFW, light grade"]) == ((1, 0.0, 0.0), (1, 0.002, 0.002))


def test_a_void_or_missed_or_impaired_turn_says_nothing() -> None:
    """No figure at all."""
    lossy = (Impairment(direction="down", loss_ratio=0.1),)
    found = by_name(record(turn(None), turn(4 * S, void="late")), record(turn(4 * S), impairments=lossy), sent=(3 * S,))

    assert "TTFW, full grade" not in found


def test_an_injected_delay_is_no_error_of_the_round_trip() -> None:
    """40 ms each way, 80.5 ms measured; a network with jitter has no single truth."""
    steady = tuple(Impairment(direction=direction, delay_s=0.04) for direction in ("up", "down"))
    jittery = (Impairment(direction="up", jitter_s=0.01),)
    up = wire("up", rtt_s=(0.0805,))
    found = by_name(record(impairments=steady, wire=(up,)), record(impairments=jittery, wire=(up,)))

    assert found["RTT"] == (1, 0.0005, 0.0005)


def test_loss_is_counted_in_packets() -> None:
    """What the server lacked from the start is not held against it."""
    uplink = Uplink(
        reported_jitter_s=(0.0,) * 5 + (0.0101, 0.0101),
        true_jitter_s=(0.0,) * 5 + (0.01, 0.01),
        reported_lost=(0, 0, 0, 0, 0, 9, 11),
        true_lost=(0, 0, 0, 0, 0, 10, 12),
    )
    window = Impaired(
        direction="down", since=UnixNs(0), until=UnixNs(S), packets=100, lost=5, lost_sequences=(), duplicated=0, reordered=0,
        delay_min_s=None, delay_mean_s=None, delay_max_s=None,
    )  # fmt: skip
    found = by_name(record(uplink=uplink, impaired=(window,), wire=(wire("down", lost=6),)))

    assert found["loss, uplink"] == (2, 0.0, 0.0)
    assert found["loss, downlink"] == (1, 1.0, 1.0)
    assert found["jitter, uplink"] == (2, 0.0001, 0.0001)
