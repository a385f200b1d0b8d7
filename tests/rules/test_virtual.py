"""Cases made from rules: what they bracket, and that the real engine agrees with every one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.rules.alerts import alert_rules
from harness.rules.virtual import Proof, promtool_files, prove

ROOT = Path(__file__).resolve().parents[2]
RULES = """groups:
  - name: voice
    rules:
      - {alert: Gauge, expr: "100 * (1 - free_bytes / size_bytes) > 85", for: 5m}
      - {alert: Rate, expr: '100 * (1 - avg by (instance) (rate(cpu_seconds_total{mode="idle"}[5m]))) > 80', for: 5m}
      - {alert: Gone, expr: 'absent(up{job="livekit"})', for: 1m}
      - {alert: Equal, expr: "probe_success == 0", for: 1m}
      - {alert: Watchdog, expr: vector(1)}
      - {alert: Guarded, expr: 'sum(rate(lost_total[5m])) / (sum(rate(sent_total[5m])) > 10) > 0.01', for: 2m}
      - {alert: Full, expr: 'free_bytes{fs!~"tmpfs|overlay"} / size_bytes < 0.2 and readonly == 0'}
      - {alert: Slow, expr: 'histogram_quantile(0.95, sum by (le) (rate(ttfw_seconds_bucket[5m]))) > 2', for: 2m}
      - {alert: Flapping, expr: "changes(up[5m]) > 3", for: 1m}
      - {alert: Either, expr: 'absent(up{job="a"}) or absent(up{job="b"})', for: 1m}
      - {alert: Ahead, expr: "predict_linear(left_bytes[10m], 3600) < 0 and deriv(left_bytes[10m]) < 0", for: 1m}
      - {alert: Nested, expr: "quantile_over_time(0.5, (delta(temperature[2m]))[5m:30s]) > 3"}
      - {alert: Named, expr: 'topk by (to) (1, label_replace(irate(moved_total{from="a-b"}[2m]), "to", "$1", "from", "a-(.*)")) > 5', for: 30s}
      - {alert: Between, expr: 'wanted{job="x"} != there and there > least and there < most'}
      - {alert: Called, expr: 'max by (name) (queued{name=~"a.*"}) > 5', for: 1m}
      - {alert: Rounded, expr: "round(age_seconds / 60, 0.5) > 3", for: 1m}
      - {alert: Unknown, expr: "free_bytes @ 1000 < 10", for: 5m}
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
        ("Gauge", "free_bytes", 15.0, 315.0),
        ("Rate", 'cpu_seconds_total{mode="idle"}', 0.2, 525.0),
        ("Gone", 'up{job="livekit"}', None, 75.0),
        ("Equal", "probe_success", 0.0, 75.0),
        ("Guarded", "lost_total", 1.0, 135.0),
        ("Full", "free_bytes", 20.0, 15.0),
        ("Slow", "ttfw_seconds_bucket", 2.0, 135.0),
        ("Flapping", "up", None, 120.0),
        ("Either", 'up{job="a"}', None, 75.0),
        ("Ahead", "left_bytes", None, 660.0),
        ("Nested", "temperature", None, 150.0),
        ("Named", 'moved_total{from="a-b"}', 5.0, 45.0),
        ("Between", 'least{job="x"}', 3.0, 15.0),
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
    assert proofs["Unknown"].not_shown == "it uses the @ modifier"


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


def test_every_arm_of_an_or_is_driven_alone(proofs: dict[str, Proof]) -> None:
    """A watch over several jobs is shown for each of them."""
    (case,) = (case for case in proofs["Either"].cases if case.name == "arm 2")

    assert case.says == 'up{job="b"} alone makes it fire'


def test_rules_that_read_one_metric_share_no_test(proofs: dict[str, Proof]) -> None:
    """What one is fed would be read by the other; strangers share theirs, since each test costs a database."""
    files = promtool_files(list(proofs.values()))
    together = [{rule["alert"] for group in file["groups"] for rule in group["rules"]} for name, file in files.items() if "rules" in name]

    assert max(map(len, together)) > 3
    assert [names for names in together if len(names & {"Gone", "Flapping", "Either"}) > 1] == []
    assert sum(len(file.get("tests", ())) for file in files.values()) < sum(len(proof.cases) for proof in proofs.values()) / 2


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
        ("Guarded", {"expr": "sum(rate(lost_total[5m])) / (sum(rate(sent_total[5m])) > 10) > 1"}),
        ("Slow", {"expr": "histogram_quantile(0.95, sum by (le) (rate(ttfw_seconds_bucket[5m]))) > 2000"}),
        ("Slow", {"expr": "histogram_quantile(0.95, sum by (le) (ttfw_seconds_bucket)) > 2"}),
        ("Flapping", {"expr": "changes(up[5m]) > 30"}),
        ("Either", {"expr": 'absent(up{job="a"})'}),
        ("Gauge", {"expr": "100 * (1 - free_bytes / size_bytes) > 85 or free_bytes != free_bytes"}),
    ],
)
def test_a_changed_rule_is_caught(name: str, change: dict[str, Any], proofs: dict[str, Proof]) -> None:
    """Cases of the rule as it was fail the rule as it became."""
    from harness.stack.promtool import failures

    files = promtool_files([proofs[name]])
    (rules,) = (file for file in files if file.startswith("rules-"))
    files[rules]["groups"][0]["rules"][0] |= change

    assert name in failures(promtool(), files)


@pytest.mark.stack
def test_memory_is_bounded_however_many_cases_there_are(proofs: dict[str, Proof], tmp_path: Path) -> None:
    """A test leaves some 20 MiB behind, and these are more than a hundred: 400 MiB a process will do."""
    files = promtool_files(list(proofs.values()))
    tests = {name: file for name, file in files.items() if "tests" in file}
    many = files | {f"{name}-{copy}": file for name, file in tests.items() for copy in range(40 // len(tests))}
    (tmp_path / "files.json").write_text(json.dumps(many))
    # A process of its own, whose only children are promtools.
    script = (
        "import json, pathlib, resource, sys; from harness.stack.promtool import failures\n"
        "said = failures(pathlib.Path(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_text()))\n"
        "print(json.dumps([said, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"
    )
    command = (sys.executable, "-c", script, str(promtool()), str(tmp_path / "files.json"))
    said, peak_kib = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)

    assert said == ""
    assert peak_kib < 400 * 1024
