"""Rules against the stored window of a real Prometheus: what can never fire, what fired, and that nothing is written there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness import cli
from harness.clock import Clock
from harness.rules.evaluate import Labels
from harness.stack import ports, shadow
from harness.stack.home import home_dir
from harness.stack.livekit import answers
from harness.stack.provision import obtain
from harness.stack.supervise import Command, Supervisor

pytestmark = pytest.mark.stack

SCRAPE_S, WINDOW_S = 15.0, 7200.0
RULES = """groups:
  - name: g
    interval: 15s
    rules:
      - {alert: Fired, expr: load > 80, for: 5m}
      - {alert: Pended, expr: load > 95, for: 10m}
      - {alert: Silent, expr: load > 200, for: 5m}
      - {alert: Misspelt, expr: laod > 80}
      - {alert: Excluded, expr: 'up{job="sip", instance=~".+"} == 0'}
      - {alert: Impossible, expr: count(up) == 0}
      - {alert: LastBucket, expr: 'histogram_quantile(0.9, sum by (le) (rate(h_bucket[5m]))) > 15'}
      - {alert: ValueLabel, expr: load > 80, for: 5m, labels: {level: "{{ $value }}"}}
      - {alert: NoJoin, expr: load / size > 0.5}
      - {alert: ShortLived, expr: job_seconds > 0, for: 15m}
      - {alert: Gone, expr: 'absent(up{job="sip"})', for: 1m}
      - {alert: Certain, expr: up >= 0}
      - {alert: Refused, expr: 'twice * on (instance) many > 0'}
"""
MANY = "twice * on (instance) many > 0"


def history(end_s: float) -> Iterator[tuple[Labels, list[tuple[float, float]]]]:
    """Two hours: a load with a breach of ten minutes at 90 and two minutes of 99, jobs that live five minutes, a histogram."""
    ticks = [end_s - WINDOW_S - 600 + SCRAPE_S * tick for tick in range(int((WINDOW_S + 600) / SCRAPE_S))]

    def load(at_s: float) -> float:
        ago = end_s - at_s
        return 99.0 if 3000 < ago <= 3120 else 90.0 if 3000 < ago <= 3600 else 10.0

    yield (("__name__", "load"), ("instance", "a")), [(at, load(at)) for at in ticks]
    yield (("__name__", "size"), ("host", "a")), [(at, 100.0) for at in ticks]
    for instance in ("a", "b"):
        yield (("__name__", "up"), ("instance", instance), ("job", "node")), [(at, 1.0) for at in ticks]
        yield (("__name__", "many"), ("copy", instance), ("instance", "a")), [(at, 1.0) for at in ticks]
        yield (("__name__", "twice"), ("copy", instance), ("instance", "a")), [(at, 1.0) for at in ticks]
    for number in range(3):
        born = end_s - 5000 + 1500 * number
        yield (("__name__", "job_seconds"), ("job", str(number))), [(at, 1.0) for at in ticks if born <= at < born + 300]
    for bound, each_s in (("1", 1.0), ("10", 2.0), ("+Inf", 3.0)):
        yield (("__name__", "h_bucket"), ("le", bound)), [(at, each_s * (at - ticks[0])) for at in ticks]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL."""
    place = tmp_path_factory.mktemp("audit")
    (place / "rules.yml").write_text(RULES)
    server, promtool = (obtain(name, home=home_dir(), progress=lambda _: None).path for name in ("prometheus", "promtool"))
    with Supervisor(logs=place / "logs", clock=(clock := Clock.start())) as supervisor:
        yield shadow.start(
            supervisor, server=server, promtool=promtool, rules=[place / "rules.yml"], history=history(clock.now() / 1e9), evaluation_s=3600
        )


def audited(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, object]]]:
    """Exit code and prospects by alert."""
    code = cli.main(["alerts", "--json", "--window", "2h", *arguments])
    return code, {found["rule"]["name"]: found for found in json.loads(capsys.readouterr().out)["prospects"]}


