"""What of a machine is made bad in earnest, and what its ``/proc`` then admits: by hand-made watches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.drill import scaled
from harness.model import Drill
from harness.rules.alerts import AlertRule, alert_rules
from harness.rules.drills import BY_NAME, Fault, plan
from harness.rules.real import Machine, Watched, admitted, level, moved, planned
from harness.rules.windows import Cadence, Window

GIB = 2**30
ALERTS = Path(__file__).resolve().parents[2] / "deploy" / "monitoring" / "rules" / "alerts.yml"
RULES: dict[str, AlertRule] = {rule.name: rule for rule in scaled(alert_rules(ALERTS), 15)}
CADENCE = Cadence(scrape_s=1.0, evaluation_s=1.0, ingest_s=0.05)
GRID = tuple(float(at) for at in range(200))
MACHINE = Machine(
    cpus=2,
    cpus_ours=2.0,
    memory_total_bytes=24 * GIB,
    memory_available_bytes=20 * GIB,
    memory_limit_bytes=None,
    no_disk=None,
)


def watched(value: Callable[[float], float]) -> Watched:
    """Looked at ten times a second."""
    instants = tuple(round(at / 10, 1) for at in range(2000))
    return Watched(at_s=instants, values=tuple(value(at) for at in instants))


def idle(at_s: float, *, since: float = 60.0, until: float = 106.0, calm: float = 0.9) -> float:
    """Seconds of idling: a share of the time, but none between the two instants."""
    return calm * (min(at_s, since) + max(0.0, at_s - until))


def fault(name: str, begun: float = 60.0, ended: float = 106.0, kind: str = "breach") -> Fault:
    """Of the machine itself."""
    subject = BY_NAME[name]
    windows = [Window(earliest_s=at, latest_s=at) for at in (begun, ended)]
    return Fault(subject=name, alert=subject.alert, labels=subject.labels, kind=kind, begun=windows[0], ended=windows[1], level=None)


def test_a_level_that_cannot_be_reached_moves_the_threshold() -> None:
    """A quarter of what is free is held, no more; the rule is a copy that fires half way there."""
    found = planned(MACHINE)

    assert found.hold_bytes == 5 * GIB
    # 16.7 % used, 20.8 % more held.
    assert found.thresholds == {"HostMemoryHigh": 27.0}
    assert found.subjects == ("cpu", "memory", "disk")


def test_what_is_left_free_is_guarded() -> None:
    """The guard lets go long before anybody is killed."""
    assert planned(MACHINE).leave_bytes == pytest.approx(7.5 * GIB)


def test_a_level_that_fits_is_reached_with_the_shipped_threshold() -> None:
    """A machine that is nearly full needs no copy."""
    full = dataclasses.replace(MACHINE, memory_available_bytes=6 * GIB)
    just = dataclasses.replace(MACHINE, memory_total_bytes=6 * GIB, memory_available_bytes=int(1.3 * GIB))

    assert "HostMemoryHigh" in planned(full).thresholds
    assert planned(just).thresholds == {"HostMemoryHigh": 81.0}
    assert planned(dataclasses.replace(just, memory_available_bytes=int(0.8 * GIB))).refused.keys() == {"memory"}


def test_too_little_free_memory_is_refused() -> None:
    """With what there is, and what would do."""
    found = planned(dataclasses.replace(MACHINE, memory_available_bytes=2 * GIB))

    assert found.refused["memory"].startswith("2048 MiB are free")
    assert found.hold_bytes == 0


def test_a_limit_of_the_control_group_counts() -> None:
    """A container that may have 8 GiB of 24 holds a quarter of those: never enough to be killed."""
    assert planned(dataclasses.replace(MACHINE, memory_limit_bytes=8 * GIB)).hold_bytes == 2 * GIB


def test_processors_of_others_are_not_counted_on() -> None:
    """One of two can be burnt to 50 %, and the rule asks for 80."""
    found = planned(dataclasses.replace(MACHINE, cpus_ours=1.0))

    assert found.refused["cpu"].startswith("1 of 2 processors are ours: at most 50 %")
    assert found.subjects == ("memory", "disk")


def test_a_mount_that_is_not_permitted_is_refused_with_its_reason() -> None:
    """The reason says what would make it possible."""
    assert planned(dataclasses.replace(MACHINE, no_disk="unshare is not permitted here")).refused == {
        "disk": "unshare is not permitted here"
    }


def test_a_copy_differs_in_its_threshold_alone() -> None:
    """And rules without one are left as they are."""
    rule = RULES["HostMemoryHigh"]

    assert (
        moved(rule, {"HostMemoryHigh": 27.0}).expression
        == "(100 * (1 - node_memory_MemAvailable_bytes{} / node_memory_MemTotal_bytes{})) > 27"
    )
    assert moved(RULES["TargetDown"], {"HostMemoryHigh": 27.0}) == RULES["TargetDown"]


def test_an_even_idle_share_is_seen_to_the_scrape() -> None:
    """Reading within 50 ms, counting in hundredths of a second: less than two percent of uncertainty over 19 s."""
    low, high = level(19, watched(lambda at: 0.9 * at), 100.0, CADENCE) or (0.0, 0.0)

    assert low < 10 < high
    assert high - low < 2.0


def test_a_level_is_that_of_the_last_scrape() -> None:
    """Whatever its phase: both levels of a step within the last second."""
    assert level(0, watched(lambda at: 90.0 if at >= 99.5 else 30.0), 100.0, CADENCE) == (30.0, 90.0)
    assert level(0, watched(lambda at: 90.0 if at >= 98.0 else 30.0), 100.0, CADENCE) == (90.0, 90.0)


def test_what_was_not_watched_is_not_known() -> None:
    """Before and after."""
    assert level(0, watched(lambda _: 1.0), 500.0, CADENCE) is None
    assert level(19, watched(lambda at: at), 10.0, CADENCE) is None


def test_a_burnt_processor_must_fire() -> None:
    """From 10 to 100 %: the window needs 70 of 90 parts of 19 s, and loses them as fast."""
    found = admitted(fault("cpu"), RULES["HostCpuHigh"], watched(idle), GRID, CADENCE)

    assert not isinstance(found, str)
    assert found.must_fire
    assert found.pending is not None
    assert found.pending.earliest_s <= 60 + 19 * 70 / 90 + 1 <= found.pending.latest_s + 1
    assert found.pending.width_s <= 2
    assert found.resolved is not None
    assert found.resolved.width_s <= 3


def test_a_held_level_is_known_to_the_evaluation() -> None:
    """True from the first scrape of it on."""
    rule = RULES["HostDiskFull"]
    found = admitted(fault("disk"), rule, watched(lambda at: 90.0 if 60.05 <= at < 106.05 else 30.0), GRID, CADENCE)

    assert not isinstance(found, str)
    assert found.pending == Window(earliest_s=61.0, latest_s=62.0)
    assert found.resolved == Window(earliest_s=107.0, latest_s=108.0)
    assert found.must_fire


def test_a_short_hold_must_not_fire() -> None:
    """Shorter than `for` at every phase."""
    found = admitted(
        fault("disk", ended=77.0, kind="spike"), RULES["HostDiskFull"], watched(lambda at: 90.0 if 60 <= at < 77 else 30.0), GRID, CADENCE
    )

    assert not isinstance(found, str)
    assert (found.firing, found.must_fire) == (None, False)


def test_a_machine_that_was_busy_before_says_nothing() -> None:
    """It was not our doing."""
    found = admitted(fault("cpu"), RULES["HostCpuHigh"], watched(lambda at: idle(at, calm=0.05)), GRID, CADENCE)

    assert found == "it may have been above 80 % before we did anything: the machine has other work"


def test_a_level_that_was_not_reached_says_nothing() -> None:
    """With how far it came."""
    found = admitted(fault("memory"), RULES["HostMemoryHigh"], watched(lambda _: 40.0), GRID, CADENCE)

    assert found == "40.0 % was the most that /proc admits, and the rule asks for more than 85 %"


def test_a_watch_that_ended_says_nothing() -> None:
    """What was not seen is not guessed."""
    short = Watched(at_s=(1.0, 2.0), values=(90.0, 90.0))

    assert "/proc was not watched" in str(admitted(fault("memory"), RULES["HostMemoryHigh"], short, GRID, CADENCE))


def test_real_levels_are_not_held_to_a_hair() -> None:
    """No near miss of processor and memory, no reset of the kernel's counters; the file system is ours alone, and has them."""
    deeds = plan(Drill(cycles=3, real_faults=True), 7)

    assert {deed.kind for deed in deeds if deed.subject == "cpu"} == {"breach", "back"}
    assert {deed.kind for deed in deeds if deed.subject == "memory"} == {"breach", "spike", "back"}
    assert {deed.level for deed in deeds if deed.subject == "cpu" and deed.kind == "breach"} == {None}
    assert "below" in {deed.kind for deed in deeds if deed.subject == "disk"}


def test_what_is_refused_is_left_alone() -> None:
    """Nothing is scripted instead."""
    assert "disk" not in {deed.subject for deed in plan(Drill(cycles=1, real_faults=True), 7, without=("disk",))}
