"""TTFW heard by the callers -> the agent's histogram -> Prometheus' raw samples.

What the agent reports is less than what callers hear by the way between them: the detection of the end of speech, the network both ways. That
distance is bounded by parts (`Calibration`), measured once against programmed delays and never on the judged run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from assertions import counted, distortion
from assertions.distance import Distances, distances
from assertions.facts import TORN_S, WHOLE, Facts, late_s
from assertions.ledger import Difference, Key, Kind, Range, Reading, Step, Thing, Tree
from assertions.words import plural, span
from harness.measure import histogram
from harness.measure.series import Reader, Timeline
from harness.measure.stalls import longest_s, stalled_s
from harness.model import CallOutcome, CallRecord, TurnRecord

NAME = distortion.NAME
ONSET_S = 0.005
"""How far our onset of a word may lie from the true one: the largest of 307 hard onsets was 5.5 ms off, of which 5.3 ms were the network's."""
_COUNT: Key = ("count",)
_SUM: Key = ("sum",)


def _le(timeline: Timeline) -> Key:
    """One spelling for one bound: Prometheus 3 stores ``1`` as ``1.0``."""
    return ("le", f"{float(timeline.labels.get('le', 'nan')):g}")


NAMES: counted.Names = {f"{NAME}_count": lambda _: _COUNT, f"{NAME}_sum": lambda _: _SUM, f"{NAME}_bucket": _le}


def trees(facts: Facts) -> Iterator[Tree]:
    """One chain."""
    truth = heard(facts)
    way = distances(truth, facts)
    exporter = Step(
        claim="ttfw/exporter",
        source="heard",
        title="agent /metrics",
        admits=lambda given, reader: histograms(given, reader, way),
        read=lambda reader: counted.exported(reader, NAMES, facts),
        defects={
            "a turn is lost": distortion.of_exporter(distortion.without_one),
            "milliseconds for seconds": distortion.of_exporter(distortion.scaled(1000.0)),
            "300 ms too long": distortion.of_exporter(distortion.shifted(0.3)),
            "300 ms too short": distortion.of_exporter(distortion.shifted(-0.3)),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts, "the agent's exporter", "callers heard ") + _kind(difference, facts),
        would_catch=_would_catch,
    )
    samples = Step(
        claim="ttfw/samples",
        source="ttfw/exporter",
        title="prometheus samples",
        admits=lambda given, reader: counted.scraped(given, reader, NAMES, facts),
        read=lambda reader: counted.stored(reader, NAMES, facts),
        defects={
            "a turn is not stored": distortion.of_samples(distortion.without_one),
            "samples end in the middle of the load": counted.ended_early(NAMES, facts),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts, "Prometheus", "may have "),
        would_catch=lambda admitted, said: "1 turn",
    )
    yield Tree(root="heard", truth=truth, steps=(exporter, samples), reads=frozenset(NAMES))


def heard(facts: Facts) -> Reading:
    """Per turn the seconds that its caller waited."""
    parts: dict[Key, Thing] = {}
    may_lack: set[Key] = set()
    because = {f"our onset of a word is right to {ONSET_S * 1000:g} ms"}
    for record in facts.records:
        for turn in record.turns:
            key = ("turn", record.plan.call_id, str(turn.index))
            latency_s = turn.response_latency_s
            if latency_s is None or latency_s < 0 or record.outcome not in WHOLE:
                because.add("a turn whose reply was not heard, or that was cut, may have been observed or not")
                may_lack.add(key)
            parts[key] = _waited(turn, latency_s, facts)
            if turn.void is not None:
                because.add("void turns are as uncertain as our media was late")
            if stalled_s(turn, facts.stalls) > 0:
                because.add(
                    "the way to the agent stood still while turns were measured, as round trips show: they are as uncertain as that took"
                )
            if longest_s(turn, facts.stalls) > TORN_S:
                again = (*key, "again")
                parts[again] = Range(lo=0.0, hi=math.inf)
                may_lack.add(again)
        parts.update({key: Range(lo=0.0, hi=math.inf) for key in _unseen(record)})
        may_lack.update(_unseen(record))
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=tuple(sorted(because)))


def _waited(turn: TurnRecord, latency_s: float | None, facts: Facts) -> Range:
    """How long the caller waited. Any time if no reply was heard, or if a void turn's doubt has no measure."""
    late = 0.0 if turn.void is None else late_s(turn, facts.evidence.health)
    still_s = stalled_s(turn, facts.stalls)
    if latency_s is None or late is None or longest_s(turn, facts.stalls) > TORN_S:
        return Range(lo=0.0, hi=math.inf)
    late += still_s
    return Range(lo=latency_s - late - ONSET_S, hi=latency_s + late + ONSET_S)


def _unseen(record: CallRecord) -> Iterator[Key]:
    """Turns of a call that was cut, of which we have no record."""
    if (record.outcome in WHOLE and record.outcome is not CallOutcome.HUNG_UP) or record.placed_at is None:
        return
    seen = {turn.index for turn in record.turns}
    for index in range(1, len(record.plan.turns) + 1):
        if index not in seen:
            yield ("turn", record.plan.call_id, str(index))


