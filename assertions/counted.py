"""Counters on their way: an exporter -> Prometheus' raw samples. What both hops say, and what a scrape may have found.

Our own poll of an exporter is not Prometheus' scrape. A scrape says what the exporter said between the last poll that had ended before it and the
first that began after it; once counters are quiet that is one number.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from assertions.facts import Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Thing, exactly
from assertions.words import plural, span
from harness.measure import flavour
from harness.measure.series import Reader, Timeline
from harness.model import Source, UnixNs

Names = Mapping[str, Callable[[Timeline], Key]]
"""Key of each series by the name of its metric; series of one key are summed."""
SCRAPE = "@"
"""Kind of the keys that hold what was said at one scrape: ("@", instant, ...)."""
BOTH = (Source.AGENT_EXPORTER, Source.PROMETHEUS)
TOLERANCE_NS = 2_000_000
"""Prometheus moves a sample's instant by up to this much onto its grid: scrape.timestamp-tolerance."""


def exported(reader: Reader, names: Names, facts: Facts, source: Source = Source.AGENT_EXPORTER) -> Seen:
    """What an exporter says: growth since the load began, at the end and at each of Prometheus' scrapes."""
    if gap := unread(reader, source):
        return gap
    parts = _final(reader, names, source, facts.since)
    around = polls_around(reader, names, facts, source)
    for key, tracks in _tracks(reader, names, source, facts.since).items():
        for at, before, after in around:
            found = [track.between(before, after) for track in tracks]
            known = [each for each in found if each is not None]
            if len(known) == len(found):
                parts[SCRAPE, str(at), *key] = Range(lo=sum(each.lo for each in known), hi=sum(each.hi for each in known))
    return Reading(parts=parts)


def stored(reader: Reader, names: Names, facts: Facts) -> Seen:
    """What Prometheus' raw samples say: growth since the load began, at the end and at each scrape."""
    if gap := unread(reader, Source.PROMETHEUS, "voice_agent"):
        return gap
    parts = _final(reader, names, Source.PROMETHEUS, facts.since)
    instants = set(scrapes(reader, names, facts))
    for key, tracks in _tracks(reader, names, Source.PROMETHEUS, facts.since).items():
        (track,) = tracks if len(tracks) == 1 else (None,)
        for at, number in track.points if track and instants else ():
            if at in instants:
                parts[SCRAPE, str(at), *key] = exactly(number)
    return Reading(parts=parts)


def scraped(given: Reading, reader: Reader, names: Names, facts: Facts) -> Reading:
    """What raw samples may say: at the end what the exporter said at the last scrape, at each scrape what it said around it."""
    instants = scrapes(reader, names, facts)
    parts: dict[Key, Thing] = {}
    for key, thing in given.parts.items():
        at_last = given.parts.get((SCRAPE, str(instants[-1]), *key)) if instants and key[0] != SCRAPE else None
        parts[key] = at_last or thing
    because: tuple[str, ...] = ("every scrape stores what the exporter said between our poll before it and our poll after it",)
    if facts.others is not None:
        parts |= _around_last(given, reader, names, facts)
        because = (*because, f"counting went on while we read: {facts.others}")
    if (ratio := _rounding_ratio(facts)) > 0:
        parts = {key: _rounded(thing, ratio * _largest(reader, names)) for key, thing in parts.items()}
        because = (*because, f"this server rounds what it stores, by at most {ratio:g} of it")
    return Reading(parts=parts, may_lack=given.may_lack, may_add=given.may_add | {SCRAPE}, because=because)


def _rounding_ratio(facts: Facts) -> float:
    found = flavour.of(facts.evidence.info.settings)
    return found.rounding_ratio if found else 0.0


def _largest(reader: Reader, names: Names) -> float:
    """The largest value that the exporter said: growth is a difference of two that were rounded."""
    found = (timeline for name in names for timeline in reader.series(Source.AGENT_EXPORTER, name))
    return max((number for timeline in found for _, number in timeline.samples), default=0.0)


def _rounded(thing: Thing, by: float) -> Thing:
    return Range(lo=thing.lo - 2 * by, hi=thing.hi + 2 * by) if isinstance(thing, Range) else thing


