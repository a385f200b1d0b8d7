"""Which call is placed when, by whom, saying what: every plan of a run, computed before it starts. Pure."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.model import CallPlan, Scenario, value

_FICTION = 1000
"""+44 7700 900000 to 900999: numbers that Ofcom keeps for drama. No person has one."""


def plans(scenario: Scenario, *, prefix: str) -> tuple[CallPlan, ...]:
    """One plan a call, in the order in which they are due.

    prefix: unique to this run on the whole target; begins every room name and every call id, so that nothing of others is touched.
    """
    dice = random.Random(scenario.seed)
    return tuple(
        CallPlan(
            call_id=f"{prefix}-call-{index}",
            index=index,
            room=f"{prefix}-room-{index}",
            identity=f"caller-{index}",
            phone_number=f"+447700900{(index - 1) % _FICTION:03d}",
            agent_name=scenario.agent_name,
            due_s=due_s,
            turns=scenario.turns,
            seed=dice.getrandbits(32),
            greeting=scenario.greeting,
            answer_timeout_s=scenario.answer_timeout_s,
            impairments=scenario.impairments,
            grade=scenario.grade,
            peers=scenario.peers,
            hangs_up_after_s=_hangs_up_after_s(scenario, index),
        )
        for index, due_s in enumerate(due_times(scenario.calls, scenario.arrival, seed=scenario.seed), start=1)
    )


def _hangs_up_after_s(scenario: Scenario, index: int) -> float | None:
    return None if scenario.hang_up is None or index % int(scenario.hang_up["every"]) else float(scenario.hang_up["after_s"])


def first(scenario: Scenario, calls: int) -> Scenario:
    """The same with its first ``calls`` calls only, each due when it was."""
    if calls >= scenario.calls:
        return scenario
    arrival = dict(scenario.arrival)
    if arrival["model"] == "soak":
        arrival["over_s"] *= calls / scenario.calls
    return dataclasses.replace(scenario, calls=calls, arrival=arrival)


def due_times(calls: int, arrival: Mapping[str, Any], *, seed: int = 0) -> tuple[float, ...]:
    """Seconds after the start of the load at which each call is due, in order; an open model: nobody waits for another's end."""
    match arrival["model"]:
        case "poisson":
            return poisson(calls, arrival, seed)
        case "recorded":
            return recorded(calls, arrival)
        case "at-once":
            return (0.0,) * calls
        case "soak":
            return tuple(number * arrival["over_s"] / calls for number in range(calls))
        case model:
            return _by_rate(calls, RATES[model](arrival))


def poisson(calls: int, arrival: Mapping[str, Any], seed: int) -> tuple[float, ...]:
    """Independent callers, ``calls_per_s`` on average: gaps are exponential. The same for the same seed."""
    dice = random.Random(f"arrivals {seed}")
    return tuple(itertools.accumulate(dice.expovariate(arrival["calls_per_s"]) for _ in range(calls)))


def recorded(calls: int, arrival: Mapping[str, Any]) -> tuple[float, ...]:
    """The first ``calls`` of the recorded ``times_s``, the earliest at 0."""
    times = sorted(arrival["times_s"])[:calls]
    return tuple(float(time_s) - times[0] for time_s in times)


@value
class Stretch:
    """Seconds during which the arrival rate goes from one value to another in a straight line."""

    for_s: float
    from_per_s: float
    to_per_s: float


def constant(arrival: Mapping[str, Any]) -> Iterator[Stretch]:
    """One every ``1 / calls_per_s`` seconds, the first at 0."""
    yield _steady(math.inf, arrival["calls_per_s"])


def ramp(arrival: Mapping[str, Any]) -> Iterator[Stretch]:
    """From ``from_per_s`` to ``calls_per_s`` within ``over_s`` seconds, then steady."""
    yield Stretch(for_s=arrival["over_s"], from_per_s=arrival["from_per_s"], to_per_s=arrival["calls_per_s"])
    yield _steady(math.inf, arrival["calls_per_s"])


def step(arrival: Mapping[str, Any]) -> Iterator[Stretch]:
    """``calls_per_s``, and ``add_per_s`` more after every ``every_s`` seconds."""
    for number in itertools.count():
        yield _steady(arrival["every_s"], arrival["calls_per_s"] + number * arrival["add_per_s"])


def spike(arrival: Mapping[str, Any]) -> Iterator[Stretch]:
    """``calls_per_s``; ``peak_per_s`` from ``at_s`` on, for ``for_s`` seconds; then as before."""
    yield _steady(arrival["at_s"], arrival["calls_per_s"])
    yield _steady(arrival["for_s"], arrival["peak_per_s"])
    yield _steady(math.inf, arrival["calls_per_s"])


RATES: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Stretch]]] = {"constant": constant, "ramp": ramp, "step": step, "spike": spike}
"""Arrival models that are a rate over time."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "at-once": (),
    "constant": ("calls_per_s",),
    "ramp": ("from_per_s", "calls_per_s", "over_s"),
    "step": ("calls_per_s", "add_per_s", "every_s"),
    "spike": ("calls_per_s", "peak_per_s", "at_s", "for_s"),
    "soak": ("over_s",),
    "poisson": ("calls_per_s",),
    "recorded": ("file",),
}
"""Every arrival model by the name that scenarios use, with the keys that each of them needs."""


def _steady(for_s: float, per_s: float) -> Stretch:
    return Stretch(for_s=for_s, from_per_s=per_s, to_per_s=per_s)


def _by_rate(calls: int, stretches: Iterator[Stretch]) -> tuple[float, ...]:
    """Call ``n`` of 0, 1, 2... is due when the rate, summed since the start, reaches ``n``."""
    due: list[float] = []
    began_s = counted = 0.0
    for stretch in stretches:
        slope = (stretch.to_per_s - stretch.from_per_s) / stretch.for_s
        holds = stretch.for_s * (stretch.from_per_s + stretch.to_per_s) / 2
        while len(due) < calls and len(due) - counted < holds:
            due.append(began_s + _until(len(due) - counted, stretch.from_per_s, slope))
        if len(due) == calls:
            break
        began_s, counted = began_s + stretch.for_s, counted + holds
    return tuple(due)


def _until(calls: float, per_s: float, slope: float) -> float:
    """Seconds after which a rate that starts at ``per_s`` and grows by ``slope`` a second has brought ``calls``.

    The root of slope/2 t^2 + per_s t = calls, written so that a slope of 0 needs no case of its own.
    """
    return 2 * calls / (per_s + math.sqrt(max(0.0, per_s * per_s + 2 * slope * calls))) if calls else 0.0


def peak(plans: tuple[CallPlan, ...], *, call_s: float) -> int:
    """Most calls in progress at once if each lasts ``call_s`` seconds."""
    due = [plan.due_s for plan in plans]
    return max((sum(1 for other in due if start - call_s < other <= start) for start in due), default=0)
