"""Packets lost on the wire -> the media server's reports to its callers -> its exporter -> Prometheus' raw samples; both directions.

Caller to server: the server counts gaps in what arrives. Server to caller: it counts what our reports say, less what never reached it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from assertions import counted, network
from assertions.facts import Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree, exactly
from assertions.network import INCOMING, OUTGOING, Stream, Wire
from assertions.words import plural, span, total
from harness.measure import reports, ticks
from harness.measure.series import Reader, Timeline
from harness.measure.ticks import Bounds
from harness.model import CallRecord, Source, UnixNs

TOTAL = "livekit_packet_loss_total"
PERCENT = "livekit_packet_loss_percent"
DIRECTIONS = (INCOMING, OUTGOING)
_WORDS = {INCOMING: "caller to server", OUTGOING: "server to caller"}
NAMES: counted.Names = {
    TOTAL: lambda timeline: ("lost", timeline.labels.get("direction", "")),
    f"{PERCENT}_count": lambda timeline: ("windows", timeline.labels.get("direction", "")),
    f"{PERCENT}_sum": lambda timeline: ("percent", timeline.labels.get("direction", "")),
}
MADE_UP_RATIO = 0.01


def trees(facts: Facts) -> Iterator[Tree]:
    """One chain."""
    wire = Wire.of(facts)
    said = Step(
        claim="loss/server-reports",
        source="wire",
        title="SFU receiver reports",
        admits=lambda given, _: given,
        read=lambda reader: _reported(reader, wire),
        defects={
            "no loss is reported": _reported_as(lambda _: 0.0),
            "every loss is reported twice": _reported_as(lambda lost: 2 * lost),
            "a loss is made up": _made_up_of_one,
        },
        show=lambda reading: span(total(reading, "lost")),
        explain=lambda difference: _explain_report(difference, facts),
        would_catch=lambda admitted, _: _resolution(admitted, "lost"),
    )
    exporter = Step(
        claim="loss/exporter",
        source="loss/server-reports",
        title="SFU /metrics",
        admits=lambda given, _: _exported(given, wire),
        read=lambda reader: wire.unread(reader) or counted.exported(wire.ours(reader, NAMES), NAMES, facts, Source.SFU_EXPORTER),
        defects={
            "losses are not counted": _changed(TOTAL, 0.0, wire),
            "every loss counts twice": _changed(TOTAL, 2.0, wire),
            "a ratio in place of per cent": _changed(f"{PERCENT}_sum", 0.01, wire),
            "one packet in a hundred is lost on paper": _made_up(wire),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts, "the media server's exporter"),
        would_catch=lambda admitted, _: _resolution(admitted, "lost"),
    )
    samples = network.samples(
        "loss", NAMES, wire, facts, show=_show, explain=lambda difference: _explain(difference, facts, "Prometheus"), one="1 packet"
    )
    yield Tree(root="wire", truth=_truth(wire), steps=(said, exporter, samples), reads=frozenset({*NAMES, reports.LOST}))


def _truth(wire: Wire) -> Reading:
    """By call what was lost on its way to the server when the server last reported."""
    parts: dict[Key, Thing] = {}
    dropped = wire.drops
    for stream in wire.streams[INCOMING]:
        said = reports.of(stream.record, "up")
        if said is None:
            continue
        low, high = _between(_lost(stream.record, "up"), said.at[-1], stream.slack_ns)
        parts["lost", stream.record.plan.call_id] = Range(lo=low, hi=high + dropped)
    because = ["a packet that was still on its way when the server reported may be missing from its count"]
    if dropped:
        because.append(
            "the kernel dropped datagrams at the server's own sockets"
            if math.isfinite(dropped)
            else "what networks between us and the server lost nobody knows"
        )
    return Reading(parts=parts, because=tuple(because))


def _lost(record: CallRecord, direction: str) -> list[UnixNs]:
    """When each packet was lost on purpose that a receiver can miss: not those before the first that came."""
    windows = reports.impaired(record, direction)
    return [at for window in windows for at in window.lost_at][sum(window.leading for window in windows) :]


def _between(lost: list[UnixNs], at: int, slack_ns: int) -> tuple[int, int]:
    """The least and the most that was lost before an instant."""
    return sum(each < at - slack_ns for each in lost), sum(each < at for each in lost)


def _reported(reader: Reader, wire: Wire) -> Seen:
    """What the last report of each call says."""
    if gap := unread(reader, Source.SFU_REPORTS):
        return gap
    known = {stream.record.plan.call_id for stream in wire.streams[INCOMING]}
    found = reader.series(Source.SFU_REPORTS, reports.LOST)
    parts: dict[Key, Thing] = {
        ("lost", each.labels["call"]): exactly(each.samples[-1][1]) for each in found if each.labels["call"] in known
    }
    return Reading(parts=parts)


def _exported(given: Reading, wire: Wire) -> Reading:
    """What the exporter may say when the server reported so much of our callers' uplinks, and they so much to it."""
    others, truth, dropped = wire.others, _truth(wire), wire.drops
    is_whole = wire.is_whole
    is_open = not others.are_known or not is_whole
    parts: dict[Key, Thing] = {}
    may_lack: set[Key] = set()
    for direction, learn in ((INCOMING, _learned_up), (OUTGOING, _learned_down)):
        lost, percent, windows = ticks.NOTHING, ticks.NOTHING, ticks.NOTHING
        for stream in wire.streams[direction]:
            certain, possible = learn(stream, given, truth)
            lost += Bounds(lo=sum(number for _, number in certain), hi=sum(number for _, number in possible))
            percent += _percent(stream, certain, possible)
            windows += stream.life.windows(stream.slack_ns)
        if direction == INCOMING and dropped:
            lost += Bounds(lo=0.0, hi=dropped)
            percent += Bounds(lo=0.0, hi=math.inf)
        for kind, bounds in (("lost", lost), ("percent", percent), ("windows", windows)):
            # What agents send comes over this machine's loopback: only the kernel can lose it, and it counts.
            is_bounded = direction == INCOMING and kind != "windows" and not others.are_foreign and is_whole
            parts[kind, direction] = network.at_least(bounds, is_open and not is_bounded)
            if not bounds.lo:
                may_lack.add((kind, direction))
    because = [
        "the server looks at a track every 5 s, from an instant that is known to about a second, and once more at its end",
        "of our callers it knows what their last report that reached it said",
    ]
    if is_open:
        because.append("calls that were cut are not known to their end" if others.are_known else others.because)
    return Reading(parts=parts, may_lack=frozenset(may_lack), may_add=frozenset({counted.SCRAPE}), because=(*given.because, *because))


