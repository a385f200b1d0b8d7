"""Each check of the linter, on a query that has its fault and on one that has not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.rules.lint import lint
from harness.rules.queries import Query, Use, queries

TYPES = {"ttfw_seconds": "histogram", "turns_total": "counter", "jitter_ms": "gauge", "sent_total": "counter", "lost_total": "counter"}


def found(expression: str, use: Use = Use.PANEL, *, is_live: bool = True, **labels: str) -> set[str]:
    """Names of the checks that a query fails."""
    query = Query(expression=expression, use=use, name="x", place="x.yml:1", labels=tuple(labels.items()))
    return {finding.check for finding in lint(query, types=TYPES if is_live else None)}


@pytest.mark.parametrize(
    ("expression", "check"),
    [
        ("sum(", "promql/syntax"),
        ("turns_total[24h]", "promql/range-vector"),
        ("livekit_sip_calls_active", "promql/missing"),
        ("turns_total", "promql/counter"),
        ("rate(jitter_ms[5m])", "promql/gauge-rate"),
        ("delta(turns_total[5m])", "promql/counter-delta"),
        ("avg(ttfw_seconds)", "promql/histogram-name"),
        ("histogram_quantile(0.5, ttfw_seconds_bucket)", "promql/quantile-all-time"),
        ("histogram_quantile(0.5, sum by (room) (rate(ttfw_seconds_bucket[5m])))", "promql/quantile-le"),
        ("histogram_quantile(0.5, rate(ttfw_seconds_bucket[5m]))", "promql/quantile-per-series"),
        ("avg(histogram_quantile(0.5, sum by (le, room) (rate(ttfw_seconds_bucket[5m]))))", "promql/quantile-mean"),
        ("sum(rate(turns_total[20s]))", "promql/window"),
        ("rate(sum(turns_total)[5m:15s])", "promql/sum-then-rate"),
        ("avg(jitter_ms)", "promql/hidden-mean"),
    ],
)
def test_a_fault_is_named(expression: str, check: str) -> None:
    """The query has the fault, and the check of that name finds it."""
    assert check in found(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "sum(increase(turns_total[24h]))",
        "histogram_quantile(0.95, sum by (le) (rate(ttfw_seconds_bucket[5m])))",
        "sum(rate(ttfw_seconds_sum[5m])) / sum(rate(ttfw_seconds_count[5m]))",
        "avg by (instance) (jitter_ms)",
        "max(jitter_ms)",
    ],
)
def test_a_sound_query_is_clean(expression: str) -> None:
    """Nothing is found where nothing is wrong, live or offline."""
    assert found(expression) == set()
    assert found(expression, is_live=False) == set()


def test_a_ratio_without_traffic_is_silent() -> None:
    """0 / 0 passes no threshold; a guard on the denominator is one."""
    bare = "sum(rate(lost_total[5m])) / sum(rate(sent_total[5m])) > 0.01"
    guarded = "sum(rate(lost_total[5m])) / (sum(rate(sent_total[5m])) > 0) > 0.01"

    assert found(bare, Use.ALERT) == {"alerts/no-traffic"}
    assert found(guarded, Use.ALERT) == set()
    assert found(bare, Use.PANEL) == set()


def test_a_label_with_the_value_is_named() -> None:
    """An alert whose labels change is a new alert each time."""
    assert found("up == 0", Use.ALERT, level="{{ $value }}") == {"alerts/value-label"}


def test_a_gauge_called_total_is_a_gauge() -> None:
    """livekit-server names five gauges like counters."""
    assert found("sum(livekit_participant_total)", is_live=False) == set()


def test_a_misspelt_name_comes_with_the_nearest() -> None:
    """The sentence says what was probably meant."""
    (finding,) = lint(Query(expression="turn_total", use=Use.PANEL, name="x", place="x"), types=TYPES)

    assert finding.sentence == "the server has no metric turn_total; did you mean turns_total?"


def test_a_dashboard_is_read_with_its_rows_and_macros(tmp_path: Path) -> None:
    """Panels inside rows are found; Grafana's variables stand for something."""
    inside = {"title": "Turns", "targets": [{"expr": 'sum(rate(turns_total{room="$room"}[$__rate_interval]))'}]}
    path = tmp_path / "board.json"
    path.write_text(json.dumps({"panels": [{"title": "Row", "panels": [inside]}]}))

    (query,) = queries(path)

    assert (query.name, query.expression) == ("Turns", 'sum(rate(turns_total{room="x"}[1m]))')


def test_rules_are_read_with_their_lines(tmp_path: Path) -> None:
    """Records and alerts, each where it stands."""
    path = tmp_path / "rules.yml"
    path.write_text("groups:\n  - name: a\n    rules:\n      - record: b\n        expr: c\n      - alert: D\n        expr: e > 1\n")

    assert [(query.use, query.name, query.place) for query in queries(path)] == [
        (Use.RECORD, "b", f"{path}:4"),
        (Use.ALERT, "D", f"{path}:6"),
    ]


@pytest.mark.parametrize(("name", "text"), [("a.json", "{}"), ("a.json", "{"), ("a.yml", "a: 1"), ("a.yml", "[")])
def test_another_file_is_refused(name: str, text: str, tmp_path: Path) -> None:
    """Neither rules nor a dashboard."""
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(UsageError, match=name):
        queries(path)


def test_the_shipped_rules_are_clean() -> None:
    """What we ship passes what we preach."""
    shipped = Path(__file__).parents[2] / "deploy/monitoring/rules"

    assert [finding for path in sorted(shipped.glob("*.yml")) for query in queries(path) for finding in lint(query)] == []