def _around_last(given: Reading, reader: Reader, names: Names, facts: Facts) -> dict[Key, Thing]:
    """At the last sample at least what the exporter said well before it, and at most what it said well after it, if it was still asked."""
    slack_ns = round(1e9 * (facts.setting("scrape_interval_s", 15.0) + 2.0))
    found: dict[Key, Thing] = {}
    for key, tracks in _tracks(reader, names, Source.AGENT_EXPORTER, facts.since).items():
        ends = [timeline.samples[-1][0] for name in names for timeline in reader.series(Source.PROMETHEUS, name) if timeline.samples]
        said = given.parts.get(key)
        if not ends or not isinstance(said, Range):
            continue
        last = max(ends)
        known = [track.between(UnixNs(last - slack_ns), UnixNs(last + slack_ns)) for track in tracks]
        polls = reader.polls.get(Source.AGENT_EXPORTER, ())
        is_asked = bool(polls) and polls[-1].at > last + slack_ns
        low = sum(each.lo for each in known if each is not None)
        high = sum(each.hi for each in known if each is not None) if is_asked and None not in known else math.inf
        found[key] = Range(lo=min(low, said.lo), hi=max(high, said.hi))
    return found


def counts(given: Reading, reader: Reader, names: Names) -> Reading:
    """What an exporter may say of what happened: that much, and of every other series that it has, nothing."""
    silent: dict[Key, Thing] = {
        names[name](timeline): exactly(0) for name in names for source in BOTH for timeline in reader.series(source, name)
    }
    parts = {**given.parts, **{key: thing for key, thing in silent.items() if key not in given.parts}}
    may_lack = given.may_lack | (silent.keys() - given.parts.keys())
    return Reading(parts=parts, may_lack=frozenset(may_lack), may_add=frozenset({SCRAPE}), because=given.because)


def scrapes(reader: Reader, names: Names, facts: Facts) -> tuple[UnixNs, ...]:
    """Instants in the load at which Prometheus scraped the exporter with success.

    Empty if it scrapes several instances, or by a clock that we know nothing of.
    """
    if not facts.is_ours:
        return ()
    owners = {
        (timeline.labels.get("job"), timeline.labels.get("instance"))
        for name in names
        for timeline in reader.series(Source.PROMETHEUS, name)
    }
    if len(owners) != 1:
        return ()
    (owner,) = owners
    ups = [each for each in reader.series(Source.PROMETHEUS, "up") if (each.labels.get("job"), each.labels.get("instance")) == owner]
    if ups:
        return tuple(at for at, number in ups[0].samples if number == 1 and at > facts.since)
    first = next(timeline for name in names for timeline in reader.series(Source.PROMETHEUS, name))
    return tuple(at for at, _ in first.samples if at > facts.since)


def polls_around(reader: Reader, names: Names, facts: Facts, source: Source = Source.AGENT_EXPORTER) -> list[tuple[UnixNs, UnixNs, UnixNs]]:
    """Each scrape, the last poll that had ended before it, and the first that began after it.

    After our last poll, which is made when all calls are over, nothing is counted any more.
    """
    interval_ns = round(1e9 * facts.setting("scrape_interval_s", 15.0))
    polls = [poll for poll in reader.polls.get(source, ()) if poll.count]
    found = []
    for at in scrapes(reader, names, facts):
        earlier = bisect.bisect_right(polls, at - TOLERANCE_NS, key=lambda poll: UnixNs(poll.at + round(poll.took_s * 1e9)))
        later = bisect.bisect_left(polls, at + interval_ns + TOLERANCE_NS, key=lambda poll: poll.at)
        if earlier:
            found.append((at, polls[earlier - 1].at, polls[min(later, len(polls) - 1)].at))
    return found


class _Track:
    """Growth of one counter after ``since``."""

    def __init__(self, timeline: Timeline, since: UnixNs) -> None:
        base = timeline.at(since)
        self.points: list[tuple[UnixNs, float]] = []
        self.is_reset = False
        first = before = 0.0 if base is None else base
        lost = 0.0
        for at, number in timeline.samples:
            if at > since:
                if number < before:
                    self.is_reset, lost = True, lost + before
                # As in counters.growth: the same to the last bit, whenever it was read.
                self.points.append((at, number - first + lost))
                before = number
        self._is_old = base is not None
        self._instants = [at for at, _ in self.points]

    def between(self, before: UnixNs, after: UnixNs) -> Range | None:
        """Growth that a reading made between two polls may show. None: the series is too young, or it restarted."""
        low, high = self._at(before), self._at(after)
        return None if self.is_reset or low is None or high is None else Range(lo=low, hi=high)

    def _at(self, instant: UnixNs) -> float | None:
        index = bisect.bisect_right(self._instants, instant)
        if index:
            return self.points[index - 1][1]
        return 0.0 if self._is_old else None


def _tracks(reader: Reader, names: Names, source: Source, since: UnixNs) -> dict[Key, list[_Track]]:
    found: dict[Key, list[_Track]] = {}
    for name, key in names.items():
        for timeline in reader.series(source, name):
            found.setdefault(key(timeline), []).append(_Track(timeline, since))
    return found


