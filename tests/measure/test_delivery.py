"""What became of a change: each fate told from the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.delivery import (
    Break,
    Canary,
    Deaf,
    Fate,
    Heard,
    ServerClock,
    Written,
    account,
    call_changes,
    deaf,
    deliveries,
    lag_quantile_s,
    unknown,
)
from harness.model import UnixNs

S = 1_000_000_000


def at(seconds: float) -> UnixNs:
    """An instant."""
    return UnixNs(round(seconds * S))


def written(key: str = "a", seconds: float | None = 10.0, *, error_s: float = 0.0) -> Written:
    """A new call."""
    return Written(table="calls", kind="INSERT", key=key, at=None if seconds is None else at(seconds), error_s=error_s)


def heard(key: str = "a", seconds: float = 10.1, kind: str = "INSERT") -> Heard:
    """A change of ``calls`` that was received."""
    return Heard(table="calls", kind=kind, key=key, at=at(seconds), commit_timestamp="")


def canary(seconds: float, *, is_heard: bool = True) -> Canary:
    """Heard at once, or never."""
    return Canary(written_at=at(seconds), heard_at=at(seconds + 0.05) if is_heard else None)


def fate(*received: Heard, change: Written | None = None, deaf_times: tuple[Deaf, ...] = ()) -> Fate:
    """Of one call, with a limit of one second."""
    (found,) = deliveries([change or written()], received, deaf_times, late_after_s=1.0)
    return found.fate


def test_heard_once_in_time_is_delivered() -> None:
    """Whatever else was heard."""
    assert fate(heard("b"), heard("a", kind="UPDATE"), heard("a")) == Fate.DELIVERED


def test_heard_twice_is_doubled() -> None:
    """Even if the second one is late."""
    assert fate(heard(seconds=10.1), heard(seconds=30)) == Fate.DOUBLED


def test_two_changes_of_one_row_are_not_one_change_twice() -> None:
    """They were committed at different instants."""
    later = Heard(table="calls", kind="INSERT", key="a", at=at(11), commit_timestamp="2026-01-01T00:00:01.000Z")

    assert fate(heard(), later) == Fate.DELIVERED


def test_heard_after_the_limit_is_late() -> None:
    """By more than the clock may be off."""
    assert fate(heard(seconds=11.5)) == Fate.LATE
    assert fate(heard(seconds=11.5), change=written(error_s=0.6)) == Fate.DELIVERED


def test_never_heard_is_missed() -> None:
    """If the subscription delivered before and after."""
    assert fate() == Fate.MISSED
    assert fate(deaf_times=(Deaf(since=at(20), until=at(30)),)) == Fate.MISSED


def test_never_heard_while_deaf_is_told_apart() -> None:
    """No replay is promised; the clock's error widens the time."""
    gap = (Deaf(since=at(9), until=at(11)),)

    assert fate(deaf_times=gap) == Fate.MISSED_WHILE_DEAF
    assert fate(change=written(seconds=11.2), deaf_times=gap) == Fate.MISSED
    assert fate(change=written(seconds=11.2, error_s=0.3), deaf_times=gap) == Fate.MISSED_WHILE_DEAF


def test_heard_while_deaf_is_delivered() -> None:
    """Not proven to deliver is not proven to be silent."""
    assert fate(heard(), deaf_times=(Deaf(since=at(9), until=at(11)),)) == Fate.DELIVERED


def test_a_change_of_unknown_instant_has_no_lag() -> None:
    """It is never late; a deaf time anywhere may be where it was missed."""
    (found,) = deliveries([written(seconds=None)], [heard(seconds=99)], (), late_after_s=1.0)

    assert (found.fate, found.lag_s) == (Fate.DELIVERED, None)
    assert fate(change=written(seconds=None), deaf_times=(Deaf(since=at(1), until=at(2)),)) == Fate.MISSED_WHILE_DEAF


def test_the_first_hearing_is_the_lag() -> None:
    """In seconds."""
    (found,) = deliveries([written()], [heard(seconds=10.5), heard(seconds=10.25)], (), late_after_s=1.0)

    assert (found.lag_s, found.times) == (0.25, 2)


def test_what_did_not_happen_is_unknown() -> None:
    """Rows of others, or rows that are gone."""
    assert unknown([written("a")], [heard("a"), heard("b")]) == (heard("b"),)


