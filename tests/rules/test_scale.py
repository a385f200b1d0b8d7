"""Time scaling: every duration and nothing else, exactly, and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.rules.scale import Change, display, kept_rules, scaled_config, scaled_duration, scaled_expression, scaled_rules, to_ms

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"

# Multiples of 15 s and more, so that a division by 15 is exact.
seconds = st.integers(min_value=1, max_value=100_000).map(lambda n: n * 15)
durations = seconds.map(lambda n: display(n * 1000))
names = st.sampled_from(("up", "offset_total", 'turns{role="user"}', 'x{path="[5m]",q="offset 5m"}', "node:cpu:rate5m"))


@st.composite
def vectors(draw: st.DrawFn, depth: int = 3) -> str:
    """An instant vector expression with durations in every place that has one."""
    deep = ("plain", "offset", "rate", "sum", "binary", "subquery", "age", "ahead", "top")
    kind = draw(st.sampled_from(deep if depth else ("plain", "offset", "rate")))
    match kind:
        case "plain":
            return draw(names)
        case "offset":
            return f"{draw(names)} offset {draw(st.sampled_from(('', '-')))}{draw(durations)}"
        case "rate":
            return f"rate({draw(names)}[{draw(durations)}])"
        case "sum":
            return f"sum by (le) ({draw(vectors(depth - 1))})"
        case "binary":
            return f"({draw(vectors(depth - 1))} / {draw(vectors(depth - 1))} > 0.05)"
        case "age":
            return f"(time() - max({draw(vectors(depth - 1))}) > {draw(st.sampled_from(('', '2 * ', '0.5 * ')))}{draw(seconds)})"
        case "ahead":
            return f"predict_linear({draw(names)}[{draw(durations)}], {draw(seconds)} * 3600) < -3"
        case "top":
            return f"topk(5, {draw(vectors(depth - 1))}) * 1e3"
        case _:
            step = draw(st.one_of(st.just(""), durations))
            return f"max_over_time(({draw(vectors(depth - 1))})[{draw(durations)}:{step}] offset {draw(durations)})"


@given(vectors())
def test_unscaling_gives_the_original_back(expression: str) -> None:
    """Dividing by 15 and by a fifteenth is the identity, text included."""

    assert scaled_expression(scaled_expression(expression, 15), 1 / 15) == expression


@given(vectors())
def test_one_changes_nothing(expression: str) -> None:
    """A factor of one leaves every expression as it was written."""

    assert scaled_expression(expression, 1) == expression


@given(seconds)
def test_a_duration_survives_being_written(each: int) -> None:
    """Reading what was displayed gives the number back."""

    assert to_ms(display(each * 1000)) == each * 1000


@pytest.mark.parametrize(
    ("production", "here"),
    [
        ("rate(x[5m])", "rate(x[20s])"),
        ("x offset 1h", "x offset 4m"),
        ("x offset -5m", "x offset -20s"),
        ("max_over_time(x[1h:])", "max_over_time(x[4m:])"),
        ("max_over_time(rate(x[5m])[1h:30s] offset 15m)", "max_over_time(rate(x[20s])[4m:2s] offset 1m)"),
        ("rate(x[ 1m30s ])", "rate(x[ 6s ])"),
        ('rate(x{a="[5m]"}[5m])', 'rate(x{a="[5m]"}[20s])'),
        ('x{a="offset 5m"}', 'x{a="offset 5m"}'),
        ("rate(x[5m]) # [5m]", "rate(x[20s]) # [5m]"),
        ("x > 300", "x > 300"),
    ],
)
def test_durations_and_nothing_else(production: str, here: str) -> None:
    """Ranges, offsets and subqueries are scaled; strings, comments and numbers are not."""

    assert scaled_expression(production, 15) == here


def test_an_inexact_division_is_refused() -> None:
    """20 s are no whole number of milliseconds times 15: refused, not rounded."""

    with pytest.raises(UsageError, match="cannot divide 20s by 15"):
        scaled_expression("rate(x[20s])", 15)


@pytest.mark.parametrize(
    ("production", "here"),
    [
        ("predict_linear(x[1h], 4 * 3600) < 0", "predict_linear(x[4m], 4 * 240) < 0"),
        ("time() - x > 3600", "time() - x > 240"),
        ("3600 < time() - max by (job) (x)", "240 < time() - max by (job) (x)"),
        ("(time() - timestamp(x)) / 60 > 5 * 15", "(time() - timestamp(x)) / 60 > 5 * 1"),
        ("time() - x > 1h", "time() - x > 4m"),
        ("time() - x > 10", None),
        ("topk(15, x) > 3600 and time() - y > 30", "topk(15, x) > 3600 and time() - y > 2"),
        ("probe_ssl_earliest_cert_expiry - time() < 14 * 86400", "probe_ssl_earliest_cert_expiry - time() < 14 * 86400"),
        ("increase(x[5m]) > 15", "increase(x[20s]) > 15"),
        ("x > 15 and absent_over_time(y[15m])", "x > 15 and absent_over_time(y[1m])"),
    ],
)
def test_numbers_that_count_time_are_scaled(production: str, here: str | None) -> None:
    """Ages and looks ahead are; dates of the calendar, counts and levels are not. One that would have no end is refused."""
    if here is None:
        with pytest.raises(UsageError, match="has no end"):
            scaled_expression(production, 15)
    else:
        assert scaled_expression(production, 15) == here
        assert scaled_expression(here, 1 / 15) == production


def test_looking_ahead_by_a_series_is_refused() -> None:
    """What is no number cannot be divided."""

    with pytest.raises(UsageError, match="predict_linear"):
        scaled_expression("predict_linear(x[1h], scalar(y))", 15)


def test_what_stays_is_accounted_for() -> None:
    """With its text and the reason."""
    expressions = [
        "x - time() < 86400",
        "increase(x[5m]) > 5",
        "increase(x[5m]) > 0",
        "hour() > 8",
        "x @ 1000 > 1",
        "time() - x > 5",
        "time() % 60 > x",
    ]
    document = {"groups": [{"rules": [{"expr": each} for each in expressions]}]}

    assert [each.text for each in kept_rules(document)] == [
        "x{} - time() < 86400",
        "increase(x{}[5m]) > 5",
        "hour()",
        "x{} @ 1000.000",
        "time()",
    ]


def test_what_is_not_promql_is_refused() -> None:
    """A broken expression is named, with the parser's reason."""

    with pytest.raises(UsageError, match=r"not PromQL: 'rate\(x\[5m\]'"):
        scaled_expression("rate(x[5m]", 15)


