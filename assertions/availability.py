"""Whether a target was there -> ``up`` and ``probe_success`` in Prometheus' raw samples, scrape by scrape.

The real state is that of our own polls of the same exporters: between two polls that both succeeded, with no failure between them, a scrape must have
succeeded; between two failures it cannot have. Across a change it may have gone either way. A probe of the media server asks the process whose
exporter we poll; of other endpoints nothing is known.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from assertions.facts import Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Reading, Seen, Step, Thing, Tree
from assertions.pipeline import MARK
from harness.measure.series import Reader, Timeline
from harness.model import Gap, Source, UnixNs, value

UP, PROBE = "up", "probe_success"
TARGETS = {Source.SFU_EXPORTER: ("livekit_room_total", "livekit"), Source.AGENT_EXPORTER: ("voice_agent_turns_total", "voice-agent")}
"""By the exporter that we poll, too: a series that is scraped from it, and its job as we ship it."""
THERE, GONE = "up", "down"
_EITHER = frozenset({THERE, GONE})
_TOLERANCE_NS = 2_000_000
"""Prometheus moves a sample's instant by up to this much onto its grid: scrape.timestamp-tolerance."""


def trees(facts: Facts) -> Iterator[Tree]:
    """One arrow."""
    step = Step(
        claim="availability/samples",
        source="targets",
        title="prometheus up, probe_success",
        admits=lambda _, reader: _admitted(reader, facts),
        read=lambda reader: _said(reader, facts),
        defects={
            "a target that answers is down": _turned(UP, 1.0, facts),
            "a target that is gone is up": _turned(UP, 0.0, facts),
            "a probe of what answers fails": _turned(PROBE, 1.0, facts),
            "a probe of what is gone succeeds": _turned(PROBE, 0.0, facts),
        },
        show=_show,
        explain=lambda difference: _explain(difference, facts),
        would_catch=lambda admitted, _: (
            "1 scrape" if any(len(thing) == 1 for thing in admitted.parts.values() if isinstance(thing, frozenset)) else "nothing"
        ),
    )
    names = frozenset({UP, PROBE, *(name for name, _ in TARGETS.values())})
    yield Tree(root="targets", truth=Reading(parts={}), steps=(step,), reads=names)


_Event = tuple[UnixNs, UnixNs, bool | None]
"""Beginning and end of a poll, and whether the target was there. None: we could not tell."""
REFUSED = "ConnectError"
"""How a reason begins that says that nobody listens; whatever else befell a poll of ours need not befall a scrape."""
_LONGEST_TRY_NS = 4_000_000_000
"""A poll's interval and its timeout: harness.collect.exporter."""


@value
class _State:
    """One target as our own polls saw it."""

    events: tuple[_Event, ...]
    """Ascending. A failure that lasted is told once, when it began."""
    timeout_ns: int

    def at(self, instant: UnixNs) -> frozenset[str]:
        """What a scrape that began then may have found."""
        after = bisect.bisect_left(self.events, instant - _TOLERANCE_NS, key=lambda event: event[0])
        before = after - 1
        while before >= 0 and self.events[before][1] > instant:
            before -= 1
        if before < 0:
            return _EITHER
        if after == len(self.events):
            return frozenset({GONE}) if self.events[before][2] is False else _EITHER
        # A scrape may last until its time is out: what we saw until then may have befallen it.
        last = bisect.bisect_right(self.events, instant + self.timeout_ns, key=lambda event: event[0])
        around = self.events[before : max(last, after + 1)]
        seen = {is_there for _, _, is_there in around}
        if len(seen) > 1 or seen == {None} or any(end - begin > self.timeout_ns / 2 for begin, end, _ in around):
            return _EITHER
        return frozenset({THERE if seen == {True} else GONE})


