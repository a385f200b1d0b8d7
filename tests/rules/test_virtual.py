"""Cases made from rules: what they bracket, and that the real engine agrees with every one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.rules.alerts import alert_rules
from harness.rules.virtual import Proof, promtool_files, prove

RULES = """groups:
  - name: voice
    rules:
      - {alert: Gauge, expr: "100 * (1 - free_bytes / size_bytes) > 85", for: 5m}
      - {alert: Rate, expr: '100 * (1 - avg by (instance) (rate(cpu_seconds_total{mode="idle"}[5m]))) > 80', for: 5m}
      - {alert: Gone, expr: 'absent(up{job="livekit"})', for: 1m}
      - {alert: Equal, expr: "probe_success == 0", for: 1m}
      - {alert: Watchdog, expr: vector(1)}
      - {alert: Unknown, expr: "predict_linear(free_bytes[1h], 3600) < 0", for: 5m}
"""


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Proof]:
    """A proof for each rule of the file."""
    path = tmp_path_factory.mktemp("rules") / "rules.yml"
    path.write_text(RULES)
    return {rule.name: prove(rule) for rule in alert_rules(path)}


@pytest.mark.parametrize(
    ("name", "driver", "threshold", "fires_after_s"),
    [
        ("Gauge", "free_bytes", 0.15, 315.0),
        ("Rate", 'cpu_seconds_total{mode="idle"}', 0.2, 525.0),
        ("Gone", 'up{job="livekit"}', None, 75.0),
        ("Equal", "probe_success", 0.0, 75.0),
        ("Watchdog", None, None, 0.0),
    ],
)
def test_the_driver_is_found(
    name: str, driver: str | None, threshold: float | None, fires_after_s: float, proofs: dict[str, Proof]
) -> None:
    """One input turns the expression; its level is bisected, and the window's smoothing delays the rate."""
    proof = proofs[name]

    assert (proof.driver, proof.fires_after_s, proof.not_shown) == (driver, fires_after_s, None)
    assert proof.threshold == (pytest.approx(threshold) if threshold is not None else None)


def test_a_rule_that_cannot_be_analysed_is_listed(proofs: dict[str, Proof]) -> None:
    """Named with what is not known, and without a case."""
    assert proofs["Unknown"].cases == ()
    assert proofs["Unknown"].not_shown == "it uses the function predict_linear"


def test_firing_is_bracketed(proofs: dict[str, Proof]) -> None:
    """Silent one evaluation before, firing at the predicted one."""
    (step,) = (case for case in proofs["Gauge"].cases if case.name == "step")
    fired_at = next(at_s for at_s, count in step.expected if count)

    assert (fired_at - 15.0, 0) in step.expected


def promtool() -> Path:
    """The real engine, from the cache of the embedded stack."""
    from harness.stack.home import home_dir
    from harness.stack.provision import obtain

    return obtain("promtool", home=home_dir(os.environ), progress=lambda _: None).path


@pytest.mark.stack
def test_the_real_engine_agrees(proofs: dict[str, Proof]) -> None:
    """Every predicted instant of every case is Prometheus' own."""
    from harness.stack.promtool import failures

    assert failures(promtool(), promtool_files(list(proofs.values()))) == ""


@pytest.mark.stack
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Gauge", {"expr": "100 * (1 - free_bytes / size_bytes) >= 85"}),
        ("Gauge", {"expr": "100 * (1 - free_bytes / size_bytes) > 86"}),
        ("Gauge", {"for": "5m15s"}),
        ("Rate", {"expr": '100 * (1 - avg by (instance) (rate(cpu_seconds_total{mode="idle"}[10m]))) > 80'}),
        ("Equal", {"expr": "probe_success == 1"}),
        ("Gone", {"expr": 'absent(up{job="livekits"})'}),
    ],
)
def test_a_changed_rule_is_caught(name: str, change: dict[str, Any], proofs: dict[str, Proof]) -> None:
    """Cases of the rule as it was fail the rule as it became."""
    from harness.stack.promtool import failures

    files = promtool_files([proofs[name]])
    (rules,) = (file for file in files if file.startswith("rules-"))
    files[rules]["groups"][0]["rules"][0] |= change

    assert name in failures(promtool(), files)
