"""What loss, jitter and round trips share: which of the media server's series are our callers', their lives, and how unsteady the way there was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from assertions import counted
from assertions.facts import WHOLE, Facts, unread
from assertions.ledger import Difference, Range, Reading, Step
from harness.measure import reports
from harness.measure.series import Reader, Timeline
from harness.measure.ticks import Bounds, Life
from harness.model import CallRecord, Gap, Source, UnixNs, value

OURS = "MICROPHONE"
"""``source`` of our callers' tracks."""
INCOMING, OUTGOING = "incoming", "outgoing"
"""``direction`` of the server's series: caller to server, server to caller."""
HOPS = (Source.SFU_EXPORTER, Source.PROMETHEUS)
_RATE = Bounds(lo=50.0, hi=50.0)
_PACKET_NS = 20_000_000


@value
class Stream:
    """One direction of one call."""

    record: CallRecord
    direction: str
    life: Life
    """As the server knew its track."""
    slack_ns: int
    """What is sent so long before the end may not have come when the server closed the track."""


@value
class Others:
    """Streams that are in the same series as our callers'."""

    are_apart: bool
    """None: the agents' tracks carry another ``source``."""
    are_foreign: bool
    """Anybody's calls may be there, too."""

    @property
    def because(self) -> str:
        if self.are_foreign:
            return "others may use this server: its series hold theirs, too, so only the least is known"
        return "the agents' streams are in the same series, and how theirs fared nobody knows: only the least is known"

    @property
    def are_known(self) -> bool:
        return self.are_apart and not self.are_foreign


@value
class Wire:
    """What is known of the wire of one run, worked out once."""

    facts: Facts
    streams: Mapping[str, tuple[Stream, ...]]
    """By direction, of the calls that we saw from beginning to end."""
    is_whole: bool
    """Every call that reached a caller was seen from beginning to end."""
    others: Others
    drops: float
    """Datagrams that were lost at the server's own sockets, which no impairment of ours made. Infinite where nobody can know."""
    excess_s: tuple[float, ...]
    """Of every round trip of the run what wire, server and machine took of it."""
    agents: frozenset[str | None]
    """``source`` of the agents' tracks."""

    @staticmethod
    def of(facts: Facts) -> Wire:
        """The wire of a run."""
        placed = [record for record in facts.records if record.placed_at is not None]
        sources = {record.agent_source for record in placed}
        excess_s = tuple(each for record in placed for each in reports.excess_s(record))
        most_s, answered_s = max(excess_s, default=0.0), _answered_s(placed)
        return Wire(
            facts=facts,
            streams={
                way: tuple(stream for record in placed for stream in _streams(record, way, most_s, answered_s))
                for way in (INCOMING, OUTGOING)
            },
            is_whole=all(record.outcome in WHOLE for record in placed),
            others=Others(are_apart=bool(sources) and sources.isdisjoint({OURS, None}), are_foreign=facts.others is not None),
            drops=_drops(facts),
            excess_s=excess_s,
            agents=frozenset(record.agent_source for record in facts.records),
        )

    @property
    def is_open(self) -> bool:
        """The server's series may hold more than we know of."""
        return not self.others.are_known or not self.is_whole

    @property
    def unsteady_s(self) -> float:
        """The most that wire, server and machine took of a round trip."""
        return max(self.excess_s, default=0.0)

    def ours(self, reader: Reader, names: Iterable[str]) -> Reader:
        """A copy in which the series called ``names`` are our callers' alone, as far as ``source`` tells: theirs, and what agents sent to them."""
        if not self.others.are_apart:
            return reader
        agents = self.agents

        def kept(timeline: Timeline) -> Timeline | None:
            source, direction = timeline.labels.get("source"), timeline.labels.get("direction")
            return timeline if (source == OURS if direction == INCOMING else source in agents) else None

        for source in HOPS:
            for name in names:
                reader = reader.with_series(source, name, kept)
        return reader

    def unread(self, reader: Reader) -> Gap | None:
        """Runs that did not keep the server's reports do not know when its windows began."""
        return unread(reader, Source.SFU_REPORTS)


def _answered_s(placed: Sequence[CallRecord]) -> float:
    """The longest that the server took to let a caller in: its signalling is no faster to see that one has left."""
    return max(((each.joined_at - each.placed_at) / 1e9 for each in placed if each.joined_at and each.placed_at), default=0.0)


