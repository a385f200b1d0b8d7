"""Since when a claim is red."""

from __future__ import annotations

from dataclasses import replace

from assertions.nights import Night, since_when
from harness.model import RunInfo, Status, UnixNs
from tests.fakes.evidence import START, info

DAY_NS = 86_400_000_000_000


def run(day: int, agent: str = "1.8.9") -> RunInfo:
    parts = (replace(info().parts[-1], version=agent),)
    return info(run_id=f"n{day}", started_at=UnixNs(START + day * DAY_NS), parts=parts)


def night(day: int, status: Status, agent: str = "1.8.9") -> Night:
    return Night(info=run(day, agent), statuses={"ttfw/exporter": status})


NOW = run(5, "1.9.0")


def test_the_first_red_night_names_the_last_green_one_and_what_changed() -> None:
    """What a person would look for first."""
    assert since_when("ttfw/exporter", NOW, [night(3, Status.PASS), night(4, Status.PASS)]) == (
        "red for the first time; last green in n4 (2026-11-27 20:00 UTC); changed since: agents 1.8.9 -> 1.9.0"
    )


def test_a_claim_that_stays_red_names_its_first_red_night() -> None:
    """And what changed then, not last night."""
    nights = [night(2, Status.PASS), night(3, Status.FAIL, "1.9.0"), night(4, Status.FAIL, "1.9.0")]

    assert since_when("ttfw/exporter", NOW, nights) == (
        "red since n3 (2026-11-26 20:00 UTC), 3 runs by now; last green in n2 (2026-11-25 20:00 UTC); changed since: agents 1.8.9 -> 1.9.0"
    )


def test_an_undecided_night_is_neither() -> None:
    """It is passed over."""
    nights = [night(3, Status.PASS), night(4, Status.INCONCLUSIVE)]

    assert "red for the first time; last green in n3" in str(since_when("ttfw/exporter", NOW, nights))


def test_a_claim_that_was_never_green_says_so() -> None:
    """There is nothing to compare with."""
    assert since_when("ttfw/exporter", NOW, [night(3, Status.FAIL), night(4, Status.FAIL)]) == (
        "red in every one of the 2 runs before it, since n3 (2026-11-26 20:00 UTC)"
    )


def test_nothing_is_said_without_a_history() -> None:
    """The first run, or a claim that is new."""
    assert since_when("calls/rows", NOW, [night(3, Status.FAIL)]) is None


def test_a_long_list_of_changes_is_cut() -> None:
    """The rest is a command away."""
    many = replace(NOW, digests={f"rules/{n}.yml": "1" * 64 for n in range(9)})

    assert "and 8 more: voxproof compare n4 n5" in str(since_when("ttfw/exporter", many, [night(4, Status.PASS)]))
