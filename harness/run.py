"""THE MAIN PATH, read this first: ``run`` is one run from top to bottom; each stage reads and writes files of the run directory."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import harness
from assertions.nights import since_when
from assertions.rules import WINDOW_S, definition
from harness import history, rundir, target
from harness.caller.prompts import PROMPTS
from harness.caller.signaling import PROTOCOL
from harness.check import check, undecidable
from harness.clock import Clock
from harness.collect import truth
from harness.collect.panels import Panels
from harness.collect.sources import Sources
from harness.errors import EnvironmentFault, UsageError
from harness.load import schedule
from harness.load.estimate import longest_call_s
from harness.load.launch import place_calls
from harness.load.machine import refuse_too_many, this_machine
from harness.model import Calibration, CallPlan, Evidence, Findings, Part, RunInfo, Scenario, Source, Status, Target, UnixNs, Verdict, value
from harness.rules.panelfile import panels
from harness.rundir import RunDir
from harness.sound import ogg_opus
from harness.watch import Breach, Watch, drain

if TYPE_CHECKING:
    from harness.stack.breakage import Defect
    from harness.stack.detached import Standing
    from harness.stack.sabotage import Sabotage
    from harness.stack.supervise import Death

Progress = Callable[[str], None]

MONITORING = Path(__file__).resolve().parents[1] / "deploy" / "monitoring"
RECORDING = MONITORING / "rules" / "recording.yml"
PANELS = MONITORING / "panels.yml"
FORGETS_RATIO = 0.7
"""Share of the rules' window that passes after the load."""
_PATIENCE_S = 60.0
"""The longest window of which a share is waited for."""


@value
class Order:
    """What a person asked for."""

    scenario: Scenario
    target: Target | None
    """None: the embedded stack."""
    defect: Defect | None
    """Seeded on purpose; embedded stack only."""
    calibration: Calibration | None
    home: Path
    """Cache of the embedded stack's binaries."""
    runs: Path
    environ: Mapping[str, str]
    argv: tuple[str, ...]
    sabotage: tuple[Sabotage, ...] = ()
    """Of a drill: defects of alerting, seeded on purpose."""


@value
class Finished:
    """A run that was judged."""

    path: Path
    evidence: Evidence
    findings: Findings
    since: Mapping[str, str] = field(default_factory=dict)
    """By claim that failed: since which run, and what changed then."""

    @property
    def name(self) -> str:
        """How a person names the run on the command line."""
        return self.path.name if self.path.parent == rundir.RUNS else str(self.path)

    def verdict(self, claim: str) -> Verdict:
        """What was judged of one claim. Raises KeyError if this run judged no such claim."""
        told = {verdict.claim: verdict for verdict in self.findings.verdicts}
        if claim not in told:
            msg = f"run {self.name} judged no claim '{claim}'; it judged {', '.join(told)}"
            raise KeyError(msg)
        return told[claim]

    @property
    def exit_code(self) -> int:
        """0 every required claim passed and nothing failed, 1 something failed, 3 undecided. A run that was cut short cannot pass."""
        match self.findings.status:
            case Status.FAIL:
                return 1
            case Status.PASS if self.evidence.info.interrupted is None:
                return 0
            case _:
                return 3


class Stack(Protocol):
    """A stack under test: our embedded one, or somebody's."""

    @property
    def target(self) -> Target: ...
    @property
    def parts(self) -> tuple[Part, ...]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def digests(self) -> Mapping[str, str]: ...
    def deaths(self) -> tuple[Death, ...]: ...
    def usage(self) -> tuple[Part, ...]: ...


def run(order: Order, *, progress: Progress, stack: Stack | None = None) -> Finished:
    """Places the calls of the scenario, reads what the stack says of them, judges it and writes the reports.

    Raises UsageError, EnvironmentFault or StackError before the first call. After it, whatever is lost is a Gap, and Ctrl-C ends the run
    early: what was measured is kept and judged, the stack is torn down.

    stack: one that stays up after the run. None: see ``stack_of``.
    """
    _refuse_undecidable(order)
    if order.scenario.drill is not None:
        from harness.drill import drill  # it is a path of its own

        return report(judge(drill(order, progress=progress).path))
    clock = Clock.start()
    shown = _panels(order)
    _refuse_too_many(order.scenario)
    if order.target is not None:
        target.reach(order.target)
    run_dir = RunDir.create(order.runs)
    progress(f"run {run_dir.run_id} in {run_dir.path}")
    with nullcontext(stack) if stack else stack_of(order, logs=run_dir.logs, progress=progress) as stack:
        plans = schedule.plans(order.scenario, prefix=f"vp-{run_dir.run_id}-{clock.now() // 1_000_000_000:x}")
        run_dir.write_plans(plans)
        if order.calibration is not None:
            run_dir.write_calibration(order.calibration)
        with (
            Sources(stack.target, plans, clock=clock, sink=run_dir.observe) as sources,
            Panels(stack.target, shown, scale=float(stack.settings.get("time_scale", 1)), clock=clock) as pages,
        ):
            info = _begin(order, run_dir, stack, sources, clock)
            run_dir.observe(Source.PANELS, pages.before())
            try:
                with sources.recording():
                    info = _place(order, run_dir, stack, info, plans, clock, progress)
                    drain(sources, info, is_embedded=stack.target.is_embedded, forget_s=_forget_s(info), clock=clock, progress=progress)
                progress("reading panels, samples, rows and rooms")
                run_dir.observe(Source.PANELS, pages.after(info.load_started_at or info.started_at, scrape_s=_scrape_s(info)))
                info = dataclasses.replace(info, read_at=sources.read(_window_start(info)))
                if (account := sources.account()) is not None:
                    run_dir.write_json("realtime.json", account)
                    progress(account.sentence + (" (our own gateway, no figure of Supabase's)" if stack.target.is_embedded else ""))
            except KeyboardInterrupt:
                progress("interrupted again: judging what is there")
                sources.give_up("interrupted before it was read")
                run_dir.observe(Source.PANELS, pages.given_up("interrupted before they were asked"))
                info = dataclasses.replace(info, interrupted="Ctrl-C, before everything was read")
            run_dir.write_info(dataclasses.replace(info, parts=placed(stack.usage(), order.home), cost=(*sources.cost(), pages.cost())))
    return report(judge(run_dir.path))


