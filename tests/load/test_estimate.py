"""The estimate before a stack that costs money is called: a bound, with the target's own prices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.load.estimate import estimate
from harness.model import Prices
from tests.fakes.evidence import healthy

SCENARIO = replace(healthy()[0].info.scenario, calls=6, answer_timeout_s=10.0)
MINUTES = 6 * (len(SCENARIO.turns) + 1) * 40 / 60


def test_every_reply_is_as_late_and_as_long_as_it_may_be() -> None:
    """Six calls; the greeting and each turn take up to 40 s."""
    assert estimate(SCENARIO, None).agent_minutes == pytest.approx(MINUTES)


def test_the_cost_is_calls_and_minutes_at_their_prices() -> None:
    """Half a euro a call, a tenth a minute."""
    found = estimate(SCENARIO, Prices(per_call=0.5, per_agent_minute=0.1, currency="EUR"))

    assert found.cost == pytest.approx(3.0 + 0.1 * MINUTES)
    assert found.sentence == f"6 calls, at most {MINUTES:.1f} agent minutes, at most {3.0 + 0.1 * MINUTES:.2f} EUR by the target's prices"


def test_without_prices_no_cost_is_invented() -> None:
    """It is said, instead."""
    found = estimate(SCENARIO, None)

    assert found.cost is None
    assert found.sentence.endswith("no cost, since the target names no prices")
