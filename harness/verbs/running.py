"""``run``, ``calibrate``: verbs that place calls."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import codec, rundir, scenario
from harness.errors import UsageError
from harness.load import schedule
from harness.verbs.output import Progress, columns, home, print_result, shown
from harness.verbs.recorded import show
from harness.verbs.targets import leftovers

FIGURE_HEAD = ("our ruler", "bias", "spread", "95 % within", "n", "measured less true")


def run(options: argparse.Namespace) -> int:
    if options.users is not None or options.spawn_rate is not None:
        raise UsageError("-u and -r are refused: the scenario's 'calls' and 'arrival' say how many calls are placed and when")
    if (options.cleanup or options.yes) and not options.target:
        raise UsageError("--cleanup is for a target: the embedded stack is thrown away as a whole")
    finished = _place(options, is_calibrated=True)
    code = show(finished, options)
    if options.cleanup:
        from harness.target import load

        Progress()(leftovers([finished.path], load(Path(options.target), os.environ), is_removing=options.yes)[1])
    return code


def calibrate(options: argparse.Namespace) -> int:
    from harness.calibrate import from_runs
    from harness.clock import Clock
    from harness.measure.calibration import REFERENCE, RESPONDER
    from harness.stack import responder

    paths = [rundir.find(name) for name in options.runs]
    is_responder = options.agent == responder.NAME
    if not paths:
        options.target, options.seed, options.defect, options.agent, options.max_calls = None, None, None, None, None
        options.abort_on_breach = options.real_faults = False
        beside = ("calibration-light", "calibration-light", "calibration-delay", "calibration-jitter") if is_responder else ()
        for name in (*(("calibration" if is_responder else "smoke",) * options.times), *beside):
            options.scenario = name
            paths.append(_place(options, is_calibrated=False).path)
    today = datetime.fromtimestamp(Clock.start().now() / 1e9, tz=UTC).date().isoformat()
    found, turns = from_runs(paths, made_at=today)
    out = Path(options.out) if options.out else RESPONDER if is_responder else REFERENCE
    out.write_text(json.dumps({"schema": codec.SCHEMA, **codec.to_json(found)}, indent=1) + "\n")
    out.with_suffix(".turns.json").write_text(turns)
    rows = [(part.name, f"{part.lo_s * 1e3:+.0f} to {part.hi_s * 1e3:+.0f} ms", part.because) for part in found.parts]
    rows.append(
        ("TTFW heard less reported", f"{found.lo_s * 1e3:+.0f} to {found.hi_s * 1e3:+.0f} ms", f"{found.turns} turns, {found.made_at}")
    )
    rulers = [_figure_row(figure) for figure in found.figures]
    text = "\n".join((columns(rows), *((columns([FIGURE_HEAD, *rulers]),) if rulers else ()), f"written to {shown(out)}"))
    print_result(options, codec.to_json(found), text)
    return 0


def _place(options: argparse.Namespace, *, is_calibrated: bool) -> Any:
    from harness.load.estimate import estimate
    from harness.run import run as run_order

    wanted = order(
        options.scenario,
        target_path=options.target,
        argv=options.argv,
        seed=options.seed,
        agent_name=options.agent,
        max_calls=options.max_calls,
        abort_on_breach=options.abort_on_breach,
        real_faults=options.real_faults,
        defect=options.defect,
        calibration=options.calibration if is_calibrated else None,
        is_calibrated=is_calibrated,
    )
    progress = Progress()
    if (their := wanted.target) is not None:
        progress(f"before {their.name} is called: {estimate(wanted.scenario, their.prices).sentence}; fewer: --max-calls N")
    return run_order(wanted, progress=progress)


def order(
    name: str,
    *,
    target_path: str | None,
    argv: tuple[str, ...],
    seed: int | None = None,
    agent_name: str | None = None,
    max_calls: int | None = None,
    abort_on_breach: bool = False,
    real_faults: bool = False,
    defect: str | None = None,
    calibration: str | None = None,
    is_calibrated: bool = True,
) -> Any:
    """What a person asked for, as an ``harness.run.Order``; None is what the scenario, or the machine, has.

    Raises UsageError for a scenario, target, defect or calibration that is not there or not right.
    """
    from harness import target
    from harness.caller.prompts import load_prompts
    from harness.check import CLAIMS
    from harness.run import Order

    prompts = {name: prompt.text for name, prompt in load_prompts().items()}
    planned = scenario.load(scenario.find(name), prompts=prompts, claims=tuple(CLAIMS), seed=seed, agent_name=agent_name)
    if max_calls is not None:
        planned = schedule.first(planned, max_calls)
    if abort_on_breach:
        if planned.knee is None:
            raise UsageError(f"--abort-on-breach: {planned.path} does not look for the knee; give it the key knee")
        planned = dataclasses.replace(planned, knee=dataclasses.replace(planned.knee, abort_on_breach=True))
    if real_faults:
        if planned.drill is None:
            raise UsageError(f"--real-faults: {planned.path} is no drill; try alerts-cycle")
        planned = dataclasses.replace(planned, drill=dataclasses.replace(planned.drill, real_faults=True))
    return Order(
        scenario=planned,
        target=target.load(Path(target_path), os.environ) if target_path else None,
        defect=None if planned.drill else _defect(defect, target_path),
        sabotage=_sabotage(defect) if planned.drill and defect else (),
        calibration=_calibration(calibration, target_path, planned) if is_calibrated else None,
        home=home(),
        runs=rundir.RUNS,
        environ=os.environ,
        argv=argv,
    )


def _sabotage(names: str) -> Any:
    from harness.stack.sabotage import load

    return load(names)


def _defect(name: str | None, target_path: str | None) -> Any:
    if name is None:
        return None
    if target_path:
        raise UsageError("--defect breaks the embedded stack only: nothing is seeded into a stack of others; leave out --target")
    from harness.stack import breakage

    return breakage.load(name)


def _calibration(path: str | None, target_path: str | None, planned: Any) -> Any:
    """What was measured on the agent that answers, for the scenario's network and grade. None: nothing was, and it says nothing of another one."""
    from harness.measure import impaired
    from harness.measure.calibration import REFERENCE, RESPONDER, load
    from harness.stack import responder

    if path:
        found = load(Path(path))
    elif target_path:
        return None
    else:
        found = load(RESPONDER if planned.agent_name == responder.NAME else REFERENCE)
    return impaired.graded(impaired.calibrated(found, planned.impairments), planned.grade)


def _figure_row(figure: Any) -> tuple[str, ...]:
    scale, unit = (1e3, " ms") if figure.unit == "s" else (1.0, "")
    numbers = (f"{figure.bias * scale:+.2f}{unit}", f"{figure.spread * scale:.2f}{unit}", f"{figure.bound * scale:.2f}{unit}")
    return (figure.name, *numbers, str(figure.count), figure.because)
