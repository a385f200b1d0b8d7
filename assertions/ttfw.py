"""TTFW heard by the callers -> the agent's histogram -> Prometheus' raw samples -> the recording rule's quantile.

What the agent reports is less than what callers hear by the way between them: the detection of the end of speech, the network both ways. That
distance is bounded by parts (`Calibration`), measured once against programmed delays and never on the judged run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal

from assertions.facts import Facts, plural, replaced, whole_number
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Step, Thing, Tree, exactly
from harness.measure import counters, histogram
from harness.measure.series import Timeline
from harness.model import Gap, Source, UnixNs

NAME = "voice_agent_ttfw_seconds"
RULE = "voice_agent:ttfw_seconds:p95"
QUANTILE = 0.95
WINDOW_S = 300.0
"""Window of the recording rule as shipped; a fast stack divides it by its time scale."""
ONSET_S = 0.005
"""How far our onset of a word may lie from the true one: the largest of 307 hard onsets was 5.5 ms off, of which 5.3 ms were the network's."""
SCRAPE_S = 0.15
"""A scrape that began this long before a rule's evaluation may not have been stored when the rule looked."""
FLOAT = 1e-6
"""Relative rounding of a recomputed quantile."""
_COUNT: Key = ("count",)
_SUM: Key = ("sum",)


def trees(facts: Facts) -> Iterator[Tree]:
    """One chain."""
    bounds = _bounds(facts)
    steps = (
        Step(
            claim="ttfw/exporter",
            source="heard",
            title="agent /metrics",
            admits=lambda given: histogram_of(given, bounds, facts),
            defects=_HISTOGRAM_DEFECTS,
            show=_show,
            explain=lambda difference: _explain(difference, "the agent's exporter"),
            resolution=_resolution,
        ),
        Step(
            claim="ttfw/samples",
            source="ttfw/exporter",
            title="prometheus samples",
            admits=lambda given: given,
            defects={"one turn is lost": _one_fewer},
            show=_show,
            explain=lambda difference: _explain(difference, "Prometheus"),
            resolution=lambda admitted, said: "1 turn",
        ),
        Step(
            claim="ttfw/rule",
            source="ttfw/samples",
            title="rule ttfw:p95",
            admits=lambda given: _rule(facts),
            defects={
                "the quantile is of all time": _of_all_time(facts),
                "another quantile": _scaled_values(0.9),
                "in ms": _scaled_values(1000.0),
            },
            show=_show_rule,
            explain=_explain_rule,
            resolution=lambda admitted, said: "0.1 ms",
        ),
    )
    seen: dict[str, Reading | Gap] = {
        "ttfw/exporter": _said(facts, Source.AGENT_EXPORTER),
        "ttfw/samples": _said(facts, Source.PROMETHEUS),
        "ttfw/rule": _said_rule(facts),
    }
    yield Tree(root="heard", truth=heard(facts), steps=steps, seen=seen)


def heard(facts: Facts) -> Reading:
    """Per turn the seconds that its caller waited. A turn that our own evidence voids says only that it happened."""
    parts: dict[Key, Thing] = {}
    may_lack: set[Key] = set()
    because = [f"our onset of a word is right to {ONSET_S * 1000:g} ms"]
    for record in (*facts.whole, *facts.broken):
        for turn in record.turns:
            key = ("turn", record.plan.call_id, str(turn.index))
            latency = turn.response_latency_s
            if latency is None or turn.void is not None:
                parts[key] = Range(lo=-record.plan.answer_timeout_s, hi=record.plan.answer_timeout_s)
            else:
                parts[key] = Range(lo=latency - ONSET_S, hi=latency + ONSET_S)
            if latency is None or turn.void is not None:
                may_lack.add(key)
    if any(turn.void for record in facts.whole for turn in record.turns):
        because.append("void turns may have lasted any time, or have been no turn for the agent")
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=tuple(because))


