"""The Compose files against the files that they mount and the versions that the embedded stack pins. No engine is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.stack.golang import SERVERS

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"


def services() -> dict[str, Any]:
    """By name."""
    found: dict[str, Any] = yaml.safe_load((MONITORING / "docker-compose.yml").read_text())["services"]
    return found


def test_the_file_at_the_top_includes_the_stack() -> None:
    """One command at the root starts everything."""
    included = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["include"]

    assert [(ROOT / path).resolve() for path in included] == [MONITORING / "docker-compose.yml"]


def test_prometheus_is_the_pinned_one() -> None:
    """Compose and the embedded stack run the same version: module v0.313.5 is release 3.13.5."""
    module = (ROOT / "harness" / "stack" / "servers" / "prometheus" / "go.mod").read_text()
    pin = re.search(r"github\.com/prometheus/prometheus v0\.(\d)(\d\d)\.(\d+)", module)

    assert pin is not None
    assert services()["prometheus"]["image"] == f"prom/prometheus:v{pin[1]}.{int(pin[2])}.{pin[3]}"


@pytest.mark.parametrize(
    ("name", "module"), [("alertmanager", "alertmanager"), ("blackbox", "blackbox_exporter"), ("node-exporter", "node_exporter")]
)
def test_exporters_and_alertmanager_are_the_pinned_ones(name: str, module: str) -> None:
    """The embedded stack builds the same versions."""
    (server,) = (server for server in SERVERS if server.module == module)

    assert services()[name]["image"].endswith(f":v{server.version}")


@pytest.mark.parametrize("name", services())
def test_what_is_mounted_exists(name: str) -> None:
    """Docker would make an empty directory of a missing file. Shared configuration is read only."""
    for mount in services()[name]["volumes"]:
        source, _, rest = mount.partition(":")
        if source.startswith(".") and source != "./webhook-token":  # made on the host
            assert (MONITORING / source).exists()
            assert rest.endswith(":ro")


@pytest.mark.parametrize("name", services())
def test_nothing_is_published_beyond_loopback(name: str) -> None:
    """Prometheus has no sign-in of its own."""

    assert all(port.startswith("127.0.0.1:") for port in services()[name].get("ports", ()))


@pytest.mark.parametrize("name", services())
def test_images_are_pinned(name: str) -> None:
    """A version, not a moving name."""

    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", services()[name]["image"])
