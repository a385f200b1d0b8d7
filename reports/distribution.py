"""TTFW as callers heard it above, as the agent reported it below, in the agent's own buckets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.measure.series import Reader
from harness.model import Evidence, Sample, Source, value
from reports.words import seconds

WIDTH = 1000
LEFT = 104
RIGHT = 16
HALF = 96
"""Height of each half."""
SERIES = "voice_agent_ttfw_seconds_bucket"
_PLAIN_BOUNDS_S = tuple(round(0.05 * 1.25**power, 3) for power in range(25))
"""Used when the agent's own bounds could not be read."""


@value
class Slot:
    """One bucket; x and width in units of the drawing, heights of its two bars."""

    label: str
    x: float
    width: float
    heard: int
    reported: int
    heard_height: float
    reported_height: float
    edge: str
    """Its upper bound, as the axis shows it."""


@value
class Line:
    """A quantile, said by someone."""

    x: float
    text: str
    anchor: str
    """``start`` or ``end``: on which side of the line its text stands."""


@value
class Distribution:
    """Both halves; what the template draws."""

    slots: tuple[Slot, ...]
    heard: int
    reported: int | None
    """None: the agent's buckets could not be read."""
    heard_p95: Line | None
    said_p95: Line | None


def distribution(evidence: Evidence, heard_p95_s: float | None) -> Distribution | None:
    """None if nothing was heard and nothing was reported.

    heard_p95_s: as check found it.
    """
    latencies_s = [
        turn.response_latency_s
        for record in evidence.records
        for turn in record.turns
        if turn.response_latency_s is not None and turn.void is None
    ]
    reported = reported_buckets(evidence)
    bounds = tuple(sorted(reported)) or (*_PLAIN_BOUNDS_S, math.inf)
    heard = _counts(latencies_s, bounds)
    told = [reported.get(bound, 0) for bound in bounds]
    used = [number for number in range(len(bounds)) if heard[number] or told[number]]
    if not used:
        return None
    said_p95_s = _last_rule(evidence, "voice_agent:ttfw_seconds:p95")
    shown_s = [one for one in (heard_p95_s, said_p95_s) if one is not None]
    used += [_slot_of(one, bounds) for one in shown_s]
    first, last = max(min(used) - 1, 0), min(max(used) + 1, len(bounds) - 1)
    tallest = max(1, *heard, *told)
    width = (WIDTH - LEFT - RIGHT) / (last - first + 1)
    slots = tuple(
        Slot(
            label=_label(bounds, number),
            x=round(LEFT + (number - first) * width, 1),
            width=round(width, 1),
            heard=heard[number],
            reported=told[number],
            heard_height=round(heard[number] / tallest * HALF, 1),
            reported_height=round(told[number] / tallest * HALF, 1),
            edge="∞" if math.isinf(bounds[number]) else f"{bounds[number]:g}",
        )
        for number in range(first, last + 1)
    )

    def line(at_s: float | None, who: str) -> Line | None:
        if at_s is None:
            return None
        x = round(LEFT + (_position(at_s, bounds) - first) * width, 1)
        return Line(x=x, text=f"{who} {seconds(at_s)}", anchor="end" if x > WIDTH * 0.7 else "start")

    return Distribution(
        slots=slots,
        heard=len(latencies_s),
        reported=sum(told) if reported else None,
        heard_p95=line(heard_p95_s, "p95 heard"),
        said_p95=line(said_p95_s, "p95 said by the rule"),
    )


def reported_buckets(evidence: Evidence) -> Mapping[float, int]:
    """Observations that the agent's exporter added during the load, by upper bound of the bucket; empty if none was read."""
    reader, since = Reader.of(evidence), evidence.info.load_started_at or evidence.info.started_at
    cumulative: dict[float, float] = {}
    for timeline in reader.series(Source.AGENT_EXPORTER, SERIES):
        bound = float(timeline.labels["le"])
        cumulative[bound] = cumulative.get(bound, 0.0) + reader.grown(timeline, Source.AGENT_EXPORTER, since)
    counts: dict[float, int] = {}
    below = 0.0
    for bound in sorted(cumulative):
        counts[bound] = round(cumulative[bound] - below)
        below = cumulative[bound]
    return counts


def _counts(latencies_s: Sequence[float], bounds: Sequence[float]) -> list[int]:
    counts = [0] * len(bounds)
    for latency_s in latencies_s:
        counts[_slot_of(latency_s, bounds)] += 1
    return counts


def _slot_of(value_s: float, bounds: Sequence[float]) -> int:
    return next((number for number, bound in enumerate(bounds) if value_s <= bound), len(bounds) - 1)


def _position(value_s: float, bounds: Sequence[float]) -> float:
    """Place on an axis on which every bucket is one wide."""
    slot = _slot_of(value_s, bounds)
    low = bounds[slot - 1] if slot else 0.0
    high = bounds[slot]
    return slot + 0.5 if math.isinf(high) else slot + max(value_s - low, 0.0) / (high - low)


def _label(bounds: Sequence[float], number: int) -> str:
    low = f"{bounds[number - 1]:g}" if number else "0"
    return f"over {low} s" if math.isinf(bounds[number]) else f"over {low} to {bounds[number]:g} s"


def _last_rule(evidence: Evidence, name: str) -> float | None:
    """The rule's last number; without turns in its window a rule says NaN, which is none."""
    said = [one for one in evidence.observations if isinstance(one, Sample) and one.source is Source.RULES and one.name == name]
    numbers = [one for one in said if not math.isnan(one.value)]
    return max(numbers, key=lambda one: one.at).value if numbers else None
