"""``alerts --prometheus``: someone's rules against their own server's history, read-only, within seconds."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from harness import codec
from harness.errors import UsageError
from harness.verbs.output import columns, print_result, shown

if TYPE_CHECKING:
    from harness.rules.audit import Prospect

_MOST_STEPS = 5500
"""Half of what Prometheus lets a range query have."""
_BESIDE = 4


def audit(options: argparse.Namespace) -> int:
    """1 if an alert can never fire, 3 if one could not be analysed."""
    from harness.collect.history import History
    from harness.rules.alerts import alert_rules, served_rules
    from harness.rules.audit import prospect, strays
    from harness.rules.scale import to_ms

    window_s = to_ms(options.window) / 1000
    with History(options.prometheus, window_s=window_s, budget_s=options.budget) as history:
        names, served = history.names, history.rules
        if options.rules:
            rules = tuple(rule for path in options.rules for rule in alert_rules(Path(path), interval_s=history.interval_s))
        else:
            rules = served_rules(served)
        if not rules:
            raise UsageError(f"no alerting rule in {', '.join(options.rules or ()) or options.prometheus}")

        def of(number: int) -> Prospect:
            rule = rules[number]
            step_s = rule.interval_s * math.ceil(window_s / rule.interval_s / _MOST_STEPS)
            found = prospect(rule, history, names, step_s=step_s)
            return dataclasses.replace(found, remarks=(*found.remarks, *(strays(rule, served) if options.rules else ())))

        with ThreadPoolExecutor(_BESIDE) as pool:
            found = list(pool.map(of, range(len(rules))))
    print_result(options, {"window_s": window_s, "prospects": codec.to_json(found)}, _table(found, options.window))
    outlooks = {one.outlook.value for one in found}
    return 1 if "never" in outlooks else 3 if "not analysed" in outlooks else 0


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
