"""Seams of alerting: what each changes, and that it leaves the rest alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.check import CLAIMS
from harness.errors import UsageError
from harness.stack.proxy import Answer, Request
from harness.stack.sabotage import Sabotage, alertmanager_rule, catalogue, load, seeded_route, seeded_rules, store_rule, webhook_rule

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
RULES = yaml.safe_load((MONITORING / "rules" / "alerts.yml").read_text())
ROUTE = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())


class Upstream:
    """Takes what is passed on."""

    def __init__(self) -> None:
        self.bodies: list[object] = []

    def __call__(self, request: Request) -> Answer:
        self.bodies.append(json.loads(request.body))
        return Answer(status=200, headers={}, body=b"")


def post(path: str, body: object) -> Request:
    return Request(method="POST", path=path, headers={}, body=json.dumps(body).encode())


def alert(name: str, status: str = "firing") -> dict[str, object]:
    return {"labels": {"alertname": name}, "status": status, "startsAt": "2026-11-26T10:00:00Z"}


def of(seam: str) -> tuple[Sabotage, ...]:
    return tuple(each for each in catalogue() if each.seam == seam)


def test_there_are_twelve() -> None:
    """Each names the alert and the claim that must be red."""
    assert len(catalogue()) == 12
    assert {each.claim for each in catalogue()} <= CLAIMS.keys()


@pytest.mark.parametrize("sabotage", of("rules"), ids=lambda each: each.name)
def test_a_rule_is_really_changed(sabotage: Sabotage) -> None:
    """And the file's own document is not."""
    before = yaml.safe_dump(RULES)

    assert seeded_rules(RULES, (sabotage,)) != RULES
    assert yaml.safe_dump(RULES) == before


@pytest.mark.parametrize("sabotage", of("route"), ids=lambda each: each.name)
def test_a_route_is_really_changed(sabotage: Sabotage) -> None:
    """What is there stays; lists grow."""
    changed = seeded_route(ROUTE, (sabotage,))

    assert changed != ROUTE
    assert changed["receivers"][-1] == ROUTE["receivers"][-1]


def test_a_dropped_delivery_leaves_the_others() -> None:
    """Alertmanager is told that all of it was stored."""
    upstream = Upstream()
    rule = webhook_rule(load("resolved-lost"))
    assert rule is not None

    rule(post("/", {"alerts": [alert("TargetFlapping", "resolved"), alert("TargetFlapping"), alert("X", "resolved")]}), upstream)
    lost = rule(post("/", {"alerts": [alert("TargetFlapping", "resolved")]}), upstream)

    assert upstream.bodies == [{"alerts": [alert("TargetFlapping"), alert("X", "resolved")]}]
    assert lost is not None
    assert lost.status == 200


def test_a_dropped_row_leaves_the_others() -> None:
    """The receiver is told that it is stored."""
    upstream = Upstream()
    rule = store_rule(load("row-dropped"))
    assert rule is not None

    rule(post("/rest/v1/rpc/record_alerts", {"alerts": [alert("TargetDown"), alert("X")]}), upstream)

    assert upstream.bodies == [{"alerts": [alert("X")]}]


def test_a_repetition_is_swallowed() -> None:
    """The first of an episode passes, and so does everything of other alerts."""
    upstream = Upstream()
    rule = alertmanager_rule(load("resend-swallowed"))
    assert rule is not None

    for _ in range(2):
        rule(post("/api/v2/alerts", [alert("CertificateExpiring"), alert("X")]), upstream)

    assert upstream.bodies == [[alert("CertificateExpiring"), alert("X")], [alert("X")]]


def test_an_unknown_defect_lists_the_known() -> None:
    """All of them, by name."""
    with pytest.raises(UsageError, match=r"no defect of alerts 'nothing'; there are evaluation-interval, for-doubled"):
        load("for-doubled,nothing")


def test_nothing_seeded_is_nothing_between() -> None:
    """No proxy stands anywhere in a healthy stack."""
    assert (webhook_rule(()), store_rule(()), alertmanager_rule(())) == (None, None, None)
