"""Plans of drills: what is held when, and what must come of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.drill import scaled
from harness.model import Drill
from harness.rules.alerts import AlertRule, alert_rules
from harness.rules.drills import BY_NAME, HELD, SUBJECTS, Fault, edges, length_scrapes, plan
from harness.rules.windows import Cadence, Window

ROOT = Path(__file__).resolve().parents[2]
RULES: dict[str, AlertRule] = {rule.name: rule for rule in scaled(alert_rules(ROOT / "deploy" / "monitoring" / "rules" / "alerts.yml"), 15)}
CADENCE = Cadence(scrape_s=1.0, evaluation_s=1.0, ingest_s=0.05)


def fault(name: str, kind: str, level: float | None, lasted_s: float) -> Fault:
    """From the hundredth second on."""
    subject = BY_NAME[name]
    begun, ended = (Window(earliest_s=at, latest_s=at) for at in (100.0, 100.0 + lasted_s))
    return Fault(subject=name, alert=subject.alert, labels=subject.labels, kind=kind, begun=begun, ended=ended, level=level)


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_subject_is_of_a_shipped_alert_and_fires(subject: object) -> None:
    """A breach that is held as long as drills hold it must fire, near the threshold, too."""
    found = next(each for each in SUBJECTS if each is subject)
    levels = [None] if found.calm is None else [edges(found)[1], found.grave[1]]

    for level in levels if found.grave[0] < found.grave[1] or found.calm is None else [found.grave[1]]:
        admitted = fault(found.name, "breach", level, HELD).admits(RULES[found.alert], CADENCE)
        assert admitted.must_fire
        assert admitted.pending is not None


@pytest.mark.parametrize(("name", "level"), [("cpu", 79.7), ("memory", 84.9), ("disk", 79.9), ("sip", 18.9)])
def test_a_level_below_is_never_even_pending(name: str, level: float) -> None:
    """It is below the edge that the arithmetic gives, and nothing is admitted."""
    assert level <= edges(BY_NAME[name])[0]
    admitted = fault(name, "below", level, 46).admits(RULES[BY_NAME[name].alert], CADENCE)

    assert (admitted.pending, admitted.firing) == (None, None)


def test_a_spike_is_pending_and_never_fires() -> None:
    """It is shorter than `for` at every phase."""
    spikes = [deed for deed in plan(Drill(cycles=1), 7) if deed.kind == "spike"]

    for deed in spikes:
        back = next(each for each in plan(Drill(cycles=1), 7) if each.subject == deed.subject and each.at_scrapes > deed.at_scrapes)
        made = fault(deed.subject, "spike", deed.level, back.at_scrapes - deed.at_scrapes)
        admitted = made.admits(RULES[made.alert], CADENCE)
        assert admitted.pending is not None
        assert admitted.firing is None
    assert {deed.subject for deed in spikes} == {"memory", "disk", "down", "probe"}


def test_rule_state_is_known_to_a_scrape_and_an_evaluation() -> None:
    """For a level that is compared as it was scraped, the set is no wider, but for the scrape's own duration."""
    admitted = fault("memory", "breach", 90, 46).admits(RULES["HostMemoryHigh"], CADENCE)

    assert admitted.pending is not None
    assert admitted.pending.width_s == pytest.approx(CADENCE.scrape_s + CADENCE.evaluation_s + CADENCE.ingest_s)


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    """And another for another."""
    drill = Drill(cycles=2)

    assert plan(drill, 1) == plan(drill, 1)
    assert plan(drill, 1) != plan(drill, 2)


def test_every_begin_has_its_end_within_the_drill() -> None:
    """Nothing is left broken, and the last end has time to be told."""
    drill = Drill(cycles=6)
    deeds = [deed for deed in plan(drill, 7) if deed.kind != "restart"]

    for subject in SUBJECTS:
        kinds = [deed.kind == "back" for deed in deeds if deed.subject == subject.name]
        assert kinds == [False, True] * (len(kinds) // 2)
    assert max(deed.at_scrapes for deed in deeds) + 20 < length_scrapes(drill)


def test_six_cycles_fit_into_twelve_minutes() -> None:
    """At fifteen times the speed."""
    assert length_scrapes(Drill(cycles=6)) < 660
