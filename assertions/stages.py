"""STT, LLM, TTS: what each stage really took, by the agent's own ruler -> its histograms -> Prometheus' raw samples.

The reference agent's stages are programmed, and it notes how long each one worked. Its telemetry may count a little more, by the turns of the event
loop in which the stage waited to begin and its result to be noticed; how long turns were is noted, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from assertions import counted
from assertions.facts import Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Step, Thing, Tree
from assertions.words import span
from harness.measure.series import Labels, Reader, Timeline
from harness.model import Gap, Row, Source, UnixNs

TABLE = "stages"
WORDS = {"stt": "recognitions", "llm": "model calls", "tts": "segments"}
"""What is counted, by quantity."""
ONE = {"stt": "recognition", "llm": "model call", "tts": "segment"}
SENTINEL_S = {"stt": 0.0, "llm": -1.0, "tts": -1.0}
"""What livekit-agents says for a stage that gave no time: a streaming recogniser's duration, a model or voice that was cut short."""
TOO_LONG_S = 0.3
_COUNT: Key = ("count",)
_SUM: Key = ("sum",)


def name(quantity: str) -> str:
    """The histogram of a stage."""
    return f"voice_agent_{quantity}_latency_seconds"


def names(quantity: str) -> counted.Names:
    return {f"{name(quantity)}_count": lambda _: _COUNT, f"{name(quantity)}_sum": lambda _: _SUM}


def trees(facts: Facts) -> Iterator[Tree]:
    """One a stage."""
    notes: dict[str, list[Row]] = {}
    for item in facts.evidence.observations:
        if isinstance(item, Row) and item.source is Source.AGENT_RULER and item.table == TABLE:
            notes.setdefault(str(item.columns["stage"]).lower(), []).append(item)
    for quantity in WORDS:
        steps = (_exporter(quantity, facts), _samples(quantity, facts))
        yield Tree(root="programmed", truth=_took(notes.get(quantity, ())), steps=steps, reads=frozenset({*names(quantity), TABLE}))


def _took(notes: Sequence[Row]) -> Reading:
    """Per occasion the seconds that an honest telemetry may say it took."""
    parts: dict[Key, Thing] = {}
    may_lack: set[Key] = set()
    for place, note in enumerate(notes, start=1):
        key = ("stage", str(place))
        took_s, turn_s = float(note.columns["took_s"]), float(note.columns["turn_s"])
        parts[key] = Range(lo=max(took_s - turn_s, 0.0), hi=float(note.columns["waited_s"]) + took_s + 2 * turn_s)
        if note.columns["is_cut"]:
            may_lack.add(key)
    if not notes:
        return Reading(parts={})
    programmed = sorted({f"{float(note.columns['programmed_s']):g}" for note in notes})
    longest_s, turn_s = (max(float(note.columns[column]) for note in notes) for column in ("took_s", "turn_s"))
    because = [
        f"programmed {' or '.join(programmed)} s; the longest took {longest_s:.3f} s by the agent's ruler",
        f"it begins, and its end is noticed, a turn of the event loop later: {turn_s * 1000:.0f} ms at most"
        if turn_s
        else "measured from outside, where it is awaited, and from inside: what is said of it lies between",
        "one observation each time; a time that was not measured (0 of a streaming recogniser, -1 of a stage cut short) is none",
    ]
    if may_lack:
        because.append("a stage that was cut short may have been observed or not")
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=tuple(because))


def _exporter(quantity: str, facts: Facts) -> Step:
    metric, both = names(quantity), counted.BOTH
    return Step(
        claim=f"{quantity}/exporter",
        source="programmed",
        title="agent /metrics",
        admits=lambda given, _: _histogram(given),
        read=lambda reader: _measured(reader) or counted.exported(reader, metric, facts),
        defects={
            "an observation is lost": _told(quantity, facts, lambda count, total: (count - 1, total), both),
            "a sentinel is exported as a value": _told(
                quantity, facts, lambda count, total: (count + 1, total + SENTINEL_S[quantity]), both
            ),
            "zeros for seconds": _told(quantity, facts, lambda count, total: (count, 0.0), both),
            "milliseconds for seconds": _told(quantity, facts, lambda count, total: (count, total * 1000), both),
            "300 ms too long": _told(quantity, facts, lambda count, total: (count, total + TOO_LONG_S * count), both),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts, quantity, "the agent's exporter"),
        would_catch=lambda admitted, said: _would_catch(admitted, quantity),
    )


def _samples(quantity: str, facts: Facts) -> Step:
    metric = names(quantity)
    return Step(
        claim=f"{quantity}/samples",
        source=f"{quantity}/exporter",
        title="prometheus samples",
        admits=lambda given, reader: _stored(given, reader, metric, facts),
        read=lambda reader: _moved(reader, metric, facts) or counted.stored(reader, metric, facts),
        defects={
            "an observation is not stored": _told(quantity, facts, lambda count, total: (count - 1, total), (Source.PROMETHEUS,)),
            "samples end in the middle of the load": counted.ended_early(metric, facts),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts, quantity, "Prometheus"),
        would_catch=lambda admitted, said: f"1 {ONE[quantity]}",
    )


