"""Defects of alerting, seeded from outside as data (``fixtures/mutants/alerts``): a rule, the route, what passes between the servers."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UsageError
from harness.model import value
from harness.stack.breakage import MUTANTS
from harness.stack.proxy import Answer, Forward, Request, Rule

ALERTS = MUTANTS / "alerts"
_SEAMS = ("rules", "route", "webhook", "store", "alertmanager")


@value
class Sabotage:
    """One way in which alerting can be broken."""

    name: str
    what: str
    """One sentence for a person."""
    seam: str
    """``rules``, ``route``, or before which server: ``alertmanager``, ``webhook`` (the receiver), ``store`` (the table)."""
    parameters: Mapping[str, Any]
    alert: str
    """The alert that must be named."""
    claim: str
    """The claim that must turn red."""


def catalogue(directory: Path = ALERTS) -> tuple[Sabotage, ...]:
    """All there are, by name."""
    return tuple(_read(path) for path in sorted(directory.glob("*.yaml")))


def load(names: str, directory: Path = ALERTS) -> tuple[Sabotage, ...]:
    """Some by name, with commas between: those of different alerts can be seeded into one drill.

    Raises UsageError with the known names if there is none such.
    """
    known = {path.stem: path for path in directory.glob("*.yaml")}
    wanted = [name.strip() for name in names.split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"no defect of alerts {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return tuple(_read(known[name]) for name in wanted)


def seeded_rules(document: Mapping[str, Any], sabotage: Sequence[Sabotage]) -> dict[str, Any]:
    """A parsed rule file with the defects of seam ``rules``.

    alerts: fields of rules by alert. groups: fields of groups by name. without: names of groups that are left out.
    """
    found: dict[str, Any] = copy.deepcopy(dict(document))
    for each in sabotage:
        if each.seam != "rules":
            continue
        found["groups"] = [group for group in found["groups"] if group["name"] not in each.parameters.get("without", ())]
        for group in found["groups"]:
            group.update(each.parameters.get("groups", {}).get(group["name"], {}))
            for rule in group["rules"]:
                rule.update(each.parameters.get("alerts", {}).get(rule.get("alert"), {}))
    return found


def seeded_route(document: Mapping[str, Any], sabotage: Sequence[Sabotage]) -> dict[str, Any]:
    """Alertmanager's configuration with the defects of seam ``route``: lists are added to, other keys replaced."""
    found: dict[str, Any] = copy.deepcopy(dict(document))
    for each in sabotage:
        if each.seam == "route":
            _merge(found, each.parameters)
    return found


def webhook_rule(sabotage: Sequence[Sabotage]) -> Rule | None:
    """What happens before the receiver. ``drop``: {alert, status}: such alerts are lost, and Alertmanager is told that they were stored.

    None: nothing is seeded there.
    """
    drops = [each.parameters["drop"] for each in sabotage if each.seam == "webhook"]
    if not drops:
        return None

    def is_lost(alert: Mapping[str, Any]) -> bool:
        return any(
            alert["labels"]["alertname"] == drop["alert"] and drop.get("status", alert["status"]) == alert["status"] for drop in drops
        )

    def rule(request: Request, forward: Forward) -> Answer:
        if request.method != "POST":
            return forward(request)
        told = json.loads(request.body)
        kept = [alert for alert in told["alerts"] if not is_lost(alert)]
        if not kept:
            return Answer(status=200, headers={}, body=b"stored\n")
        body = json.dumps({**told, "alerts": kept}).encode()
        return forward(Request(method=request.method, path=request.path, headers=request.headers, body=body))

    return rule


def store_rule(sabotage: Sequence[Sabotage]) -> Rule | None:
    """What happens before the table. ``drop``: {alert}: its rows are lost, and the receiver is told that they were stored.

    None: nothing is seeded there.
    """
    names = {each.parameters["drop"]["alert"] for each in sabotage if each.seam == "store"}
    if not names:
        return None

    def rule(request: Request, forward: Forward) -> Answer:
        if not request.path.endswith("/rpc/record_alerts"):
            return forward(request)
        kept = [alert for alert in json.loads(request.body)["alerts"] if alert["labels"]["alertname"] not in names]
        body = json.dumps({"alerts": kept}).encode()
        return forward(Request(method=request.method, path=request.path, headers=request.headers, body=body))

    return rule


def alertmanager_rule(sabotage: Sequence[Sabotage]) -> Rule | None:
    """What happens before Alertmanager. ``first_only``: an alert of this name is passed on once an episode, its repetitions are not.

    None: nothing is seeded there.
    """
    names = {each.parameters["first_only"] for each in sabotage if each.seam == "alertmanager"}
    if not names:
        return None
    passed: set[str] = set()

    def is_repeated(alert: Mapping[str, Any]) -> bool:
        if alert["labels"]["alertname"] not in names:
            return False
        episode = json.dumps([alert["labels"], alert["startsAt"]], sort_keys=True)
        is_known = episode in passed
        passed.add(episode)
        return is_known

    def rule(request: Request, forward: Forward) -> Answer:
        if request.method != "POST" or not request.path.endswith("/alerts"):
            return forward(request)
        body = json.dumps([alert for alert in json.loads(request.body) if not is_repeated(alert)]).encode()
        return forward(Request(method=request.method, path=request.path, headers=request.headers, body=body))

    return rule


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, entry in more.items():
        if isinstance(entry, list) and isinstance(into.get(key), list):
            into[key] = [*entry, *into[key]]
        elif isinstance(entry, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], entry)
        else:
            into[key] = entry


def _read(path: Path) -> Sabotage:
    data = yaml.safe_load(path.read_text())
    try:
        found = Sabotage(name=path.stem, **data)
    except TypeError as exc:
        raise UsageError(f"{path}: {exc}; wanted what, seam, parameters, alert, claim") from exc
    if found.seam not in _SEAMS:
        raise UsageError(f"{path}: unknown seam {found.seam!r}; wanted one of {', '.join(_SEAMS)}")
    return found
