"""Faults that are real: what of a machine may be burnt, held and filled, and which levels its own ``/proc`` then admits at each evaluation.

The truth of such a fault is not what was wanted but what was watched beside the exporter, on the same counters.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence

from harness.model import value
from harness.rules.alerts import AlertRule
from harness.rules.drills import BY_NAME, Fault
from harness.rules.tune import taken_apart
from harness.rules.windows import Admitted, Cadence, Window, whole

SUBJECTS = ("cpu", "memory", "disk")
"""Of a drill, those that can be made bad in earnest."""
SHARE = 0.25
"""Of the memory that is free, what is held at most: the rest is everybody else's."""
_LEAST_PERCENT = 5.0
"""Of the machine's memory: holding less could not be told from what others do meanwhile."""
_ROOM_PERCENT = 5.0
"""Between a threshold and the highest level that can be reached: less is no breach for certain."""
_TICK_S = 0.01
"""``/proc/stat`` counts in hundredths of a second."""
_CELLS = 10
"""Parts into which the unknown phase of the scrapes is divided; each is judged as a whole, so the number changes the work, not the bound."""


@value
class Machine:
    """What the faults act on, as it is before the drill."""

    cpus: int
    """That the exporter counts."""
    cpus_ours: float
    """That we may use: affinity and quota."""
    memory_total_bytes: int
    memory_available_bytes: int
    memory_limit_bytes: int | None
    """What is left of the control group's limit. None: there is none."""
    no_disk: str | None
    """Why no file system of our own can be mounted. None: it can."""


@value
class Plan:
    """What a drill makes real here."""

    refused: Mapping[str, str]
    """By subject: why it is not made bad at all, and its alert stays undecided."""
    thresholds: Mapping[str, float]
    """By alert: in percent, where the shipped one cannot be reached safely and the rule is run as a copy with a lower one."""
    hold_bytes: int
    leave_bytes: int
    """Memory that must stay available; with less the guard lets go."""

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(name for name in SUBJECTS if name not in self.refused)


@value
class Watched:
    """What ``/proc`` said of a subject: percent used, of a processor instead the seconds that it idled so far, mean over all of them."""

    at_s: tuple[float, ...]
    values: tuple[float, ...]


def planned(machine: Machine) -> Plan:
    """What can be done to this machine without harm; the rest is refused with its reason."""
    refused, thresholds = dict[str, str](), dict[str, float]()
    reach = 100 * machine.cpus_ours / machine.cpus
    if reach < _threshold("cpu") + _ROOM_PERCENT:
        refused["cpu"] = (
            f"{machine.cpus_ours:g} of {machine.cpus} processors are ours: at most {reach:.0f} % can be burnt, and the rule asks for more than "
            f"{_threshold('cpu'):g} %; run where affinity and cgroup quota leave all of them"
        )
    free = machine.memory_available_bytes
    if machine.memory_limit_bytes is not None:
        free = min(free, machine.memory_limit_bytes)
    hold = int(SHARE * free)
    percent = 100 * hold / machine.memory_total_bytes
    used = 100 * (1 - machine.memory_available_bytes / machine.memory_total_bytes)
    if percent < _LEAST_PERCENT:
        refused["memory"] = (
            f"{free / 2**20:.0f} MiB are free, and a quarter of that is {percent:.1f} % of the machine, too little to be told from what others "
            f"do; {_LEAST_PERCENT / SHARE * machine.memory_total_bytes / 100 / 2**20:.0f} MiB would do"
        )
    elif used + percent < _threshold("memory") + _ROOM_PERCENT:
        thresholds[BY_NAME["memory"].alert] = float(round(used + percent / 2))
    if machine.no_disk is not None:
        refused["disk"] = machine.no_disk
    return Plan(
        refused=refused,
        thresholds=thresholds,
        hold_bytes=0 if "memory" in refused else hold,
        # Half of what would be left, should others take the rest meanwhile.
        leave_bytes=int((1 - SHARE) / 2 * free),
    )


def moved(rule: AlertRule, thresholds: Mapping[str, float]) -> AlertRule:
    """The rule with the threshold that its alert has here."""
    if rule.name not in thresholds:
        return rule
    compared = taken_apart(rule)
    return dataclasses.replace(rule, expression=f"{compared.value} {compared.operation} {thresholds[rule.name]:g}")


