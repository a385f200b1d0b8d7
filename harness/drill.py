"""The path of a drill: faults on the embedded stack, one after another as planned, then everything that was said of them.

It is to alerts what ``harness.run`` is to calls: the same run directory, judged and reported by the same verbs.
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness import codec
from harness.caller.prompts import load_prompts
from harness.clock import Clock
from harness.collect import realtime
from harness.collect.alerts import Alerts
from harness.errors import UsageError
from harness.load.launch import place_calls
from harness.measure.delivery import Break, Canary, Heard, Told, observed
from harness.model import (
    CallPlan,
    CallRecord,
    Drill,
    Gap,
    Grade,
    Impairment,
    Poll,
    Row,
    RunInfo,
    Source,
    TurnPlan,
    UnixNs,
    value,
)
from harness.rules.alerts import AlertRule, alert_rules
from harness.rules.drills import (
    BY_NAME,
    HELD,
    LOSS_FROM_S,
    LOSS_UNTIL_S,
    LOST_EVERY,
    Deed,
    Fault,
    calls,
    length_scrapes,
    plan,
)
from harness.rules.real import SHARE, Plan, Watched, moved, planned
from harness.rules.real import SUBJECTS as REAL
from harness.rules.scale import scaled_expression
from harness.rules.windows import Window
from harness.run import placed
from harness.rundir import RunDir, read_records
from harness.stack.beside import beside

if TYPE_CHECKING:
    from harness.run import Order, Progress
    from harness.stack.bench import Bench
    from harness.stack.embedded import RunningStack
    from harness.stack.real import Real

_PROMPT = "opening-hours"
_READY_S = 5.0
_LOOKS_EVERY = 0.1
"""Of a scrape interval, between two looks at what is bad in earnest: the set of what the exporter may have seen is so much wider."""
_LONGEST_SCRAPES = 1.5 * HELD
"""After which a real fault ends by itself."""
_NAP_S = 0.02
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
    shipped = alert_rules(MONITORING / "rules" / "alerts.yml")
    real = _really(progress) if wanted.real_faults else None
    own = shipped if real is None else tuple(moved(rule, real.thresholds) for rule in shipped)
    rules = scaled(own, wanted.time_scale)
    with embedded.up(
        home=order.home,
        logs=run_dir.logs,
        progress=progress,
        sabotage=order.sabotage,
        agent_name=order.scenario.agent_name,
        time_scale=wanted.time_scale,
        expressions={} if real is None else {rule.name: rule.expression for rule in own if rule.name in real.thresholds},
    ) as stack:
        info = _begin(order, run_dir, stack, rules, real, clock)
        scrape_s = float(info.settings["scrape_interval_s"])
        with bench(stack, stack.scratch, with_agents=wanted.calls, real=_faults(stack, real, scrape_s)) as made:
            plans = _plans(wanted, run_dir, order.scenario.seed, scrape_s=scrape_s)
            run_dir.write_plans(plans)
            with (
                _listening(stack, run_dir, clock),
                _stalls(run_dir, clock),
                _watching(made, run_dir, clock, scrape_s),
                _calling(order, run_dir, stack, plans),
            ):
                interrupted = _perform(wanted, order.scenario.seed, made, run_dir, info, clock, progress)
            for fault in _heard(read_records(run_dir.path, plans)):
                run_dir.observe(Source.FAULTS, (_row(fault, clock.now()),))
            ended_at = clock.now()
            progress("reading states, deliveries and rows")
            with Alerts(stack.target, run_dir.logs / "receiver.jsonl", clock=clock) as alerts:
                lookback_s = float(info.settings["lookback_s"])
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


def _really(progress: Progress) -> Plan:
    """What of this machine is burnt, held and filled, said before it is."""
    from harness.stack.real import machine

    with tempfile.TemporaryDirectory(prefix="voxproof-") as scratch:
        found = planned(machine(Path(scratch)))
    for name, why in found.refused.items():
        progress(f"{name} is not made bad, {BY_NAME[name].alert} stays undecided: {why}")
    for alert, threshold in found.thresholds.items():
        progress(f"{alert} runs as a copy with a threshold of {threshold:g} %: more memory than {SHARE:.0%} of what is free is not held")
    return found


def _faults(stack: RunningStack, plan: Plan | None, scrape_s: float) -> Real | None:
    from harness.stack.real import Real

    return None if plan is None else Real(stack, plan, seconds=_LONGEST_SCRAPES * scrape_s)


def _begin(order: Order, run_dir: RunDir, stack: RunningStack, rules: tuple[AlertRule, ...], real: Plan | None, clock: Clock) -> RunInfo:
    started_at = clock.now()
    copies = [f"{alert}: a copy with a threshold of {number:g} %" for alert, number in (real.thresholds if real else {}).items()]
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
        settings={
            **stack.settings,
            "changes": [*stack.settings["changes"], *copies],
            "alerting": {"rules": codec.to_json(rules), "real": codec.to_json(real), **stack.alerting},
        },
        defect=", ".join(each.name for each in order.sabotage) or None,
    )
    run_dir.write_info(info)
    return info


@value
class _Act:
    """How a subject is made bad, and good again."""

    begin: Callable[[float], None]
    end: Callable[[], None]


def _acts(bench: Bench, note: Callable[[str, str], None]) -> Mapping[str, _Act]:
    """note: is told of a subject that was not bad for as long as it should have been, and why."""

    def held(name: str) -> _Act:
        calm = BY_NAME[name].calm
        assert calm is not None
        return _Act(begin=lambda level: bench.host.hold(**{name: level}), end=lambda: bench.host.hold(**{name: calm}))

    def let_go(real: Real) -> None:
        if why := real.release():
            note("memory", why)

    really: dict[str, _Act] = {}
    if (real := bench.real) is not None:
        really = {
            "cpu": _Act(begin=lambda _: real.burn(), end=real.rest),
            "memory": _Act(begin=lambda _: real.hold(), end=lambda: let_go(real)),
        }
    if (disk := bench.disk) is not None:
        calm = BY_NAME["disk"].calm or 0.0
        disk.hold(calm)
        really["disk"] = _Act(begin=disk.hold, end=lambda: disk.hold(calm))
    return {
        **{name: really.get(name) or held(name) for name in ("cpu", "memory", "disk")},
        "silent": _Act(begin=lambda _: bench.silence_rule(), end=bench.restore_rule),
        "empty": _Act(begin=lambda _: bench.mute(is_on=True), end=lambda: bench.mute(is_on=False)),
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
    refused = () if bench.real is None else tuple(name for name in REAL if name not in bench.real.subjects)
    open_faults: dict[str, Fault] = {}
    start = time.monotonic()

    def write(fault: Fault) -> None:
        run_dir.observe(Source.FAULTS, (_row(fault, clock.now()),))

    def note(subject: str, reason: str) -> None:
        progress(f"{subject}: {reason}")
        columns = {"subject": subject, "reason": reason}
        run_dir.observe(Source.FAULTS, (Row(source=Source.FAULTS, table="unreal", columns=columns, at=clock.now(), request="drill"),))

    def until(at_scrapes: float) -> None:
        time.sleep(max(0.0, start + at_scrapes * scrape_s - time.monotonic()))

    acts = _acts(bench, note)
    total = length_scrapes(drill) + _LAST_WORDS_SCRAPES
    progress(f"faults for {total * scrape_s / 60:.1f} minutes")
    run_dir.observe(Source.FAULTS, (Poll(source=Source.FAULTS, at=clock.now(), took_s=0.0, count=0, request="drill"),))
    early = None
    try:
        for deed in plan(drill, seed, without=refused):
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
            on_ours = bench.disk if deed.subject == "disk" else None
            labels = on_ours.labels if on_ours else {name: text.format(**names) for name, text in subject.labels.items()}
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


def _plans(drill: Drill, run_dir: RunDir, seed: int, *, scrape_s: float) -> tuple[CallPlan, ...]:
    """The calls of a drill: one prompt again and again, so that replies follow each other."""
    from harness.stack import responder
    from harness.stack.bench import SLOW

    text = load_prompts()[_PROMPT].text
    lossy = (Impairment(direction="up", from_s=LOSS_FROM_S, until_s=LOSS_UNTIL_S, lose_every=LOST_EVERY),)
    return tuple(
        CallPlan(
            call_id=f"vp-{run_dir.run_id}-call-{index}",
            index=index,
            room=f"vp-{run_dir.run_id}-room-{index}",
            identity=f"caller-{index}",
            phone_number=f"+4477009000{index:02d}",
            agent_name=SLOW if call.is_slow else responder.NAME,
            due_s=call.due_scrapes * scrape_s,
            turns=(TurnPlan(prompt=_PROMPT, text=text),) * call.turns,
            seed=seed + index,
            impairments=lossy if call.is_slow else (),
            grade=Grade.LIGHT,
        )
        for index, call in enumerate(calls(drill), start=1)
    )


@contextmanager
def _calling(order: Order, run_dir: RunDir, stack: RunningStack, plans: tuple[CallPlan, ...]) -> Iterator[None]:
    """The calls are placed when they are due, beside the block; at its end none is in progress."""
    if not plans:
        yield
        return
    target = stack.target
    env = {
        **order.environ,
        "LIVEKIT_URL": target.livekit_url,
        "LIVEKIT_API_KEY": target.livekit_api_key,
        "LIVEKIT_API_SECRET": target.livekit_api_secret,
    }

    def place(is_over: threading.Event) -> None:
        def tick() -> None:
            if is_over.is_set():
                raise KeyboardInterrupt  # what a person's would do: callers leave, and what they wrote is kept

        place_calls(run_dir.path, env=env, limit_s=plans[-1].due_s + 120.0, tick=tick)

    with beside(place, "calls", is_daemon=False):
        yield


@contextmanager
def _watching(bench: Bench, run_dir: RunDir, clock: Clock, scrape_s: float) -> Iterator[None]:
    """What is bad in earnest is watched meanwhile, on the counters that the exporter reads."""
    from harness.stack.real import looks, watch

    def seen(subject: str, watched: Watched) -> None:
        columns = {"subject": subject, **codec.to_json(watched)}
        run_dir.observe(Source.FAULTS, (Row(source=Source.FAULTS, table="watched", columns=columns, at=clock.now(), request="/proc"),))

    if bench.real is None:
        yield
        return
    with watch(looks(bench.real.subjects, bench.disk), seen, clock=clock, every_s=_LOOKS_EVERY * scrape_s):
        yield


@contextmanager
def _stalls(run_dir: RunDir, clock: Clock) -> Iterator[None]:
    """How late a thread of ours wakes up at most: so late may be anything on this machine that waits for its turn."""
    longest_s = 0.0

    def nap(is_over: threading.Event) -> None:
        nonlocal longest_s
        before = clock.now()
        while not is_over.wait(_NAP_S):
            after = clock.now()
            longest_s = max(longest_s, (after - before) / 1e9 - _NAP_S)
            before = after

    try:
        with beside(nap, "stalls"):
            yield
    finally:
        columns = {"longest_s": round(longest_s, 4)}
        run_dir.observe(Source.FAULTS, (Row(source=Source.FAULTS, table="stalls", columns=columns, at=clock.now(), request="drill"),))


@contextmanager
def _listening(stack: RunningStack, run_dir: RunDir, clock: Clock) -> Iterator[None]:
    """Realtime is listened to meanwhile, as the dashboard does."""
    target = stack.target
    access = realtime.Access(
        url=str(target.supabase_url), key=str(target.supabase_key), token=target.supabase_token, canary_key=target.supabase_key
    )

    def take(told: Told) -> None:
        item: Row | Gap
        if isinstance(told, Break):
            item = Gap(source=Source.REALTIME, at=told.at, reason=told.reason, request="realtime")
        elif isinstance(told, Heard) and (told.table, told.kind) == ("alerts_history", "INSERT"):
            item = Row(source=Source.REALTIME, table="heard", columns={"id": told.key}, at=told.at, request="realtime")
        elif isinstance(told, Canary):
            item = observed(told, "realtime")
        else:
            return
        run_dir.observe(Source.REALTIME, (item,))

    with realtime.record(access, take, clock=clock, trust_env=False) as listener:
        if listener.wait_ready(_READY_S):
            run_dir.observe(Source.REALTIME, (Poll(source=Source.REALTIME, at=clock.now(), took_s=0.0, count=0, request="realtime"),))
        yield


def _heard(records: tuple[CallRecord, ...]) -> Iterator[Fault]:
    """Faults that calls were: packets lost on the wire, and replies that came late."""
    for record in records:
        if record.joined_at is None or not record.plan.impairments:
            continue
        left_s = (record.left_at or record.joined_at) / 1e9
        begun_s, ended_s = (min(record.joined_at / 1e9 + offset_s, left_s) for offset_s in (LOSS_FROM_S, LOSS_UNTIL_S))
        yield _fault("loss", (begun_s, begun_s), (ended_s, ended_s))
        words = [turn.first_word_at / 1e9 for turn in record.turns if turn.first_word_at is not None]
        if words:
            # The agent counts a reply when it begins to speak, a little before it is heard.
            yield _fault("slow", (words[0] - 0.5, words[0]), (words[-1] - 0.5, words[-1]))


def _fault(name: str, begun: tuple[float, float], ended: tuple[float, float]) -> Fault:
    subject = BY_NAME[name]
    return Fault(
        subject=name,
        alert=subject.alert,
        labels=subject.labels,
        kind="breach",
        begun=Window(earliest_s=begun[0], latest_s=begun[1]),
        ended=Window(earliest_s=ended[0], latest_s=ended[1]),
        level=None,
    )


def _told(deed: Deed, alert: str) -> str:
    level = "" if deed.level is None else f" at {deed.level:.4g}"
    return f"{deed.subject}: {deed.kind}{level} ({alert})"


def _window(before: UnixNs, after: UnixNs) -> Window:
    return Window(earliest_s=before / 1e9, latest_s=after / 1e9)


def _row(fault: Fault, at: UnixNs) -> Row:
    return Row(source=Source.FAULTS, table="faults", columns=codec.to_json(fault), at=at, request="drill")