def _percent(stream: Stream, certain: Told, possible: Told) -> Bounds:
    rate = network.packets_per_s(stream)
    unsure = 2 + stream.slack_ns / ticks.PACKET_NS
    low, high = (ticks.lost_percent(stream.life, told, rate, unsure) for told in (certain, possible))
    return Bounds(lo=low.lo, hi=high.hi)


Told = list[tuple[int, float]]
Learned = tuple[Told, Told]
"""Instants and numbers of what the server surely learned, and of what it may have."""


def _learned_up(stream: Stream, given: Reading, truth: Reading) -> Learned:
    """Gaps in what arrives: what we made, corrected by what the last report says otherwise."""
    said = reports.of(stream.record, "up")
    lost = _lost(stream.record, "up")
    ended = int(stream.life.ended[0])
    sure: Told = [(at, 1.0) for at in lost if at < ended - stream.slack_ns]
    maybe: Told = [(at, 1.0) for at in lost]
    told, sent = (reading.number("lost", stream.record.plan.call_id) for reading in (given, truth))
    if said is None or told is None or sent is None:
        return sure, [*maybe, (ended - 1, math.inf)]
    at = int(said.at[-1]) - 1
    if math.isinf(sent.hi):
        # What other networks lost only the server knows.
        return [*sure, (at, max(0.0, told.lo - sent.lo))], [*maybe, (at, told.hi - sent.lo)]
    # Where report and wire disagree the exporter may side with either: a false report is its own fault.
    return [*sure, (at, min(0.0, told.lo - sent.lo))], [*maybe, (at, max(0.0, told.hi - sent.hi))]


def _learned_down(stream: Stream, given: Reading, truth: Reading) -> Learned:
    """What our own reports said, each when it came to the server."""
    own = reports.of(stream.record, "down")
    ended = stream.life.ended
    if own is None:
        most = max((stats.lost for stats in stream.record.wire if stats.direction == "down"), default=0)
        return [], [(int(ended[0]) - 1, float(max(most, 0)))]
    came = list(zip(network.came(stream.record, own.at), own.lost, strict=True))
    certain = [(at, lost) for at, lost in came if at is not None and at < ended[0] - stream.slack_ns]
    possible = [(at, lost) for at, lost in came if at is not None and at < ended[1]]
    return _steps(certain), _steps(possible)


def _steps(told: list[tuple[int, int]]) -> Told:
    """By how much each report raised the count."""
    found, before = [], 0
    for at, lost in sorted(told):
        if lost > before:
            found.append((at, float(lost - before)))
            before = lost
    return found