def histogram_of(given: Reading, bounds: tuple[str, ...], facts: Facts) -> Reading:
    """The histograms that an honest agent may export when callers waited that long."""
    calibration = facts.evidence.calibration
    lo_s, hi_s = (calibration.lo_s, calibration.hi_s) if calibration else (-math.inf, math.inf)
    values = []
    sure = 0
    for key, thing in given.parts.items():
        assert isinstance(thing, Range)
        values.append((thing.lo - hi_s, thing.hi - lo_s, key not in given.may_lack))
        sure += key not in given.may_lack
    certain = [(lo, hi) for lo, hi, is_sure in values if is_sure]
    possible = [(lo, hi) for lo, hi, is_sure in values if not is_sure]
    parts: dict[Key, Thing] = {_COUNT: Range(lo=sure, hi=len(values))}
    for bound in bounds:
        low, high = histogram.admitted_counts(certain, float(bound))
        _, more = histogram.admitted_counts(possible, float(bound))
        parts["le", bound] = Range(lo=low, hi=high + more)
    parts[_SUM] = Range(
        lo=sum(lo for lo, _ in certain) + sum(min(lo, 0.0) for lo, _ in possible),
        hi=sum(hi for _, hi in certain) + sum(max(hi, 0.0) for _, hi in possible),
    )
    words = (
        tuple(f"{part.name} {part.lo_s * 1000:+.0f}..{part.hi_s * 1000:+.0f} ms: {part.because}" for part in calibration.parts)
        if calibration
        else ("no calibration: how far heard and reported TTFW lie apart is not known",)
    )
    return Reading(parts=parts, because=(*given.because, *words))


def _bounds(facts: Facts) -> tuple[str, ...]:
    """The bucket bounds that any source shows, as the exporter writes them."""
    found: dict[float, str] = {}
    for source in (Source.AGENT_EXPORTER, Source.PROMETHEUS):
        for timeline in facts.reader.series(source, f"{NAME}_bucket"):
            text = timeline.labels["le"]
            found.setdefault(float(text), _bound(text))
    return tuple(found[number] for number in sorted(found))


def _bound(text: str) -> str:
    """One spelling for one bound: Prometheus 3 stores ``1`` as ``1.0``."""
    number = float(text)
    return "+Inf" if math.isinf(number) else str(Decimal(repr(number)).normalize()) if number < 1 else f"{number:g}"


def _said(facts: Facts, source: Source) -> Reading | Gap:
    gap = facts.unread(source)
    if gap:
        return gap
    parts: dict[Key, Thing] = {}

    def add(key: Key, timeline: Timeline) -> None:
        before = parts.get(key, exactly(0))
        assert isinstance(before, Range)
        parts[key] = exactly(before.lo + facts.reader.grown(timeline, source, facts.since))

    for suffix, key in (("_count", _COUNT), ("_sum", _SUM)):
        for timeline in facts.reader.series(source, NAME + suffix):
            add(key, timeline)
    for timeline in facts.reader.series(source, f"{NAME}_bucket"):
        add(("le", _bound(timeline.labels["le"])), timeline)
    # Sums are floats: what two hops add in another order differs in the last digits.
    if isinstance(total := parts.get(_SUM), Range):
        parts[_SUM] = Range(lo=total.lo - abs(total.lo) * 1e-9, hi=total.hi + abs(total.hi) * 1e-9)
    return Reading(parts=parts)


def _window_s(facts: Facts) -> float:
    return WINDOW_S / facts.setting("time_scale", 1.0)


def _said_rule(facts: Facts) -> Reading | Gap:
    gap = facts.unread(Source.RULES)
    if gap:
        return gap
    parts: dict[Key, Thing] = {}
    for timeline in facts.reader.series(Source.RULES, RULE):
        for at, number in timeline.samples:
            if at > facts.since:
                parts["p95", str(at)] = exactly(number)
    return Reading(parts={key: thing for key, thing in parts.items() if not _is_nan(thing)})


def _is_nan(thing: Thing) -> bool:
    return isinstance(thing, Range) and math.isnan(thing.lo)


def _rule(facts: Facts) -> Reading:
    """The quantile recomputed from the raw samples at every instant at which the rule was evaluated."""
    window_s = _window_s(facts)
    buckets = facts.reader.series(Source.PROMETHEUS, f"{NAME}_bucket")
    parts: dict[Key, Thing] = {}
    may_lack: set[Key] = set()
    for at in _evaluations(facts):
        values = [found for late_s in (0.0, SCRAPE_S) if (found := _quantile(buckets, at, window_s, late_s)) is not None]
        known = [number for number in values if not math.isnan(number)]
        if not known:
            continue
        key = ("p95", str(at))
        parts[key] = Range(lo=min(known) * (1 - FLOAT), hi=max(known) * (1 + FLOAT))
        if len(known) < 2:
            may_lack.add(key)
    because = (
        f"recomputed from the raw samples of the last {window_s:g} s, histogram_quantile({QUANTILE}, sum by (le) (rate))",
        f"a scrape less than {SCRAPE_S:g} s old may not have been stored",
    )
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=because)


