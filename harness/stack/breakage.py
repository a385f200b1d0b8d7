"""Defects seeded from outside, as data (``fixtures/mutants``): a proxy before an exporter or REST, a rule, the agent's environment, SQL."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UsageError
from harness.model import value
from harness.stack.beside import beside
from harness.stack.exposition import multiplied, total, without
from harness.stack.proxy import Answer, Forward, Proxy, Request, Rule

MUTANTS = Path(__file__).resolve().parents[2] / "fixtures" / "mutants"
_SEAMS = ("exporter-proxy", "sfu-proxy", "rest-proxy", "rules", "agent-env", "files", "database")
_WIPE_EVERY_S = 0.02


@value
class Defect:
    """One lie or loss that a monitoring stack can have."""

    name: str
    what: str
    """One sentence for a person."""
    seam: str
    """``exporter-proxy``, ``sfu-proxy``, ``rest-proxy``, ``rules``, ``agent-env``, ``files`` or ``database``."""
    parameters: Mapping[str, Any]
    claim: str
    """The claim that must turn red."""
    scenario: str = "smoke"
    """A scenario that shows it."""


def catalogue(directory: Path = MUTANTS) -> tuple[Defect, ...]:
    """Every defect there is, by name."""
    return tuple(_read(path) for path in sorted(directory.glob("*.yaml")))


def load(name: str, directory: Path = MUTANTS) -> Defect:
    """One defect by name.

    Raises UsageError with the known names if there is none such.
    """
    path = directory / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(each.stem for each in directory.glob("*.yaml")))
        raise UsageError(f"no defect {name!r}; there are {known}")
    return _read(path)


def statements(defect: Defect | None) -> tuple[str, ...]:
    """SQL that is run when the database has been migrated."""
    return tuple(defect.parameters["statements"]) if defect is not None and defect.seam == "database" else ()


def rules_seed(defect: Defect | None) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What becomes of a parsed rule file before it is scaled."""
    if defect is None or defect.seam != "rules":
        return dict
    return lambda document: with_expressions(document, defect.parameters["expressions"])


def with_expressions(document: Mapping[str, Any], expressions: Mapping[str, str]) -> dict[str, Any]:
    """The rules in which records and alerts of these names have these expressions."""
    found: dict[str, Any] = copy.deepcopy(dict(document))
    for group in found["groups"]:
        for rule in group["rules"]:
            rule["expr"] = expressions.get(rule.get("record") or rule.get("alert"), rule["expr"])
    return found


class Seams:
    """The places of a starting stack where a defect can be put in; each passes its argument on if the defect is of another kind."""

    def __init__(self, defect: Defect | None, *, scratch: Path, exits: ExitStack) -> None:
        self._seam = defect.seam if defect else None
        self._parameters = defect.parameters if defect else {}
        self._scratch = scratch
        self._exits = exits

    def before_exporter(self, address: str) -> str:
        """``host:port`` to read the agent's metrics from."""
        return self._proxied(f"http://{address}", exporter_rule(self._parameters)) if self._seam == "exporter-proxy" else address

    def before_sfu_exporter(self, address: str) -> str:
        """``host:port`` to read the media server's metrics from."""
        return self._proxied(f"http://{address}", exporter_rule(self._parameters)) if self._seam == "sfu-proxy" else address

    def before_rest(self, url: str) -> str:
        """URL that the agent writes its rows to. We ourselves read past it."""
        return f"http://{self._proxied(url, rest_rule(self._parameters))}" if self._seam == "rest-proxy" else url

    def agent_environment(self) -> dict[str, str]:
        """Variables that the agent gets besides its own."""
        if self._seam not in ("agent-env", "files"):
            return {}
        words = {"mutants": str(MUTANTS), "scratch": str(self._scratch)}
        environment = {name: str(text).format_map(words) for name, text in self._parameters["environment"].items()}
        if self._seam == "files":
            directory = Path(environment[self._parameters["wipe"]])
            directory.mkdir(parents=True, exist_ok=True)
            self._exits.enter_context(_wiped(directory))
        return environment

    def _proxied(self, upstream: str, rule: Rule) -> str:
        proxy = Proxy(upstream, rule)
        self._exits.callback(proxy.close)
        return proxy.address