def _histogram(given: Reading) -> Reading:
    """Count and sum that an honest exporter says of what was measured."""
    sure = [thing for key, thing in given.parts.items() if key not in given.may_lack and isinstance(thing, Range)]
    possible = [thing for key, thing in given.parts.items() if key in given.may_lack and isinstance(thing, Range)]
    parts: dict[Key, Thing] = {
        _COUNT: Range(lo=len(sure), hi=len(sure) + len(possible)),
        _SUM: Range(lo=sum(each.lo for each in sure), hi=sum(each.hi for each in (*sure, *possible))),
    }
    return Reading(parts=parts, may_add=frozenset({counted.SCRAPE}), because=given.because)


def _measured(reader: Reader) -> Gap | None:
    """Why nobody knows what the stages took. None: it is known."""
    return unread(reader, Source.AGENT_RULER)


def _moved(reader: Reader, metric: counted.Names, facts: Facts) -> Gap | None:
    """An agent without stages has nothing to store, and of one of which neither ruler nor exporter could be read nobody knows. None: it is known."""
    gap = _measured(reader)
    if gap is not None and (lost := unread(reader, Source.AGENT_EXPORTER)) is not None:
        return lost
    if gap is None or not gap.is_blind:
        return None
    series = [timeline for each in metric for timeline in reader.series(Source.AGENT_EXPORTER, each)]
    return None if any(reader.grown(timeline, Source.AGENT_EXPORTER, facts.since) for timeline in series) else gap


def _stored(given: Reading, reader: Reader, metric: counted.Names, facts: Facts) -> Reading:
    """What raw samples may say. Where nobody knows what the stages took, the exporter's own text is what is passed on."""
    if _measured(reader) and not isinstance(exported := counted.exported(reader, metric, facts), Gap):
        given = exported
    return counted.scraped(given, reader, metric, facts)


def _told(quantity: str, facts: Facts, lie: Callable[[float, float], tuple[float, float]], sources: tuple[Source, ...]) -> Defect:
    """``lie``: of count and sum, from the first observation on. A sum must go on growing: one that falls is a restart to Prometheus."""

    def defect(reader: Reader) -> Reader | None:
        if not any(reader.grown(each, sources[0], facts.since) for each in reader.series(sources[0], f"{name(quantity)}_count")):
            return None
        for source in sources:
            reader = _retold(reader, source, quantity, lie, facts.since)
        return reader

    return defect


def _retold(reader: Reader, source: Source, quantity: str, lie: Callable[[float, float], tuple[float, float]], since: UnixNs) -> Reader:
    """Of each process that exports the histogram, what it grew by."""
    stem = name(quantity)
    totals = {tuple(sorted(each.labels.items())): each for each in reader.series(source, f"{stem}_sum")}
    lies: dict[tuple[str, Labels], dict[int, float]] = {}
    for count in reader.series(source, f"{stem}_count"):
        owner = tuple(sorted(count.labels.items()))
        if owner not in totals:
            continue
        before = count.at(since) or 0.0, totals[owner].at(since) or 0.0
        for at, number in count.samples:
            total = totals[owner].at(at) or 0.0
            # A text may be read between the sum and the count of one observation: each is told otherwise from where it began to grow.
            lied = lie(number - before[0], total - before[1])
            for which, base, honest, told in zip(("_count", "_sum"), before, (number, total), lied, strict=True):
                if at > since and honest > base:
                    lies.setdefault((which, owner), {})[at] = base + told
    for suffix in ("_count", "_sum"):
        reader = reader.with_series(source, stem + suffix, _from(lies, suffix))
    return reader


def _from(lies: Mapping[tuple[str, Labels], Mapping[int, float]], suffix: str) -> Callable[[Timeline], Timeline]:
    def change(each: Timeline) -> Timeline:
        mine = lies.get((suffix, tuple(sorted(each.labels.items()))), {})
        return each.changed(lambda at, number: mine.get(at, number))

    return change


def _mean(reading: Reading) -> Range | None:
    count, total = reading.number(*_COUNT), reading.number(*_SUM)
    return Range(lo=total.lo / count.hi, hi=total.hi / count.lo) if count and total and count.lo and total.lo <= total.hi else None


def _show(reading: Reading) -> str:
    count, mean = reading.number(*_COUNT), _mean(reading)
    if count is None:
        return "no series"
    return span(count) if mean is None else f"{span(count)}, mean {span(mean, ' s', 3)}"


def _would_catch(admitted: Reading, quantity: str) -> str:
    mean = _mean(admitted)
    return f"1 {ONE[quantity]}" if mean is None else f"1 {ONE[quantity]}, {math.ceil((mean.hi - mean.lo) * 1000)} ms"


def _explain(difference: Difference, facts: Facts, quantity: str, hop: str) -> str:
    key, said, admitted = difference.key, difference.said, difference.admitted
    if key[0] == counted.SCRAPE or difference.kind is not Kind.OTHER or key != _SUM:
        return counted.explained(difference, facts, hop, f"{WORDS[quantity]} ({' '.join(key)})", ONE[quantity])
    assert isinstance(said, Range)
    assert isinstance(admitted, Range)
    return f"{hop} says {span(said, ' s', 3)} in all {WORDS[quantity]}, which really took {span(admitted, ' s', 3)}"