def test_rule_durations_are_scaled() -> None:
    """for, keep_firing_for, interval and query_offset are durations too; the input is left alone."""
    document = {
        "groups": [
            {
                "name": "g",
                "interval": "30s",
                "query_offset": "1m",
                "rules": [{"alert": "A", "expr": "rate(x[5m]) > 1", "for": "1m", "keep_firing_for": "5m", "labels": {"for": "5m"}}],
            }
        ]
    }
    before = yaml.safe_dump(document)

    scaled = scaled_rules(document, 15)

    rule = {"alert": "A", "expr": "rate(x[20s]) > 1", "for": "4s", "keep_firing_for": "20s", "labels": {"for": "5m"}}
    assert scaled == {"groups": [{"name": "g", "interval": "2s", "query_offset": "4s", "rules": [rule]}]}
    assert yaml.safe_dump(document) == before


@pytest.mark.parametrize("path", sorted((MONITORING / "rules").glob("*.yml")), ids=lambda path: path.name)
def test_the_shipped_rules_come_back(path: Path) -> None:
    """Every shipped rule file can be scaled by 15, and un-scaling gives it back."""
    document = yaml.safe_load(path.read_text())

    assert scaled_rules(scaled_rules(document, 15), 1 / 15) == document


def test_config_intervals_are_scaled_and_named() -> None:
    """Intervals are divided; a timeout is only kept within its interval; each change is listed."""
    config: dict[str, Any] = {
        "global": {"scrape_interval": "15s", "scrape_timeout": "10s", "evaluation_interval": "30s"},
        "scrape_configs": [{"job_name": "slow", "scrape_interval": "1m", "scrape_timeout": "3s"}],
    }

    scaled, changes = scaled_config(config, 15)

    assert scaled == {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "2s"},
        "scrape_configs": [{"job_name": "slow", "scrape_interval": "4s", "scrape_timeout": "3s"}],
    }
    assert changes == (
        Change(setting="global.scrape_interval", production="15s", here="1s"),
        Change(setting="global.scrape_timeout", production="10s", here="1s"),
        Change(setting="global.evaluation_interval", production="30s", here="2s"),
        Change(setting="slow.scrape_interval", production="1m", here="4s"),
    )


def test_production_is_scaled_by_nothing() -> None:
    """With a factor of one the shipped configuration is what runs."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())

    assert scaled_config(config, 1) == (config, ())


@pytest.mark.parametrize(
    ("text", "ms"), [("15s", 15_000), ("1h30m", 5_400_000), ("500ms", 500), ("1d", 86_400_000), ("0s", 0), ("0", 0), ("2w", 1_209_600_000)]
)
def test_durations_are_read(text: str, ms: int) -> None:
    """Prometheus' units, alone and together."""

    assert to_ms(text) == ms


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "5x", "-5m", "1.5h"])
def test_other_texts_are_no_durations(text: str) -> None:
    """What Prometheus would refuse is refused with an example."""

    with pytest.raises(UsageError, match="wanted one such as 15s"):
        to_ms(text)


def test_a_duration_is_divided() -> None:
    """5m by 15 is 20s."""

    assert scaled_duration("5m", 15) == "20s"
