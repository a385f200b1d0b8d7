"""Target files: addresses, credentials by name only, blindness with a reason, and a stack that does not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from harness import target
from harness.errors import UsageError
from harness.model import Door, Lack, Names, Naming, Prices, TableNaming, Target

ENVIRON = {"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 32, "SUPABASE_SERVICE_KEY": "service"}
GOOD = """\
name: staging
livekit:
  url: wss://sfu.example
  metrics_url: http://sfu.example:6789/metrics
agent: {metrics_url: "http://agent.example:8080/metrics"}
prometheus: {url: "http://prometheus.example:9090"}
supabase: {url: "https://project.example"}
"""


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Target:
    path = tmp_path / "target.yaml"
    path.write_text(text)
    return target.load(path, ENVIRON if environ is None else environ)


def complaint(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text, environ)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_credentials_come_from_the_environment(tmp_path: Path) -> None:
    """The file names variables; the values are never in it."""
    read = load(tmp_path, GOOD)

    assert (read.livekit_api_key, read.livekit_api_secret, read.supabase_key) == ("key", "s" * 32, "service")


def test_another_variable_may_hold_a_credential(tmp_path: Path) -> None:
    """Two targets on one machine need two names."""
    text = GOOD.replace("  url: wss", "  api_key_env: STAGING_KEY\n  url: wss")

    assert load(tmp_path, text, ENVIRON | {"STAGING_KEY": "theirs"}).livekit_api_key == "theirs"


def test_prices_are_the_owners(tmp_path: Path) -> None:
    """A price that is not given is nothing; without any there is no estimate of cost."""
    text = GOOD + "prices: {per_agent_minute: 0.07, currency: EUR}\n"

    assert load(tmp_path, text).prices == Prices(per_call=0.0, per_agent_minute=0.07, currency="EUR")
    assert load(tmp_path, GOOD).prices is None


def test_a_token_that_only_reads_may_be_named(tmp_path: Path) -> None:
    """Beside the key that every request brings; without it the key reads."""
    text = GOOD.replace('{url: "https://project.example"}', '{url: "https://project.example", token_env: JUDGE}')

    assert load(tmp_path, text, ENVIRON | {"JUDGE": "token"}).supabase_token == "token"
    assert load(tmp_path, GOOD).supabase_token is None
    assert "the environment variable JUDGE is not set" in complaint(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            GOOD.replace("wss://sfu", "sfu"),
            "target.yaml:3: livekit.url: wanted an address that begins with ws://, wss://, http",
        ),
        (
            GOOD.replace("wss://sfu", "wss://me:pw@sfu"),
            "target.yaml:3: livekit.url: holds a credential; name it by environment variable instead",
        ),
        (GOOD.replace("  url: wss", "  api_key: abc\n  url: wss"), "target.yaml:3: unknown key 'api_key'; did you mean 'api_key_env'?"),
        (
            GOOD.replace('prometheus: {url: "http://prometheus.example:9090"}\n', ""),
            "target.yaml: prometheus.url is missing: give the address, or say under 'absent', 'forbidden' or 'blind' why 'prometheus' "
            "can never be read",
        ),
        (GOOD + "blind: {pixels: hosted}\n", "target.yaml:8: blind: no source is called 'pixels'; there are "),
        (GOOD + "blind: {rows: }\n", "target.yaml:8: blind: 'rows' needs a reason in words, got None"),
        (
            GOOD + "absent: {rules: no vmalert}\nblind: {rules: hosted}\n",
            "target.yaml:9: blind: 'rules' is absent already; it is one of them",
        ),
        (
            GOOD + "metrics:\n  voice_agent_tturns_total: bot_turns\n",
            "target.yaml:9: metrics: no metric of ours is called 'voice_agent_tturns_total'; did you mean 'voice_agent_turns_total'?",
        ),
        (
            GOOD + "metrics:\n  voice_agent_ttfw_seconds_bucket: x\n",
            "target.yaml:9: metrics: no metric of ours is called 'voice_agent_ttfw_seconds_bucket'; "
            "its name is 'voice_agent_ttfw_seconds' for all its series",
        ),
        (
            GOOD + "metrics:\n  voice_agent_ttfw_seconds: my_ttfw_ms\n",
            "target.yaml:9: metrics.voice_agent_ttfw_seconds: 'my_ttfw_ms' looks like ms and ours is in s; say unit: ms, or unit: s",
        ),
        (
            GOOD + "metrics:\n  voice_agent_turns_total: {name: turns, unit: ms}\n",
            "target.yaml:9: metrics.voice_agent_turns_total: ours has no unit; say scale instead",
        ),
        (
            GOOD + "metrics:\n  voice_agent_turns_total: {name: turns, absent: none}\n",
            "target.yaml:9: metrics.voice_agent_turns_total: says 'absent' and what it is called; leave one out",
        ),
        (
            GOOD + "tables:\n  calls: {columns: {duration_second: length}}\n",
            "target.yaml:9: tables.calls.columns: no column of ours is called 'duration_second'; did you mean 'duration_seconds'?",
        ),
        (
            GOOD.replace("prometheus: {", "prometheus: {cert_file: me.pem, "),
            "target.yaml:6: prometheus.cert_file needs key_file beside it",
        ),
        (
            GOOD.replace("prometheus: {", "prometheus: {ca_file: nobody.pem, "),
            "target.yaml:6: prometheus.ca_file: there is no file ",
        ),
        (
            GOOD.replace("prometheus: {", "prometheus: {headers: {X-Scope-OrgID: {env: TENANT}}, "),
            "target.yaml:6: prometheus.headers.X-Scope-OrgID: the environment variable TENANT is not set; export it, or name another",
        ),
        (GOOD.replace("name: staging", "name: embedded"), "target.yaml:1: name: 'embedded' is what our own stack is called; say another"),
        (GOOD + "exclusive: perhaps\n", "target.yaml:8: exclusive: wanted true or false, got 'perhaps'"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    """What, where, got, wanted."""
    assert complaint(tmp_path, text).startswith(said)


def test_a_door_is_opened_by_headers_and_variables(tmp_path: Path) -> None:
    """A tenant in the file, a bearer in the environment; user and password for an exposition that wants them."""
    text = GOOD.replace("prometheus: {", "prometheus: {headers: {X-Scope-OrgID: team-a}, bearer_env: PROMETHEUS_TOKEN, ")
    text = text.replace("  url: wss", "  basic_env: SFU_METRICS\n  url: wss")
    read = load(tmp_path, text, ENVIRON | {"PROMETHEUS_TOKEN": "t", "SFU_METRICS": "me:pw"})

    assert read.doors == {
        "sfu-exporter": Door(headers={"Authorization": "Basic bWU6cHc="}),
        "prometheus": Door(headers={"X-Scope-OrgID": "team-a", "Authorization": "Bearer t"}),
    }


def test_names_and_units_are_read(tmp_path: Path) -> None:
    """A text is a name; a unit becomes a scale; what is not there has a reason."""
    read = load(
        tmp_path,
        GOOD
        + """\