def _streams(record: CallRecord, direction: str, unsteady_s: float, answered_s: float) -> Iterator[Stream]:
    if record.outcome not in WHOLE or record.joined_at is None or record.left_at is None:
        return
    slack_ns = round(1e9 * (_ordered_s(record, direction) + unsteady_s)) + _PACKET_NS
    began = _began(record, direction)
    if began is not None and began[0] < record.left_at:
        closed_at = UnixNs(record.left_at + slack_ns + round(1e9 * answered_s))
        life = Life(began=began, ended=(record.left_at, closed_at))
        yield Stream(record=record, direction=direction, life=life, slack_ns=slack_ns)


def _began(record: CallRecord, direction: str) -> tuple[UnixNs, UnixNs] | None:
    """Caller's track: from the media path to the server's first report. Agent's: from its coming to the first word of it."""
    assert record.joined_at is not None
    if direction == INCOMING:
        said = reports.of(record, "up")
        return record.joined_at, (record.joined_at if said is None else max(said.at[0], record.joined_at))
    if record.agent_joined_at is None:
        return None
    own = reports.of(record, "down")
    known = [at for at in (record.greeted_at, own.at[0] if own else None) if at is not None]
    first = max(record.joined_at, record.agent_joined_at)
    return first, max(first, min(known, default=UnixNs(first + 5_000_000_000)))


def _ordered_s(record: CallRecord, direction: str) -> float:
    """The largest delay that an impairment really gave to packets of this direction."""
    windows = reports.impaired(record, "up" if direction == INCOMING else "down")
    return max((each.delay_max_s or 0.0 for each in windows), default=0.0)


def _drops(facts: Facts) -> float:
    if not facts.is_ours:
        return math.inf
    last = {line.process: line.peer_drops for line in facts.evidence.health}
    return float(sum(each for each in last.values() if each is not None))


def samples(
    quantity: str,
    names: counted.Names,
    wire: Wire,
    facts: Facts,
    *,
    show: Callable[[Reading], str],
    explain: Callable[[Difference], str],
    one: str,
) -> Step:
    """What Prometheus stored of the media server's series of our callers. one: the smallest lie that is caught."""
    return Step(
        claim=f"{quantity}/samples",
        source=f"{quantity}/exporter",
        title="prometheus samples",
        admits=lambda given, reader: counted.scraped(given, wire.ours(reader, names), names, facts),
        read=lambda reader: wire.unread(reader) or counted.stored(wire.ours(reader, names), names, facts),
        defects={
            "the last window is not stored": counted.moved(names, -1, sources=(Source.PROMETHEUS,)),
            "samples end in the middle of the load": counted.ended_early(names, facts),
        },
        show=show,
        explain=explain,
        would_catch=lambda admitted, said: one,
    )


def packets_per_s(stream: Stream) -> Bounds:
    """Packets in a second: ours are paced; an agent's are what its caller received in whole windows."""
    if stream.direction == INCOMING:
        return _RATE
    whole = [
        (window.packets - window.duplicates + max(window.lost, 0)) / ((window.until - window.since) / 1e9)
        for window in stream.record.windows
        if window.direction == "down" and window.until - window.since > 4_000_000_000
    ]
    return Bounds(lo=min(whole), hi=max(whole)) if whole else _RATE


def came(record: CallRecord, left: Sequence[UnixNs]) -> list[int | None]:
    """When each of our reports came to the server that left at ``left``. None: it was lost on its way."""
    sent = {each.at: each.delay_s for each in reports.control(record, "up")}
    delays = [sent.get(at, 0.0) for at in left]
    return [None if delay_s is None else at + round(delay_s * 1e9) for at, delay_s in zip(left, delays, strict=True)]


def retold(reader: Reader, names: Iterable[str], by: float) -> Reader:
    """A copy in which the exporter says so many times as much of the series called ``names``, and Prometheus stores it. 0: they are not there."""
    for source in HOPS:
        for name in names:
            reader = reader.with_series(source, name, lambda each: each.changed(lambda _, number: number * by) if by else None)
    return reader


def at_least(bounds: Bounds, is_open: bool) -> Range:
    """A range of ledger; without an end if others may add to it."""
    return Range(lo=bounds.lo, hi=math.inf if is_open else bounds.hi)
