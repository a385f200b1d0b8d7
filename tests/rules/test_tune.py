"""Settings of an alert: what each costs in delay and in false fires, and what it can tell apart."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from harness import cli
from harness.errors import UsageError
from harness.rules.alerts import AlertRule
from harness.rules.evaluate import Series, series
from harness.rules.tune import Choice, Grid, Stored, Tuning, taken_apart, tune
from harness.rules.windows import Cadence, Window
from reports import tuning as report
from tests.fakes.rules import alert_rule

HEALTHY = Path(__file__).parents[2] / "fixtures" / "runs" / "healthy"
CADENCE = Cadence(scrape_s=15.0, evaluation_s=15.0)
HOUR_S = 3600.0
RULE = alert_rule(name="High", for_s=60.0)


def hour(rule: AlertRule, grid: Grid, **more: list[float]) -> Tuning:
    """Tuned on an hour of a load of 10 that is at 85 for 45 s, four times, and of counters if there are some."""
    ticks = [15.0 * tick for tick in range(241)]
    load = series("load", [(at, 85.0 if at % 900 < 45 else 10.0) for at in ticks])
    database: dict[str, tuple[Series, ...]] = {"load": (load,)}
    database |= {name: (series(name, [(at, at * each_s[0]) for at in ticks]),) for name, each_s in more.items()}
    return tune(rule, Stored(database=database, start_s=0.0, end_s=HOUR_S, lookback_s=300.0), CADENCE, grid)


def choice(found: Tuning, **wanted: float) -> Choice:
    """The one with these settings."""
    (one,) = (each for each in found.choices if all(getattr(each, name) == number for name, number in wanted.items()))
    return one


def test_for_buys_silence_with_delay() -> None:
    """Spikes of 45 s fire without ``for`` and not with a minute of it, which tells a minute later."""
    found = hour(RULE, Grid(fors_s=(0.0, 60.0), thresholds=(80.0, 90.0)))

    assert choice(found, threshold=80.0, for_s=0.0).fires == 5
    assert choice(found, threshold=80.0, for_s=0.0).delay == Window(earliest_s=0.0, latest_s=30.0)
    assert choice(found, threshold=80.0, for_s=60.0).fires == 0
    assert choice(found, threshold=80.0, for_s=60.0).delay == Window(earliest_s=60.0, latest_s=90.0)
    assert choice(found, threshold=90.0, for_s=0.0).fires == 0


def test_what_nothing_beats_is_marked_and_so_is_the_rule_as_written() -> None:
    """90 without ``for`` is as soon as any and quiet; 80 without is as soon and not quiet."""
    found = hour(RULE, Grid(fors_s=(0.0, 60.0), thresholds=(80.0, 90.0)))

    assert [(each.threshold, each.for_s) for each in found.choices if each.is_best] == [(90.0, 0.0)]
    assert [(each.threshold, each.for_s) for each in found.choices if each.is_own] == [(80.0, 60.0)]


def test_an_injected_truth_that_does_not_cross_is_never_told() -> None:
    """No delay, and no place in the plot."""
    found = hour(RULE, Grid(thresholds=(80.0, 200.0), injected=100.0))

    assert {each.threshold: each.delay is None for each in found.choices} == {80.0: False, 200.0: True}


def test_a_shorter_window_tells_sooner() -> None:
    """The smoothing of a rate is a share of its window."""
    rule = dataclasses.replace(RULE, expression="rate(work_total[5m]) > 8", for_s=0.0)
    found = hour(rule, Grid(windows_s=(60.0, 300.0), thresholds=(8.0,), fors_s=(0.0,), injected=10.0), work_total=[2.0])

    delays = {each.window_s: (each.delay.earliest_s, each.delay.latest_s) for each in found.choices if each.delay}
    assert delays[60.0] == pytest.approx((0.75 * 45, 0.75 * 45 + 30))
    assert delays[300.0] == pytest.approx((0.75 * 285, 0.75 * 285 + 30))


def test_a_share_resolves_what_its_traffic_lets_it() -> None:
    """Ten times the packets tell a smaller difference; both are above the threshold."""
    rule = dataclasses.replace(RULE, expression="100 * rate(lost_total[5m]) / (rate(sent_total[5m]) > 1) > 1")
    few, many = (hour(rule, Grid(), lost_total=[0.001 * rate_s], sent_total=[rate_s]) for rate_s in (50.0, 500.0))
    levels = [choice(found, threshold=1.0, window_s=300.0, for_s=60.0).resolves for found in (few, many)]

    assert levels[0] is not None
    assert levels[1] is not None
    assert 1.0 < levels[1] < levels[0] < 2.0
    assert "1.5e+04 events" in few.because


@pytest.mark.parametrize("expression", ["vector(1)", "absent(load)", "load > 80 or load < 5", "load > limit", "load == 3"])
def test_what_has_no_threshold_to_move_is_refused(expression: str) -> None:
    """With the alert's name."""
    with pytest.raises(UsageError, match="alert High: no comparison"):
        taken_apart(dataclasses.replace(RULE, expression=expression))


def test_guards_are_kept() -> None:
    """What is compared is only there while they hold."""
    assert taken_apart(dataclasses.replace(RULE, expression="load > 80 and on () up == 1")).value == "(load{}) and on () up{} == 1"


def test_the_page_is_self_contained_and_shows_each_setting() -> None:
    """One circle a told setting, one row a setting, and no request."""
    found = hour(RULE, Grid(fors_s=(0.0, 60.0), thresholds=(80.0, 90.0, 200.0), injected=100.0))
    html = report.page(found, "an hour")

    assert html.count("<circle") == 4
    assert html.count("<tr class=") == 6
    assert re.findall(r'(?:src|href)="', html) == []


def test_a_recorded_run_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Offline, at the run's own scale of time."""
    out = tmp_path / "page.html"

    code = cli.main(["tune", "AgentSlow", "--json", "--run", str(HEALTHY), "--out", str(out)])

    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert {one["window_s"] for one in found["choices"]} >= {10.0, 20.0, 40.0}
    assert out.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [(["AgentSlow"], "--prometheus URL or --run RUN"), (["Nothing", "--run", str(HEALTHY)], "no alert Nothing; there are")],
)
def test_what_is_missing_is_said(arguments: list[str], wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and the next step."""
    assert cli.main(["tune", *arguments]) == 2
    assert wrong in capsys.readouterr().err