metrics:
  voice_agent_ttfw_seconds: {name: my_ttfw_ms, unit: ms}
  voice_agent_turns_total: bot_turns
  voice_agent_tool_calls_total: {absent: it has no tools}
tables:
  calls: {name: call_log, columns: {call_id: conversation, duration_seconds: {name: minutes, unit: min}}}
""",
    )

    assert read.names == Names(
        metrics={
            "voice_agent_ttfw_seconds": Naming(name="my_ttfw_ms", scale=0.001),
            "voice_agent_turns_total": Naming(name="bot_turns"),
        },
        tables={
            "calls": TableNaming(
                name="call_log", columns={"call_id": Naming(name="conversation"), "duration_seconds": Naming(name="minutes", scale=60.0)}
            )
        },
        lacking={"voice_agent_tool_calls_total": "absent: it has no tools"},
    )


def test_what_a_target_does_not_show_is_told_by_kind(tmp_path: Path) -> None:
    """Absent, forbidden or blind; what would unlock it differs."""
    text = GOOD.replace('prometheus: {url: "http://prometheus.example:9090"}\n', "")
    read = load(tmp_path, text + "forbidden: {prometheus: no account yet}\nabsent: {rules: there are none}\n")

    assert read.blind == {"prometheus": "forbidden: no account yet", "rules": "absent: there are none"}
    assert read.lacks == {"prometheus": Lack.FORBIDDEN, "rules": Lack.ABSENT}


def test_an_unset_variable_is_named(tmp_path: Path) -> None:
    """The sentence says which to export."""
    assert complaint(tmp_path, GOOD, {"LIVEKIT_API_KEY": "key"}) == (
        "target.yaml:2: livekit.api_secret_env: the environment variable LIVEKIT_API_SECRET is not set; export it, or name another"
    )


def test_a_source_may_be_blind_with_a_reason(tmp_path: Path) -> None:
    """A hosted media server shows no metrics: said once, here."""
    text = GOOD.replace("  metrics_url: http://sfu.example:6789/metrics\n", "") + "blind: {sfu-exporter: a hosted SFU shows none}\n"

    assert load(tmp_path, text).blind == {"sfu-exporter": "a hosted SFU shows none"}


def test_a_target_that_refuses_the_connection_is_named_with_the_next_step(tmp_path: Path) -> None:
    """No call is placed against a stack that is not there."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else can take it
        there = load(tmp_path, GOOD.replace("wss://sfu.example", f"ws://127.0.0.1:{holder.getsockname()[1]}"))
        with pytest.raises(UsageError) as caught:
            target.reach(there)

    said = str(caught.value)
    assert said.startswith(f"target 'staging': ws://127.0.0.1:{there.livekit_url.rpartition(':')[2]} did not answer: ")
    assert said.endswith("no call was placed. Next: check livekit.url in the target file, or declare the source blind with a reason")


def test_the_file_of_the_documentation_loads(tmp_path: Path) -> None:
    """Every key of it is known, and says what the page says."""
    page = (Path(__file__).parents[1] / "docs" / "targets.md").read_text()
    text = page.partition("```yaml\n")[2].partition("```")[0]
    for name in ("internal-ca.pem", "me.pem", "me.key"):
        (tmp_path / name).write_text("")
    environ = ENVIRON | {
        name: name.lower() for name in ("LIVEKIT_METRICS_LOGIN", "PROMETHEUS_TOKEN", "SUPABASE_ANON_KEY", "SUPABASE_JUDGE_TOKEN")
    }
    read = load(tmp_path, text, environ)

    assert read.names.metrics["voice_agent_stt_latency_seconds"] == Naming(name="stage_seconds", where={"stage": "stt"})
    assert read.names.metrics["voice_agent:ttfw_seconds:p95"].scale == 0.001
    assert read.doors["prometheus"].headers == {"X-Scope-OrgID": "team-a", "Authorization": "Bearer prometheus_token"}
    assert set(read.blind) == {"realtime", "sfu-exporter"}
