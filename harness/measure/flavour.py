"""Whose arithmetic a server does: the same samples give other numbers on another engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
_LEFT_OPEN_SINCE = {"prometheus": (3, 0), "mimir": (2, 15), "thanos": (0, 38)}
"""Mimir and Thanos are built on Prometheus' engine; from these versions on with that of Prometheus 3."""


def detected(build: Mapping[str, Any], metrics: str = "") -> str:
    """Name of the product by its ``/api/v1/status/buildinfo``, and, where it says of itself that it is another, by its own metrics.

    ``prometheus``, ``mimir``, ``thanos``, ``victoriametrics`` or ``unknown``.
    """
    if "vm_app_version" in metrics:
        return "victoriametrics"
    if "mimir" in str(build.get("application", "")).lower():
        return "mimir"
    if "thanos_" in metrics:
        return "thanos"
    return "prometheus" if "goVersion" in build else "unknown"


def of(settings: Mapping[str, Any]) -> Flavour | None:
    """The arithmetic of a run's server, by ``prometheus_flavour`` and ``prometheus_version``. None: not known."""
    product = str(settings.get("prometheus_flavour", "prometheus"))
    if product == "victoriametrics":
        return VICTORIAMETRICS
    if product not in _LEFT_OPEN_SINCE:
        return None
    found = re.match(r"v?(\d+)\.(\d+)", str(settings.get("prometheus_version", "3.0")))
    if found is None:
        return None
    is_open = (int(found[1]), int(found[2])) >= _LEFT_OPEN_SINCE[product]
    return PROMETHEUS_3 if is_open else PROMETHEUS_2