def _evaluations(facts: Facts) -> tuple[UnixNs, ...]:
    """Instants at which the rule ran after the load began: those of its own samples, and on their grid those it owes."""
    said = sorted({at for timeline in facts.reader.series(Source.RULES, RULE) for at, _ in timeline.samples if at > facts.since})
    interval_ns = round(1e9 * facts.setting("evaluation_interval_s", 15.0))
    if not said:
        scrapes = [
            at for timeline in facts.reader.series(Source.PROMETHEUS, f"{NAME}_count") for at, _ in timeline.samples if at > facts.since
        ]
        # Nothing at all was recorded: any instant well inside the samples must have had a value.
        return (UnixNs(scrapes[-1]),) if scrapes else ()
    owed = set(said)
    for before, after in itertools.pairwise(said):
        missing = round((after - before) / interval_ns) - 1
        owed |= {UnixNs(before + (index + 1) * interval_ns) for index in range(missing)}
    return tuple(sorted(owed))


def _quantile(buckets: tuple[Timeline, ...], at: UnixNs, window_s: float, late_s: float) -> float | None:
    """The rule's value at ``at`` if scrapes younger than ``late_s`` were not yet stored. None: no series with two samples."""
    end_s = at / 1e9
    start_s = end_s - window_s
    rates: dict[float, float] = {}
    for timeline in buckets:
        inside = [
            (moment / 1e9, number)
            for moment, number in timeline.samples
            if start_s < moment / 1e9 <= end_s and (not late_s or moment / 1e9 < end_s - late_s)
        ]
        if len(inside) > 1:
            bound = float(timeline.labels["le"])
            rates[bound] = rates.get(bound, 0.0) + counters.increase(inside, start_s, end_s) / window_s
    return histogram.quantile(QUANTILE, tuple(rates.items())) if rates else None


def _show(reading: Reading) -> str:
    count, total = reading.parts.get(_COUNT), reading.parts.get(_SUM)
    if not isinstance(count, Range) or not isinstance(total, Range):
        return "no series"
    if not count.hi:
        return "0 turns"
    number = whole_number(count.lo) if count.lo == count.hi else f"{whole_number(count.lo)}..{whole_number(count.hi)}"
    low, high = total.lo / max(count.hi, 1), total.hi / max(count.lo, 1)
    if not math.isfinite(low) or not math.isfinite(high):
        return f"{number} turns"
    mean = f"{low:.2f} s" if high - low < 0.005 else f"{low:.2f}..{high:.2f} s"
    return f"{number} turns, mean {mean}"


def _show_rule(reading: Reading) -> str:
    values = [thing for thing in reading.parts.values() if isinstance(thing, Range)]
    if not values:
        return "no value"
    low, high = min(thing.lo for thing in values), max(thing.hi for thing in values)
    return f"{low:.2f}..{high:.2f} s" if high - low > 0.005 else f"{low:.2f} s"


def _explain(difference: Difference, hop: str) -> str:
    if difference.kind is Kind.LACKS:
        return f"{hop} has no series {NAME}, although replies were heard"
    if difference.kind is Kind.EXTRA:
        return f"{hop} has a bucket that the hop before it does not have: {difference.key[-1]}"
    assert isinstance(difference.said, Range)
    assert isinstance(difference.admitted, Range)
    said, admitted = difference.said, difference.admitted
    if difference.key == _COUNT:
        return f"{hop} reports TTFW for {plural(said.lo, 'turn')}, callers heard {_span(admitted)}"
    if difference.key == _SUM:
        away = admitted.lo - said.hi if said.hi < admitted.lo else said.lo - admitted.hi
        direction = "less" if said.hi < admitted.lo else "more"
        return f"{hop} reports {said.lo:.2f} s in all, {away:.2f} s {direction} than callers' ears admit ({_span(admitted, ' s', 2)})"
    bound = difference.key[-1]
    return f"{hop} puts {plural(said.lo, 'turn')} at or below {bound} s, callers' ears admit {_span(admitted)}"


def _span(admitted: Range, unit: str = "", digits: int = 0) -> str:
    if admitted.lo == admitted.hi:
        return f"{admitted.lo:.{digits}f}{unit}"
    return f"{admitted.lo:.{digits}f} to {admitted.hi:.{digits}f}{unit}"


def _explain_rule(difference: Difference) -> str:
    if difference.kind is Kind.LACKS:
        return f"the rule {RULE} has no value at an evaluation at which the raw samples give one"
    if difference.kind is Kind.EXTRA:
        assert isinstance(difference.said, Range)
        return f"the rule {RULE} says {difference.said.lo:.2f} s when its window holds no turn at all"
    assert isinstance(difference.said, Range)
    assert isinstance(difference.admitted, Range)
    return (
        f"the rule {RULE} says {difference.said.lo:.3f} s where p95 of its window is"
        f" {_span(difference.admitted, ' s', 3)}, recomputed from the raw samples"
    )


