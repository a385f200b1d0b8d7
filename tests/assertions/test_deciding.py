"""What would decide a hop that stayed open."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from assertions.chains import Chains
from assertions.facts import Facts
from harness import check
from harness.measure.series import Reader
from harness.model import Status, Verdict
from tests.fakes import stack
from tests.fakes.evidence import LATENCIES_S, plan, record

HONEST = stack.run()
FACTS = Facts.of(HONEST)
NEEDS = {
    step.claim: step.needs
    for tree in Chains(Reader.of(HONEST), FACTS).joined([tree for quantity in check._QUANTITIES for tree in quantity.trees(FACTS)])
    for step in tree.steps
}


@pytest.mark.parametrize("claim", NEEDS)
def test_every_hop_says_what_would_decide_it(claim: str) -> None:
    """Whatever of its defects a run may hide."""
    assert NEEDS[claim]


def test_following_it_helps() -> None:
    """A turn without a reply may be counted or not, so that one more or less shows nothing; where all are answered it does."""

    def turns(latencies_s: Sequence[Sequence[float | None]]) -> Verdict:
        calls = [record(plan(index), latencies) for index, latencies in enumerate(latencies_s, start=1)]
        return next(each for each in check.check(stack.of(calls), control=False).verdicts if each.claim == "turns/exporter")

    unanswered = turns([(*call[:-1], None) for call in LATENCIES_S])
    assert unanswered.status is Status.INCONCLUSIVE
    assert unanswered.sentence.endswith(
        "to decide it: turns that the agent answers, in calls that are heard to their end by callers that are on time"
    )
    assert turns(LATENCIES_S).status is Status.PASS