def _show(reading: Reading) -> str:
    found = [reading.number("lost", direction) for direction in DIRECTIONS]
    return " ".join(f"{arrow}{span(each or exactly(0))}" for arrow, each in zip(("↑", "↓"), found, strict=True))


def _resolution(admitted: Reading, kind: str) -> str:
    widths = [thing.hi - thing.lo for key, thing in admitted.parts.items() if key[0] == kind and isinstance(thing, Range)]
    if not widths or all(math.isinf(width) for width in widths):
        return "losses not counted"
    return plural(1 + max(width for width in widths if math.isfinite(width)), "packet")


def _explain_report(difference: Difference, facts: Facts) -> str:
    call = facts.named(difference.key[1])
    if difference.kind is not Kind.OTHER:
        return (
            f"the media server sent no receiver report to {call}"
            if difference.kind is Kind.LACKS
            else f"reports of {call}, which never joined"
        )
    return f"the media server's last report to {call} says {span(difference.said)} packets lost, may say {span(difference.admitted)}"


def _explain(difference: Difference, facts: Facts, hop: str) -> str:
    key, said, admitted = difference.key, difference.said, difference.admitted
    if key[0] == counted.SCRAPE:
        return counted.explained(difference, facts, hop, _what(key[2:]), "packet")
    if difference.kind is Kind.LACKS:
        return f"{hop} has no series of {_what(key)}; {span(admitted)} happened"
    if difference.kind is Kind.EXTRA:
        return f"{hop} says {span(said)} {_what(key)}, of which the hop before it knows nothing"
    unit, digits = (" %", 1) if key[0] == "percent" else ("", None)
    return f"{hop} says {span(said, unit, digits)} {_what(key)}, may say {span(admitted, unit, digits)}"


def _what(key: Key) -> str:
    noun = {"lost": f"{TOTAL} (packets lost", "windows": f"{PERCENT}_count (windows", "percent": f"{PERCENT}_sum (per cent lost, by window"}
    return f"{noun[key[0]]}, {_WORDS.get(key[1], key[1])})"


def _reported_as(change: Callable[[float], float]) -> Defect:
    def defect(reader: Reader) -> Reader | None:
        found = reader.series(Source.SFU_REPORTS, reports.LOST)
        if not any(change(number) != number for each in found for _, number in each.samples):
            return None
        return reader.with_series(Source.SFU_REPORTS, reports.LOST, lambda each: each.changed(lambda _, number: change(number)))

    return defect


def _made_up_of_one(reader: Reader) -> Reader | None:
    """Of one call alone."""
    found = reader.series(Source.SFU_REPORTS, reports.LOST)
    lie = [each.changed(lambda _, number: number + 1) for each in found[:1]]
    return reader.telling(Source.SFU_REPORTS, reports.LOST, (*lie, *found[1:])) if lie else None


def _changed(name: str, by: float, wire: Wire) -> Defect:
    """Told by the exporter; Prometheus stores it."""

    def defect(reader: Reader) -> Reader | None:
        if not any(each.samples[-1][1] for each in wire.ours(reader, NAMES).series(Source.SFU_EXPORTER, name)):
            return None
        return network.retold(reader, (name,), by)

    return defect


def _made_up(wire: Wire) -> Defect:
    """As many losses on top as a hundredth of what our callers sent; told by the exporter from the first window on, and stored."""

    def defect(reader: Reader) -> Reader | None:
        sent = sum(stats.packets for record in wire.facts.records for stats in record.wire if stats.direction == "up")
        counts = [
            each
            for each in wire.ours(reader, NAMES).series(Source.SFU_EXPORTER, f"{PERCENT}_count")
            if each.labels.get("direction") == INCOMING
        ]
        if not counts or not sent:
            return None
        for source in network.HOPS:
            reader = _with_total(reader, source, MADE_UP_RATIO * sent)
        return reader

    return defect


def _with_total(reader: Reader, source: Source, more: float) -> Reader:
    """A copy in which the count of lost packets of the way up is so much higher, and there in any case."""
    windows = [each for each in reader.series(source, f"{PERCENT}_count") if each.labels.get("direction") == INCOMING]
    if not windows:
        return reader
    like = next((each for each in windows if each.labels.get("source") == network.OURS), windows[0])
    old = next((each for each in reader.series(source, TOTAL) if each.labels == like.labels), None)
    told = Timeline(
        name=TOTAL,
        labels=like.labels,
        samples=tuple((at, math.ceil(more) + ((old.at(at) or 0.0) if old else 0.0)) for at, _ in like.samples),
        request=like.request,
    )
    others = tuple(each for each in reader.series(source, TOTAL) if each is not old)
    return reader.telling(source, TOTAL, (*others, told))
