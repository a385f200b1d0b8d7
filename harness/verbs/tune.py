"""``tune``: threshold, window and ``for`` of one alert, chosen by what a stored history says of them."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from harness import codec
from harness.errors import UsageError
from harness.verbs.alerts import SHIPPED
from harness.verbs.output import columns, print_result, shown

if TYPE_CHECKING:
    from harness.rules.alerts import AlertRule
    from harness.rules.tune import Grid, Tuning

_MOST_STEPS = 5500


def tune(options: argparse.Namespace) -> int:
    """A table of the settings that nothing beats; all of them in the page and the JSON."""
    from reports import tuning as report

    if bool(options.prometheus) == bool(options.run):
        raise UsageError("say --prometheus URL or --run RUN: the history to choose by")
    rule = _rule(options)
    found, source = _of_server(rule, options) if options.prometheus else _of_run(rule, options)
    out = Path(options.out or f"{rule.name}-tuning.html")
    out.write_text(report.page(found, source))
    table = columns([report.HEADINGS, *report.rows(found, best_only=True)])
    told = (
        f"{len(found.choices)} settings over {report.time(found.history_s)} of {found.series} series, from {found.before:.4g} to an injected "
        f"{found.injected:.4g}; shown: those that nothing beats (*), and the rule as written\n"
        f"resolves: by {found.because}\nall: {shown(out.resolve())}"
    )
    print_result(options, codec.to_json(found), f"{table}\n{told}")
    return 0


def _rule(options: argparse.Namespace) -> AlertRule:
    from harness.rules.alerts import alert_rules

    paths = [Path(path) for path in options.rules] if options.rules else sorted(SHIPPED.glob("*.yml"))
    rules = [rule for path in paths for rule in alert_rules(path)]
    for rule in rules:
        if rule.name == options.alert:
            return rule
    raise UsageError(f"no alert {options.alert}; there are {', '.join(rule.name for rule in rules)}")


def _of_server(rule: AlertRule, options: argparse.Namespace) -> tuple[Tuning, str]:
    from harness.collect.history import History
    from harness.rules.audit import Unanswered
    from harness.rules.scale import to_ms
    from harness.rules.tune import tune as tuned
    from harness.rules.windows import Cadence

    window_s = to_ms(options.window) / 1000
    step_s = rule.interval_s * math.ceil(window_s / rule.interval_s / _MOST_STEPS)
    with History(options.prometheus, window_s=window_s, budget_s=options.budget) as history:
        cadence = Cadence(scrape_s=options.scrape_interval, evaluation_s=step_s)
        try:
            return tuned(rule, history, cadence, _grid(options)), f"{options.window} of {options.prometheus}"
        except Unanswered as exc:
            raise UsageError(f"prometheus at {options.prometheus}: {exc}") from exc


def _of_run(rule: AlertRule, options: argparse.Namespace) -> tuple[Tuning, str]:
    """A run of a stack that was K times as fast has a rule K times as fast; what is told is the run's own seconds."""
    from harness import rundir
    from harness.rules.tune import at_scale, stored
    from harness.rules.tune import tune as tuned
    from harness.rules.windows import Cadence

    path = rundir.find(options.run)
    evidence = rundir.read_evidence(path)
    settings = evidence.info.settings
    factor = float(settings.get("time_scale", 1.0))
    cadence = Cadence(
        scrape_s=float(settings.get("scrape_interval_s", options.scrape_interval)),
        evaluation_s=float(settings.get("evaluation_interval_s", rule.interval_s / factor)),
    )
    server = stored(evidence, lookback_s=float(settings.get("lookback_s", 300.0)))
    return tuned(
        at_scale(rule, factor, cadence.evaluation_s), server, cadence, _grid(options)
    ), f"run {shown(path)}, time divided by {factor:g}"


def _grid(options: argparse.Namespace) -> Grid:
    from harness.rules.scale import to_ms
    from harness.rules.tune import Grid as Tried

    def durations(texts: list[str] | None) -> tuple[float, ...]:
        return tuple(to_ms(text) / 1000 for text in texts or ())

    return Tried(
        thresholds=tuple(options.thresholds or ()),
        windows_s=durations(options.windows),
        fors_s=durations(options.fors),
        injected=options.level,
    )
