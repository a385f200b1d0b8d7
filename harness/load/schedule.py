"""Which call is placed when, by whom, saying what: every plan of a run, computed before it starts. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from harness.model import CallPlan, Scenario

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
        )
        for index, due_s in enumerate(due_times(scenario.calls, scenario.arrival), start=1)
    )


def due_times(calls: int, arrival: Mapping[str, Any]) -> tuple[float, ...]:
    """Seconds after the start of the load at which each call is due; an open model: nobody waits for another's end."""
    return MODELS[arrival["model"]](calls, arrival)


def at_once(calls: int, _arrival: Mapping[str, Any]) -> tuple[float, ...]:
    """All in the first instant."""
    return (0.0,) * calls


def constant(calls: int, arrival: Mapping[str, Any]) -> tuple[float, ...]:
    """One every ``1 / calls_per_s`` seconds, the first at 0."""
    return tuple(number / arrival["calls_per_s"] for number in range(calls))


MODELS: Mapping[str, Callable[[int, Mapping[str, Any]], tuple[float, ...]]] = {"at-once": at_once, "constant": constant}
"""The arrival models by the names that scenarios use."""


def peak(plans: tuple[CallPlan, ...], *, call_s: float) -> int:
    """Most calls in progress at once if each lasts ``call_s`` seconds."""
    due = [plan.due_s for plan in plans]
    return max((sum(1 for other in due if start - call_s < other <= start) for start in due), default=0)
