"""One alert through the real route, on purpose: sent to an Alertmanager as Prometheus would, and labelled as the drill it is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from harness.clock import Clock
from harness.errors import UsageError
from harness.model import value
from harness.rules.alerts import AlertRule

LABEL = ("drill", "true")
_LASTS_S = 300.0
_TIMEOUT_S = 10.0


@value
class Routed:
    """What Alertmanager made of it."""

    labels: Mapping[str, str]
    receivers: tuple[str, ...]
    is_suppressed: bool
    """Silenced or inhibited: it reaches nobody."""


def alert(rule: AlertRule, now_s: float) -> dict[str, Any]:
    """The alert that the rule would send, with ``drill="true"``; a template of a label becomes the word drill. It ends by itself in 5 minutes."""
    labels = {name: "drill" if "{{" in text else text for name, text in rule.labels.items()}
    return {
        "labels": {**labels, "alertname": rule.name, "instance": "drill", LABEL[0]: LABEL[1]},
        "annotations": {"summary": f"DRILL of {rule.name}: nothing is wrong"},
        "startsAt": _written(now_s),
        "endsAt": _written(now_s + _LASTS_S),
    }


def send(rule: AlertRule, url: str, clock: Clock) -> Routed:
    """Sends it and asks where it goes. Raises UsageError if Alertmanager does not take it."""
    sent = alert(rule, clock.now() / 1e9)
    filters = [f'{name}="{text}"' for name, text in sent["labels"].items()]
    try:
        with httpx.Client(base_url=url, timeout=_TIMEOUT_S) as client:
            client.post("/api/v2/alerts", json=[sent]).raise_for_status()
            found: Sequence[Mapping[str, Any]] = client.get("/api/v2/alerts", params={"filter": filters}).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as exc:
        raise UsageError(f"alertmanager at {url} did not take the drill: {exc}; is it up?") from exc
    if not found:
        raise UsageError(f"alertmanager at {url} took the drill and does not show it")
    return Routed(
        labels=sent["labels"],
        receivers=tuple(receiver["name"] for receiver in found[0]["receivers"]),
        is_suppressed=found[0]["status"]["state"] == "suppressed",
    )


def _written(at_s: float) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).isoformat()
