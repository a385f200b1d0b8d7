"""Stalls of the way to the agent, by round trips."""

from __future__ import annotations

from dataclasses import replace

from harness.measure.stalls import longest_s, stalled_s, stalls
from harness.model import CallRecord, Impairment, UnixNs, WireWindow
from tests.fakes.evidence import after, plan, record


def window(since_s: float, *rtt_s: float, longest_at_s: float | None = None) -> WireWindow:
    """Five seconds of an uplink, and when its longest round trip had come back."""
    return WireWindow(
        direction="up",
        since=after(since_s),
        until=after(since_s + 5),
        packets=250,
        lost=0,
        reordered=0,
        duplicates=0,
        jitter_s=None,
        jitter_max_s=None,
        rtt_s=rtt_s,
        rtt_max_at=None if longest_at_s is None else after(longest_at_s),
    )


def called(*windows: WireWindow, index: int = 1) -> CallRecord:
    return record(plan(index), windows=windows)


def seconds(found: tuple[tuple[UnixNs, UnixNs], ...]) -> list[tuple[float, float]]:
    """Of the run."""
    return [((start - after(0)) / 1e9, (end - after(0)) / 1e9) for start, end in found]


def test_a_late_report_shows_when_the_way_stood_still() -> None:
    """As long as its round trip was longer than the shortest of its call."""
    assert seconds(stalls([called(window(10, 0.01, 0.51, longest_at_s=12))])) == [(11.5, 12.0)]


def test_what_several_callers_saw_is_one_stall() -> None:
    """Each saw the rest of it."""
    first, second = called(window(10, 0.01, 0.51, longest_at_s=12)), called(window(10, 0.0, 0.3, longest_at_s=12.01), index=2)

    assert seconds(stalls([first, second])) == [(11.5, 12.01)]


def test_what_a_jitter_buffer_hides_is_no_stall() -> None:
    """Nor a way that is long all the time."""
    assert stalls([called(window(10, 0.001, 0.02, longest_at_s=12)), called(window(10, 0.3, 0.31, longest_at_s=12))]) == ()


def test_an_impaired_call_shows_no_stall() -> None:
    """Its reports are delayed on purpose."""
    impaired = replace(plan(), impairments=(Impairment(direction="up", delay_s=0.2, jitter_s=0.2),))

    assert stalls([record(impaired, windows=(window(10, 0.2, 0.4, longest_at_s=12),))]) == ()


def test_a_record_that_does_not_say_when_shows_no_stall() -> None:
    """Runs of before it was written."""
    assert stalls([called(window(10, 0.01, 0.51))]) == ()


def test_a_turn_is_as_uncertain_as_the_stalls_that_touch_it() -> None:
    """From the start of its prompt to its first word."""
    turn = record().turns[0]
    start, heard = turn.user_speech_started_at, turn.first_word_at
    assert heard is not None
    second = 1_000_000_000

    def stall(since: int, until: int) -> tuple[UnixNs, UnixNs]:
        return UnixNs(since), UnixNs(until)

    assert stalled_s(turn, [stall(start - 2 * second, start - second), stall(heard + second, heard + 2 * second)]) == 0
    touching = [stall(start - second, start + second), stall(heard - second, heard + 2 * second)]
    assert (stalled_s(turn, touching), longest_s(turn, touching), longest_s(turn, [])) == (5, 3, 0)