def _final(reader: Reader, names: Names, source: Source, since: UnixNs) -> dict[Key, Thing]:
    sums: dict[Key, float] = {}
    for name, key in names.items():
        for timeline in reader.series(source, name):
            if not _has_vanished(timeline, reader, source):
                place = key(timeline)
                sums[place] = sums.get(place, 0.0) + reader.grown(timeline, source, since)
    return {place: exactly(number) for place, number in sums.items()}


def _has_vanished(timeline: Timeline, reader: Reader, source: Source) -> bool:
    """The exporter's last text does not have this series any more. Each text that changed was kept whole."""
    if source is Source.PROMETHEUS:
        return False
    polls = reader.polls.get(source, ())
    if polls and not polls[-1].count:
        return True
    return not timeline.samples or timeline.samples[-1][0] < reader.once(_ended_at, reader.all_of(source))


def _ended_at(families: Mapping[str, Sequence[Timeline]]) -> int:
    return max((each.samples[-1][0] for family in families.values() for each in family if each.samples), default=0)


def explained(difference: Difference, facts: Facts, hop: str, what: str, one: str) -> str:
    """A counter's difference as a sentence.

    what: of the key, such as ``turns by the user``. one: the noun of a single thing.
    """
    admitted, said = difference.admitted, difference.said
    if difference.key[0] == SCRAPE:
        place = f"at the scrape {facts.moment(int(difference.key[1]))}"
        said_words = "has no sample" if said is None else f"holds {span(said)}"
        return f"{hop} {said_words} of {what} {place}, the exporter said {span(admitted)}"
    if difference.kind is Kind.LACKS:
        return f"{hop} has no series for {what}; {span(admitted)} happened"
    assert isinstance(said, Range)
    if not isinstance(admitted, Range):
        return f"{hop} counts {span(said)} {what}, of which the hop before it knows nothing"
    away = said.lo - admitted.hi if said.lo > admitted.hi else admitted.lo - said.hi
    return f"{hop} says {span(said)} {what}, may say {span(admitted)}: {plural(away, one)} too {'many' if said.lo > admitted.hi else 'few'}"


def moved(names: Names, by: float, *, sources: tuple[Source, ...] = BOTH, only: Callable[[Timeline], bool] = lambda _: True) -> Defect:
    """The last event is not counted (by = -1), or is counted twice (by = 1), in the first series that counted anything."""

    def defect(reader: Reader) -> Reader | None:
        grown = [
            (name, timeline)
            for name in names
            for timeline in reader.series(sources[0], name)
            if only(timeline) and timeline.samples and timeline.samples[-1][1] > timeline.samples[0][1]
        ]
        if not grown:
            return None
        name, chosen = grown[0]
        final, own = chosen.samples[-1][1], names[name](chosen)
        for source in sources:
            reader = reader.with_series(source, name, lambda each: _from_final(each, final, by) if names[name](each) == own else each)
        return reader

    return defect


def _from_final(timeline: Timeline, final: float, by: float) -> Timeline:
    return timeline.changed(lambda _, number: number + by if number >= final else number)


def silenced(names: Names, *, sources: tuple[Source, ...] = BOTH) -> Defect:
    """The series are not there at all; the scrape is green."""

    def defect(reader: Reader) -> Reader | None:
        if not any(reader.series(source, name) for source in sources for name in names):
            return None
        for source, name in itertools.product(sources, names):
            reader = reader.with_series(source, name, lambda _: None)
        return reader

    return defect


def ended_early(names: Names, facts: Facts) -> Defect:
    """Prometheus stores nothing more of the series from the middle of the load on."""

    def defect(reader: Reader) -> Reader | None:
        end = facts.evidence.info.load_ended_at
        if end is None or not any(reader.series(Source.PROMETHEUS, name) for name in names):
            return None
        half = (facts.since + end) // 2
        growing = [
            each
            for name in names
            for each in reader.series(Source.PROMETHEUS, name)
            if each.samples and each.at(UnixNs(half)) != each.samples[-1][1]
        ]
        if not growing and not scrapes(reader, names, facts):
            return None  # nothing more came, and nobody knows when it was looked
        for name in names:
            reader = reader.with_series(
                Source.PROMETHEUS, name, lambda each: each.changed(lambda at, number: number if at < half else None)
            )
        return reader

    return defect


def requests(reader: Reader, names: Names, source: Source) -> Iterator[str]:
    """What shows the series again."""
    found = [timeline.request for name in names for timeline in reader.series(source, name)]
    yield from dict.fromkeys(found or [poll.request for poll in reader.polls.get(source, ())[-1:]])
