"""When what lies between callers and agents stood still, by the round trips of all callers: a report that came back late was read late.

The media server answers each of our sender reports within a second, and says how long it kept it; what is left is the way, both ways. One caller
asks once in a second, all callers together as often as they are many: a short stall with few callers may be seen by none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.model import CallRecord, TurnRecord, UnixNs

Stall = tuple[UnixNs, UnixNs]

LEAST_S = 0.04
"""What a round trip must exceed the shortest one of its call by: less, a receiver's jitter buffer hides."""


def stalls(records: Iterable[CallRecord]) -> tuple[Stall, ...]:
    """Intervals, none of which touch, in order. An impaired call shows none: what was done to it is known by other means."""
    merged: list[Stall] = []
    for since, until in sorted(stall for record in records if not record.plan.impairments for stall in _of_call(record)):
        if merged and since <= merged[-1][1]:
            since, until = merged[-1][0], max(until, merged.pop()[1])
        merged.append((since, until))
    return tuple(merged)


def _of_call(record: CallRecord) -> Iterator[Stall]:
    windows = [window for window in record.windows if window.rtt_s and window.rtt_max_at is not None]
    shortest_s = min((rtt_s for window in windows for rtt_s in window.rtt_s), default=0.0)
    for window in windows:
        longer_s = max(window.rtt_s) - shortest_s
        if longer_s > LEAST_S and window.rtt_max_at is not None:
            yield UnixNs(window.rtt_max_at - round(longer_s * 1e9)), window.rtt_max_at


def stalled_s(turn: TurnRecord, found: Iterable[Stall]) -> float:
    """All the stalls that touch the time between the start of the prompt and the first word of the reply; 0 if none does."""
    return sum(_touching_s(turn, found))


def longest_s(turn: TurnRecord, found: Iterable[Stall]) -> float:
    """The longest of them: what an agent hears as a silence."""
    return max(_touching_s(turn, found), default=0.0)


def _touching_s(turn: TurnRecord, found: Iterable[Stall]) -> Iterator[float]:
    until = max(turn.user_speech_ended_at, turn.first_word_at or turn.user_speech_ended_at)
    return ((end - start) / 1e9 for start, end in found if start <= until and end >= turn.user_speech_started_at)