def _states(reader: Reader, facts: Facts) -> Iterator[tuple[str, str, Timeline, _State]]:
    """Metric and target, its series, and its real state. Of what we did not poll nothing is known."""
    for source, (name, job) in TARGETS.items():
        if (state := _state(reader, source, facts)) is None:
            continue
        ups = reader.series(Source.PROMETHEUS, UP)
        owners = {(each.labels.get("job"), each.labels.get("instance")) for each in reader.series(Source.PROMETHEUS, name)}
        found = [each for each in ups if (each.labels.get("job"), each.labels.get("instance")) in owners] or [
            each for each in ups if each.labels.get("job") == job
        ]
        if len(found) == 1:
            yield UP, job, found[0], state
        if source is Source.SFU_EXPORTER:
            asked = {urlsplit(poll.request).netloc for poll in reader.polls.get(Source.SFU_API, ())}
            probes = [each for each in reader.series(Source.PROMETHEUS, PROBE) if urlsplit(each.labels.get("instance", "")).netloc in asked]
            if len(probes) == 1:
                yield PROBE, job, probes[0], state


def _state(reader: Reader, source: Source, facts: Facts) -> _State | None:
    """As our polls of an exporter saw it. None: there are none, or its process is none of ours."""
    polls: list[_Event] = [
        (poll.at, UnixNs(poll.at + round(poll.took_s * 1e9)), True) for poll in reader.polls.get(source, ()) if poll.count
    ]
    if not polls or not facts.is_ours:
        return None
    gaps = [event for gap in reader.gaps.get(source, ()) if not gap.is_blind for event in _failures(gap, polls)]
    timeout_ns = round(1e9 * facts.setting("scrape_timeout_s", facts.setting("scrape_interval_s", 15.0) * 2 / 3))
    return _State(events=tuple(sorted((*polls, *gaps), key=lambda event: event[0])), timeout_ns=timeout_ns)


def _failures(gap: Gap, polls: Sequence[_Event]) -> Iterator[_Event]:
    """A failure that was told once, and the last one before the next success: we go on polling, and no try lasts longer than its timeout."""
    is_there = False if gap.reason.startswith(REFUSED) else None
    yield gap.at, gap.at, is_there
    again = next((begin for begin, _, _ in polls if begin > gap.at), None)
    if again is not None and again - _LONGEST_TRY_NS > gap.at:
        last = UnixNs(again - _LONGEST_TRY_NS)
        yield last, last, is_there


def _admitted(reader: Reader, facts: Facts) -> Reading:
    parts: dict[Key, Thing] = {}
    for metric, target, told, state in _states(reader, facts):
        parts.update({(metric, target, str(at)): state.at(at) for at, _ in told.samples if at > facts.since})
    because = ("between two polls of ours that succeeded a scrape must have, too; between two that failed it cannot have",)
    return Reading(parts=parts, because=because)


def _said(reader: Reader, facts: Facts) -> Seen:
    if gap := unread(reader, Source.PROMETHEUS, MARK):
        return gap
    return Reading(
        parts={
            (metric, target, str(at)): frozenset({THERE if number else GONE})
            for metric, target, told, _ in _states(reader, facts)
            for at, number in told.samples
            if at > facts.since
        }
    )


def _show(reading: Reading) -> str:
    """How many scrapes succeeded, failed, or may have done either."""
    counts = Counter(" or ".join(sorted(thing, reverse=True)) for thing in reading.parts.values() if isinstance(thing, frozenset))
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items(), reverse=True)) or "-"


def _explain(difference: Difference, facts: Facts) -> str:
    metric, target, at = difference.key
    asked = target if metric == UP else f"{target}, probed,"
    said, admitted = (
        " or ".join(sorted(each)) if isinstance(each, frozenset) else "nothing" for each in (difference.said, difference.admitted)
    )
    if difference.kind is not Kind.OTHER:
        return f"Prometheus says nothing of {asked} at {facts.moment(int(at))}"
    return f"Prometheus says that {asked} was {said} {facts.moment(int(at))}; our own polls before and after found it {admitted}"


def _turned(metric: str, number: float, facts: Facts) -> Defect:
    """The last scrape or probe of which the state is sure is said to have gone the other way."""

    wanted = frozenset({THERE if number else GONE})

    def defect(reader: Reader) -> Reader | None:
        for told, _, series, state in _states(reader, facts):
            sure = [at for at, said in series.samples if at > facts.since and said == number and state.at(at) == wanted]
            if told == metric and sure:
                lie = series.changed(lambda at, said, last=sure[-1]: 1.0 - number if at == last else said)  # type: ignore[misc]
                others = tuple(each for each in reader.series(Source.PROMETHEUS, metric) if each is not series)
                return reader.telling(Source.PROMETHEUS, metric, (*others, lie))
        return None

    return defect
