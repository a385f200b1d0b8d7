"""How far TTFW heard and TTFW reported may lie apart in each turn of a run: what was calibrated, and what was done to the network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from assertions.facts import Facts
from assertions.ledger import Key, Range, Reading
from assertions.words import plural
from harness.measure.calibration import mean_of
from harness.measure.impaired import calibrated, graded
from harness.model import Calibration, CallRecord, value

ALPHA = 1e-3
"""Probability that an honest run's mean lies outside the calibrated interval. The one statistical set of a run: it may use up all that a run may."""


@value
class Distances:
    """Heard less reported, by the keys of heard turns, in seconds."""

    each: Mapping[Key, Range]
    """Of a turn by itself."""
    together: Mapping[Key, Range]
    """For the sum over all turns: they do not all lie at the same end of their bounds."""
    because: tuple[str, ...]
    alpha: float


def distances(heard: Reading, facts: Facts) -> Distances:
    """The distance of every heard turn. Without a calibration any distance may be."""
    calibration = facts.evidence.calibration
    if calibration is None:
        anything = dict.fromkeys(heard.parts, Range(lo=-math.inf, hi=math.inf))
        words = "no calibration: how far heard and reported TTFW lie apart is not known; try: voxproof calibrate"
        return Distances(each=anything, together=anything, because=(words,), alpha=0.0)
    records = {record.plan.call_id: record for record in facts.records}
    own = {key: _of_turn(calibration, records[key[1]], int(key[2])) for key in heard.parts}
    plain = sum(own[key].mean_s is not None for key in heard.parts if key not in heard.may_lack)
    mean = mean_of(calibration, plain, ALPHA)
    each = {key: Range(lo=found.lo_s, hi=found.hi_s) for key, found in own.items()}
    together = {key: _together(calibration, found, mean) or each[key] for key, found in own.items()}
    return Distances(each=each, together=together, because=tuple(_because(calibration, own.values(), mean)), alpha=ALPHA if mean else 0.0)


def _of_turn(calibration: Calibration, record: CallRecord, index: int) -> Calibration:
    """The calibration on this call's network, for the grade at which the turn was listened to."""
    grades = [turn.grade for turn in record.turns if turn.index == index]
    found = calibrated(calibration, record.plan.impairments)
    return graded(found, grades[0]) if grades else found


def _together(plain: Calibration, own: Calibration, mean: tuple[float, float] | None) -> Range | None:
    """The interval of the mean, and what this turn adds to it. None: of a turn like this no mean is known."""
    if mean is None or own.mean_s is None:
        return None
    return Range(lo=mean[0] + own.lo_s - plain.lo_s, hi=mean[1] + own.hi_s - plain.hi_s)


def _because(calibration: Calibration, own: Iterable[Calibration], mean: tuple[float, float] | None) -> Iterable[str]:
    for part in dict.fromkeys(part for found in (calibration, *own) for part in found.parts):
        yield f"{part.name} {part.lo_s * 1000:+.0f} to {part.hi_s * 1000:+.0f} ms: {part.because}"
    if mean:
        runs = plural(calibration.runs, "calibrated run")
        yield f"the mean of these turns {mean[0] * 1000:+.0f} to {mean[1] * 1000:+.0f} ms, from the scatter of {runs}"
    yield f"calibrated {calibration.made_at} on {plural(calibration.turns, 'turn')}, digest {calibration.digest[:12]}"
