"""What the parts are configured with."""

from __future__ import annotations

import re
from pathlib import Path

import jwt
import pytest
import yaml

from harness.stack import agent, alerting, livekit, prometheus, supabase
from harness.stack.database import AUTHENTICATOR, Database

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
LIVEKIT = livekit.config(port=1, udp_port=2, metrics_port=3, api_key="k", api_secret="s" * 32)


def test_livekit_talks_to_this_machine_only() -> None:
    """No listener and no candidate outside of loopback, no TCP mux, which binds every interface."""

    assert LIVEKIT["bind_addresses"] == ["127.0.0.1"]
    assert LIVEKIT["rtc"]["node_ip"] == "127.0.0.1"
    assert LIVEKIT["rtc"]["ips"] == {"includes": ["127.0.0.0/8"]}
    assert LIVEKIT["rtc"]["tcp_port"] == 0


def test_livekit_says_what_the_claims_read() -> None:
    """Metrics and forward statistics are on; a room closes 2 s after its last caller."""

    assert LIVEKIT["prometheus"] == {"port": 3}
    assert set(LIVEKIT["rtc"]["forward_stats"]) == {"summary_interval", "report_interval", "report_window"}
    assert LIVEKIT["room"]["departure_timeout"] == 2


def test_prometheus_is_fifteen_times_faster() -> None:
    """Intervals, windows and lookback are a fifteenth; each difference is listed."""
    found = prometheus.configuration(MONITORING, 15)

    assert found.main["global"] == {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    assert "[20s]" in str(found.rules)
    assert "[5m]" not in str(found.rules)
    assert found.lookback == "20s"
    assert [change.setting for change in found.changes] == [
        "global.scrape_interval",
        "global.scrape_timeout",
        "global.evaluation_interval",
        "--query.lookback-delta",
        "--rules.alert.resend-delay",
        "--rules.alert.for-grace-period",
        "--rules.alert.for-outage-tolerance",
        "every duration in rules/",
    ]


def test_prometheus_at_production_speed_is_unchanged() -> None:
    """With a factor of one the shipped files run as they are."""
    found = prometheus.configuration(MONITORING, 1)

    assert found.main == yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert found.rules == {path.name: yaml.safe_load(path.read_text()) for path in (MONITORING / "rules").glob("*.yml")}


def test_every_job_has_its_targets_in_a_file() -> None:
    """prometheus.yml is the same everywhere: no address in it; each job has an example or a file."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())

    assert not re.search(r"\w:\d{2,}", (MONITORING / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        assert job["file_sd_configs"] == [{"files": [f"targets/{job['job_name']}.yml"]}]
        assert list((MONITORING / "targets").glob(f"{job['job_name']}*.yml"))


def test_the_written_configuration_is_laid_out_as_the_shared_one(tmp_path: Path) -> None:
    """Main file, rules and targets are where the main file looks for them."""
    found = prometheus.configuration(MONITORING, 15)
    main = prometheus.write(found, tmp_path, {"livekit": prometheus.at("127.0.0.1:1"), "probe": prometheus.at("http://a", __prober="b:1")})

    assert yaml.safe_load(main.read_text()) == found.main
    assert yaml.safe_load((tmp_path / "targets" / "livekit.yml").read_text()) == [{"targets": ["127.0.0.1:1"]}]
    assert yaml.safe_load((tmp_path / "targets" / "probe.yml").read_text()) == [{"targets": ["http://a"], "labels": {"__prober": "b:1"}}]
    assert sorted(path.name for path in (tmp_path / "rules").iterdir()) == sorted(found.rules)


def test_alertmanager_is_fifteen_times_faster() -> None:
    """Every interval but that of zero, and its own maintenance; each difference is listed."""
    found = alerting.routing(MONITORING / "alertmanager.yml", 15)
    (watchdog,) = found.document["route"]["routes"]

    assert [found.document["route"][key] for key in ("group_wait", "group_interval", "repeat_interval")] == ["2s", "4s", "16m"]
    assert [watchdog[key] for key in ("group_wait", "group_interval", "repeat_interval")] == ["0s", "4s", "20s"]
    assert (found.maintenance, len(found.changes)) == ("2s", 6)


def test_alertmanager_at_production_speed_is_unchanged() -> None:
    """With a factor of one the shipped file runs as it is."""
    found = alerting.routing(MONITORING / "alertmanager.yml", 1)

    assert (found.document, found.changes) == (yaml.safe_load((MONITORING / "alertmanager.yml").read_text()), ())


def test_record_names_are_the_contract() -> None:
    """Panels and claims read these names."""
    rules = prometheus.configuration(MONITORING, 1).rules["recording.yml"]

    assert [rule["record"] for group in rules["groups"] for rule in group["rules"]] == [
        "voice_agent:ttfw_seconds:p95",
        "voice_agent:ttfw_seconds:p50",
        "voice_agent:ttfw_seconds:mean",
        *(f"voice_agent:{stage}_latency_seconds:{what}" for stage in ("stt", "llm", "tts") for what in ("p95", "mean")),
        "voice_agent:turns:per_minute",
        "voice_agent:tool_calls:per_minute",
        "voice_agent:active_calls:sum",
        "livekit_packet_loss_ratio",
        "livekit_jitter_ms",
        "livekit_rtt_mean_ms",
    ]


@pytest.mark.parametrize(("key", "role"), [("anon", "anon"), ("service", "service_role")])
def test_keys_are_tokens_of_a_role(key: str, role: str) -> None:
    """As Supabase's: HS256, signed with the project's secret."""
    keys = supabase.Keys.signed("s" * 43)

    assert jwt.decode(getattr(keys, key), keys.secret, algorithms=["HS256"])["role"] == role


def test_postgrest_is_not_the_superuser() -> None:
    """Row level security holds for the role that PostgREST signs in as."""
    database = Database(port=5, superuser_password="a", service_password="b")

    assert database.dsn(AUTHENTICATOR) == "postgres://authenticator:b@127.0.0.1:5/postgres"


def test_the_agent_gets_its_own_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of our environment leaks in but what a program needs; a defect's PYTHONPATH comes first, and the telemetry stays."""
    monkeypatch.setenv("SOME_TOKEN", "secret")
    env = agent.environment(
        repository=Path("/r"),
        livekit=("ws://l", "k", "s"),
        supabase=("http://u", "key"),
        health_port=1,
        metrics_port=2,
        extra={"PYTHONPATH": "/mutants", "AGENT_EXECUTOR": "process"},
    )

    assert "SOME_TOKEN" not in env
    assert (env["PYTHONPATH"], env["AGENT_EXECUTOR"]) == ("/mutants:/r/telemetry/src", "process")
    assert (env["SUPABASE_URL"], env["SUPABASE_SERVICE_KEY"], env["AGENT_METRICS_PORT"]) == ("http://u", "key", "2")
