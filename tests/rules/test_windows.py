"""Admitted instants of a rule: what the state machine does over sampled signals lies inside them, and one evaluation later lies outside."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.model import value
from harness.rules.alerts import AlertRule, Episode, episodes, replayed
from harness.rules.evaluate import Database, series
from harness.rules.windows import Cadence, Crossing, Shape, Smoothing, Window, admitted, lasting, smoothing
from tests.fakes.rules import alert_rule

SCRAPE_S = EVALUATION_S = 15.0
CADENCE = Cadence(scrape_s=SCRAPE_S, evaluation_s=EVALUATION_S)
CALM_S = 1200.0
"""Before T0, longer than every window here."""
EXPRESSIONS = {
    "gauge": "load > 0.8",
    "below": "load < 0.8",
    "span": "rate(load_total[5m]) > 0.8",
    "samples": "avg_over_time(load[5m]) > 0.8",
    "highest": "max_over_time(load[5m]) > 0.8",
    "lowest": "min_over_time(load[5m]) > 0.8",
    "offset": "load offset 1m > 0.8",
}

phase = st.integers(min_value=0, max_value=14_999).map(lambda ms: ms / 1000)
instant = st.integers(min_value=0, max_value=59_999).map(lambda ms: CALM_S + ms / 1000)
levels = st.tuples(st.integers(0, 75), st.integers(85, 100)).map(lambda pair: (pair[0] / 100, pair[1] / 100))


@value
class Signal:
    """From ``before`` to ``after`` at T0 and back at T1, evenly in ``ramp_s``."""

    before: float
    after: float
    at_s: float
    back_s: float
    ramp_s: float = 0.0

    def level(self, at_s: float) -> float:
        return self.before + (self.after - self.before) * (self._share(at_s - self.at_s) - self._share(at_s - self.back_s))

    def integral(self, until_s: float) -> float:
        area = self._area(until_s - self.at_s) - self._area(until_s - self.back_s)
        return self.before * until_s + (self.after - self.before) * area

    def _share(self, since_s: float) -> float:
        return float(since_s > 0) if not self.ramp_s else min(1.0, max(0.0, since_s / self.ramp_s))

    def _area(self, since_s: float) -> float:
        ramped = min(max(0.0, since_s), self.ramp_s)
        return (ramped * ramped / (2 * self.ramp_s) if self.ramp_s else 0.0) + max(0.0, since_s - self.ramp_s)

    def crossing(self, threshold: float) -> Crossing:
        return Crossing(
            at=Window(earliest_s=self.at_s, latest_s=self.at_s),
            back=Window(earliest_s=self.back_s, latest_s=self.back_s),
            before=self.before,
            after=self.after,
            threshold=threshold,
            ramp_s=self.ramp_s,
        )


def sampled(signal: Signal, scrape_phase_s: float, end_s: float) -> Database:
    """The signal as a gauge, and its integral as a counter that is not young, at every scrape."""
    ticks = [round(scrape_phase_s + SCRAPE_S * tick, 3) for tick in range(math.ceil(end_s / SCRAPE_S) + 1)]
    return {
        "load": (series("load", [(tick, signal.level(tick)) for tick in ticks]),),
        "load_total": (series("load_total", [(tick, 1e6 + signal.integral(tick)) for tick in ticks]),),
    }


def happened(alert: AlertRule, signal: Signal, scrape_phase_s: float, evaluation_phase_s: float) -> tuple[Episode, ...]:
    """The episodes of the state machine with these phases."""
    end_s = signal.back_s + signal.ramp_s + alert.keep_firing_for_s + 600.0
    first = math.floor((CALM_S - 120.0) / EVALUATION_S)
    evaluations = [round(evaluation_phase_s + EVALUATION_S * tick, 3) for tick in range(first, math.ceil(end_s / EVALUATION_S))]
    return episodes(replayed(alert, sampled(signal, scrape_phase_s, end_s), evaluations), evaluations)


def signals(lasts_s: st.SearchStrategy[float], ramps: bool = False) -> st.SearchStrategy[Signal]:
    """Crossings of 0.8."""
    return st.builds(
        lambda at_s, lasts, pair, ramp_s: Signal(before=pair[0], after=pair[1], at_s=at_s, back_s=at_s + max(lasts, ramp_s), ramp_s=ramp_s),
        instant,
        lasts_s,
        levels,
        st.sampled_from((0.0, 40.0, 300.0) if ramps else (0.0,)),
    )


long = st.integers(900_000, 960_000).map(lambda ms: ms / 1000)
any_length = st.integers(1_000, 700_000).map(lambda ms: ms / 1000)


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
@settings(max_examples=25)
@given(signal=signals(long, ramps=True), scrape=phase, evaluation=phase, wait=st.sampled_from((0.0, 50.0, 120.0)))
def test_every_instant_lies_in_its_set(expression: str, signal: Signal, scrape: float, evaluation: float, wait: float) -> None:
    """Whatever the phases: pending, firing and resolved where they were admitted, and the one after the set is not admitted."""
    if "<" in expression:
        signal = dataclasses.replace(signal, before=signal.after, after=signal.before)
    alert = alert_rule(expression, for_s=wait, keep_firing_for_s=wait, query_offset_s=wait / 5)

    sets = admitted(alert, signal.crossing(0.8), CADENCE)
    (episode,) = happened(alert, signal, scrape, evaluation)

    assert sets.must_fire
    assert sets.pending is not None
    assert sets.pending.holds(episode.pending_at_s)
    assert sets.firing is not None
    assert episode.firing_at_s is not None
    assert sets.firing.holds(episode.firing_at_s)
    assert sets.resolved is not None
    assert episode.resolved_at_s is not None
    assert sets.resolved.holds(episode.resolved_at_s)


@settings(max_examples=150)
@given(
    expression=st.sampled_from([EXPRESSIONS[name] for name in ("gauge", "span", "samples", "lowest")]),
    signal=signals(any_length),
    scrape=phase,
    evaluation=phase,
    wait=st.sampled_from((0.0, 50.0, 120.0)),
)
def test_short_breaches_fire_only_where_they_may(expression: str, signal: Signal, scrape: float, evaluation: float, wait: float) -> None:
    """Never admitted, it never fires; admitted for certain, it does."""
    alert = alert_rule(expression, for_s=wait)

    sets = admitted(alert, signal.crossing(0.8), CADENCE)
    found = happened(alert, signal, scrape, evaluation)
    fired = [episode for episode in found if episode.firing_at_s is not None]

    assert not found or sets.pending is not None
    assert not fired or sets.firing is not None
    assert fired or not sets.must_fire
    for episode in fired:
        assert sets.firing is not None
        assert episode.firing_at_s is not None
        assert sets.firing.holds(episode.firing_at_s)
        assert sets.resolved is not None
        assert episode.resolved_at_s is not None
        assert sets.resolved.holds(episode.resolved_at_s)


@pytest.mark.parametrize("name", ["gauge", "span", "samples", "highest", "lowest", "offset"])
@given(signal=signals(long), wait=st.sampled_from((0.0, 50.0, 120.0)))
def test_a_set_is_a_scrape_and_an_evaluation_wide(name: str, signal: Signal, wait: float) -> None:
    """Whole windows of scrapes leave nothing open but the two phases; a mean of samples one more scrape where it lands on the threshold."""
    share = (0.8 - signal.before) / (signal.after - signal.before) * 20
    assume(name != "samples" or not math.isclose(share, round(share), abs_tol=1e-6))

    sets = admitted(alert_rule(EXPRESSIONS[name], for_s=wait), signal.crossing(0.8), CADENCE)

    for found in (sets.pending, sets.firing, sets.resolved):
        assert found is not None
        assert found.width_s <= SCRAPE_S + EVALUATION_S + 1e-6


@given(signal=signals(long), scrape=phase, evaluation=phase)
def test_a_rule_that_waits_one_evaluation_longer_is_told_apart_with_known_phases(signal: Signal, scrape: float, evaluation: float) -> None:
    """The replay of the rule as written names one instant; the shifted rule fires at another."""
    (written,) = happened(alert_rule("load > 0.8", for_s=60.0), signal, scrape, evaluation)
    (shifted,) = happened(alert_rule("load > 0.8", for_s=75.0), signal, scrape, evaluation)

    assert written.firing_at_s is not None
    assert shifted.firing_at_s == pytest.approx(written.firing_at_s + EVALUATION_S)


@given(least=st.integers(0, 600), more=st.integers(0, 60))
def test_waiting_longer_needs_no_less(least: int, more: int) -> None:
    """What a breach must last grows with ``for``."""
    assert lasting(float(least), CADENCE) <= lasting(float(least + more), CADENCE)


@pytest.mark.parametrize(
    ("expression", "smooth"),
    [
        ("up == 0", Smoothing(shape=Shape.INSTANT)),
        ("80 < load", Smoothing(shape=Shape.INSTANT)),
        ("100 * (1 - avg by (instance) (rate(x_total[5m]))) > 80", Smoothing(shape=Shape.SPAN, window_s=300.0)),
        ("rate(a[5m]) / rate(b[5m]) > 0.01 and rate(b[30m]) > 10", Smoothing(shape=Shape.SPAN, window_s=300.0)),
        ("avg_over_time(up[5m] offset 1m) < 0.9", Smoothing(shape=Shape.SAMPLES, window_s=300.0, offset_s=60.0)),
        ("irate(a[5m]) > 1", Smoothing(shape=Shape.INSTANT)),
        ("absent_over_time(a[5m])", Smoothing(shape=Shape.ABSENT, window_s=300.0)),
        ("absent(a)", Smoothing(shape=Shape.INSTANT)),
        ("vector(1)", Smoothing(shape=Shape.INSTANT)),
        ("histogram_quantile(0.95, sum by (le) (rate(b_bucket[5m]))) > 2", Smoothing(shape=Shape.UNKNOWN, window_s=300.0)),
        ("max_over_time(rate(a[5m])[1h:]) > 1", Smoothing(shape=Shape.UNKNOWN, window_s=3900.0)),
        ("rate(a[5m]) / avg_over_time(b[5m]) > 1", Smoothing(shape=Shape.UNKNOWN, window_s=300.0)),
    ],
)
def test_a_rule_tells_its_smoothing(expression: str, smooth: Smoothing) -> None:
    """From its own text."""
    assert smoothing(expression) == smooth


def test_a_vanished_series_is_missed_a_window_later() -> None:
    """absent_over_time counts from the last sample, which stood up to a scrape before T0."""
    crossing = Crossing(at=Window(earliest_s=0.0, latest_s=0.0), back=None, before=1.0, after=0.0, threshold=0.5)

    assert admitted(alert_rule("absent_over_time(a[5m])"), crossing, CADENCE).pending == Window(earliest_s=285.0, latest_s=315.0)


def test_a_slow_scrape_widens_the_set() -> None:
    """A sample that is stamped at the start of its scrape is seen when the scrape has ended."""
    crossing = Crossing(at=Window(earliest_s=0.0, latest_s=0.0), back=None, before=1.0, after=0.0, threshold=0.5)
    hanging = dataclasses.replace(CADENCE, ingest_s=10.0)

    assert admitted(alert_rule("up == 0", for_s=60.0), crossing, hanging).firing == Window(earliest_s=60.0, latest_s=100.0)
