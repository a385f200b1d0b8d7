"""Which server it is, by answers as their documentation and source have them, and whether its arithmetic was measured."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.measure import flavour
from harness.measure.flavour import PROMETHEUS_2, PROMETHEUS_3, VICTORIAMETRICS, Flavour

PROMETHEUS = {
    "version": "3.13.5",
    "revision": "7d4ba22",
    "branch": "HEAD",
    "buildUser": "root@build",
    "buildDate": "20260901-10:00:00",
    "goVersion": "go1.26.3",
}
MIMIR = {
    "application": "Grafana Mimir",
    "version": "2.15.0",
    "revision": "7ee9d7d",
    "branch": "HEAD",
    "goVersion": "go1.23.3",
    "features": {"ruler_config_api": "true", "alertmanager_config_api": "true", "query_sharding": "false", "federated_rules": "false"},
}
THANOS = {**PROMETHEUS, "version": "0.38.0"}


@pytest.mark.parametrize(
    ("build", "flags", "metrics", "product"),
    [
        (PROMETHEUS, (), 'prometheus_build_info{version="3.13.5"} 1\n', "prometheus"),
        (PROMETHEUS, ("storage.tsdb.path", "web.listen-address"), "", "prometheus"),
        (MIMIR, ("target",), 'cortex_build_info{version="2.15.0"} 1\n', "mimir"),
        ({**MIMIR, "application": "Cortex"}, (), "", "cortex"),
        (THANOS, (), 'thanos_build_info{version="0.38.0"} 1\n', "thanos"),
        (THANOS, ("grpc-address", "query.replica-label", "query.lookback-delta"), "", "thanos"),
        ({"version": "2.24.0"}, (), "", "victoriametrics"),
        ({}, (), 'vm_app_version{version="victoria-metrics-v1.79.5"} 1\n', "victoriametrics"),
        (PROMETHEUS, (), "", "unknown"),
        ({}, (), "", "unknown"),
    ],
)
def test_a_server_is_told_by_what_it_answers(build: Mapping[str, object], flags: tuple[str, ...], metrics: str, product: str) -> None:
    """One that only answers as Prometheus would is not taken to be it: Thanos does, too."""
    assert flavour.detected(build, flags, metrics) == product


@pytest.mark.parametrize(
    ("product", "version", "arithmetic", "words"),
    [
        ("prometheus", "3.13.5", PROMETHEUS_3, "Prometheus 3.13.5"),
        ("prometheus", "v2.42.0", PROMETHEUS_2, "Prometheus v2.42.0"),
        ("prometheus", "4.0.0", None, "Prometheus 4.0.0, whose arithmetic was never measured"),
        ("victoriametrics", "2.24.0", VICTORIAMETRICS, "VictoriaMetrics"),
        ("mimir", "2.15.0", None, "Mimir 2.15.0, whose arithmetic was never measured"),
        ("thanos", "0.38.0", None, "Thanos 0.38.0, whose arithmetic was never measured"),
        ("cortex", "1.18.0", None, "cortex 1.18.0, whose arithmetic was never measured"),
        ("unknown", "unknown", None, "a server that does not say what it is, whose arithmetic was never measured"),
    ],
)
def test_no_arithmetic_is_taken_for_granted(product: str, version: str, arithmetic: Flavour | None, words: str) -> None:
    """Of a server that was never measured none is known; it is said by its name."""
    settings = {"prometheus_flavour": product, "prometheus_version": version}

    assert (flavour.of(settings), flavour.described(settings)) == (arithmetic, words)
