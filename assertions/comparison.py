"""A run against one or several before it: what got worse, what changed, and how much worse it would have had to be to be seen."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from assertions.changes import Change, changes
from assertions.words import plural
from harness.measure.shift import Shift, Strata, at_least, shift
from harness.model import CallRecord, Evidence, Findings, Status, Verdict, value

ALPHA = 1e-3
"""Of each figure: nothing differs, and it is called different."""


_TTFW = "TTFW heard"


@value
class Judged:
    """One run with its verdicts."""

    evidence: Evidence
    findings: Findings


@value
class ClaimChange:
    """A claim whose verdict is not what it was."""

    claim: str
    before: Status | None
    """The worst of the runs before. None: none of them judged it."""
    after: Status | None
    sentence: str
    """Of the run after, or of the run before for a claim that is gone."""

    @property
    def is_worse(self) -> bool:
        return self.after is Status.FAIL and self.before is not Status.FAIL


@value
class FigureChange:
    """A number of what callers heard, before and after."""

    name: str
    before: str
    after: str
    status: Status
    """FAIL: worse by more than chance explains. INCONCLUSIVE: too few to say anything."""
    sentence: str


@value
class Comparison:
    """What is otherwise in the run after."""

    before: tuple[str, ...]
    """Run ids."""
    after: str
    claims: tuple[ClaimChange, ...]
    figures: tuple[FigureChange, ...]
    changes: tuple[Change, ...]
    """Against the last run before."""
    status: Status
    """FAIL: a claim fails that did not, or a figure is worse. INCONCLUSIVE: neither, but TTFW could not be compared."""


def compare(before: Sequence[Judged], after: Judged) -> Comparison:
    """The run ``after`` held against those ``before``, oldest first; at least one."""
    claims = tuple(_claims(before, after))
    figures = tuple(_figures(before, after))
    is_worse = any(change.is_worse for change in claims) or any(figure.status is Status.FAIL for figure in figures)
    ttfw = next(figure.status for figure in figures if figure.name == _TTFW)
    return Comparison(
        before=tuple(run.evidence.info.run_id for run in before),
        after=after.evidence.info.run_id,
        claims=claims,
        figures=figures,
        changes=changes(before[-1].evidence.info, after.evidence.info),
        status=Status.FAIL if is_worse else ttfw,
    )


def _claims(before: Sequence[Judged], after: Judged) -> Iterator[ClaimChange]:
    earlier = [{verdict.claim: verdict for verdict in run.findings.verdicts} for run in before]
    now = {verdict.claim: verdict for verdict in after.findings.verdicts}
    for claim in dict.fromkeys((*(name for run in earlier for name in run), *now)):
        told = [run[claim] for run in earlier if claim in run]
        was = Status.worst(verdict.status for verdict in told) if told else None
        status = now[claim].status if claim in now else None
        if was is not status:
            verdict: Verdict = now[claim] if claim in now else told[-1]
            yield ClaimChange(claim=claim, before=was, after=status, sentence=verdict.sentence)


def _figures(before: Sequence[Judged], after: Judged) -> Iterator[FigureChange]:
    records = [record for run in before for record in run.evidence.records]
    now = after.evidence.records
    answered = [sum(not record.is_answered for record in group) for group in (records, now)]
    yield _counts("calls without an answer", (answered[0], len(records)), (answered[1], len(now)), "call")
    turns = [[turn for record in group for turn in record.turns] for group in (records, now)]
    missed = [sum(turn.first_word_at is None for turn in group) for group in turns]
    yield _counts("turns without a reply", (missed[0], len(turns[0])), (missed[1], len(turns[1])), "turn")
    calibration = after.evidence.calibration
    yield _levels(_TTFW, _latencies(records, now), spread=calibration.run_sd_s if calibration else 0.0)
    yield _levels("jitter heard", _per_call(records, now, lambda record: _wire(record, "down")))
    yield _levels("round trip", _per_call(records, now, _round_trip))


def _latencies(before: Sequence[CallRecord], after: Sequence[CallRecord]) -> Strata:
    """By prompt: a turn that calls a tool is compared with turns that do, too."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for side, records in enumerate((before, after)):
        for record in records:
            for turn in record.turns:
                if turn.void is None and (latency_s := turn.response_latency_s) is not None:
                    found.setdefault(turn.prompt, ([], []))[side].append(latency_s)
    return found


def _per_call(before: Sequence[CallRecord], after: Sequence[CallRecord], figure: Callable[[CallRecord], float | None]) -> Strata:
    sides = [[number for record in records if (number := figure(record)) is not None] for records in (before, after)]
    return {"call": (sides[0], sides[1])}


def _wire(record: CallRecord, direction: str) -> float | None:
    return next((stats.jitter_s for stats in record.wire if stats.direction == direction), None)


def _round_trip(record: CallRecord) -> float | None:
    trips = [trip for stats in record.wire for trip in stats.rtt_s]
    return statistics.median(trips) if trips else None


def _levels(name: str, strata: Strata, *, spread: float = 0.0) -> FigureChange:
    """spread: see ``harness.measure.shift``."""
    shared = [(before, after) for before, after in strata.values() if before and after]
    sides = [[number for pair in shared for number in pair[side]] for side in (0, 1)]
    words = [f"median {statistics.median(side) * 1000:.1f} ms of {len(side)}" if side else "nothing measured" for side in sides]
    found = shift(strata, alpha=ALPHA, spread=spread)
    if found is None:
        sentence = f"{name}: too few to compare at a probability of {ALPHA:g}; place more calls"
        return FigureChange(name=name, before=words[0], after=words[1], status=Status.INCONCLUSIVE, sentence=sentence)
    status = Status.FAIL if found.lo > 0 else Status.PASS
    return FigureChange(name=name, before=words[0], after=words[1], status=status, sentence=f"{name}: {_shifted(found)}")


def _shifted(found: Shift) -> str:
    moved = f"{found.by * 1000:+.1f} ms, between {found.lo * 1000:+.1f} and {found.hi * 1000:+.1f} (p {found.p:.2g})"
    if found.is_decided:
        return f"{'longer' if found.lo > 0 else 'shorter'} by {moved}"
    return f"no difference shown: {moved}; one of more than {(found.hi - found.lo) * 1000:.0f} ms would have been"


def _counts(name: str, before: tuple[int, int], after: tuple[int, int], noun: str) -> FigureChange:
    words = [f"{failures} of {tried}" for failures, tried in (before, after)]
    if not before[1] or not after[1]:
        return FigureChange(
            name=name, before=words[0], after=words[1], status=Status.INCONCLUSIVE, sentence=f"{name}: one side has no {noun}"
        )
    p = at_least(before, after)
    seen = next((failures for failures in range(after[1] + 1) if at_least(before, (failures, after[1])) <= ALPHA), None)
    would = (
        f"{plural(seen, noun)} would have been" if seen is not None else f"no number would have been: {plural(after[1], noun)} are too few"
    )
    sentence = f"{name}: more, p {p:.2g}" if p <= ALPHA else f"{name}: no more than chance explains (p {p:.2g}); {would}"
    status = Status.FAIL if p <= ALPHA else Status.PASS if seen is not None else Status.INCONCLUSIVE
    return FigureChange(name=name, before=words[0], after=words[1], status=status, sentence=sentence)