def judge(path: Path) -> Finished:
    """Judges the run in ``path``, offline, and writes ``verdicts.json``: the same bytes for the same run."""
    evidence = rundir.read_evidence(path)
    findings = check(evidence)
    RunDir(path).write_findings(findings)
    red = [verdict.claim for verdict in findings.verdicts if verdict.status is Status.FAIL]
    earlier = history.nights(path) if red else ()
    since = {claim: told for claim in red if (told := since_when(claim, evidence.info, earlier)) is not None}
    return Finished(path=path, evidence=evidence, findings=findings, since=since)


def report(finished: Finished) -> Finished:
    """Writes ``report.html``, ``junit.xml`` and ``summary.md``."""
    from reports import html, junit, markdown  # they bring a template engine: judging need not wait for it

    run_dir, evidence, findings = RunDir(finished.path), finished.evidence, finished.findings
    run_dir.write_text("report.html", html.page(evidence, findings, _sounds(finished), run=finished.name, since=finished.since))
    run_dir.write_text("junit.xml", junit.xml(evidence, findings, since=finished.since))
    run_dir.write_text("summary.md", markdown.summary(evidence, findings, run=finished.name, since=finished.since))
    return finished


def _refuse_undecidable(order: Order) -> None:
    blind = order.target.blind if order.target else {}
    if reasons := undecidable(order.scenario, blind):
        msg = f"{order.scenario.path}: this plan cannot decide what it requires:" + "".join(f"\n  {reason}" for reason in reasons)
        raise UsageError(msg)


def _refuse_too_many(scenario: Scenario) -> None:
    call_s = longest_call_s(len(scenario.turns), scenario.answer_timeout_s)
    refuse_too_many(schedule.peak(schedule.plans(scenario, prefix=""), call_s=call_s), this_machine())


@contextmanager
def stack_of(order: Order, *, logs: Path, progress: Progress) -> Iterator[Stack]:
    """The target; or the embedded stack that `voxproof stack up` left running; or one of our own, gone at the end."""
    if order.target is not None:
        yield _Given(target=order.target)
        return
    from harness.stack import detached, embedded  # need the extra that a team with its own stack has not installed

    if order.defect is None and (standing := detached.status(order.home)) is not None:
        progress("using the stack that is up; end it with: voxproof stack down")
        target.reach(standing.target)
        yield _Given.standing(standing, order.home)
        return
    name = order.scenario.agent_name
    with embedded.up(home=order.home, logs=logs, progress=progress, defect=order.defect, agent_name=name) as stack:
        target.reach(stack.target)
        yield stack