def histograms(given: Reading, reader: Reader, way: Distances) -> Reading:
    """The histograms that an honest agent may export when callers waited that long.

    Each turn lies inside the bounds that were ever measured, so every bucket allows for them; all turns do not lie at the same end of them, so the
    sum allows for what the mean of a run does.
    """
    sure, possible, together = reader.once(_all_reported, given, way)
    parts: dict[Key, Thing] = {_COUNT: Range(lo=len(sure), hi=len(sure) + len(possible))}
    layout = sorted(_layout(reader), key=lambda key: float(key[1]))
    bounds = [float(bound) for _, bound in layout]
    counted_in = zip(layout, histogram.admitted_counts(sure, bounds), histogram.admitted_counts(possible, bounds), strict=True)
    for key, (low, high), (_, more) in counted_in:
        parts[key] = Range(lo=low, hi=high + more)
    parts[_SUM] = Range(lo=sum(low for low, _ in together), hi=sum(high for _, high in (*together, *possible)))
    return Reading(parts=parts, may_add=frozenset({counted.SCRAPE}), because=(*given.because, *way.because), alpha=way.alpha)


_Reported = list[tuple[float, float]]


def _all_reported(given: Reading, way: Distances) -> tuple[_Reported, _Reported, _Reported]:
    """What an honest agent reports of the turns that it must have observed, of those that it may have, and of the first for their sum."""
    sure = [_reported(thing, way.each[key]) for key, thing in given.parts.items() if key not in given.may_lack]
    possible = [_reported(thing, way.each[key]) for key, thing in given.parts.items() if key in given.may_lack]
    together = [_reported(thing, way.together[key]) for key, thing in given.parts.items() if key not in given.may_lack]
    return sure, possible, together


def _reported(heard_s: Thing, way: Range) -> tuple[float, float]:
    """The least and the most that an honest agent reports of one turn."""
    assert isinstance(heard_s, Range)
    return max(heard_s.lo - way.hi, 0.0), max(heard_s.hi - way.lo, 0.0)


def _layout(reader: Reader) -> set[Key]:
    """The buckets that any hop shows."""
    return {_le(timeline) for source in counted.BOTH for timeline in reader.series(source, f"{NAME}_bucket")}


def _mean(reading: Reading) -> Range | None:
    """Mean in seconds. None: nothing was observed, or nothing is known of it."""
    count, total = reading.number(*_COUNT), reading.number(*_SUM)
    if count is None or total is None or not count.lo or not math.isfinite(total.hi):
        return None
    return Range(lo=total.lo / count.hi, hi=total.hi / count.lo)


def _show(reading: Reading) -> str:
    count, mean = reading.number(*_COUNT), _mean(reading)
    if count is None:
        return "no series"
    return span(count) if mean is None else f"{span(count)}, mean {span(mean, ' s', 2)}"


def _would_catch(admitted: Reading, said: Reading) -> str:
    """Wherever in its band the truth lies, a shift of every turn by more than the band's width leaves it."""
    mean = _mean(admitted)
    return "1 turn" if mean is None else f"1 turn, {math.ceil((mean.hi - mean.lo) * 1000)} ms"


def _kind(difference: Difference, facts: Facts) -> str:
    """Turns of one kind that are as many as are missing: where to look first."""
    said, admitted = difference.said, difference.admitted
    if difference.key != _COUNT or not isinstance(said, Range) or not isinstance(admitted, Range):
        return ""
    tools = sum(turn.tool is not None and turn.first_word_at is not None for record in facts.records for turn in record.turns)
    return "; as many as call a tool are missing" if tools and admitted.lo - said.hi == tools else ""


def _explain(difference: Difference, facts: Facts, hop: str, may: str) -> str:
    """may: how the admitted numbers are introduced."""
    key, said, admitted = difference.key, difference.said, difference.admitted
    if key[0] == counted.SCRAPE:
        return counted.explained(difference, facts, hop, f"{NAME} {' '.join(key[2:])}", "turn")
    if difference.kind is Kind.LACKS:
        return f"{hop} has no series {NAME} ({' '.join(key)}), although replies were heard"
    if difference.kind is Kind.EXTRA:
        return f"{hop} has a bucket that the hop before it does not have: {key[-1]}"
    assert isinstance(said, Range)
    assert isinstance(admitted, Range)
    if key == _COUNT:
        return f"{hop} has TTFW of {plural(said.lo, 'turn')}, {may}{span(admitted)}"
    if key == _SUM:
        is_less = said.hi < admitted.lo
        away = admitted.lo - said.hi if is_less else said.lo - admitted.hi
        words = f"{away:.2f} s too {'little' if is_less else 'much'}"
        return f"{hop} says {span(said, ' s', 2)} of TTFW in all, may say {span(admitted, ' s', 2)}: {words}"
    return f"{hop} has {plural(said.lo, 'turn')} at or below {key[-1]} s, may have {span(admitted)}"
