"""What every quantity needs of a run: who really called, in which window, and what the sources said."""

from __future__ import annotations

from collections.abc import Callable

from assertions.ledger import Key, Range, Reading, exactly
from harness.measure.series import Reader, Timeline
from harness.model import CallOutcome, CallRecord, Evidence, Gap, Source, UnixNs, value

BROKEN = frozenset({CallOutcome.CUT, CallOutcome.DISCONNECTED})
"""Calls whose end we did not see as a caller would: what the stack should say of them is not known."""
ABSENT = frozenset({CallOutcome.DROPPED, CallOutcome.REFUSED, CallOutcome.UDP_BLOCKED})
"""Calls in which nobody could speak."""


@value
class Facts:
    """One run, ready to be judged."""

    evidence: Evidence
    reader: Reader

    @staticmethod
    def of(evidence: Evidence) -> Facts:
        return Facts(evidence=evidence, reader=Reader.of(evidence))

    @property
    def whole(self) -> tuple[CallRecord, ...]:
        """Calls that we saw from beginning to end."""
        return tuple(record for record in self.evidence.records if record.outcome not in BROKEN | ABSENT)

    @property
    def broken(self) -> tuple[CallRecord, ...]:
        return tuple(record for record in self.evidence.records if record.outcome in BROKEN)

    @property
    def since(self) -> UnixNs:
        """The instant before which nothing that is counted happened."""
        return self.evidence.info.load_started_at or self.evidence.info.started_at

    def setting(self, name: str, default: float) -> float:
        """A number of the run's settings."""
        return float(self.evidence.info.settings.get(name, default))

    def unread(self, source: Source) -> Gap | None:
        """The Gap of a source that was never read, or that was lost before the end. None: it was read to the end."""
        if gap := self.reader.gap(source):
            return gap
        if not self.reader.is_read(source):
            return Gap(source=source, at=self.since, reason="it was never read", request="")
        return None

    def counters(self, source: Source, name: str, key: Callable[[Timeline], Key | None]) -> Reading | Gap:
        """Growth since the load began of the counters called ``name``, summed by ``key``; keys of None are left out."""
        gap = self.unread(source)
        if gap is not None:
            return gap
        sums: dict[Key, float] = {}
        for timeline in self.reader.series(source, name):
            place = key(timeline)
            if place is not None:
                sums[place] = sums.get(place, 0.0) + self.reader.grown(timeline, source, self.since)
        return Reading(parts={place: exactly(total) for place, total in sums.items()})

    def request(self, source: Source, name: str) -> str:
        """The request that shows the series called ``name`` again."""
        found = self.reader.series(source, name)
        if found:
            return found[0].request
        polls = self.reader.polls.get(source, ())
        return polls[-1].request if polls else ""


def whole_number(number: float) -> str:
    """A count without a fraction it does not have."""
    return f"{number:.0f}" if abs(number - round(number)) < 1e-6 else f"{number:.3f}"


def count_words(thing: object) -> str:
    """A range of counts: ``{9}`` or ``8..9``."""
    if not isinstance(thing, Range):
        return "nothing"
    if thing.lo == thing.hi:
        return f"{{{whole_number(thing.lo)}}}"
    return f"{whole_number(thing.lo)}..{whole_number(thing.hi)}"


def plural(count: float, noun: str) -> str:
    """``1 turn``, ``2 turns``."""
    return f"{whole_number(count)} {noun}" if count == 1 else f"{whole_number(count)} {noun}s"


def shifted(key: Key, by: float) -> Callable[[Reading], Reading | None]:
    """The defect that moves one number."""

    def defect(said: Reading) -> Reading | None:
        found = said.parts.get(key)
        if not isinstance(found, Range) or found.lo + by < 0:
            return None
        return replaced(said, {key: Range(lo=found.lo + by, hi=found.hi + by)})

    return defect


def replaced(said: Reading, changes: dict[Key, Range | frozenset[str] | None]) -> Reading:
    """A reading with some keys changed; None removes one."""
    parts = {key: thing for key, thing in said.parts.items() if key not in changes}
    parts.update({key: thing for key, thing in changes.items() if thing is not None})
    return Reading(parts=parts, may_lack=said.may_lack, may_add=said.may_add, because=said.because)
