"""The PromQL evaluator, on series that a reader can compute in the head."""

from __future__ import annotations

import math

import pytest

from harness.rules.evaluate import NotAnalysed, evaluate, series, vector

SLOW = series("calls_total", [(15.0 * tick, 2.0 * tick) for tick in range(41)], node="a", job="sfu")
FAST = series("calls_total", [(15.0 * tick, 4.0 * tick) for tick in range(41)], node="b", job="sfu")
UP = series("up", [(15.0 * tick, 1.0) for tick in range(41)], job="sfu")
GONE = series("up", [(0.0, 1.0), (15.0, 1.0), (30.0, None)], job="agent")
DATABASE = {"calls_total": (SLOW, FAST), "up": (UP, GONE)}
AT_S = 600.0


def labels(**pairs: str) -> tuple[tuple[str, str], ...]:
    """A label set as the evaluator keys it."""
    return tuple(sorted(pairs.items()))


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("sum(calls_total)", {(): 240.0}),
        ("sum by (job) (calls_total)", {labels(job="sfu"): 240.0}),
        ("max without (job) (calls_total)", {labels(node="a"): 80.0, labels(node="b"): 160.0}),
        ("sum(rate(calls_total[5m])) * 60", {(): pytest.approx(24.0)}),
        ('increase(calls_total{node="a"}[5m])', {labels(node="a", job="sfu"): pytest.approx(40.0)}),
        ("calls_total > 100", {labels(__name__="calls_total", node="b", job="sfu"): 160.0}),
        ("calls_total > bool 100", {labels(node="a", job="sfu"): 0.0, labels(node="b", job="sfu"): 1.0}),
        ('calls_total{node=~"a|c"} / on (job) up', {labels(job="sfu"): 80.0}),
        ('absent(up{job="nobody"})', {labels(job="nobody"): 1.0}),
        ('absent(up{job="sfu"})', {}),
        ('up{job="agent"}', {}),
        ("vector(1)", {(): 1.0}),
        ("sum(calls_total) unless on () sum(up) > 0", {}),
        ('avg_over_time(up{job="sfu"}[1m]) < 0.5', {}),
        ("count(calls_total) == 2", {(): 2.0}),
        ("floor(vector(1 / 0))", {(): math.inf}),
        ("round(ceil(vector(-1 / 0)))", {(): -math.inf}),
        ("exp(vector(1000))", {(): math.inf}),
    ],
)
def test_the_value_is_prometheus_value(expression: str, wanted: dict[object, float]) -> None:
    """Each expression has the value that Prometheus gives it."""
    assert vector(expression, DATABASE, AT_S) == wanted


def test_a_window_is_open_on_its_left() -> None:
    """A sample exactly one window old is outside, as since Prometheus 3."""
    assert vector("count_over_time(up[60s])", DATABASE, AT_S) == {labels(job="sfu"): 4.0}


def test_a_scalar_is_a_scalar() -> None:
    """Arithmetic of numbers stays a number."""
    assert evaluate("(3 - 1) ^ 2 % 3", DATABASE, AT_S) == 1.0


def test_no_traffic_has_no_ratio() -> None:
    """0 / 0 is NaN, which no threshold passes."""
    nothing = {"lost": (series("lost", [(AT_S, 0.0)]),), "sent": (series("sent", [(AT_S, 0.0)]),)}
    (found,) = vector("lost / sent", nothing, AT_S).values()

    assert math.isnan(found)
    assert vector("lost / sent > 0.01", nothing, AT_S) == {}


@pytest.mark.parametrize("expression", ["mad_over_time(up[5m])", "limitk(1, up)", "up @ 100", "rate(up[5m:])"])
def test_what_is_not_known_is_refused_by_name(expression: str) -> None:
    """Nothing is judged by a guess."""
    with pytest.raises(NotAnalysed):
        vector(expression, DATABASE, AT_S)
