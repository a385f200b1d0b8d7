"""How far heard and reported lie apart, from programmed delays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.measure.calibration import REFERENCE, Exchange, calibrate, load, mean_of, student
from harness.model import UnixNs

MS = 1_000_000


def exchange(uplink_ms: float = 150, downlink_ms: float = 20, *, ask_late_ms: float = 5, push_late_ms: float = 1) -> Exchange:
    """A turn with 500 ms of programmed endpointing and 400 ms of thinking."""
    ended = 1_795_000_000_000_000_000
    anchor = ended + round(uplink_ms * MS)
    asked = anchor + round((500 + ask_late_ms) * MS)
    pushed = asked + round((400 + push_late_ms) * MS)
    return Exchange(
        speech_ended_at=UnixNs(ended),
        anchor_at=UnixNs(anchor),
        asked_at=UnixNs(asked),
        endpointing_s=0.5,
        handed_over_at=UnixNs(asked + 400 * MS),
        pushed_at=UnixNs(pushed),
        heard_at=UnixNs(pushed + round(downlink_ms * MS)),
    )


def runs(means_ms: Sequence[float] = (140, 150, 160, 150, 150), spread_ms: float = 40) -> list[list[Exchange]]:
    """Runs of nine turns around these means."""
    return [[exchange(mean + spread_ms * (turn - 4) / 4) for turn in range(9)] for mean in means_ms]


def test_bounds_are_the_extremes_widened_by_a_packet() -> None:
    """Of each part by itself."""
    found = calibrate(runs(), made_at="2026-11-23", method="test")

    assert [(part.lo_s, part.hi_s) for part in found.parts] == [(0.08, 0.22), (0.0, 0.04)]
    assert (found.turns, found.runs) == (45, 5)
    assert found.mean_s == pytest.approx(0.17)


@pytest.mark.parametrize("wrong_ms", [300, -300])
def test_an_agent_that_does_not_keep_to_its_programmed_delays_is_refused(wrong_ms: float) -> None:
    """Its belief when the user stopped is 300 ms off in every turn: it could not be calibrated away."""
    wrong = [[replace(each, anchor_at=UnixNs(each.anchor_at + round(wrong_ms * MS))) for each in run] for run in runs()]

    with pytest.raises(ValueError, match="its clock cannot be trusted"):
        calibrate(wrong, made_at="2026-11-23", method="test")


def test_a_single_late_turn_is_no_wrong_clock() -> None:
    """A busy machine asks late at times; in its best turn an honest agent does not."""
    late = runs()
    late[0][0] = exchange(150, ask_late_ms=85)

    assert calibrate(late, made_at="2026-11-23", method="test").turns == 45


def test_too_few_turns_are_refused() -> None:
    """Extremes of few say little."""
    with pytest.raises(ValueError, match="18 turns with programmed delays in 2 runs; wanted at least 30 in 5"):
        calibrate(runs((150, 160)), made_at="2026-11-23", method="test")


def test_the_digest_is_of_the_measurements() -> None:
    """Another measurement, another digest."""
    one, same, other = (calibrate(runs(means), made_at="x", method="x").digest for means in ((1e2,) * 5, (1e2,) * 5, (101,) * 5))

    assert one == same != other


@given(st.integers(1, 500), st.integers(1, 500))
def test_the_mean_of_more_turns_is_known_better(one: int, other: int) -> None:
    """Never worse, and never wider than each turn is bounded."""
    found = calibrate(runs(), made_at="x", method="x")
    few, many = mean_of(found, min(one, other), 1e-3), mean_of(found, max(one, other), 1e-3)

    assert few is not None
    assert many is not None
    assert found.lo_s <= few[0] <= many[0] <= many[1] <= few[1] <= found.hi_s


def test_the_mean_of_nothing_is_not_known() -> None:
    """Nor that of a calibration by bounds alone."""
    found = calibrate(runs(), made_at="x", method="x")

    assert mean_of(found, 0, 1e-3) is None
    assert mean_of(replace(found, mean_s=None), 9, 1e-3) is None


@pytest.mark.parametrize(
    ("share", "degrees", "expected"), [(0.975, 1, 12.706), (0.975, 9, 2.262), (0.975, 10, 2.228), (0.9995, 20, 3.850), (0.995, 30, 2.750)]
)
def test_students_quantiles_are_those_of_the_tables(share: float, degrees: int, expected: float) -> None:
    """Odd and even degrees of freedom."""
    assert student(share, degrees) == pytest.approx(expected, abs=6e-4)


def test_the_shipped_calibration_is_what_its_measurements_say() -> None:
    """Bounds, scatter and digest can be recomputed from the table beside it."""
    shipped = load(REFERENCE)
    table = json.loads(REFERENCE.with_suffix(".turns.json").read_text())
    again = [
        [exchange(uplink * 1e3, downlink * 1e3, ask_late_ms=ask * 1e3, push_late_ms=push * 1e3) for uplink, downlink, ask, push in run]
        for run in table["runs"]
    ]

    assert calibrate(again, made_at=shipped.made_at, method=shipped.method) == shipped


def test_the_shipped_calibration_tells_a_shift_of_300_ms_in_a_smoke_run() -> None:
    """Wherever in its interval the truth of nine turns lies, 300 ms more or less leave it."""
    mean = mean_of(load(REFERENCE), 9, 1e-3)

    assert mean is not None
    assert mean[1] - mean[0] < 0.3


def test_a_file_that_is_no_calibration_is_named(tmp_path: Path) -> None:
    """With the command that makes one."""
    path = tmp_path / "mine.json"
    path.write_text('{"turns": "many"}')

    with pytest.raises(UsageError, match=r"mine\.json: not a calibration: .*voxproof calibrate"):
        load(path)
    with pytest.raises(UsageError, match=r"missing\.json: No such file"):
        load(tmp_path / "missing.json")
