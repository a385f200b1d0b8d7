"""Round trips on the wire -> the media server's exporter -> Prometheus' raw samples; outgoing only: for what callers send the server has none.

A round trip is the way of the server's report to the caller and of the caller's answer back, each of which an impairment held up by a known time.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable, Iterator

from assertions import counted, network
from assertions.facts import Facts
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Step, Thing, Tree
from assertions.network import OUTGOING, Stream, Wire
from assertions.words import span
from harness.measure import reports, ticks
from harness.measure.series import Reader, Timeline
from harness.measure.ticks import Bounds
from harness.model import Light, Source, Status, Verdict

QUANTILE = "rtt/quantile"
NAME = "livekit_rtt_ms"
FIRST_BUCKET_MS = 50
"""Smallest bound of the server's histogram: nothing below it can be told apart, and samples of zero are dropped."""
NAMES: counted.Names = {
    f"{NAME}_count": lambda timeline: ("windows", timeline.labels.get("direction", "")),
    f"{NAME}_sum": lambda timeline: ("sum", timeline.labels.get("direction", "")),
}
_SUM, _WINDOWS = ("sum", OUTGOING), ("windows", OUTGOING)
NEEDS = "an agent whose track has another source than a microphone (the responder), on a stack that nobody else uses"


def trees(facts: Facts) -> Iterator[Tree]:
    """One chain."""
    wire = Wire.of(facts)
    exporter = Step(
        claim="rtt/exporter",
        source="wire",
        title="SFU /metrics, mean",
        admits=lambda _, reader: _exported(wire),
        read=lambda reader: wire.unread(reader) or counted.exported(wire.ours(reader, NAMES), NAMES, facts, Source.SFU_EXPORTER),
        defects={
            "seconds for milliseconds": _told(lambda total, count: 0.001 * total, wire),
            "one way for both": _told(lambda total, count: 0.5 * total, wire),
            "50 ms too long": _told(lambda total, count: total + 50 * count, wire),
            "no round trip is observed": _told(None, wire),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts, "the media server's exporter"),
        would_catch=lambda admitted, _: _width(admitted),
        needs=NEEDS,
    )
    samples = network.samples(
        "rtt", NAMES, wire, facts, show=_show, explain=lambda difference: _explain(difference, facts, "Prometheus"), one="1 window"
    )
    yield Tree(root="wire", truth=Reading(parts={}), steps=(exporter, samples), reads=frozenset(NAMES))


def verdicts(reader: Reader) -> Iterator[Verdict]:
    """A quantile is blind where every round trip lies below the first bucket. Nothing if the server said nothing of round trips."""
    sums, counts = (reader.series(Source.SFU_EXPORTER, NAME + suffix) for suffix in ("_sum", "_count"))
    count = sum(timeline.samples[-1][1] for timeline in counts)
    if not count:
        return
    mean_ms = sum(timeline.samples[-1][1] for timeline in sums) / count
    if mean_ms >= FIRST_BUCKET_MS:
        return
    reason = f"first bucket {FIRST_BUCKET_MS} ms"
    yield Verdict(
        claim=QUANTILE,
        light=Light.MONITORING,
        status=Status.INCONCLUSIVE,
        hop="SFU histogram, quantiles",
        sentence=f"a mean of {mean_ms:.0f} ms lies below the first bucket of {FIRST_BUCKET_MS} ms, and samples of zero are dropped",
        says=f"{mean_ms:.0f} ms",
        may_say="-",
        would_catch="nothing",
        blind=reason,
        evidence=(sums[0].request,) if sums else (),
    )


def _exported(wire: Wire) -> Reading:
    """Of every window in which a report came the highest round trip that the server knew."""
    others = wire.others
    is_open = not others.are_known or not wire.is_whole
    most_s = wire.unsteady_s
    total, windows = ticks.NOTHING, ticks.NOTHING
    for stream in wire.streams[OUTGOING]:
        heights, there = _of_stream(stream, most_s)
        total += heights
        windows += there
    parts: dict[Key, Thing] = {_SUM: network.at_least(total, is_open), _WINDOWS: network.at_least(windows, is_open)}
    because = [
        "of each window of 5 s the highest, in whole milliseconds, rounded up",
        f"beside what impairments did to its two reports no round trip took more than {1000 * most_s:.1f} ms, as our own show",
        *([others.because] if not others.are_known else []),
    ]
    may_lack = frozenset() if windows.lo else frozenset({_SUM, _WINDOWS})
    return Reading(parts=parts, may_lack=may_lack, may_add=frozenset({counted.SCRAPE, "windows", "sum"}), because=tuple(because))


