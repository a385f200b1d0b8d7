"""Rooms and participants of the media server: its gauge while calls ran, and gauge and API back where they were when all is over."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from assertions.facts import WHOLE, Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree, exactly
from assertions.words import span, whole
from harness.measure.series import Reader
from harness.model import CallRecord, Poll, Source, UnixNs, value


@value
class Gauge:
    """One thing that the media server counts."""

    claim: str
    metric: str
    listed: str
    """Its count by the API, over our own rooms."""
    each: int
    """What a call adds: a room; a caller and an agent."""

    @property
    def noun(self) -> str:
        return self.listed


GAUGES = (
    Gauge(claim="sfu/rooms", metric="livekit_room_total", listed="rooms", each=1),
    Gauge(claim="sfu/participants", metric="livekit_participant_total", listed="participants", each=2),
)


def trees(facts: Facts) -> Iterator[Tree]:
    """Rooms, and participants."""
    for gauge in GAUGES:
        yield Tree(root="placed", truth=Reading(parts={}), steps=(_step(gauge, facts),), reads=frozenset({gauge.metric, gauge.listed}))


def _step(gauge: Gauge, facts: Facts) -> Step:
    one = gauge.noun[:-1]
    defects: dict[str, Defect] = {f"a {one} is left behind": _left_behind(gauge)}
    if facts.is_alone:
        defects[f"no {one} is counted"] = _flat(gauge, facts)
        defects[f"the gauge of {gauge.noun} does not come back"] = _stuck(gauge)
    return Step(
        claim=gauge.claim,
        source="placed",
        title=f"{gauge.noun}, gauge and API",
        admits=lambda _, reader: _expected(gauge, facts, reader),
        read=lambda reader: _said(gauge, facts, reader),
        defects=defects,
        show=_show,
        explain=lambda difference: _explain(difference, gauge),
        would_catch=lambda admitted, said: f"1 {one}",
    )


def _total(reader: Reader, gauge: Gauge, at: UnixNs) -> float:
    return sum(timeline.at(at) or 0.0 for timeline in reader.series(Source.SFU_EXPORTER, gauge.metric))


def _expected(gauge: Gauge, facts: Facts, reader: Reader) -> Reading:
    """A peak of at least the calls that were surely in progress at one poll, and everything back at the end."""
    base = _total(reader, gauge, facts.since)
    placed = [record for record in facts.records if record.placed_at is not None]
    most = gauge.each * len(placed)
    surely = reader.once(_surely, gauge, facts, reader.polls.get(Source.SFU_EXPORTER, ()))
    is_alone, is_over = facts.is_alone, all(record.outcome in WHOLE for record in placed) and not facts.evidence.info.interrupted
    parts: dict[Key, Thing] = {
        ("peak",): Range(lo=base + surely, hi=base + most) if is_alone else Range(lo=surely, hi=float("inf")),
        ("after",): exactly(base) if is_alone and is_over else Range(lo=0, hi=base + most if is_alone else float("inf")),
        ("listed",): exactly(0) if is_over else Range(lo=0, hi=most),
    }
    because = [
        "the peak holds at least the calls that were in progress from one poll to the next",
        f"before the load the gauge said {whole(base)}; the stack came to rest before it was read again",
    ]
    if not is_alone:
        because.append("others may use this server: its gauge shows theirs, too")
    if not is_over:
        because.append("callers that vanished without a leave stay until the server gives them up")
    return Reading(parts=parts, because=tuple(because))


def _surely(gauge: Gauge, facts: Facts, polls: Sequence[Poll]) -> int:
    """The most that calls surely added at any of our polls."""
    placed = [record for record in facts.records if record.placed_at is not None]
    spacing_ns = max((after.at - before.at for before, after in itertools.pairwise(polls)), default=0)
    return max((_surely_there(gauge, placed, poll, spacing_ns) for poll in polls), default=0)


def _surely_there(gauge: Gauge, placed: list[CallRecord], poll: Poll, spacing_ns: int) -> int:
    """What calls add that had joined a poll before this one, and that ended after it. The server counts by a queue of its own."""
    over_at = poll.at + poll.took_s * 1e9
    there = [record for record in placed if record.left_at is not None and record.left_at > over_at]
    callers = sum(record.joined_at is not None and record.joined_at + spacing_ns < poll.at for record in there)
    agents = sum(record.agent_joined_at is not None and record.agent_joined_at + spacing_ns < poll.at for record in there)
    return callers if gauge.each == 1 else callers + agents


def _said(gauge: Gauge, facts: Facts, reader: Reader) -> Seen:
    for source in (Source.SFU_EXPORTER, Source.SFU_API):
        if gap := unread(reader, source):
            return gap
    parts: dict[Key, Thing] = {}
    totals = [_total(reader, gauge, poll.at) for poll in reader.polls.get(Source.SFU_EXPORTER, ()) if poll.at > facts.since]
    if totals and reader.series(Source.SFU_EXPORTER, gauge.metric):
        parts["peak",] = exactly(max(totals))
        parts["after",] = exactly(totals[-1])
    for timeline in reader.series(Source.SFU_API, gauge.listed):
        if timeline.samples and timeline.samples[-1][0] > facts.since:
            parts["listed",] = exactly(timeline.samples[-1][1])
    return Reading(parts=parts)


def _show(reading: Reading) -> str:
    peak, after = reading.number("peak"), reading.number("after")
    return "no series" if peak is None or after is None else f"peak {span(peak)}, after {span(after)}"


def _explain(difference: Difference, gauge: Gauge) -> str:
    said, admitted = span(difference.said), span(difference.admitted)
    if difference.kind is Kind.LACKS:
        where = "API was not asked after the calls" if difference.key[0] == "listed" else f"exporter has no series {gauge.metric}"
        return f"the media server's {where}"
    match difference.key[0]:
        case "listed":
            return f"the media server's API still lists {said} of our {gauge.noun} after every caller left"
        case "after":
            return f"the media server's gauge says {said} {gauge.noun} after the calls, before them it said {admitted}"
        case _:
            return f"the media server's gauge never said more than {said} {gauge.noun}, may have reached {admitted}"


def _left_behind(gauge: Gauge) -> Defect:
    def defect(reader: Reader) -> Reader | None:
        if not reader.series(Source.SFU_API, gauge.listed):
            return None
        return _stuck_at_end(reader, Source.SFU_API, gauge.listed)

    return defect


def _stuck(gauge: Gauge) -> Defect:
    def defect(reader: Reader) -> Reader | None:
        if not reader.series(Source.SFU_EXPORTER, gauge.metric):
            return None
        return _stuck_at_end(reader, Source.SFU_EXPORTER, gauge.metric)

    return defect


def _stuck_at_end(reader: Reader, source: Source, name: str) -> Reader:
    """The last sample is one too high."""
    first = reader.series(source, name)[0]
    at, number = first.samples[-1]
    lie = dataclasses.replace(first, samples=(*first.samples[:-1], (at, number + 1)))
    return reader.with_series(source, name, lambda each: lie if each is first else each)


def _flat(gauge: Gauge, facts: Facts) -> Defect:
    """The gauge stays where it was before the load."""

    def defect(reader: Reader) -> Reader | None:
        if not reader.series(Source.SFU_EXPORTER, gauge.metric):
            return None
        return reader.with_series(
            Source.SFU_EXPORTER,
            gauge.metric,
            lambda each: each.changed(lambda at, number: number if at <= facts.since else each.at(facts.since) or 0.0),
        )

    return defect
