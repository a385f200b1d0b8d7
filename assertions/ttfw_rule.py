"""Raw TTFW samples -> the recording rules: each value recomputed at its own instant by the engine's own arithmetic."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from assertions.facts import Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Reading, Seen, Step, Thing
from assertions.words import span
from harness.measure import counters, histogram
from harness.measure.series import Labels, Reader, Timeline
from harness.model import Source, UnixNs, value

NAME = "voice_agent_ttfw_seconds"
RULES: Mapping[str, float | None] = {
    "voice_agent:ttfw_seconds:p95": 0.95,
    "voice_agent:ttfw_seconds:p50": 0.5,
    "voice_agent:ttfw_seconds:mean": None,
}
"""What each rule means: a quantile of its window, or (None) the mean of it."""
P95 = "voice_agent:ttfw_seconds:p95"
WINDOW_S = 300.0
"""Window of the recording rules as shipped; a fast stack divides it by its time scale."""
_TIE = 1e-12
"""A rank that is a whole number falls on either side of a bucket's edge by the rounding of rates."""
_ROUNDING = 2e-10
"""Sums over several series are rounded in an order that the engine does not promise."""
_MOST_INSTANCES = 6
_KINDS = frozenset({"value", "evaluated"})


@value
class Rates:
    """Rates of one histogram over one window, all processes together."""

    buckets: Mapping[float, float]
    count: float
    total: float


def step(facts: Facts) -> Step:
    """The claim ``ttfw/rule``."""
    return Step(
        claim="ttfw/rule",
        source="ttfw/samples",
        title="rules ttfw p95, p50, mean",
        admits=lambda _, reader: _recomputed(reader, facts),
        read=lambda reader: _said(reader, facts),
        defects={
            "no rate: of all time": _told(lambda reader, at: _of_all_time(reader, at), facts),
            "in milliseconds": _told(lambda reader, at: _scaled(reader, at, 1000.0), facts),
            "p90 for p95": _told(lambda reader, at: _quantile(rates(reader, at, facts), 0.9), facts),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts),
        would_catch=lambda admitted, said: "any change" if admitted.parts else "nothing",
    )


def rates(reader: Reader, at: UnixNs, facts: Facts, *, without: frozenset[Labels] = frozenset()) -> Rates | None:
    """The rates that the rules see at ``at``. None: no series has two samples in the window.

    without: owners whose newest sample was not stored yet.
    """
    families = tuple(_Same(reader.series(Source.PROMETHEUS, NAME + suffix)) for suffix in ("_bucket", "_count", "_sum"))
    end_ms = round(at / 1e6)
    start_ms = end_ms - round(1000 * WINDOW_S / facts.setting("time_scale", 1.0))
    is_closed = str(facts.evidence.info.settings.get("prometheus_version", "3")).startswith("2.")
    return _rates(families, start_ms, end_ms, is_closed, without)


class _Same:
    """Series by identity: copies of the observations share those that they do not change, and what was calculated of them."""

    def __init__(self, series: tuple[Timeline, ...]) -> None:
        self.series = series

    def __hash__(self) -> int:
        return id(self.series)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.series is other.series


