"""How calls were measured, and what their network did to them, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from harness.model import CallRecord, Evidence, Grade, Impaired
from reports.words import plural

_DIRECTIONS = {"up": "caller to SFU", "down": "SFU to caller"}
_GRADES = {Grade.FULL: "full grade", Grade.LIGHT: "light grade: headers only, decoded around expected onsets"}


def measured(evidence: Evidence) -> tuple[str, ...]:
    """How the calls were measured and impaired. Empty if every one was decoded whole, on an untouched network."""
    grades = Counter(record.plan.grade for record in evidence.records)
    told = [f"{plural(count, 'call')} in {_GRADES[grade]}" for grade, count in grades.items()] if set(grades) - {Grade.FULL} else []
    if evidence.info.scenario.impairments:
        told.append(f"network {evidence.info.scenario.impairment or 'of the scenario'}")
    return (*told, *done(window for record in evidence.records for window in record.impaired))


def of_call(record: CallRecord) -> tuple[str, ...]:
    """The same for one call."""
    return (*((_GRADES[record.plan.grade],) if record.plan.grade is not Grade.FULL else ()), *done(record.impaired))


def done(windows: Iterable[Impaired]) -> tuple[str, ...]:
    """What impairments really did, by direction."""
    by_direction: dict[str, list[Impaired]] = {}
    for window in windows:
        by_direction.setdefault(window.direction, []).append(window)
    return tuple(f"impaired, {_DIRECTIONS.get(direction, direction)}: {_sum(found)}" for direction, found in by_direction.items())


def _sum(windows: list[Impaired]) -> str:
    packets, lost = sum(each.packets for each in windows), sum(each.lost for each in windows)
    told = [f"{lost} of {plural(packets, 'packet')} lost"]
    means = [(each.delay_mean_s, each.packets - each.lost) for each in windows if each.delay_mean_s is not None]
    longest = max((each.delay_max_s for each in windows if each.delay_max_s is not None), default=0.0)
    if longest > 0:
        mean = sum(mean_s * count for mean_s, count in means) / max(1, sum(count for _, count in means))
        told.append(f"delay {mean * 1000:.0f} ms, at most {longest * 1000:.0f}")
    told += [f"{count} {name}" for name in ("duplicated", "reordered") if (count := sum(getattr(each, name) for each in windows))]
    return ", ".join(told)