def _resolution(admitted: Reading, said: Reading) -> str:
    """The smallest shift of every turn that some key would have shown."""
    count = said.parts.get(_COUNT)
    total, honest = said.parts.get(_SUM), admitted.parts.get(_SUM)
    turns = "1 turn"
    if not isinstance(count, Range) or not isinstance(total, Range) or not isinstance(honest, Range) or not count.lo:
        return turns
    up, down = (honest.hi - total.lo) / count.lo, (total.hi - honest.lo) / count.lo
    return f"{turns}; +{up * 1000:.0f} or -{down * 1000:.0f} ms" if math.isfinite(up) and math.isfinite(down) else turns


def _moved(seconds: float) -> Defect:
    """Every TTFW is exported longer by ``seconds`` (shorter if negative): the sum moves by as much for each turn."""

    def defect(said: Reading) -> Reading | None:
        count, total = said.parts.get(_COUNT), said.parts.get(_SUM)
        if not isinstance(count, Range) or not isinstance(total, Range) or not count.lo:
            return None
        return _with_sum(said, Range(lo=total.lo + seconds * count.lo, hi=total.hi + seconds * count.hi), seconds)

    return defect


def _with_sum(said: Reading, total: Range, seconds: float) -> Reading:
    """The buckets follow as far as they tell: each may hold what lay a shift away, rounded outwards."""
    bounds = sorted((float(key[1]), key) for key in said.parts if key[0] == "le")
    changes: dict[Key, Range | frozenset[str] | None] = {_SUM: total}
    for bound, key in bounds:
        below = [said.parts[other] for at, other in bounds if at <= bound - seconds]
        above = [said.parts[other] for at, other in bounds if at >= bound - seconds]
        low = below[-1] if below else exactly(0)
        high = above[0] if above else said.parts[_COUNT]
        assert isinstance(low, Range)
        assert isinstance(high, Range)
        changes[key] = Range(lo=low.lo, hi=max(high.hi, low.lo))
    return replaced(said, changes)


def _in_ms(said: Reading) -> Reading | None:
    total, count = said.parts.get(_SUM), said.parts.get(_COUNT)
    if not isinstance(total, Range) or not isinstance(count, Range) or not count.lo:
        return None
    changes: Mapping[Key, Thing] = {key: exactly(0) for key in said.parts if key[0] == "le" and key[1] != "+Inf"}
    return replaced(said, {_SUM: Range(lo=total.lo * 1000, hi=total.hi * 1000), **changes})


def _one_fewer(said: Reading) -> Reading | None:
    """One observation is missing: a turn of average length."""
    total, count = said.parts.get(_SUM), said.parts.get(_COUNT)
    if not isinstance(total, Range) or not isinstance(count, Range) or not count.lo:
        return None
    mean = total.lo / count.lo
    changes: dict[Key, Range | frozenset[str] | None] = {_COUNT: exactly(count.lo - 1), _SUM: exactly(total.lo - mean)}
    for key, thing in said.parts.items():
        if key[0] == "le" and isinstance(thing, Range) and float(key[1]) >= mean:
            changes[key] = exactly(max(thing.lo - 1, 0))
    return replaced(said, changes)


_HISTOGRAM_DEFECTS: Mapping[str, Defect] = {
    "one turn is lost": _one_fewer,
    "milliseconds for seconds": _in_ms,
    "300 ms too long": _moved(0.3),
    "300 ms too short": _moved(-0.3),
}


def _of_all_time(facts: Facts) -> Defect:
    """The rule lost its rate: it goes on saying a value when the window holds none, or one of all turns ever."""

    def defect(said: Reading) -> Reading | None:
        buckets = facts.reader.series(Source.PROMETHEUS, f"{NAME}_bucket")
        changes: dict[Key, Range | frozenset[str] | None] = {}
        for at in _evaluations(facts):
            totals: dict[float, float] = {}
            for timeline in buckets:
                number = timeline.at(at)
                if number is not None:
                    bound = float(timeline.labels["le"])
                    totals[bound] = totals.get(bound, 0.0) + number
            found = histogram.quantile(QUANTILE, tuple(totals.items()))
            if not math.isnan(found):
                changes["p95", str(at)] = exactly(found)
        return replaced(said, changes) if changes else None

    return defect


def _scaled_values(by: float) -> Defect:
    def defect(said: Reading) -> Reading | None:
        parts: dict[Key, Range | frozenset[str] | None] = {
            key: Range(lo=thing.lo * by, hi=thing.hi * by) for key, thing in said.parts.items() if isinstance(thing, Range)
        }
        return replaced(said, parts) if parts else None

    return defect
