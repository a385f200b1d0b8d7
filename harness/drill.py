"""The path of a drill: faults on the embedded stack, one after another as planned, then everything that was said of them.

It is to alerts what ``harness.run`` is to calls: the same run directory, judged and reported by the same verbs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import harness
from harness import codec
from harness.clock import Clock
from harness.collect.alerts import Alerts
from harness.errors import UsageError
from harness.model import Drill, Poll, Row, RunInfo, Source, UnixNs, value
from harness.rules.alerts import AlertRule, alert_rules
from harness.rules.drills import BY_NAME, Deed, Fault, length_scrapes, plan
from harness.rules.scale import scaled_expression
from harness.rules.windows import Window
from harness.run import placed
from harness.rundir import RunDir

if TYPE_CHECKING:
    from harness.run import Order, Progress
    from harness.stack.bench import Bench
    from harness.stack.embedded import RunningStack

_LAST_WORDS_SCRAPES = 8
"""After the last deed has shown its effect: an end waits for a tick of its group, and a delivery may be told again."""


def drill(order: Order, *, progress: Progress) -> RunDir:
    """Runs the scenario's drill; what was done and said is in the run directory.

    Raises UsageError for a target that is not ours: nobody is paged by us. Ctrl-C ends it early, and what was measured is kept.
    """
    from harness.stack import embedded  # needs the extra that a team with its own stack has not installed
    from harness.stack.bench import bench
    from harness.stack.wiring import MONITORING

    wanted = order.scenario.drill
    assert wanted is not None
    if order.target is not None:
        raise UsageError(f"{order.scenario.path}: a drill breaks things, so it runs on the embedded stack only; leave --target out")
    clock = Clock.start()
    run_dir = RunDir.create(order.runs)
    progress(f"run {run_dir.run_id} in {run_dir.path}")
    rules = scaled(alert_rules(MONITORING / "rules" / "alerts.yml"), wanted.time_scale)
    with embedded.up(
        home=order.home,
        logs=run_dir.logs,
        progress=progress,
        sabotage=order.sabotage,
        agent_name=order.scenario.agent_name,
        time_scale=wanted.time_scale,
    ) as stack:
        info = _begin(order, run_dir, stack, rules, clock)
        with bench(stack, stack.scratch) as made:
            interrupted = _perform(wanted, order.scenario.seed, made, run_dir, info, clock, progress)
            ended_at = clock.now()
            progress("reading states, deliveries and rows")
            with Alerts(stack.target, run_dir.logs / "receiver.jsonl", clock=clock) as alerts:
                lookback_s, scrape_s = (float(info.settings[name]) for name in ("lookback_s", "scrape_interval_s"))
                for source, items in alerts.read(info.started_at, ended_at, rules, lookback_s=lookback_s, scrape_s=scrape_s):
                    run_dir.observe(source, items)
        deaths = [death.sentence for death in stack.deaths()]
    run_dir.write_info(
        dataclasses.replace(
            info,
            load_ended_at=ended_at,
            read_at=clock.now(),
            interrupted=interrupted or (deaths[0].split(";")[0] if deaths else None),
            note="\n".join(deaths) or None,
        )
    )
    return run_dir


def scaled(rules: tuple[AlertRule, ...], factor: float) -> tuple[AlertRule, ...]:
    """The shipped rules as the fast stack must run them: every duration divided."""
    return tuple(
        dataclasses.replace(
            rule,
            expression=scaled_expression(rule.expression, factor),
            for_s=rule.for_s / factor,
            keep_firing_for_s=rule.keep_firing_for_s / factor,
            interval_s=rule.interval_s / factor,
            query_offset_s=rule.query_offset_s / factor,
        )
        for rule in rules
    )


def _begin(order: Order, run_dir: RunDir, stack: RunningStack, rules: tuple[AlertRule, ...], clock: Clock) -> RunInfo:
    started_at = clock.now()
    info = RunInfo(
        run_id=run_dir.run_id,
        scenario=order.scenario,
        target=stack.target.name,
        argv=order.argv,
        harness_version=harness.__version__,
        started_at=started_at,
        load_started_at=started_at,
        parts=placed(stack.parts, order.home),
        digests=stack.digests,
        settings={**stack.settings, "alerting": {"rules": codec.to_json(rules), **stack.alerting}},
        defect=", ".join(each.name for each in order.sabotage) or None,
    )
    run_dir.write_plans(())
    run_dir.write_info(info)
    return info


@value
class _Act:
    """How a subject is made bad, and good again."""

    begin: Callable[[float], None]
    end: Callable[[], None]


def _acts(bench: Bench) -> Mapping[str, _Act]:
    def held(name: str) -> _Act:
        calm = BY_NAME[name].calm
        assert calm is not None
        return _Act(begin=lambda level: bench.host.hold(**{name: level}), end=lambda: bench.host.hold(**{name: calm}))

    return {
        **{name: held(name) for name in ("cpu", "memory", "disk")},
        "down": _Act(begin=lambda _: bench.stop_host(), end=bench.start_host),
        "flapping": _Act(begin=lambda _: bench.flapper.flap(is_on=True), end=lambda: bench.flapper.flap(is_on=False)),
        "vanished": _Act(begin=lambda _: bench.vanish(), end=bench.appear),
        "probe": _Act(begin=lambda _: bench.endpoint.close(), end=bench.endpoint.open),
        "certificate": _Act(begin=lambda days: bench.certificate.renew(days=-days), end=lambda: bench.certificate.renew(days=60)),
        "sip": _Act(
            begin=lambda percent: bench.telephone.hold(failing_percent=percent), end=lambda: bench.telephone.hold(failing_percent=0)
        ),
    }


def _perform(drill: Drill, seed: int, bench: Bench, run_dir: RunDir, info: RunInfo, clock: Clock, progress: Progress) -> str | None:
    """Every deed when it is due. Why it ended early; None: it did not."""
    scrape_s = float(info.settings["scrape_interval_s"])
    names = {"endpoint": bench.endpoint_name, "certificate": bench.certificate_name}
    acts, open_faults = _acts(bench), dict[str, Fault]()
    start = time.monotonic()

    def write(fault: Fault) -> None:
        run_dir.observe(Source.FAULTS, (_row(fault, clock.now()),))

    def until(at_scrapes: float) -> None:
        time.sleep(max(0.0, start + at_scrapes * scrape_s - time.monotonic()))

    total = length_scrapes(drill) + _LAST_WORDS_SCRAPES
    progress(f"faults for {total * scrape_s / 60:.1f} minutes")
    run_dir.observe(Source.FAULTS, (Poll(source=Source.FAULTS, at=clock.now(), took_s=0.0, count=0, request="drill"),))
    early = None
    try:
        for deed in plan(drill, seed):
            until(deed.at_scrapes)
            subject = BY_NAME[deed.subject]
            before = clock.now()
            if deed.kind == "restart":
                bench.host.restart()
                continue
            if deed.kind == "back":
                acts[deed.subject].end()
                write(dataclasses.replace(open_faults.pop(deed.subject), ended=_window(before, clock.now())))
                continue
            acts[deed.subject].begin(deed.level or 0.0)
            labels = {name: text.format(**names) for name, text in subject.labels.items()}
            open_faults[deed.subject] = Fault(
                subject=deed.subject,
                alert=subject.alert,
                labels=labels,
                kind=deed.kind,
                begun=_window(before, clock.now()),
                ended=None,
                level=deed.level,
            )
            progress(_told(deed, subject.alert))
        until(total)
    except KeyboardInterrupt:
        early = "Ctrl-C"
    for fault in open_faults.values():
        write(fault)
    return early


def _told(deed: Deed, alert: str) -> str:
    level = "" if deed.level is None else f" at {deed.level:.4g}"
    return f"{deed.subject}: {deed.kind}{level} ({alert})"


def _window(before: UnixNs, after: UnixNs) -> Window:
    return Window(earliest_s=before / 1e9, latest_s=after / 1e9)


def _row(fault: Fault, at: UnixNs) -> Row:
    return Row(source=Source.FAULTS, table="faults", columns=codec.to_json(fault), at=at, request="drill")
