"""Jitter on the wire -> the media server's reports to its callers -> its exporter -> Prometheus' raw samples; both directions.

The server exports the highest RFC 3550 jitter of every five seconds. What it hears through its own sockets is not what left us: the way there is
unsteady itself, and round trips show how much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

from assertions import counted, network
from assertions.facts import Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree, exactly
from assertions.network import INCOMING, OUTGOING, Stream, Wire
from assertions.words import span
from harness.measure import reports, ticks
from harness.measure.series import Reader, Timeline
from harness.measure.ticks import Bounds
from harness.model import CallRecord, Source, UnixNs

NAME = "livekit_jitter_us"
NAMES: counted.Names = {
    f"{NAME}_count": lambda timeline: ("windows", timeline.labels.get("direction", "")),
    f"{NAME}_sum": lambda timeline: ("sum", timeline.labels.get("direction", "")),
}
ALPHA = 1e-4
"""Chance that the mean of an honest server's reports lies further from the wire than round trips let one expect."""
_DEVIATIONS = 3.9
"""Standard deviations that a mean leaves with that chance."""
_TICK_S = 1 / 48_000
_MOST_REPORTS = 6
"""In five seconds, of a server that reports once a second at most."""
_SECOND_NS = 1_000_000_000
_MEAN: Key = ("mean",)
NEEDS = "calls whose network jitters (impairment: lossy-2pct-jitter-30ms), on a machine that is less busy"


def trees(facts: Facts) -> Iterator[Tree]:
    """One chain."""
    wire = Wire.of(facts)
    usually_s = away_s(wire.excess_s)
    truth = _truth(wire, usually_s)
    said = Step(
        claim="jitter/server-reports",
        source="wire",
        title="SFU receiver reports",
        admits=lambda given, _: given,
        read=lambda reader: _reported(reader, wire),
        defects={
            "no jitter is reported": _reported_as(lambda _: 0.0, is_told=any(record.uplink is not None for record in facts.records)),
            "50 ms too much": _reported_as(lambda jitter_s: jitter_s + 0.05),
        },
        show=lambda reading: _milliseconds(reading.number(*_MEAN), 1000.0),
        explain=_explain_report,
        would_catch=lambda admitted, _: _width(admitted.number(*_MEAN), 1000.0),
        needs=NEEDS,
    )
    exporter = Step(
        claim="jitter/exporter",
        source="jitter/server-reports",
        title="SFU /metrics, mean",
        admits=lambda given, reader: _exported(given, truth, reader, wire, usually_s),
        read=lambda reader: wire.unread(reader) or counted.exported(wire.ours(reader, NAMES), NAMES, facts, Source.SFU_EXPORTER),
        defects={
            "milliseconds for microseconds": _scaled(0.001, wire),
            "RTP ticks for microseconds": _scaled(0.048, wire),
            "no jitter is observed": _scaled(0.0, wire),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts, "the media server's exporter"),
        would_catch=lambda admitted, _: _width(_mean(admitted, INCOMING), 0.001),
        needs=NEEDS,
    )
    samples = network.samples(
        "jitter", NAMES, wire, facts, show=_show, explain=lambda difference: _explain(difference, facts, "Prometheus"), one="1 window"
    )
    yield Tree(root="wire", truth=truth, steps=(said, exporter, samples), reads=frozenset({*NAMES, reports.JITTER}))


def _truth(wire: Wire, usually_s: float) -> Reading:
    """The mean jitter, in seconds, of what left our callers, at the packets that the server's reports name; as it may look to the server."""
    low, high = [], []
    for stream in wire.streams[INCOMING]:
        for _, least_s, most_s in _true(stream.record):
            low.append(least_s)
            high.append(most_s)
    if not low:
        return Reading(parts={})
    mean = Range(lo=max(0.0, statistics.fmean(low) - usually_s), hi=statistics.fmean(high) + usually_s)
    because = f"the way to the server is unsteady itself: as round trips show, it moves the mean by at most {1000 * usually_s:.2f} ms"
    return Reading(parts={_MEAN: mean}, because=(because,), alpha=ALPHA)


def away_s(excess_s: Sequence[float]) -> float:
    """How far a mean of jitter lies from the wire's: the way's delays change by twice their mean at most, of which we have a sample.

    excess_s: what the way took of every round trip.
    """
    count = len(excess_s)
    mean_s = statistics.fmean(excess_s) if count else 0.0
    deviation_s = math.sqrt(statistics.fmean((each - mean_s) ** 2 for each in excess_s)) if count else 0.0
    return 2 * mean_s + (_DEVIATIONS * 2 * deviation_s * math.sqrt(2 / count) if count else 0.0) + _TICK_S


