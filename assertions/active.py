"""Calls in progress -> the gauge ``voice_agent_active_calls`` -> Prometheus' raw samples, poll by poll and scrape by scrape.

A gauge is right only at the instants at which it is looked at: between two looks a call may come and go.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence

from assertions import counted
from assertions.facts import AS_PLANNED, WHOLE, Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree, exactly
from assertions.words import plural, span, whole
from harness.measure.series import Reader, Timeline
from harness.model import CallOutcome, CallRecord, Poll, Source, UnixNs, value

NAME = "voice_agent_active_calls"
NAMES: counted.Names = {NAME: lambda _: ("active",)}
LOOK = "look"
"""Kind of the keys that hold the gauge at one instant."""
SHUTDOWN_S = 10.0
"""A job that knows that its caller has gone waits for a last transcript and writes its rows; livekit-agents ends one that takes longer than this:
``shutdown_process_timeout``."""
_FOREVER = 1 << 62


@value
class Progress:
    """When each call surely was in progress, and when it may have been: bounds in ascending order, each list by itself."""

    surely_from: Sequence[int]
    surely_until: Sequence[int]
    maybe_from: Sequence[int]
    maybe_until: Sequence[int]

    @staticmethod
    def of(facts: Facts) -> Progress:
        spans = [each for record in facts.records if (each := _span(record, facts)) is not None]
        sure = [each for each in spans if each[1] is not None and each[2] is not None and each[1] <= each[2]]
        return Progress(
            surely_from=sorted(each[1] for each in sure if each[1] is not None),
            surely_until=sorted(each[2] for each in sure if each[2] is not None),
            maybe_from=sorted(each[0] for each in spans),
            maybe_until=sorted(each[3] for each in spans),
        )

    def at(self, since: int, until: int) -> Range:
        """How many calls the agent may say are in progress at an instant of this time."""
        sure = bisect.bisect_right(self.surely_from, since) - bisect.bisect_right(self.surely_until, until)
        maybe = bisect.bisect_right(self.maybe_from, until) - bisect.bisect_left(self.maybe_until, since)
        return Range(lo=max(sure, 0), hi=max(maybe, sure, 0))

    def beginnings(self, since: int, until: int) -> int:
        """How many calls may have begun in this time."""
        return bisect.bisect_right(self.maybe_from, until) - bisect.bisect_left(self.surely_from, since)

    def ends(self, since: int, until: int) -> int:
        """How many calls may have ended in this time."""
        return bisect.bisect_right(self.surely_until, until) - bisect.bisect_left(self.maybe_until, since)


def trees(facts: Facts) -> Iterator[Tree]:
    """One chain."""
    progress = Progress.of(facts)
    exporter = Step(
        claim="active/exporter",
        source="placed",
        title="agent /metrics, active",
        admits=lambda _, reader: _admitted(progress, facts, reader),
        read=lambda reader: _polled(facts, reader),
        defects={
            "a call in progress is not counted": _moved(-1, counted.BOTH, facts),
            "no call is counted": _moved(-math.inf, counted.BOTH, facts),
            **({"the gauge does not come down": _stuck(facts), "a call is counted twice": _twice(facts)} if facts.is_alone else {}),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts, "the agent's gauge"),
        would_catch=lambda admitted, said: "1 call",
    )
    samples = Step(
        claim="active/samples",
        source="active/exporter",
        title="prometheus samples",
        admits=lambda given, reader: _scraped(given, progress, facts, reader),
        read=lambda reader: _stored(facts, reader),
        defects={
            "a call in progress is not stored": _moved(-1, (Source.PROMETHEUS,), facts),
            "samples end in the middle of the load": counted.ended_early(NAMES, facts),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts, "Prometheus"),
        would_catch=lambda admitted, said: "1 call",
    )
    yield Tree(root="placed", truth=Reading(parts={}), steps=(exporter, samples), reads=frozenset(NAMES))


def _span(record: CallRecord, facts: Facts) -> tuple[int, int | None, int | None, int] | None:
    """Instants: may have begun, surely had; surely had not ended, must have. None: it was never placed."""
    if record.placed_at is None:
        return None
    words = [record.greeted_at, *(turn.first_word_at for turn in record.turns)]
    heard = [at for at in words if at is not None]
    # A caller that hangs up is in the call until then; of another, the agent's last word is the last that we know.
    is_ours_to_end = record.outcome in (*AS_PLANNED, CallOutcome.SILENT)
    until = record.left_at if is_ours_to_end else max(heard, default=None)
    gone_s = facts.setting("departure_timeout_s", 20.0) + SHUTDOWN_S
    over = round(record.left_at + gone_s * 1e9) if record.left_at is not None and record.outcome in WHOLE else _FOREVER
    return record.placed_at, min(heard, default=None), until if heard else None, over


def _admitted(progress: Progress, facts: Facts, reader: Reader) -> Reading:
    base = _gauge(reader, Source.AGENT_EXPORTER, facts.since)
    parts: dict[Key, Thing] = {}
    for poll in _polls(facts, reader):
        calls = progress.at(poll.at, poll.at + round(poll.took_s * 1e9))
        parts[LOOK, str(poll.at)] = Range(lo=calls.lo + base, hi=calls.hi + base) if facts.is_alone else Range(lo=calls.lo, hi=math.inf)
    is_over = all(record.outcome in WHOLE or record.placed_at is None for record in facts.records) and not facts.evidence.info.interrupted
    if parts and facts.is_alone and is_over:
        parts["after",] = exactly(base)
    because = [
        "from its first word until the caller hung up a call is in progress; it may be from our dial until its job must have ended",
        f"before the load the gauge said {whole(base)}; the stack came to rest before it was read again",
    ]
    if not facts.is_alone:
        because.append("others may call this agent: its gauge shows theirs, too")
    return Reading(parts=parts, may_lack=frozenset(), may_add=frozenset({"after"}), because=tuple(because))


def _polls(facts: Facts, reader: Reader) -> list[Poll]:
    return [poll for poll in reader.polls.get(Source.AGENT_EXPORTER, ()) if poll.count and poll.at > facts.since]


def _gauge(reader: Reader, source: Source, at: UnixNs) -> float:
    return sum(timeline.at(at) or 0.0 for timeline in reader.series(source, NAME))


def _polled(facts: Facts, reader: Reader) -> Seen:
    if gap := unread(reader, Source.AGENT_EXPORTER):
        return gap
    if not reader.series(Source.AGENT_EXPORTER, NAME):
        return Reading(parts={})
    parts: dict[Key, Thing] = {
        (LOOK, str(poll.at)): exactly(_gauge(reader, Source.AGENT_EXPORTER, poll.at)) for poll in _polls(facts, reader)
    }
    if parts:
        parts["after",] = list(parts.values())[-1]
    return Reading(parts=parts)


def _stored(facts: Facts, reader: Reader) -> Seen:
    if gap := unread(reader, Source.PROMETHEUS, "voice_agent"):
        return gap
    found = {at: number for timeline in reader.series(Source.PROMETHEUS, NAME) for at, number in timeline.samples}
    parts: dict[Key, Thing] = {
        (LOOK, str(at)): exactly(found[at]) for at in counted.scrapes(reader, NAMES, facts) if at in found and at > facts.since
    }
    if not parts and found:
        parts["after",] = exactly(_gauge(reader, Source.PROMETHEUS, max(found)))
    return Reading(parts=parts)


def _scraped(given: Reading, progress: Progress, facts: Facts, reader: Reader) -> Reading:
    """What lies between what our own polls around a scrape said; more where calls may have come and gone between them.

    Without our polls, what the calls themselves allow.
    """
    if unread(reader, Source.AGENT_EXPORTER):
        return _allowed(progress, facts, reader)
    parts: dict[Key, Thing] = {}
    for at, before, after in counted.polls_around(reader, NAMES, facts):
        first, last = given.number(LOOK, str(before)), given.number(LOOK, str(after))
        if first is None or last is None:
            continue
        begun, ended = progress.beginnings(before, after), progress.ends(before, after)
        is_one_way = not begun or not ended
        lowest, highest = min(first.lo, last.lo), max(first.hi, last.hi)
        parts[LOOK, str(at)] = Range(lo=lowest if is_one_way else max(lowest - ended, 0.0), hi=highest if is_one_way else highest + begun)
    if not parts and (in_the_end := given.number("after")) is not None:
        parts["after",] = in_the_end
    because = ("every scrape stores what the exporter said between our poll before it and our poll after it",)
    return Reading(parts=parts, may_add=frozenset({LOOK, "after"}), because=because)


def _allowed(progress: Progress, facts: Facts, reader: Reader) -> Reading:
    base = _gauge(reader, Source.AGENT_EXPORTER, facts.since)
    parts: dict[Key, Thing] = {}
    for at in counted.scrapes(reader, NAMES, facts):
        calls = progress.at(at - counted.TOLERANCE_NS, at + counted.TOLERANCE_NS)
        parts[LOOK, str(at)] = Range(lo=calls.lo + base, hi=calls.hi + base)
    return Reading(
        parts=parts, may_add=frozenset({LOOK, "after"}), because=("the exporter could not be read: what the calls themselves allow",)
    )


def _show(reading: Reading) -> str:
    looks = [thing for key, thing in reading.parts.items() if key[0] == LOOK and isinstance(thing, Range)]
    if not looks:
        return "no series" if reading.number("after") is None else f"after {span(reading.number('after'))}"
    peak = max(looks, key=lambda thing: (thing.lo, thing.hi))
    return f"peak {span(peak)}, after {span(looks[-1] if reading.number('after') is None else reading.number('after'))}"


def _explain(difference: Difference, facts: Facts, hop: str) -> str:
    if difference.key[0] == "after":
        return (
            f"{hop} says {span(difference.said)} calls in progress after the last one, before the first it said {span(difference.admitted)}"
        )
    when = facts.moment(int(difference.key[1]))
    if difference.kind is Kind.LACKS:
        return f"{hop} has no {NAME} {when}"
    assert isinstance(difference.said, Range)
    return f"{hop} says {plural(difference.said.lo, 'call')} in progress {when}, may say {span(difference.admitted)}"


def _told(change: Callable[[float], float], sources: Sequence[Source], facts: Facts) -> Defect:
    def defect(reader: Reader) -> Reader | None:
        if not any(number for timeline in reader.series(sources[0], NAME) for at, number in timeline.samples if at > facts.since):
            return None
        for source in sources:
            reader = reader.with_series(source, NAME, lambda each: each.changed(lambda _, number: change(number)))
        return reader

    return defect


def _moved(by: float, sources: Sequence[Source], facts: Facts) -> Defect:
    return _told(lambda number: max(number + by, 0.0), sources, facts)


def _twice(facts: Facts) -> Defect:
    return _told(lambda number: number + 1 if number else number, counted.BOTH, facts)


def _stuck(facts: Facts) -> Defect:
    """What was counted up is never counted down."""

    def highest(timeline: Timeline) -> Timeline:
        peak = 0.0

        def change(_: UnixNs, number: float) -> float:
            nonlocal peak
            peak = max(peak, number)
            return peak

        return timeline.changed(change)

    def defect(reader: Reader) -> Reader | None:
        if not any(number for timeline in reader.series(Source.AGENT_EXPORTER, NAME) for _, number in timeline.samples):
            return None
        for source in counted.BOTH:
            reader = reader.with_series(source, NAME, highest)
        return reader

    return defect