@value
class _Given:
    """A stack that was there before the run and stays: somebody's, or ours in the background."""

    target: Target
    parts: tuple[Part, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    died: Callable[[], tuple[Death, ...]] = tuple

    @staticmethod
    def standing(standing: Standing, home: Path) -> _Given:
        from harness.stack import detached

        def died() -> tuple[Death, ...]:
            now = detached.status(home)
            return now.deaths[len(standing.deaths) :] if now else ()

        return _Given(target=standing.target, parts=standing.parts, settings=standing.settings, digests=standing.digests, died=died)

    def deaths(self) -> tuple[Death, ...]:
        return self.died()

    def usage(self) -> tuple[Part, ...]:
        return self.parts


def _begin(order: Order, run_dir: RunDir, stack: Stack, sources: Sources, clock: Clock) -> RunInfo:
    """``run.json`` as far as it is known before the load, on disk: a run that dies now can still be checked."""
    info = RunInfo(
        run_id=run_dir.run_id,
        scenario=order.scenario,
        target=stack.target.name,
        argv=order.argv,
        harness_version=harness.__version__,
        started_at=clock.now(),
        parts=placed(stack.parts, order.home),
        digests={**_digests(order.scenario), **stack.digests},
        settings={**sources.settings(), **stack.settings, "protocol": PROTOCOL},
        defect=order.defect.name if order.defect else None,
    )
    run_dir.write_info(info)
    # A target is held against the rules that it really has.
    rules = RECORDING.read_text() if stack.target.is_embedded else sources.rules()
    if rules is not None:
        run_dir.observe(Source.RULES, (definition(str(RECORDING), rules, clock.now()),))
    return info


def _place(
    order: Order, run_dir: RunDir, stack: Stack, info: RunInfo, plans: tuple[CallPlan, ...], clock: Clock, progress: Progress
) -> RunInfo:
    """The load: every plan is placed when it is due, and every call ends."""
    watch, breach = Watch(run_dir, stack.deaths, progress), Breach(run_dir, info.scenario, plans, progress)

    def look() -> None:
        watch.look()
        breach.look(watch.ended)

    env = {
        **order.environ,
        "LIVEKIT_URL": stack.target.livekit_url,
        "LIVEKIT_API_KEY": stack.target.livekit_api_key,
        "LIVEKIT_API_SECRET": stack.target.livekit_api_secret,
    }
    started_at = clock.now()
    with truth.exposed(lambda: rundir.read_records(run_dir.path, plans)) as url:
        progress(f"calls to place: {len(plans)}; our own truth meanwhile: {url}")
        try:
            early = place_calls(run_dir.path, env=env, limit_s=_load_limit_s(plans), tick=look)
        except EnvironmentFault as fault:
            if not any(run_dir.events.glob("*.jsonl")):
                raise
            early = str(fault)
    look()
    if early:
        progress(f"the load ended early: {early}")
    return dataclasses.replace(
        info,
        load_started_at=started_at,
        load_ended_at=clock.now(),
        interrupted=early or watch.fatal,
        stopped_after_s=_last_due_s(run_dir, plans) if breach.has_stopped else None,
        note=watch.note,
    )


def _last_due_s(run_dir: RunDir, plans: tuple[CallPlan, ...]) -> float:
    """When the last call that was placed was due."""
    return max((record.plan.due_s for record in rundir.read_records(run_dir.path, plans) if record.placed_at is not None), default=0.0)


def _forget_s(info: RunInfo) -> float:
    """How long to stay after the load, so that the rules' window forgets some of it: only then a window differs from all time.

    That is seconds on a fast stack; nobody waits for minutes on another, nor for a claim that is not required or cannot be decided any more.
    """
    if info.interrupted or "ttfw/rule" not in info.scenario.requires:
        return 0.0
    window_s = _window_s(info)
    return FORGETS_RATIO * window_s if window_s <= _PATIENCE_S else 0.0


def _panels(order: Order) -> tuple[str, str] | None:
    """Name and text of the panels to judge. None: whoever brings a stack without them has none that we know of."""
    if order.scenario.panels is None and order.target is not None and not order.target.is_embedded:
        return None
    path = Path(order.scenario.panels) if order.scenario.panels else PANELS
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path}: cannot be read: {exc}") from exc
    panels(text, file=path.name)
    return path.name, text


def _scrape_s(info: RunInfo) -> float:
    return float(info.settings.get("scrape_interval_s", 15.0))


def _window_start(info: RunInfo) -> UnixNs:
    """The longest window of a rule and two scrapes before the run: a counter's value before the first call, and all that a rule saw at it."""
    before_s = 2 * _scrape_s(info) + _window_s(info)
    return UnixNs(info.started_at - round(1e9 * before_s))


def _window_s(info: RunInfo) -> float:
    """Longest window of the rules: as the server says of its own, else of ours as this stack runs them."""
    return float(info.settings.get("rules_window_s", WINDOW_S / float(info.settings.get("time_scale", 1))))


def _load_limit_s(plans: tuple[CallPlan, ...]) -> float:
    """When the last call must have ended even if every reply takes as long as it may."""
    return max(plan.due_s + longest_call_s(len(plan.turns), plan.answer_timeout_s) for plan in plans) + 60.0


def placed(parts: tuple[Part, ...], home: Path) -> tuple[Part, ...]:
    """Where each part is, without the name of this machine's directories: runs are shown to others."""
    roots = {home: "$VOXPROOF_HOME", Path(sys.prefix): "$VIRTUAL_ENV", Path(__file__).parents[1]: ".", Path.home(): "~"}
    return tuple(dataclasses.replace(part, location=_below(Path(part.location), roots)) for part in parts)


def _below(path: Path, roots: Mapping[Path, str]) -> str:
    return next((str(Path(name) / path.relative_to(root)) for root, name in roots.items() if path.is_relative_to(root)), str(path))


def _digests(scenario: Scenario) -> dict[str, str]:
    paths = {"scenario": Path(scenario.path), "prompts": PROMPTS / "prompts.yaml"}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def _sounds(finished: Finished) -> dict[str, bytes]:
    """Both sides of each recorded call, compressed. A recording that is missing or torn has no sound."""
    sounds = {}
    for record in finished.evidence.records:
        if record.audio is None:
            continue
        try:
            sounds[record.audio] = ogg_opus(finished.path / record.audio)
        except ValueError:
            continue
    return sounds