@functools.lru_cache(maxsize=1024)
def _rates(families: tuple[_Same, ...], start_ms: int, end_ms: int, is_closed: bool, without: frozenset[Labels]) -> Rates | None:
    buckets: dict[float, float] = {}
    sums = [0.0, 0.0, 0.0]
    is_any = False
    for place, family in enumerate(families):
        for timeline in family.series:
            inside = _inside(timeline, start_ms, end_ms, is_closed=is_closed)
            if owner(timeline) in without:
                inside = inside[:-1]
            if len(inside) < 2:
                continue
            is_any = True
            number = counters.rate(inside, start_ms, end_ms)
            sums[place] += number
            if place == 0:
                bound = float(timeline.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + number
    return Rates(buckets=buckets, count=sums[1], total=sums[2]) if is_any else None


def values(found: Rates | None) -> dict[str, float]:
    """What each rule says of these rates; empty without series."""
    return {name: number for name, wanted in RULES.items() if (number := _value(found, wanted)) is not None}


def owner(timeline: Timeline) -> Labels:
    """Labels of the process that exports a series."""
    return tuple(sorted(pair for pair in timeline.labels.items() if pair[0] != "le"))


def retold(reader: Reader, facts: Facts) -> Reader:
    """A copy in which the rules say what follows from the raw samples."""
    seen = {at: rates(reader, at, facts) for at in _instants(reader, facts)}
    for name, wanted in RULES.items():
        reader = _with_rule(reader, name, wanted, seen)
    return reader


def _with_rule(reader: Reader, name: str, wanted: float | None, seen: Mapping[UnixNs, Rates | None]) -> Reader:
    def honest(at: UnixNs, number: float) -> float | None:
        return _value(seen[at], wanted) if at in seen else number

    return reader.with_series(Source.RULES, name, lambda each: each.changed(honest))


def _inside(timeline: Timeline, start_ms: int, end_ms: int, *, is_closed: bool) -> list[tuple[int, float]]:
    """Samples of the window. Prometheus 3 leaves its start out, Prometheus 2 took it in."""
    first = bisect.bisect_right(timeline.samples, (start_ms - is_closed) * 1_000_000, key=lambda sample: sample[0])
    last = bisect.bisect_right(timeline.samples, end_ms * 1_000_000, key=lambda sample: sample[0])
    return [(at // 1_000_000, number) for at, number in timeline.samples[first:last]]


def _value(found: Rates | None, wanted: float | None) -> float | None:
    if found is None:
        return None
    if wanted is not None:
        return histogram.quantile(wanted, tuple(found.buckets.items()))
    return found.total / found.count if found.count else math.nan


def _quantile(found: Rates | None, wanted: float) -> float | None:
    return _value(found, wanted)


def _said(reader: Reader, facts: Facts) -> Seen:
    if gap := unread(reader, Source.RULES):
        return gap
    parts: dict[Key, Thing] = {}
    for name in RULES:
        for timeline in reader.series(Source.RULES, name):
            labels = ",".join(f"{label}={text}" for label, text in owner(timeline))
            for at, number in timeline.samples:
                if at > facts.since:
                    parts["value", name, str(at), labels] = frozenset({_digits(number)})
    instants, scrapes = _instants(reader, facts), _scrapes(reader, facts)
    is_late = not instants or (scrapes and scrapes[-1] - instants[-1] > 3e9 * _interval_s(facts))
    parts["evaluated",] = frozenset({"not to the end" if is_late else "to the end"})
    return Reading(parts=parts)


def _interval_s(facts: Facts) -> float:
    return max(facts.setting("evaluation_interval_s", 15.0), facts.setting("scrape_interval_s", 15.0))


def _recomputed(reader: Reader, facts: Facts) -> Reading:
    """What each rule must have said at each instant at which one of them was evaluated."""
    if unread(reader, Source.PROMETHEUS, "voice_agent"):
        return Reading(parts={}, may_add=_KINDS, because=("without the raw samples nothing is known of the window",))
    if facts.evidence.info.settings.get("prometheus_flavour", "prometheus") != "prometheus":
        return Reading(parts={}, may_add=_KINDS, because=("this server calculates rates in a way of its own",))
    if not _scrapes(reader, facts):
        return Reading(parts={}, may_add=frozenset({"evaluated"}), because=("without samples there is nothing to record",))
    parts: dict[Key, Thing] = {("evaluated",): frozenset({"to the end"})}
    may_lack: set[Key] = set()
    for at in _instants(reader, facts) or _scrapes(reader, facts)[-1:]:
        views = [rates(reader, at, facts, without=missing) for missing in _not_yet_stored(reader, at, facts)]
        for name, wanted in RULES.items():
            numbers = [number for view in views for number in _around(view, wanted)]
            key = ("value", name, str(at), "")
            if numbers:
                parts[key] = frozenset(digits for number in numbers for digits in _roundings(number))
            if None in views:
                may_lack.add(key)
    window_s = WINDOW_S / facts.setting("time_scale", 1.0)
    because = (
        f"recomputed from the raw samples of the {window_s:g} s before each evaluation: histogram_quantile over sum by (le) of rate",
        "a scrape may not have been stored yet when the rule looked, for as long as one scrape may take",
    )
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=because)


def _around(view: Rates | None, wanted: float | None) -> Iterator[float]:
    """The value, and what a rank on the edge of a bucket may make of it."""
    for each in (None,) if wanted is None else (wanted, wanted * (1 - _TIE), wanted * (1 + _TIE)):
        number = _value(view, each)
        if number is not None:
            yield number


def _roundings(number: float) -> Iterator[str]:
    yield from (_digits(number * by) for by in (1 - _ROUNDING, 1.0, 1 + _ROUNDING))


def _digits(number: float) -> str:
    return "NaN" if math.isnan(number) else f"{number:.9g}"


def _instants(reader: Reader, facts: Facts) -> Sequence[UnixNs]:
    """Instants at which any of the rules was evaluated."""
    timelines = (timeline for name in RULES for timeline in reader.series(Source.RULES, name))
    return sorted({at for timeline in timelines for at, _ in timeline.samples if at > facts.since})


def _scrapes(reader: Reader, facts: Facts) -> Sequence[UnixNs]:
    timelines = reader.series(Source.PROMETHEUS, f"{NAME}_count")
    return sorted({at for timeline in timelines for at, _ in timeline.samples if at > facts.since})


def _not_yet_stored(reader: Reader, at: UnixNs, facts: Facts) -> Iterator[frozenset[Labels]]:
    """Every set of processes whose scrape may still have been under way."""
    fresh_ns = 1e9 * facts.setting("scrape_interval_s", 15.0)
    fresh: list[Labels] = []
    for timeline in reader.series(Source.PROMETHEUS, f"{NAME}_count"):
        index = bisect.bisect_right(timeline.samples, at, key=lambda sample: sample[0])
        if index and at - timeline.samples[index - 1][0] < fresh_ns:
            fresh.append(owner(timeline))
    fresh = fresh[:_MOST_INSTANCES]
    for size in range(len(fresh) + 1):
        yield from (frozenset(chosen) for chosen in itertools.combinations(fresh, size))


def _told(lie: Callable[[Reader, UnixNs], float | None], facts: Facts) -> Defect:
    """The p95 rule says something else from the beginning of the load on."""

    def defect(reader: Reader) -> Reader | None:
        found = [number for timeline in reader.series(Source.RULES, P95) for at, number in timeline.samples if at > facts.since]
        if not any(math.isfinite(number) for number in found):
            return None
        return reader.with_series(
            Source.RULES, P95, lambda each: each.changed(lambda at, number: lie(reader, at) if at > facts.since else number)
        )

    return defect


def _of_all_time(reader: Reader, at: UnixNs) -> float:
    """The quantile of the bare counters."""
    totals: dict[float, float] = {}
    for timeline in reader.series(Source.PROMETHEUS, f"{NAME}_bucket"):
        bound = float(timeline.labels["le"])
        totals[bound] = totals.get(bound, 0.0) + (timeline.at(at) or 0.0)
    return histogram.quantile(0.95, tuple(totals.items()))


def _scaled(reader: Reader, at: UnixNs, by: float) -> float | None:
    found = next((number for timeline in reader.series(Source.RULES, P95) if (number := timeline.at(at)) is not None), None)
    return None if found is None else found * by


def _show(reading: Reading) -> str:
    """The last value of p95 that is a number."""
    values = [thing for key, thing in reading.parts.items() if key[:2] == ("value", P95) and isinstance(thing, frozenset)]
    for thing in reversed(values):
        numbers = sorted({f"{float(digits):.2f}" for digits in thing if digits != "NaN"})
        if numbers:
            return f"{' or '.join(numbers)} s"
    return "no value" if reading.parts else "any value"


def _explain(difference: Difference, facts: Facts) -> str:
    if difference.key[0] == "evaluated":
        return "the rules were not evaluated to the end of the run"
    _, name, at, labels = difference.key
    place = facts.moment(int(at))
    match difference.kind:
        case Kind.LACKS:
            return f"the rule {name} has no value {place}, where the raw samples give {_seconds(difference.admitted)}"
        case Kind.EXTRA if labels:
            return f"the rule {name} is split by {labels}; it must be one value over all processes"
        case Kind.EXTRA:
            return f"the rule {name} says {_seconds(difference.said)} {place}, where its window holds no samples to say it of"
        case Kind.OTHER:
            return f"the rule {name} says {_seconds(difference.said)} {place}; of its window it is {_seconds(difference.admitted)}"


def _seconds(thing: Thing | None) -> str:
    numbers = sorted({digits if digits == "NaN" else f"{float(digits):.3f}" for digits in thing}) if isinstance(thing, frozenset) else []
    return f"{' or '.join(numbers)} s" if numbers else span(thing)
