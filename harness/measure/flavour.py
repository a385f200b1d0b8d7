"""Whose arithmetic a server does: the same samples give other numbers on another engine."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from harness.model import value


@value
class Flavour:
    """One way to calculate."""

    name: str
    """For people: ``Prometheus 3``."""
    is_closed: bool = False
    """A sample exactly at the start of a window, or of the lookback, is inside."""
    is_extrapolating: bool = True
    """``rate`` and ``increase`` reach to the edges of their window. False: from the last sample before it to the last one in it."""
    rounding_ratio: float = 0.0
    """How far a stored value may lie from the one that was scraped, of it. 0: every bit is kept."""


PROMETHEUS_3 = Flavour(name="Prometheus 3")
PROMETHEUS_2 = Flavour(name="Prometheus 2", is_closed=True)
VICTORIAMETRICS = Flavour(name="VictoriaMetrics", is_extrapolating=False, rounding_ratio=5e-12)
"""It keeps 12 significant digits: half a unit of the last one. 7e-13 was measured."""
MEASURED = "Prometheus 2 or 3; VictoriaMetrics but for quantiles"
"""The servers whose arithmetic was held against their own answers."""
_OF_PROMETHEUS = {2: PROMETHEUS_2, 3: PROMETHEUS_3}
_NAMES = {"prometheus": "Prometheus", "mimir": "Mimir", "thanos": "Thanos", "victoriametrics": "VictoriaMetrics"}


def detected(build: Mapping[str, Any], flags: Collection[str] = (), metrics: str = "") -> str:
    """Name of the product, by its ``/api/v1/status/buildinfo``, the names of its flags, and its own metrics.

    Mimir says what it is; VictoriaMetrics tells a version and nothing else; Thanos answers as Prometheus does, and differs in flags and metrics. A
    server of which none of that is seen is ``unknown``, even if it answers as Prometheus would.
    """
    if "vm_app_version" in metrics or build.keys() == {"version"}:
        return "victoriametrics"
    if application := str(build.get("application", "")):
        return application.lower().removeprefix("grafana ")
    if "thanos_build_info" in metrics or "grpc-address" in flags:
        return "thanos"
    is_itself = "prometheus_build_info" in metrics or "storage.tsdb.path" in flags
    return "prometheus" if is_itself and "goVersion" in build else "unknown"


def of(settings: Mapping[str, Any]) -> Flavour | None:
    """The arithmetic of a run's server, by ``prometheus_flavour`` and ``prometheus_version``. None: it was never measured."""
    product = _product(settings)
    if product == "victoriametrics":
        return VICTORIAMETRICS
    major = re.match(r"v?(\d+)\.", _version(settings))
    return _OF_PROMETHEUS.get(int(major[1])) if major and product == "prometheus" else None


def server(settings: Mapping[str, Any]) -> str:
    """The server for people: ``Mimir 2.15.0``. VictoriaMetrics tells no version of its own."""
    product = _product(settings)
    if product == "unknown":
        return "a server that does not say what it is"
    return _NAMES.get(product, product) if product == "victoriametrics" else f"{_NAMES.get(product, product)} {_version(settings)}"


def described(settings: Mapping[str, Any]) -> str:
    """The same, with what its arithmetic is worth to us."""
    return server(settings) + ("" if of(settings) else ", whose arithmetic was never measured")


def _product(settings: Mapping[str, Any]) -> str:
    return str(settings.get("prometheus_flavour", "prometheus"))


def _version(settings: Mapping[str, Any]) -> str:
    return str(settings.get("prometheus_version", "3.0"))