def _true(record: CallRecord) -> list[tuple[UnixNs, float, float]]:
    """By report of the server's, when it came and between which bounds the jitter was of what had left us."""
    said = reports.of(record, "up")
    if said is None:
        return []
    if record.uplink is None:
        late_s = max((window.send_late_max_s or 0.0 for window in record.windows), default=0.0)
        return [(at, 0.0, late_s) for at in said.at]
    found = []
    pairs = iter(zip(record.uplink.reported_jitter_s, record.uplink.true_jitter_s, strict=True))
    pair = next(pairs, None)
    for at, jitter_s in zip(said.at, said.jitter_s, strict=True):
        if pair is not None and abs(pair[0] - jitter_s) < 2e-6:
            found.append((at, pair[1], pair[1]))
            pair = next(pairs, None)
    return found


def _reported(reader: Reader, wire: Wire) -> Seen:
    """The mean of what the reports say of which we know the truth."""
    if gap := unread(reader, Source.SFU_REPORTS):
        return gap
    known = {stream.record.plan.call_id: {at for at, _, _ in _true(stream.record)} for stream in wire.streams[INCOMING]}
    found = [
        number
        for each in reader.series(Source.SFU_REPORTS, reports.JITTER)
        for at, number in each.samples
        if at in known.get(each.labels["call"], ())
    ]
    return Reading(parts={_MEAN: exactly(statistics.fmean(found))} if found else {})


def _exported(given: Reading, truth: Reading, reader: Reader, wire: Wire, usually_s: float) -> Reading:
    """Of every window its highest jitter: what we made, as unsteady as the way is, and no less than the server itself reported meanwhile."""
    others = wire.others
    is_open = not others.are_known or not wire.is_whole
    told, sent = given.number(*_MEAN), truth.number(*_MEAN)
    # A report that is false in itself binds nobody.
    is_believed = told is not None and sent is not None and sent.lo <= told.lo <= sent.hi
    most_s = wire.unsteady_s
    said = reader.series(Source.SFU_REPORTS, reports.JITTER) if is_believed else ()
    up, up_windows = reader.once(_upwards, wire, said, usually_s)
    down, down_windows, highest_s = reader.once(_downwards, wire)
    sums, counts = {INCOMING: up, OUTGOING: down}, {INCOMING: up_windows, OUTGOING: down_windows}
    fed_s = _fed_s(reader, wire)
    least_s = max(0.0, sums[OUTGOING].lo - 2 * fed_s)
    sums[OUTGOING] = Bounds(lo=least_s, hi=sums[OUTGOING].hi)
    counts[OUTGOING] = Bounds(lo=math.ceil(least_s / highest_s - 1e-9) if highest_s else 0.0, hi=counts[OUTGOING].hi)
    parts: dict[Key, Thing] = {}
    for direction in (INCOMING, OUTGOING):
        # Whole microseconds: the server rounds them down, we to the nearest.
        rounding = counts[direction].hi
        in_us = Bounds(lo=max(0.0, 1e6 * sums[direction].lo - 2 * rounding), hi=1e6 * sums[direction].hi + rounding)
        parts["sum", direction] = network.at_least(in_us, is_open)
        parts["windows", direction] = network.at_least(counts[direction], is_open)
    may_lack = {key for key, thing in parts.items() if isinstance(thing, Range) and not thing.lo}
    because = [
        "of each window of 5 s the highest; when the windows begin is known to about a second",
        f"no packet was held up by more than {1000 * most_s:.1f} ms on its way, as round trips show",
        "to callers: what they reported, less the jitter of what came to the server, and nothing if that is more",
        *([others.because] if not others.are_known else []),
    ]
    kinds = frozenset({counted.SCRAPE})
    return Reading(parts=parts, may_lack=frozenset(may_lack), may_add=kinds, because=(*given.because, *because), alpha=ALPHA)


def _upwards(wire: Wire, said: Sequence[Timeline], usually_s: float) -> tuple[Bounds, Bounds]:
    """What our callers' tracks come to, and their windows. said: what the server reported of each, and when that came."""
    reported, most_s = {each.labels["call"]: each.samples for each in said}, wire.unsteady_s
    heights, windows = ticks.NOTHING, ticks.NOTHING
    for stream in wire.streams[INCOMING]:
        heights += _up(stream, reported.get(stream.record.plan.call_id, ()), usually_s, most_s)
        windows += stream.life.windows(stream.slack_ns)
    return heights, windows


def _downwards(wire: Wire) -> tuple[Bounds, Bounds, float]:
    """What the tracks to our callers come to, their windows, and the highest that any of our own reports said."""
    heights, windows, highest_s = ticks.NOTHING, ticks.NOTHING, 0.0
    for stream in wire.streams[OUTGOING]:
        own = _own(stream)
        high, there = (_unseen(stream), stream.life.windows(0)) if own is None else ticks.known(stream.life, own, own)
        heights += high
        windows += there
        highest_s = max([highest_s, *(most for _, _, most in own or ())])
    return heights, windows, highest_s


