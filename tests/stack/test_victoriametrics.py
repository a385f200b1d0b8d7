"""VictoriaMetrics of the distribution in Prometheus' place: looked at, written down, and a run judged on what it stores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from harness.stack import ports
from harness.stack.embedded import RunningStack, up
from harness.stack.home import home_dir
from harness.stack.ports import LOOPBACK
from harness.stack.provision import obtain
from harness.target import load
from tests.stack import foreign
from tests.stack.test_targets import Run

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with up(home=home_dir(), logs=tmp_path_factory.mktemp("logs"), progress=lambda _: None) as running:
        yield running


@pytest.fixture(scope="module")
def url(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """VictoriaMetrics that scrapes what the stack's Prometheus scrapes."""
    binary = obtain("victoria-metrics", home=home_dir(), progress=lambda _: None).path
    directory = tmp_path_factory.mktemp("victoria-metrics")
    targets = httpx.get(f"{stack.target.prometheus_url}/api/v1/targets", trust_env=False).json()["data"]["activeTargets"]
    jobs = [
        {"job_name": each["labels"]["job"], "static_configs": [{"targets": [each["labels"]["instance"]]}]}
        for each in targets
        if each["labels"]["job"] in ("livekit", "voice-agent")
    ]
    config = directory / "scrape.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    port = ports.free(("victoria-metrics",))["victoria-metrics"]
    command = (str(binary), f"-httpListenAddr={LOOPBACK}:{port}", f"-storageDataPath={directory / 'data'}", f"-promscrape.config={config}")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_scraped(f"http://{LOOPBACK}:{port}")
            yield f"http://{LOOPBACK}:{port}"
        finally:
            process.terminate()
            process.wait(20)


def _wait_scraped(url: str) -> None:
    until = time.monotonic() + 40
    while True:
        try:
            names = httpx.get(f"{url}/api/v1/label/__name__/values", trust_env=False).json()["data"]
            if {"voice_agent_turns_total", "livekit_room_total"} <= set(names):
                return
        except (httpx.HTTPError, ValueError):
            pass
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_run_on_victoriametrics_is_judged_without_rules(tmp_path: Path, stack: RunningStack, url: str) -> None:
    """Init writes down that it has no rules; the engine is told by its name; samples are proven, and nothing fails."""
    target = stack.target
    environ = {**os.environ, "LIVEKIT_URL": target.livekit_url, **foreign.environment(target)}
    given = ("--prometheus", url, "--agent-metrics", str(target.agent_metrics_url), "--livekit-metrics", str(target.sfu_metrics_url))
    command = (sys.executable, "-m", "harness.cli", "init", "--json", "--name", "vm", *given, "--supabase", str(target.supabase_url))
    looked = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert looked.returncode == 0, looked.stderr
    covers = {each["claim"]: each["lack"] for each in json.loads(looked.stdout)["coverage"]}
    assert (covers["ttfw/samples"], covers["ttfw/rule"]) == (None, "absent")
    assert load(tmp_path / "target.yaml", environ).blind["rules"] == "absent: it has no recording rule at all"

    run = Run(tmp_path, tmp_path / "target.yaml", environ)

    assert run.statuses("fail") == set(), run.said
    assert run.info["settings"]["prometheus_flavour"] == "victoriametrics"
    decided = {"calls/rows", "turns/rows", "turns/exporter", "turns/samples", "tools/samples", "ttfw/exporter", "ttfw/samples", "sfu/rooms"}
    assert decided <= run.statuses("pass"), run.said
    assert run.verdicts["ttfw/rule"]["blind"] == "absent: it has no recording rule at all"
    assert run.code == 0, run.said