def test_every_rule_is_told_what_became_of_it(prometheus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By text and by history; what the server refuses to evaluate is listed."""
    (tmp_path / "rules.yml").write_text(RULES)

    code, found = audited(["--rules", str(tmp_path / "rules.yml"), "--prometheus", prometheus], capsys)

    assert code == 1
    assert {name: one["outlook"] for name, one in found.items()} == {
        "Fired": "fired",
        "Pended": "pended",
        "Silent": "silent",
        **dict.fromkeys(("Misspelt", "Excluded", "Impossible", "LastBucket", "ValueLabel", "NoJoin", "ShortLived"), "never"),
        "Gone": "fired",
        "Certain": "fired",
        "Refused": "not analysed",
    }
    assert (found["Fired"]["firings"], found["Fired"]["longest_true_s"]) == (1, pytest.approx(600, abs=15))
    reasons = {name: " ".join(map(str, one["reasons"])) for name, one in found.items()}  # type: ignore[call-overload]
    assert "did you mean load?" in reasons["Misspelt"]
    assert 'none with job="sip"' in reasons["Excluded"]
    assert "at most 10" in reasons["LastBucket"]
    assert "they differ in host, instance" in reasons["NoJoin"]
    assert "no series of its signal lived longer than" in reasons["ShortLived"]
    assert "many-to-many" in reasons["Refused"]


def test_history_and_virtual_time_together_are_the_coverage(prometheus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One document; what either shows is shown."""
    (tmp_path / "rules.yml").write_text(
        "groups: [{name: g, interval: 15s, rules: [{alert: Fired, expr: load > 80}, {alert: Silent, expr: load > 200}]}]"
    )
    arguments = ["alerts", "--virtual", "--rules", str(tmp_path / "rules.yml"), "--prometheus", prometheus, "--window", "2h"]

    assert cli.main(arguments) == 0
    assert "shown to fire, in the history or in virtual time: 2 of 2" in capsys.readouterr().out
    assert cli.main([*arguments, "--json"]) == 0
    assert {"proofs", "prospects"} <= json.loads(capsys.readouterr().out).keys()


def test_the_server_s_own_rules_are_enough(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file."""
    _, found = audited(["--prometheus", prometheus], capsys)

    assert len(found) == 13


def test_a_rule_that_the_server_does_not_run_is_named(prometheus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not loaded at all, or with another text."""
    (tmp_path / "rules.yml").write_text(
        "groups: [{name: g, rules: [{alert: Other, expr: load > 80}, {alert: Fired, expr: load > 80, for: 1m}]}]"
    )

    _, found = audited(["--rules", str(tmp_path / "rules.yml"), "--prometheus", prometheus], capsys)

    assert "its group is not loaded" in str(found["Other"]["remarks"])
    assert "runs it otherwise: load > 80 for 300 s" in str(found["Fired"]["remarks"])


def test_an_alert_is_tuned_on_the_stored_window(prometheus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The breach of ten minutes fires as long as neither level nor ``for`` exceeds it."""
    (tmp_path / "rules.yml").write_text(RULES)
    arguments = ["--rules", str(tmp_path / "rules.yml"), "--prometheus", prometheus, "--window", "2h", "--out", str(tmp_path / "page.html")]

    code = cli.main(["tune", "Fired", "--json", *arguments, "--thresholds", "80", "95", "--for", "1m", "5m", "15m"])
    found = {(one["threshold"], one["for_s"]): one["fires"] for one in json.loads(capsys.readouterr().out)["choices"]}

    assert (code, found) == (0, {(80, 60): 1, (80, 300): 1, (80, 900): 0, (95, 60): 1, (95, 300): 0, (95, 900): 0})


def test_a_shadow_follows_and_pages_nobody(prometheus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Series come by federation with their own labels, the real engine evaluates; the followed server has no rule of that name."""
    rules = ({"alert": "Low", "expr": "load < 80"}, {"alert": "High", "expr": "load > 80"}, {"alert": "Bad", "expr": MANY})
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "interval": "200ms", "rules": rules}]}))

    code = cli.main(["alerts", "--json", "--rules", str(tmp_path / "rules.yml"), "--prometheus", prometheus, "--shadow", "2"])
    found = {one["alert"]: one for one in json.loads(capsys.readouterr().out)["alerts"]}

    assert code == 1
    assert {name: one["state"] for name, one in found.items()} == {"Low": "fired", "High": "inactive", "Bad": "inactive"}
    assert "many-to-many" in found["Bad"]["error"]
    theirs = {alert["labels"]["alertname"] for alert in httpx.get(f"{prometheus}/api/v1/alerts").json()["data"]["alerts"]}
    assert theirs & found.keys() == set()


def test_a_shadow_has_no_alertmanager() -> None:
    """Nothing in its configuration could page anybody."""
    followed = shadow.Followed(url="https://prometheus.example.org/base", selectors=("up",), interval_s=15.0)

    assert set(shadow.configuration([Path("rules.yml")], followed, 15.0)) == {"global", "rule_files", "scrape_configs"}


def test_a_drill_goes_through_the_real_route_and_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Alertmanager routes it by the rule's own labels."""
    (tmp_path / "rules.yml").write_text("groups: [{name: g, rules: [{alert: Low, expr: load < 80, labels: {severity: critical}}]}]")
    (tmp_path / "alertmanager.yml").write_text(
        "{route: {receiver: rest, routes: [{receiver: pager, matchers: ['severity = critical']}]}, receivers: [{name: rest}, {name: pager}]}"
    )
    binary = obtain("alertmanager", home=home_dir(), progress=lambda _: None).path
    port = ports.free(("drill",))["drill"]
    address = f"127.0.0.1:{port}"
    with Supervisor(logs=tmp_path / "logs", clock=Clock.start()) as supervisor:
        argv = (f"--config.file={tmp_path}/alertmanager.yml", f"--storage.path={tmp_path}/data", f"--web.listen-address={address}")
        child = supervisor.start(Command(name="alertmanager", argv=(str(binary), *argv, "--cluster.listen-address="), env={}, cwd=tmp_path))
        with httpx.Client(trust_env=False) as client:
            supervisor.wait_ready(child, lambda: answers(client, f"http://{address}/-/ready"), timeout_s=20)
        arguments = ["alerts", "--json", "--drill", "Low", "--rules", str(tmp_path / "rules.yml"), "--alertmanager", f"http://{address}"]
        code = cli.main(arguments)

    routed = json.loads(capsys.readouterr().out)
    assert (code, routed["receivers"], routed["labels"]["drill"]) == (0, ["pager"], "true")
