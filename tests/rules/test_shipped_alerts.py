"""The alerts that we ship: what each must have, and the traps that promtool shows them to avoid."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from harness.rules.alerts import AlertRule, alert_rules
from harness.rules.lint import lint
from harness.rules.queries import queries
from harness.rules.scale import to_ms
from harness.stack.home import home_dir
from harness.stack.provision import obtain

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "monitoring" / "rules"
CASES = RULES / "tests" / "alerts.test.yml"
ALERTS = alert_rules(RULES / "alerts.yml")
BY_NAME = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


@BY_NAME
def test_an_alert_says_what_it_needs_to(alert: AlertRule) -> None:
    """A severity that the table takes, a service, a sentence, and a page of its own that names it."""
    page = ROOT / alert.annotations["runbook"]

    assert alert.labels["severity"] in ("critical", "warning", "info")
    assert alert.labels["service"]
    assert alert.annotations["summary"]
    assert page.name == f"{alert.name}.md"
    assert page.read_text().startswith(f"# {alert.name}\n")


@BY_NAME
def test_an_alert_waits_unless_it_always_fires(alert: AlertRule) -> None:
    """Without `for` one bad scrape pages somebody."""
    assert (alert.for_s >= 60) is (alert.name != "Watchdog")


@BY_NAME
def test_no_two_episodes_of_an_alert_can_merge(alert: AlertRule) -> None:
    """Between an end and the next beginning lies `for`, and in it at least one tick of the group, which tells the end."""
    route = yaml.safe_load((ROOT / "deploy" / "monitoring" / "alertmanager.yml").read_text())["route"]

    assert alert.for_s * 1000 >= to_ms(route["group_interval"]) or alert.name == "Watchdog"


def test_every_page_is_of_an_alert() -> None:
    """A page does not outlive its alert."""
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("path", sorted(RULES.glob("*.yml")), ids=lambda path: path.name)
def test_the_shipped_rules_are_clean(path: Path) -> None:
    """Nothing that can be seen without running them."""
    assert [finding for query in queries(path) for finding in lint(query)] == []


@BY_NAME
def test_an_alert_has_a_case_of_its_own(alert: AlertRule) -> None:
    """In which it fires."""
    cases = yaml.safe_load(CASES.read_text())["tests"]

    assert any(test["alertname"] == alert.name and test["exp_alerts"] for case in cases for test in case["alert_rule_test"])


@pytest.mark.stack
def test_the_real_engine_agrees() -> None:
    """promtool, over the file as it is shipped."""
    promtool = obtain("promtool", home=home_dir(), progress=lambda _: None).path
    done = subprocess.run([promtool, "test", "rules", CASES], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