def _up(stream: Stream, said: Sequence[tuple[UnixNs, float]], usually_s: float, most_s: float) -> Bounds:
    """The highest of each window, summed up: what we made; and no less than the server reported, at most six times in a window."""
    reported_s = sum(jitter_s for _, jitter_s in said) / _MOST_REPORTS
    impaired = reports.impaired(stream.record, "up")
    if not impaired:
        late_s = max((window.send_late_max_s or 0.0 for window in stream.record.windows), default=0.0)
        most = stream.life.windows(0).hi * (late_s + most_s)
        return Bounds(lo=reported_s, hi=max(most, reported_s))
    seconds = [
        (window.since + second * _SECOND_NS, peak, peak) for window in impaired for second, peak in enumerate(window.jitter_peaks_s) if peak
    ]
    made = ticks.highest(stream.life, seconds, [at + _SECOND_NS for at, _, _ in seconds], usually_s, most_s)
    return Bounds(lo=max(made.lo, min(reported_s, made.hi)), hi=made.hi)


def _own(stream: Stream) -> ticks.Trips | None:
    """When our reports came to the server, and the jitter that they said. None: nobody saw them, a compiled core wrote them."""
    own, ended = reports.of(stream.record, "down"), stream.life.ended[1]
    if own is None:
        return None
    came = zip(network.came(stream.record, own.at), own.jitter_s, strict=True)
    return sorted((at, jitter_s, jitter_s) for at, jitter_s in came if at is not None and at < ended)


def _unseen(stream: Stream) -> Bounds:
    most_s = max((stats.jitter_max_s or 0.0 for stats in stream.record.wire if stats.direction == "down"), default=0.0)
    return Bounds(lo=0.0, hi=stream.life.windows(0).hi * most_s)


def _fed_s(reader: Reader, wire: Wire) -> float:
    """Jitter of what agents sent, as the server exports it, by window, summed up: so much is taken off. Infinite if it is not told apart."""
    if not wire.others.are_apart:
        return math.inf
    agents = wire.agents
    fed = [
        each
        for each in reader.series(Source.SFU_EXPORTER, f"{NAME}_sum")
        if each.labels.get("direction") == INCOMING and each.labels.get("source") in agents
    ]
    return sum(reader.grown(each, Source.SFU_EXPORTER, wire.facts.since) for each in fed) / 1e6


def _mean(reading: Reading, direction: str) -> Range | None:
    """Of the windows of one direction, in microseconds. None: there are none."""
    total, count = reading.number("sum", direction), reading.number("windows", direction)
    if total is None or count is None or not count.lo:
        return None
    return Range(lo=0.0 if math.isinf(count.hi) else total.lo / count.hi, hi=total.hi / count.lo)


def _show(reading: Reading) -> str:
    return " ".join(f"{arrow}{_milliseconds(_mean(reading, way), 0.001)}" for arrow, way in (("↑", INCOMING), ("↓", OUTGOING)))


def _milliseconds(thing: Range | None, by: float) -> str:
    if thing is None:
        return "-"
    if math.isinf(thing.hi):
        return f"{thing.lo * by:.1f} ms or more"
    return span(Range(lo=thing.lo * by, hi=thing.hi * by), " ms", 1)


def _width(thing: Range | None, by: float) -> str:
    return "another unit" if thing is None or math.isinf(thing.hi) else f"{math.ceil(10 * by * (thing.hi - thing.lo)) / 10:.1f} ms"


def _explain_report(difference: Difference) -> str:
    if difference.kind is not Kind.OTHER:
        return "the media server sent no receiver report to any caller"
    said, admitted = (_milliseconds(each if isinstance(each, Range) else None, 1000.0) for each in (difference.said, difference.admitted))
    return f"the media server's reports say {said} of jitter on average, may say {admitted}"


def _explain(difference: Difference, facts: Facts, hop: str) -> str:
    key, said, admitted = difference.key, difference.said, difference.admitted
    what = {"sum": f"{NAME}_sum", "windows": f"{NAME}_count"}
    if key[0] == counted.SCRAPE:
        return counted.explained(difference, facts, hop, f"{what[key[2]]} ({key[3]})", "window")
    name = f"{what[key[0]]} ({key[1]})"
    if difference.kind is Kind.LACKS:
        return f"{hop} has no series {name}; it may say {span(admitted, '', 0)}"
    if difference.kind is Kind.EXTRA:
        return f"{hop} says {span(said, '', 0)} of {name}, of which the hop before it knows nothing"
    return f"{hop} says {span(said, '', 0)} of {name}, may say {span(admitted, '', 0)}"


def _reported_as(change: Callable[[float], float], *, is_told: bool = True) -> Defect:
    """is_told: False where it would be no lie."""

    def defect(reader: Reader) -> Reader | None:
        if not is_told or not reader.series(Source.SFU_REPORTS, reports.JITTER):
            return None
        return reader.with_series(Source.SFU_REPORTS, reports.JITTER, lambda each: each.changed(lambda _, number: change(number)))

    return defect


def _scaled(by: float, wire: Wire) -> Defect:
    """Told by the exporter; Prometheus stores it. 0: there are no series."""

    def defect(reader: Reader) -> Reader | None:
        if not wire.ours(reader, NAMES).series(Source.SFU_EXPORTER, f"{NAME}_sum"):
            return None
        return network.retold(reader, NAMES if not by else (f"{NAME}_sum",), by)

    return defect
