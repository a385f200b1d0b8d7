"""An agent that has only livekit-agents' own OpenTelemetry, pushed to Prometheus by OTLP: what its layout, its flush and a refusal are worth."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from harness.clock import Clock
from harness.stack import ports
from harness.stack.breakage import Defect
from harness.stack.embedded import RunningStack, up
from harness.stack.home import home_dir
from harness.stack.ports import LOOPBACK
from harness.stack.provision import obtain
from tests.stack import foreign
from tests.stack.test_targets import Run

pytestmark = pytest.mark.soak

NONE = {"absent": "it has no such counter"}
TOO_OLD_S = 6 * 3600


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that takes OTLP and scrapes nothing of the agent."""
    binary = obtain("prometheus", home=home_dir(), progress=lambda _: None).path
    directory = tmp_path_factory.mktemp("prometheus")
    config = directory / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}}))
    port = ports.free(("otlp-prometheus",))["otlp-prometheus"]
    command = (
        *(str(binary), f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}", "--log.level=warn"),
        *(f"--web.listen-address={LOOPBACK}:{port}", "--web.enable-otlp-receiver"),
    )
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://{LOOPBACK}:{port}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def stack(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The reference agent pushes what livekit-agents itself measures."""
    environment = {"AGENT_OTLP_URL": f"{url}/api/v1/otlp/v1/metrics", "AGENT_OTLP_EVERY_S": "2"}
    pushing = Defect(name="otlp", what="pushes", seam="agent-env", parameters={"environment": environment}, claim="")
    with up(home=home_dir(), logs=tmp_path_factory.mktemp("logs"), progress=lambda _: None, defect=pushing) as running:
        yield running


def test_layout_flush_and_refusal_are_named(tmp_path: Path, stack: RunningStack, url: str) -> None:
    """Count and mean are proven; that a quantile of it says nothing, when it comes and what was refused is told in so many words."""
    target, environ = foreign.target_file(
        tmp_path,
        stack.target,
        agent=None,
        prometheus={"url": url},
        exclusive=True,
        metrics={
            "voice_agent_ttfw_seconds": "lk_agents_turn_e2e_latency_seconds",
            **dict.fromkeys(("voice_agent_turns_total", "voice_agent_tool_calls_total", "voice_agent_active_calls"), NONE),
        },
        absent={"agent-exporter": "this agent has only OpenTelemetry", "rules": "none", "sfu-exporter": "not scraped there"},
    )
    refused = threading.Thread(target=_push_late, args=(url,))
    refused.start()
    run = Run(tmp_path, target, environ)
    refused.join()

    assert run.verdicts["ttfw/samples"]["status"] == "pass", run.said
    assert run.verdicts["ttfw/layout"]["blind"] == "all in one bucket, 0 to 5 s"
    assert "a p95 of it reads 4.75 s whatever callers hear" in run.verdicts["ttfw/layout"]["sentence"]
    assert run.verdicts["ttfw/flush"]["blind"] == "recorded at the end of a session"
    assert run.verdicts["ttfw/refused"]["status"] == "fail"
    assert run.verdicts["ttfw/refused"]["sentence"].startswith("Prometheus refused 1 OTLP or remote-write batches")
    assert run.statuses("fail") == {"ttfw/refused"}


def _push_late(url: str) -> None:
    """A batch from hours ago, while the run lasts."""
    time.sleep(10)
    point = {"asDouble": 1.0, "timeUnixNano": str(Clock.start().now() - TOO_OLD_S * 10**9)}
    metric = {"name": "late", "gauge": {"dataPoints": [point]}}
    batch = {"resourceMetrics": [{"resource": {}, "scopeMetrics": [{"scope": {}, "metrics": [metric]}]}]}
    answer = httpx.post(
        f"{url}/api/v1/otlp/v1/metrics", content=json.dumps(batch), headers={"content-type": "application/json"}, trust_env=False
    )
    assert answer.status_code == httpx.codes.BAD_REQUEST, answer.text
