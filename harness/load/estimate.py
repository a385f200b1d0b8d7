"""What a run may cost at most, said before the first call. Pure."""

from __future__ import annotations

from harness.model import Prices, Scenario, value

LONGEST_SPEECH_S = 15.0
"""Longest prompt or reply that a turn may take."""


@value
class Estimate:
    """Bounds, not guesses: what is paid when every reply takes as long as it may."""

    calls: int
    agent_minutes: float
    cost: float | None
    """None: the target names no prices."""
    currency: str

    @property
    def sentence(self) -> str:
        """For the person who pays."""
        said = f"{self.calls} calls, at most {self.agent_minutes:.1f} agent minutes"
        if self.cost is None:
            return f"{said}; no cost, since the target names no prices"
        return f"{said}, at most {self.cost:.2f} {self.currency} by the target's prices"


def longest_call_s(turns: int, answer_timeout_s: float) -> float:
    """Seconds after which a call has ended even if every prompt and every reply takes as long as it may; the greeting is a turn, too."""
    return (turns + 1) * (2 * LONGEST_SPEECH_S + answer_timeout_s)


def estimate(scenario: Scenario, prices: Prices | None) -> Estimate:
    """The most that the calls of ``scenario`` can take: greeting and every turn as late and as long as they may be."""
    minutes = scenario.calls * longest_call_s(len(scenario.turns), scenario.answer_timeout_s) / 60
    cost = None if prices is None else scenario.calls * prices.per_call + minutes * prices.per_agent_minute
    return Estimate(calls=scenario.calls, agent_minutes=minutes, cost=cost, currency=prices.currency if prices else "")