def _of_stream(stream: Stream, most_s: float) -> tuple[Bounds, Bounds]:
    """The highest of each window, summed up, and the number of windows that have one."""
    if not stream.record.impaired:
        # A report comes once a second, and the server sends one of its own every three: what came in a whole window was an answer.
        least, most = stream.life.whole_windows(), stream.life.windows(0).hi
        return Bounds(lo=least, hi=most * max(1.0, math.ceil(1e3 * most_s))), Bounds(lo=least, hi=most)
    certain, possible = _known(stream, most_s)
    return ticks.known(stream.life, certain, possible, rounded=True)


def _known(stream: Stream, most_s: float) -> tuple[ticks.Trips, ticks.Trips]:
    """When our reports came, and the round trips in ms that they showed: those that the server surely took, and those that it may have taken."""
    own = reports.of(stream.record, "down")
    if own is None:
        return (), ()
    downs, is_down = reports.control(stream.record, "down"), bool(reports.impaired(stream.record, "down"))
    sent = [each for each in downs if each.has_sender_report]
    arrived = reports.arrivals(sent)
    sent_at = [each.at for each in sent]
    certain: list[tuple[int, float, float]] = []
    possible: list[tuple[int, float, float]] = []
    for left, came in zip(own.at, network.came(stream.record, own.at), strict=True):
        if came is None or came >= stream.life.ended[1]:
            continue
        if not is_down:
            trip = (came, (came - left) / 1e6, (came - left) / 1e6 + 1e3 * most_s)
            certain.append(trip)
            possible.append(trip)
            continue
        index = bisect.bisect_right(arrived, (left, math.inf))
        if not index:
            continue
        at, delay_s = arrived[index - 1]
        made_s = delay_s + (came - left) / 1e9
        trip = (came, 1e3 * made_s, 1e3 * (made_s + most_s))
        # An answer to any but its latest report is passed over.
        since = at - round(delay_s * 1e9)
        newer = sent_at[bisect.bisect_right(sent_at, since) :]
        spare_ns = round(1e9 * most_s)
        if not newer or newer[0] > came + spare_ns:
            certain.append(trip)
        if not newer or newer[0] > came - spare_ns:
            possible.append(trip)
    return sorted(certain), sorted(possible)


def _mean(reading: Reading) -> Range | None:
    total, count = reading.number(*_SUM), reading.number(*_WINDOWS)
    if total is None or count is None or not count.lo:
        return None
    return Range(lo=0.0 if math.isinf(count.hi) else total.lo / count.hi, hi=total.hi / count.lo)


def _show(reading: Reading) -> str:
    mean = _mean(reading)
    if mean is None:
        return "-"
    return f"{mean.lo:.1f} ms or more" if math.isinf(mean.hi) else span(mean, " ms", 1)


def _width(admitted: Reading) -> str:
    mean = _mean(admitted)
    return "no round trips" if mean is None or math.isinf(mean.hi) else f"{math.ceil(10 * (mean.hi - mean.lo)) / 10:.1f} ms"


def _explain(difference: Difference, facts: Facts, hop: str) -> str:
    key, said, admitted = difference.key, difference.said, difference.admitted
    what = {"sum": f"{NAME}_sum", "windows": f"{NAME}_count"}
    if key[0] == counted.SCRAPE:
        return counted.explained(difference, facts, hop, f"{what[key[2]]} ({key[3]})", "window")
    name = f"{what[key[0]]} ({key[1]})"
    if difference.kind is Kind.LACKS:
        return f"{hop} has no series {name}; it may say {span(admitted)}"
    return f"{hop} says {span(said)} of {name}, may say {span(admitted)}"


def _told(change: Callable[[float, float], float] | None, wire: Wire) -> Defect:
    """Sums changed, given the count, at the exporter; Prometheus stores it. None: there are no series."""

    def defect(reader: Reader) -> Reader | None:
        if not any(each.samples[-1][1] for each in wire.ours(reader, NAMES).series(Source.SFU_EXPORTER, f"{NAME}_count")):
            return None
        if change is None:
            return network.retold(reader, NAMES, 0.0)
        for source in network.HOPS:
            counts = {tuple(sorted(each.labels.items())): each for each in reader.series(source, f"{NAME}_count")}
            reader = reader.with_series(source, f"{NAME}_sum", functools.partial(_summed, counts, change))
        return reader

    return defect


def _summed(counts: dict[tuple[tuple[str, str], ...], Timeline], change: Callable[[float, float], float], total: Timeline) -> Timeline:
    count = counts[tuple(sorted(total.labels.items()))]
    return total.changed(lambda at, number: change(number, count.at(at) or 0.0))