def admitted(fault: Fault, rule: AlertRule, watched: Watched, grid: Sequence[float], cadence: Cadence) -> Admitted | str:
    """Instants at which the rule's state may change, given what was watched, evaluation by evaluation; or why it cannot be said.

    grid: the evaluations of the drill, in the seconds of ``watched``.
    """
    threshold = taken_apart(rule).threshold
    span_scrapes = BY_NAME[fault.subject].span_scrapes

    @functools.cache
    def levels(at_s: float) -> tuple[float, float]:
        return level(span_scrapes, watched, at_s, cadence) or (-math.inf, math.inf)

    ended_s = grid[-1] if fault.ended is None else fault.ended.latest_s
    first, behind = bisect.bisect_left(grid, fault.begun.earliest_s), bisect.bisect_right(grid, ended_s)
    during = grid[first:behind]
    core = max(
        (tuple(run) for is_sure, run in itertools.groupby(during, key=lambda at_s: levels(at_s)[0] > threshold) if is_sure),
        key=len,
        default=(),
    )
    if not core:
        highest = max((levels(at_s)[1] for at_s in during), default=math.inf)
        reached = f"{highest:.1f} % was the most that /proc admits" if highest < math.inf else "/proc was not watched all the time"
        return f"{reached}, and the rule asks for more than {threshold:g} %"
    begin = bisect.bisect_left(grid, core[0])
    while begin >= first and begin > 0 and levels(grid[begin - 1])[1] > threshold:
        begin -= 1
    if begin < first:
        return f"it may have been above {threshold:g} % before we did anything: the machine has other work"
    rest = grid[bisect.bisect_right(grid, core[-1]) :]
    fades, gone = (next((at_s for at_s in rest if levels(at_s)[end] <= threshold), None) for end in (0, 1))
    wait_s = whole(rule.for_s, cadence.evaluation_s)
    pending = Window(earliest_s=grid[begin], latest_s=core[0])
    must_fire = core[-1] - core[0] >= wait_s
    resolved = None
    if fades is not None and gone is not None:
        kept_s = whole(rule.keep_firing_for_s, cadence.evaluation_s)
        resolved = Window(earliest_s=fades + (kept_s if must_fire else 0.0), latest_s=gone + kept_s)
    can_fire = (grid[-1] if gone is None else gone) - grid[begin] > wait_s
    return Admitted(pending=pending, firing=pending.later(wait_s) if can_fire else None, must_fire=must_fire, resolved=resolved)


def level(span_scrapes: int, watched: Watched, at_s: float, cadence: Cadence) -> tuple[float, float] | None:
    """Lowest and highest percentage that the rule can see at an evaluation, over every phase of the scrapes. None: it was not watched then.

    span_scrapes: between the first and the last sample of the window. 0: the last sample is compared.
    """
    scrape_s, ingest_s = cadence.scrape_s, cadence.ingest_s
    since_s = at_s - scrape_s - ingest_s
    if not span_scrapes:
        first, behind = bisect.bisect_right(watched.at_s, since_s) - 1, bisect.bisect_left(watched.at_s, at_s) + 1
        if first < 0 or behind > len(watched.at_s):
            return None
        seen = watched.values[first:behind]
        return min(seen), max(seen)
    if watched.at_s[0] > since_s - span_scrapes * scrape_s or watched.at_s[-1] < at_s:
        return None
    step_s = (scrape_s + ingest_s) / _CELLS
    idle: list[float] = []
    for cell in range(_CELLS):
        last_s = since_s + cell * step_s
        # The newest sample may still be on its way: then the window holds one less, and is extrapolated over the gap.
        is_whole, is_short = last_s + step_s > at_s - scrape_s, last_s < at_s - scrape_s
        for spans, is_meant in ((span_scrapes, is_whole), (span_scrapes - 1, is_short)):
            if not is_meant:
                continue
            span_s = spans * scrape_s
            low, high = _grown(watched, last_s - span_s, last_s, step_s + ingest_s, span_s)
            is_cut = spans < span_scrapes and ingest_s > 0.1 * scrape_s
            idle += (low * (1 - (0.5 * scrape_s + ingest_s) / ((span_scrapes + 1) * scrape_s)) if is_cut else low, high)
    return 100 * (1 - min(1.0, max(idle))), 100 * (1 - max(0.0, min(idle)))


def _grown(watched: Watched, first_s: float, last_s: float, slack_s: float, span_s: float) -> tuple[float, float]:
    """Share of the time between two readings that was idle; each reading took place within ``slack_s`` after its instant."""
    least = _counter(watched, last_s)[0] - _counter(watched, first_s + slack_s)[1] - _TICK_S
    most = _counter(watched, last_s + slack_s)[1] - _counter(watched, first_s)[0] + _TICK_S
    return least / span_s, most / span_s


def _counter(watched: Watched, at_s: float) -> tuple[float, float]:
    """Bounds of the idle time at an instant: it never falls, and grows by no more than time does."""
    behind = bisect.bisect_left(watched.at_s, at_s)
    if behind == len(watched.at_s):
        return watched.values[-1], watched.values[-1] + (at_s - watched.at_s[-1])
    if behind == 0:
        return watched.values[0] - (watched.at_s[0] - at_s), watched.values[0]
    (before_s, after_s), (before, after) = watched.at_s[behind - 1 : behind + 1], watched.values[behind - 1 : behind + 1]
    # Both readings are whole ticks, so that the later one may seem to have grown too fast.
    bounds = max(before, after - (after_s - at_s) - _TICK_S), min(after, before + (at_s - before_s) + _TICK_S)
    return min(bounds), max(bounds)


def _threshold(name: str) -> float:
    threshold = BY_NAME[name].threshold
    assert threshold is not None
    return threshold