@contextmanager
def seams(defect: Defect | None, *, scratch: Path) -> Iterator[Seams]:
    """The seams of one stack; what they opened is closed at the end."""
    with ExitStack() as exits:
        yield Seams(defect, scratch=scratch, exits=exits)


def exporter_rule(parameters: Mapping[str, Any]) -> Rule:
    """What an exporter says otherwise.

    ``multiply``: {metric, by}. ``withhold``: {metric}: no line of it. ``stop_once``: {metric, labels, at_least}: from then on the port is closed.
    """

    def rule(request: Request, forward: Forward) -> Answer | None:
        answer = forward(request)
        if answer.status != 200:
            return answer
        text = answer.body.decode()
        if stop := parameters.get("stop_once"):
            return None if total(text, stop["metric"], stop.get("labels", {})) >= stop["at_least"] else answer
        if withheld := parameters.get("withhold"):
            return Answer(status=200, headers=answer.headers, body=without(text, withheld["metric"]).encode())
        change = parameters["multiply"]
        return Answer(status=200, headers=answer.headers, body=multiplied(text, change["metric"], change["by"]).encode())

    return rule


def rest_rule(parameters: Mapping[str, Any]) -> Rule:
    """``swallow``: {table, where, nth}: rows that match never arrive, and the writer is told that they did.

    where: columns of the row and their values. nth: only this one, counted from 1; without it all.
    """
    swallow = parameters["swallow"]
    prefix = f"/rest/v1/{swallow['table']}"
    seen: set[str] = set()
    lost: set[str] = set()
    lock = threading.Lock()

    def is_lost(row: Mapping[str, Any], path: str) -> bool:
        if any(row.get(column) != text for column, text in swallow["where"].items()):
            return False
        if "nth" not in swallow:
            return True
        # A row that is sent again is the same row.
        identity = path + json.dumps(row, sort_keys=True)
        with lock:
            if identity not in seen:
                seen.add(identity)
                if len(seen) == swallow["nth"]:
                    lost.add(identity)
            return identity in lost

    def rule(request: Request, forward: Forward) -> Answer | None:
        if request.method not in ("POST", "PATCH") or request.path.partition("?")[0] != prefix:
            return forward(request)
        body = json.loads(request.body)
        rows = body if isinstance(body, list) else [body]
        kept = [row for row in rows if not is_lost(row, request.path)]
        if len(kept) == len(rows):
            return forward(request)
        if kept:
            return forward(Request(method=request.method, path=request.path, headers=request.headers, body=json.dumps(kept).encode()))
        return _as_if_done(request)

    return rule


def _as_if_done(request: Request) -> Answer:
    wants_rows = "return=representation" in request.headers.get("prefer", "")
    headers = {"content-type": "application/json; charset=utf-8"}
    if request.method == "PATCH":
        return Answer(status=200, headers=headers, body=b"[]") if wants_rows else Answer(status=204, headers={}, body=b"")
    return Answer(status=201, headers=headers, body=request.body if wants_rows else b"")


@contextmanager
def _wiped(directory: Path) -> Iterator[None]:
    """Files below ``directory`` vanish as they appear, as under a janitor of temporary files; who has one open does not notice."""

    def wipe(is_over: threading.Event) -> None:
        while not is_over.wait(_WIPE_EVERY_S):
            for path in directory.glob("*.db"):
                path.unlink(missing_ok=True)

    with beside(wipe, "wipe"):
        yield


def _read(path: Path) -> Defect:
    data = yaml.safe_load(path.read_text())
    try:
        defect = Defect(**data)
    except TypeError as exc:
        raise UsageError(f"{path}: {exc}; wanted name, what, seam, parameters, claim") from exc
    if defect.seam not in _SEAMS:
        raise UsageError(f"{path}: unknown seam {defect.seam!r}; wanted one of {', '.join(_SEAMS)}")
    if defect.name != path.stem:
        raise UsageError(f"{path}: is named {defect.name!r} inside; wanted {path.stem!r}")
    return defect
