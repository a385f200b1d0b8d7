"""``alerts --prometheus``: someone's rules against their own server's history, read-only, within seconds."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from harness import codec
from harness.errors import UsageError
from harness.verbs.alerts import Told
from harness.verbs.output import Progress, columns, home, print_result, shown

if TYPE_CHECKING:
    from harness.rules.audit import Prospect

_MOST_STEPS = 5500
"""Half of what Prometheus lets a range query have."""
_BESIDE = 4


def audit(options: argparse.Namespace) -> Told:
    """1 if an alert can never fire, 3 if one could not be analysed."""
    from harness.collect.history import History
    from harness.rules.alerts import alert_rules, served_rules
    from harness.rules.audit import prospect, strays
    from harness.rules.scale import to_ms

    window_s = to_ms(options.window) / 1000
    with History(options.prometheus, window_s=window_s, budget_s=options.budget) as history:
        names, served = history.names, history.rules
        if options.rules:
            read = functools.partial(alert_rules, interval_s=history.interval_s, query_offset_s=history.query_offset_s)
            rules = tuple(rule for path in options.rules for rule in read(Path(path)))
        else:
            rules = served_rules(served, query_offset_s=history.query_offset_s)
        if not rules:
            raise UsageError(f"no alerting rule in {', '.join(options.rules or ()) or options.prometheus}")

        def of(number: int) -> Prospect:
            rule = rules[number]
            step_s = rule.interval_s * math.ceil(window_s / rule.interval_s / _MOST_STEPS)
            found = prospect(rule, history, names, step_s=step_s)
            return dataclasses.replace(found, remarks=(*found.remarks, *(strays(rule, served) if options.rules else ())))

        with ThreadPoolExecutor(_BESIDE) as pool:
            found = list(pool.map(of, range(len(rules))))
    outlooks = {one.outlook.value for one in found}
    return Told(
        code=1 if "never" in outlooks else 3 if "not analysed" in outlooks else 0,
        data={"window_s": window_s, "prospects": codec.to_json(found)},
        text=_table(found, options.window),
        rules=tuple(rules),
        shows=frozenset(number for number, one in enumerate(found) if one.outlook.value == "fired"),
    )


def shadow(options: argparse.Namespace) -> int:
    """Their rules on a Prometheus of ours that follows theirs: the real engine, and nobody is paged. 1 if it cannot evaluate one."""
    from harness.clock import Clock
    from harness.collect.history import History
    from harness.rules.alerts import alert_rules
    from harness.rules.audit import selector_texts
    from harness.stack import shadow as beside
    from harness.stack.provision import obtain
    from harness.stack.supervise import Supervisor

    if not options.rules or not options.prometheus:
        raise UsageError("--shadow needs --rules FILES to run and --prometheus URL to follow")
    paths = [Path(path) for path in options.rules]
    rules = tuple(rule for path in paths for rule in alert_rules(path))
    selectors = tuple(sorted({text for path in paths for text in selector_texts(path)}))
    progress = Progress()
    server, promtool = (obtain(name, home=home(), progress=progress).path for name in ("prometheus", "promtool"))
    with tempfile.TemporaryDirectory(prefix="voxproof-shadow-") as logs, Supervisor(logs=Path(logs), clock=Clock.start()) as supervisor:
        interval_s = min((rule.interval_s for rule in rules), default=15.0)
        followed = beside.Followed(url=options.prometheus, selectors=selectors, interval_s=interval_s)
        url = beside.start(supervisor, server=server, promtool=promtool, rules=paths, follows=followed, evaluation_s=interval_s)
        progress(f"{len(rules)} alerts follow {options.prometheus} for {options.shadow:g} s, without an Alertmanager")
        time.sleep(options.shadow)
        with History(url, window_s=options.shadow, budget_s=options.budget) as seen:
            served = [rule for group in seen.rules for rule in group["rules"] if rule["type"] == "alerting"]
            samples = seen.over_time("ALERTS", interval_s)
    fired = {dict(labels)["alertname"] for labels in samples if dict(labels)["alertstate"] == "firing"}
    rows = [(rule["name"], "fired" if rule["name"] in fired else rule["state"], rule.get("lastError", "")) for rule in served]
    told = [{"alert": name, "state": state, "error": error} for name, state, error in rows]
    print_result(options, {"shadow_s": options.shadow, "alerts": told}, columns(rows))
    return 1 if any(error for _, _, error in rows) else 0


def drill(options: argparse.Namespace) -> int:
    """1 if the drill reaches nobody."""
    from harness.clock import Clock
    from harness.collect.drill import send
    from harness.rules.alerts import alert_rules

    if not options.rules or not options.alertmanager:
        raise UsageError("--drill needs --rules FILES that hold the alert and --alertmanager URL to send it to; people may be paged")
    rules = [rule for path in options.rules for rule in alert_rules(Path(path)) if rule.name == options.drill]
    if not rules:
        raise UsageError(f"no alert {options.drill} in {', '.join(options.rules)}")
    routed = send(rules[0], options.alertmanager, Clock.start())
    to = "nobody: it is silenced or inhibited" if routed.is_suppressed else ", ".join(routed.receivers)
    print_result(options, codec.to_json(routed), f'{options.drill}, labelled drill="true", goes to {to}; it ends by itself in 5 minutes')
    return 1 if routed.is_suppressed or not routed.receivers else 0


def _table(found: Sequence[Prospect], window: str) -> str:
    rows = []
    for one in found:
        said = [*one.reasons]
        if one.firings:
            said.append(f"{one.firings} x in {window}, {one.fired_s / 60:.1f} min")
        if one.outlook == "pended":
            said.append(f"true for {one.longest_true_s:g} s at the longest, `for` is {one.rule.for_s:g} s")
        where = f"{shown(Path(one.rule.path))}:{one.rule.line}" if one.rule.line else one.rule.group
        rows.append((one.rule.name, one.outlook.value, "; ".join((*said, *one.remarks)), where))
    order = ("never", "not analysed", "pended", "silent", "fired")
    counts = {outlook: sum(one.outlook == outlook for one in found) for outlook in order}
    told = ", ".join(f"{count} {outlook}" for outlook, count in counts.items() if count)
    rows.sort(key=lambda row: order.index(row[1]))
    return f"{columns(rows)}\n{len(found)} alerts over {window}: {told}; shown to fire: {counts['fired']} of {len(found)}"
