"""An alerting rule without a file."""

from __future__ import annotations

from typing import Any

from harness.rules.alerts import AlertRule


def alert_rule(expression: str = "load > 80", **changes: Any) -> AlertRule:
    """Called A, evaluated every 15 s, without ``for``."""
    plain: dict[str, Any] = {"for_s": 0.0, "keep_firing_for_s": 0.0, "interval_s": 15.0, "labels": {}, "annotations": {}, "text": {}}
    where: dict[str, Any] = {"name": "A", "group": "g", "path": "rules.yml", "line": 1}
    return AlertRule(**{**where, **plain, "expression": expression, **changes})
