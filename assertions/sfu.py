"""Rooms and participants of the media server: its gauges while calls ran, and everything back where it was when they are over."""

from __future__ import annotations

from collections.abc import Iterator

from assertions.facts import Facts, count_words, replaced, whole_number
from assertions.ledger import Difference, Key, Range, Reading, Step, Thing, Tree, exactly
from harness.model import Gap, Source, UnixNs

SLACK_S = 1.5
"""The server updates its gauges by an asynchronous queue, and a poll takes time; measured below 0.1 s on a quiet machine."""
_GAUGES = {"sfu/rooms": ("livekit_room_total", "rooms"), "sfu/participants": ("livekit_participant_total", "participants")}
_EACH = {"sfu/rooms": 1, "sfu/participants": 2}
"""What a call adds: a room; a caller and an agent."""


def trees(facts: Facts) -> Iterator[Tree]:
    """Rooms, and participants."""
    for claim, (metric, noun) in _GAUGES.items():
        truth = _expected(facts, claim)
        step = Step(
            claim=claim,
            source="placed",
            title=f"SFU /metrics and API, {noun}",
            admits=lambda given: given,
            defects={"one is left behind": _left_behind, "none is counted": _none_counted},
            show=_show,
            explain=lambda difference, noun=noun: _explain(difference, noun),  # type: ignore[misc]
            resolution=lambda admitted, said, noun=noun: f"1 {noun[:-1]}",  # type: ignore[misc]
        )
        yield Tree(root="placed", truth=truth, steps=(step,), seen={claim: _said(facts, metric, noun)})


def _polls(facts: Facts, metric: str) -> tuple[tuple[UnixNs, float], ...]:
    """The gauge at every poll, summed over its series; a poll that repeats the one before says the same again."""
    timelines = facts.reader.series(Source.SFU_EXPORTER, metric)
    found = []
    for poll in facts.reader.polls.get(Source.SFU_EXPORTER, ()):
        values = [number for timeline in timelines if (number := timeline.at(poll.at)) is not None]
        if values:
            found.append((poll.at, sum(values)))
    return tuple(found)


def _expected(facts: Facts, claim: str) -> Reading:
    """At each poll what the calls in progress add for certain and at most, over the baseline before the load."""
    metric, _ = _GAUGES[claim]
    polls = _polls(facts, metric)
    base = next((number for at, number in reversed(polls) if at <= facts.since), 0.0)
    each = _EACH[claim]
    departure_s = facts.setting("departure_timeout_s", 20.0)
    parts: dict[Key, Thing] = {}
    for at, _ in polls:
        low = high = 0
        for record in facts.evidence.records:
            if record.placed_at is None:
                continue
            end = record.left_at
            lingers_s = SLACK_S + departure_s
            if record.placed_at - SLACK_S * 1e9 <= at and (end is None or at <= end + lingers_s * 1e9):
                high += each
            joined = record.agent_joined_at if each > 1 else record.joined_at
            if joined is not None and end is not None and joined + SLACK_S * 1e9 < at < end:
                low += each
        parts["at", str(at)] = Range(lo=base + low, hi=base + high)
    if not facts.broken:
        parts["left over",] = exactly(0)
        parts["after",] = exactly(base)
    because = (
        f"the gauge follows within {SLACK_S:g} s",
        f"a room closes up to {departure_s:g} s after its last participant left",
        f"before the load it said {whole_number(base)}",
    )
    return Reading(parts=parts, because=because)


def _said(facts: Facts, metric: str, noun: str) -> Reading | Gap:
    for source in (Source.SFU_EXPORTER, Source.SFU_API):
        if gap := facts.unread(source):
            return gap
    polls = _polls(facts, metric)
    parts: dict[Key, Thing] = {("at", str(at)): exactly(number) for at, number in polls}
    listed = facts.reader.series(Source.SFU_API, noun)
    if listed:
        parts["left over",] = exactly(listed[0].samples[-1][1])
    if polls:
        parts["after",] = exactly(polls[-1][1])
    return Reading(parts=parts)


def _show(reading: Reading) -> str:
    over_time = [thing for key, thing in reading.parts.items() if key[0] == "at" and isinstance(thing, Range)]
    if not over_time:
        return "no series"
    low, high = max(thing.lo for thing in over_time), max(thing.hi for thing in over_time)
    peak = whole_number(low) if low == high else f"{whole_number(low)}..{whole_number(high)}"
    after = reading.parts.get(("after",))
    return f"peak {peak}, after {count_words(after).strip('{}')}" if after else f"peak {peak}"


def _explain(difference: Difference, noun: str) -> str:
    said, admitted = count_words(difference.said).strip("{}"), count_words(difference.admitted)
    match difference.key[0]:
        case "left over":
            return f"the server's API still lists {said} of our {noun} after every caller left"
        case "after":
            return f"the server's gauge says {said} {noun} after the calls, before them it said {admitted.strip('{}')}"
        case _:
            return f"the server's gauge says {said} {noun} at a poll at which it may say {admitted}"


def _left_behind(said: Reading) -> Reading | None:
    after = said.parts.get(("after",))
    return replaced(said, {("after",): exactly(after.lo + 1)}) if isinstance(after, Range) else None


def _none_counted(said: Reading) -> Reading | None:
    return replaced(said, {key: exactly(0) for key in said.parts if key[0] == "at"}) if said.parts else None
