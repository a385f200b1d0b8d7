"""A real Prometheus over series of the past: backfilled blocks, asked instant queries. Nothing has to be waited for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from harness.model import value
from harness.stack import ports
from harness.stack.home import home_dir
from harness.stack.provision import obtain


@value
class Scraped:
    """One series as it was scraped."""

    name: str
    labels: str
    samples: tuple[tuple[int, float], ...]


def _silent(_: str) -> None:
    """Progress that nobody reads."""


@contextmanager
def prometheus(recorded: Sequence[Scraped], kinds: Mapping[str, str], place: Path) -> Iterator[httpx.Client]:
    """A server that holds the recorded series.

    kinds: series name to the name and type of its family, such as ``c counter``.
    """
    text = place / "samples.txt"
    with text.open("w") as out:
        for name, kind in kinds.items():
            if name == next(each for each, other in kinds.items() if other == kind):
                out.write(f"# TYPE {kind}\n")
            for series in recorded:
                if series.name == name:
                    out.writelines(f"{name}{{{series.labels}}} {number} {at / 1000:.3f}\n" for at, number in series.samples)
        out.write("# EOF\n")
    tool, server = (obtain(name, home=home_dir(), progress=_silent).path for name in ("promtool", "prometheus"))
    subprocess.run([tool, "tsdb", "create-blocks-from", "openmetrics", text, place / "data"], check=True, capture_output=True)
    (place / "prometheus.yml").write_text("global: {scrape_interval: 15s}\n")
    port = ports.free(("engine",))["engine"]
    arguments = (
        f"--config.file={place}/prometheus.yml",
        f"--storage.tsdb.path={place}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=100y",
    )
    with started([server, *arguments], port=port, ready="/-/ready", log=place / "log") as client:
        yield client


@contextmanager
def started(command: Sequence[str | Path], *, port: int, ready: str, log: Path) -> Iterator[httpx.Client]:
    """A server on loopback while the block lasts, once it answers."""
    with (
        log.open("w") as out,
        subprocess.Popen(command, stderr=out, stdout=out) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        try:
            _wait_ready(client, ready)
            yield client
        finally:
            process.terminate()


def _wait_ready(client: httpx.Client, path: str) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if client.get(path).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail("the server did not become ready")


def asked(engine: httpx.Client, query: str, at_ms: int, label: str = "i") -> dict[str, float]:
    """The engine's answer by a label."""
    answer = engine.get("/api/v1/query", params={"query": query, "time": f"{at_ms / 1000:.3f}"})
    answer.raise_for_status()
    return {entry["metric"][label]: float(entry["value"][1]) for entry in answer.json()["data"]["result"]}
