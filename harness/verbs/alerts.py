"""``alerts`` and ``lint``: what can be said of rules and dashboards without a run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import codec
from harness.errors import UsageError
from harness.model import value
from harness.verbs.output import Progress, columns, home, print_result, shown

if TYPE_CHECKING:
    from harness.rules.alerts import AlertRule

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "monitoring" / "rules"


@value
class Told:
    """What one way of looking at rules says."""

    code: int
    data: Mapping[str, Any]
    text: str
    rules: tuple[AlertRule, ...]
    shows: frozenset[int]
    """Places of the rules that it showed to fire."""


def alerts(options: argparse.Namespace) -> int:
    """Of the rules' own text in virtual time, of a Prometheus' stored window read-only, or both."""
    from harness.verbs.audit import audit, drill, shadow

    if options.drill:
        return drill(options)
    if options.shadow:
        return shadow(options)
    if not options.virtual and not options.prometheus:
        raise UsageError("say --virtual for the rules' own text, --prometheus URL for what a server's history says of them, or both")
    said = [audit(options)] if options.prometheus else []
    if options.virtual:
        said.append(virtual(said[0].rules if said else files(options)))
    data = {key: found for one in said for key, found in one.data.items()}
    texts = [one.text for one in said]
    if len(said) == 2:
        shown_to_fire = frozenset().union(*(one.shows for one in said))
        texts.append(f"shown to fire, in the history or in virtual time: {len(shown_to_fire)} of {len(said[0].rules)}")
    print_result(options, data, "\n\n".join(texts))
    return max((one.code for one in said), key=lambda code: (code == 1, code))


def files(options: argparse.Namespace) -> tuple[AlertRule, ...]:
    """The rules of ``--rules``, or the shipped ones."""
    from harness.rules.alerts import alert_rules

    paths = [Path(path) for path in options.rules] if options.rules else sorted(SHIPPED.glob("*.yml"))
    rules = tuple(rule for path in paths for rule in alert_rules(path))
    if not rules:
        raise UsageError(f"{', '.join(map(str, paths))}: no alerting rule")
    return rules


def virtual(rules: Sequence[AlertRule]) -> Told:
    """Needs no stack: promtool is the real engine, the cases are made from the rules' own text."""
    from harness.rules.virtual import promtool_files, prove
    from harness.stack.promtool import failures
    from harness.stack.provision import obtain

    proofs = [prove(rule) for rule in rules]
    promtool = obtain("promtool", home=home(), progress=Progress())
    wrong = failures(promtool.path, promtool_files(proofs))
    rows = []
    for proof in proofs:
        where = f"{shown(Path(proof.rule.path))}:{proof.rule.line}"
        if proof.not_shown:
            rows.append((proof.rule.name, "not shown", proof.not_shown, where))
            continue
        level = "" if proof.threshold is None else f" at {proof.threshold:g}"
        fires = f"fires {proof.fires_after_s:g} s after {proof.driver or 'the start'} turns{level}"
        rows.append((proof.rule.name, f"{len(proof.cases)} cases", fires, where))
    lines = [
        columns(rows),
        *(["", wrong] if wrong else []),
        f"promtool {promtool.version} {'DISAGREES' if wrong else 'agrees with every case'}",
    ]
    return Told(
        code=1 if wrong else 3 if any(proof.not_shown for proof in proofs) else 0,
        data={"proofs": codec.to_json(proofs), "promtool": promtool.version, "wrong": wrong},
        text="\n".join(lines),
        rules=tuple(rules),
        shows=frozenset() if wrong else frozenset(number for number, proof in enumerate(proofs) if not proof.not_shown),
    )


def lint(options: argparse.Namespace) -> int:
    """With ``--prometheus`` the names and types of that server are held against the queries, too; it is only read."""
    from harness.rules.lint import lint as lint_query
    from harness.rules.queries import queries

    types = _types(options.prometheus) if options.prometheus else None
    asked = [query for path in options.files for query in queries(Path(path))]
    if not asked:
        raise UsageError(f"{', '.join(options.files)}: no query")
    found = [finding for query in asked for finding in lint_query(query, types=types, scrape_s=options.scrape_interval)]
    rows = [(finding.query.place, finding.query.name, finding.check, finding.sentence) for finding in found]
    summary = f"{len(asked)} queries, {len(found)} findings" + ("" if types is None else f", against {len(types)} metrics of the server")
    print_result(
        options, {"queries": len(asked), "findings": codec.to_json(found)}, "\n".join([*([columns(rows)] if rows else []), summary])
    )
    return 1 if found else 0


def _types(url: str) -> Mapping[str, str]:
    """Metric names and types of a Prometheus, and the names of what its rules record."""
    import httpx

    try:
        with httpx.Client(base_url=url, timeout=10.0) as client:
            metadata = client.get("/api/v1/metadata").raise_for_status().json()["data"]
            names = client.get("/api/v1/label/__name__/values").raise_for_status().json()["data"]
    except (httpx.HTTPError, ValueError, KeyError) as exc:
        raise UsageError(f"prometheus at {url} did not tell its metrics: {exc}; is it up?") from exc
    types = {name: str(entries[0]["type"]) for name, entries in metadata.items()}
    return {**{name: "unknown" for name in names if not _is_part(name, types)}, **types}


def _is_part(name: str, types: Mapping[str, str]) -> bool:
    """A histogram's own series, or a counter whose name the metadata has without its ending."""
    return any(name.endswith(end) and name.removesuffix(end) in types for end in ("_bucket", "_sum", "_count", "_total"))
