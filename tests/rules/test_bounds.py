"""Comparisons that no series can make true are found, and none that one can."""

from __future__ import annotations

import promql_parser as pp
import pytest

from harness.rules.bounds import impossible, is_certain


@pytest.mark.parametrize(
    "expression",
    [
        "up > 1",
        "up == 2",
        "2 < up",
        "probe_success < 0",
        "rate(errors_total[5m]) < 0",
        "count(up) == 0",
        "count(up) < 1",
        "sum(increase(errors_total[5m])) < 0",
        "absent(up) == 0",
        "absent(up) > 1",
        "100 * avg_over_time(up[5m]) > 100",
        "1 - up > 1",
        "load > 5 and load < 3",
        "5 < load < 3",
        "load > 5 and load < 5",
        "(up == 1) and load > 1 and up == 0",
        "vector(1) == 0",
        "up > 1 or up < 0",
        "sum(rate(a_total[5m])) / sum(rate(b_total[5m])) < 0",
        "count by (job) (up > 1) > 3",
    ],
)
def test_the_impossible_is_found(expression: str) -> None:
    """With the comparison and the reason."""
    assert impossible(pp.parse(expression)) != ()


@pytest.mark.parametrize(
    "expression",
    [
        "up == 0",
        "load > 5 or load < 3",
        "load > 5 unless load < 10",
        "load > 3 and load < 5",
        "load >= 5 and load <= 5",
        "rate(errors_total[5m]) > 0",
        "delta(load[5m]) < 0",
        "avail - used < 0",
        "100 * (1 - avail / size) > 80",
        "sum(up) > 3",
        "count(up) < 2",
        "up > bool 1",
        "a_total / b_total < 1",
        "-up < 0",
        "histogram_quantile(0.95, sum by (le) (rate(a_bucket[5m]))) > 15",
        "up > 1 or up == 0",
        "count by (job) (up == 0) > 0 and on (job) up == 1",
        "load > 5 and on () load < 3",
        "(up > 1) * 0 == 0 or up == 0",
        "up",
    ],
)
def test_the_possible_is_left_alone(expression: str) -> None:
    """Nothing is assumed of a gauge."""
    assert impossible(pp.parse(expression)) == ()


def test_a_quantile_is_no_larger_than_its_last_bound() -> None:
    """Above it Prometheus says the bound itself: 15 s is never exceeded by buckets that end at 10 s."""
    (found,) = impossible(pp.parse("histogram_quantile(0.95, sum by (le) (rate(a_bucket[5m]))) > 15"), lambda _: 10.0)

    assert found.why == "the value is at most 10, and is compared with 15"


@pytest.mark.parametrize(("expression", "certain"), [("up >= 0", True), ("count(up) > 0", True), ("load >= 0", False), ("up > 0", False)])
def test_what_is_always_true_is_found(expression: str, certain: bool) -> None:
    """A comparison that excludes nothing."""
    assert is_certain(pp.parse(expression)) is certain
