"""Target files: addresses, credentials by name only, blindness with a reason, and a stack that does not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from harness import target
from harness.errors import UsageError
from harness.model import Prices, Target

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
            "target.yaml: prometheus.url is missing: give the address, or say under 'blind' why 'prometheus' can never be read",
        ),
        (GOOD + "blind: {pixels: hosted}\n", "target.yaml:8: blind: no source is called 'pixels'; there are "),
        (GOOD + "blind: {rows: }\n", "target.yaml:8: blind: 'rows' needs a reason in words, got None"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    """What, where, got, wanted."""
    assert complaint(tmp_path, text).startswith(said)


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