@pytest.mark.parametrize(
    ("canaries", "breaks", "expected"),
    [
        ((), (), [(0, 100)]),
        ((canary(5), canary(50)), (), [(0, 5)]),
        ((canary(5), canary(20, is_heard=False), canary(30), canary(40)), (), [(0, 5), (5, 30)]),
        ((canary(5), canary(30), canary(40)), (12,), [(0, 5), (5, 30)]),
        ((canary(5),), (60,), [(0, 5), (5, 100)]),
        ((canary(5), canary(90, is_heard=False)), (), [(0, 5), (5, 100)]),
    ],
    ids=["never ready", "once ready", "a canary missed", "a break", "a break at the end", "the last canary missed"],
)
def test_deaf_is_whatever_is_not_proven(
    canaries: tuple[Canary, ...], breaks: tuple[float, ...], expected: list[tuple[float, float]]
) -> None:
    """Between two proofs all is proven unless something between them says otherwise."""
    found = deaf(canaries, [Break(at=at(each), reason="") for each in breaks], began_at=at(0), ended_at=at(100))

    assert [(each.since / S, each.until / S) for each in found] == expected


@pytest.mark.parametrize(("q", "expected"), [(0.5, 0.2), (0.99, 0.4), (0.25, 0.1), (1.0, 0.4)])
def test_quantiles_are_nearest_rank(q: float, expected: float) -> None:
    """A lag that was measured, never one between two."""
    changes = [written(str(number)) for number in range(4)]
    found = deliveries(changes, [heard(str(number), 10.1 + number / 10) for number in range(4)], (), late_after_s=9)

    assert lag_quantile_s(found, q) == pytest.approx(expected)


def test_no_lag_has_no_quantile() -> None:
    """Not zero."""
    assert lag_quantile_s([], 0.5) is None


@given(st.lists(st.sampled_from("abcd"), max_size=12))
def test_every_hearing_is_counted_once(keys: list[str]) -> None:
    """As a time of a known change, or as unknown."""
    changes = [written("a"), written("b")]
    received = [heard(key) for key in keys]
    found = deliveries(changes, received, (), late_after_s=1)

    assert sum(each.times for each in found) + len(unknown(changes, received)) == len(received)


ROW = {"id": "a", "status": "completed", "recorded_at": "1970-01-01T00:00:10+00:00", "end_time": "1970-01-01T00:00:30+00:00"}


def test_a_call_that_ended_has_begun_and_ended() -> None:
    """It began at an instant that the server wrote down, moved to our clock; of its end only that it happened is known."""
    found = call_changes([ROW], ServerClock(offset_s=2.0, error_s=0.01))

    assert found == (
        Written(table="calls", kind="INSERT", key="a", at=at(8), error_s=0.01),
        Written(table="calls", kind="UPDATE", key="a completed", at=None, not_before=at(8)),
    )


@pytest.mark.parametrize("changed", [{"end_time": None}, {"end_time": "1970-01-01T00:00:05+00:00"}])
def test_a_call_that_did_not_end_while_it_was_there_was_not_changed(changed: dict[str, str | None]) -> None:
    """Still open, or written only after it had ended."""
    assert [change.kind for change in call_changes([{**ROW, **changed}], None)] == ["INSERT"]


def test_without_the_servers_clock_no_lag_is_known() -> None:
    """Rather than one that rests on two clocks."""
    assert call_changes([ROW], None)[0].at is None


def test_an_account_adds_up() -> None:
    """Every change has one fate; lags, breaks and deaf time are told."""
    changes = [written("a"), written("b", 20.0), written("c", 50.0)]
    told: list[Heard | Canary | Break | ServerClock] = [
        ServerClock(offset_s=0.0, error_s=0.001),
        canary(1),
        heard("a"),
        Break(at=at(15), reason="gone"),
        canary(30),
        canary(90),
    ]
    found = account(changes, told, began_at=at(1), ended_at=at(100), late_after_s=5)

    assert {fate: count for fate, count in found.fates.items() if count} == {"delivered": 1, "missed during reconnect": 1, "missed": 1}
    assert (found.written, found.deaf_s, found.breaks, found.lag_error_s) == (3, 29.0, ("gone",), 0.001)
    assert found.sentence == "realtime: of 3 changes 1 delivered, 1 missed, 1 missed during reconnect; lag p50 100 ms"
