"""``voxproof``: verbs, exit codes, what is printed where. No logic."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness
from harness import codec, rundir, scenario
from harness.errors import EnvironmentFault, HarnessError, UsageError

DATABASE_URL = "VOXPROOF_DATABASE_URL"
EXIT_CODES = """exit codes: 0 every required claim passed and nothing failed; 1 something failed;
            2 usage: command, file, unreachable target, or a plan that cannot decide; 3 undecided"""


FIGURE_HEAD = ("our ruler", "bias", "spread", "95 % within", "n", "measured less true")


def main(argv: Sequence[str] | None = None) -> int:
    """One command. Results on stdout, progress and errors on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # SIGTERM and a closed terminal end a run like Ctrl-C: callers leave, the stack is torn down.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    options = _parser().parse_args(arguments)
    options.argv = ("voxproof", *arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        return verb(options)
    except HarnessError as exc:
        _say_error(str(exc))
        return 2
    except KeyboardInterrupt:
        _say_error("interrupted before anything could be judged")
        return 3
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); stdout must not be flushed again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run(options: argparse.Namespace) -> int:
    if options.users is not None or options.spawn_rate is not None:
        raise UsageError("-u and -r are refused: the scenario's 'calls' and 'arrival' say how many calls are placed and when")
    return _show(_place(options, is_calibrated=True), options)


def check(options: argparse.Namespace) -> int:
    from harness.run import judge

    return _show(judge(rundir.find(options.run)), options)


def report(options: argparse.Namespace) -> int:
    from harness.run import judge
    from harness.run import report as write_report

    finished = write_report(judge(rundir.find(options.run)))
    paths = [str(finished.path / name) for name in ("report.html", "junit.xml", "summary.md")]
    _print(options, {"written": paths}, "\n".join(paths))
    return finished.exit_code


def explain(options: argparse.Namespace) -> int:
    from harness.run import judge
    from reports import explain as explanation

    finished = judge(rundir.find(options.run))
    text = explanation.text(finished.evidence, finished.findings, options.claim, run=finished.name, width=_width())
    verdict = next((verdict for verdict in finished.findings.verdicts if verdict.claim == options.claim), None)
    _print(options, codec.to_json(verdict), text.rstrip("\n"))
    return 0


def calibrate(options: argparse.Namespace) -> int:
    from harness.calibrate import from_runs
    from harness.clock import Clock
    from harness.measure.calibration import REFERENCE, RESPONDER
    from harness.stack import responder

    paths = [rundir.find(name) for name in options.runs]
    is_responder = options.agent == responder.NAME
    if not paths:
        options.target, options.seed, options.defect, options.agent = None, None, None, None
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
    text = "\n".join((_columns(rows), *((_columns([FIGURE_HEAD, *rulers]),) if rulers else ()), f"written to {_shown(out)}"))
    _print(options, codec.to_json(found), text)
    return 0


def _figure_row(figure: Any) -> tuple[str, ...]:
    scale, unit = (1e3, " ms") if figure.unit == "s" else (1.0, "")
    numbers = (f"{figure.bias * scale:+.2f}{unit}", f"{figure.spread * scale:.2f}{unit}", f"{figure.bound * scale:.2f}{unit}")
    return (figure.name, *numbers, str(figure.count), figure.because)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def doctor(options: argparse.Namespace) -> int:
    from harness.stack.provision import inventory

    stock = inventory(_home())
    rows = [_part_row(part) for part in stock]
    lines = [_columns(rows)]
    lines += [reason for part in stock if part.found for reason in part.found.rejected]
    lines.append(f"{os.cpu_count()} cores · python {sys.version.split()[0]} · voxproof {harness.__version__} · cache {_home()}")
    if options.target:
        from harness import target

        their = target.load(Path(options.target), os.environ)
        target.reach(their)
        lines.append(
            f"target {their.name}: every source answers" + "".join(f"\n  blind to {name}: {why}" for name, why in their.blind.items())
        )
    drifted = _drift()
    if drifted is not None:
        lines += drifted or ["the call history's schema is as the migrations made it"]
    _print(options, {"parts": codec.to_json(stock), "cores": os.cpu_count(), "drift": drifted}, "\n".join(lines))
    return 0 if all(part.found for part in stock) and not drifted else 3


def migrate(options: argparse.Namespace) -> int:
    migrations = _migrations()
    ran = migrations.migrate(_database())
    _print(options, {"ran": list(ran)}, "\n".join(ran) or "nothing to run: the database has every migration")
    return 0


def stack_up(options: argparse.Namespace) -> int:
    from harness.stack.detached import detached_up

    return _show_stack(detached_up(home=_home(), progress=_Progress()), options)


def stack_down(options: argparse.Namespace) -> int:
    from harness.stack.detached import down

    was_up = down(_home())
    _print(options, {"was_up": was_up}, "stack is down" if was_up else "no stack was up")
    return 0


def stack_status(options: argparse.Namespace) -> int:
    from harness.stack.detached import status

    standing = status(_home())
    if standing is None:
        _print(options, {"up": False}, "no stack is up; start one: voxproof stack up")
        return 3
    return _show_stack(standing, options)


def stack_logs(options: argparse.Namespace) -> int:
    from harness.stack.detached import logs

    found = logs(_home(), options.part)
    text = "\n".join(f"{name}  {line}" if options.part is None else line for name, lines in found.items() for line in lines)
    _print(options, {name: list(lines) for name, lines in found.items()}, text)
    return 0


def alerts(options: argparse.Namespace) -> int:
    """Virtual time needs no stack: promtool is the real engine, the cases are made from the rules' own text."""
    from harness.rules.alerts import alert_rules
    from harness.rules.virtual import promtool_files, prove
    from harness.stack.promtool import failures
    from harness.stack.provision import obtain

    if not options.virtual:
        raise UsageError("say --virtual: rules on a live Prometheus cannot be proven yet")
    proofs = [prove(rule) for path in options.rules for rule in alert_rules(Path(path))]
    if not proofs:
        raise UsageError(f"{', '.join(options.rules)}: no alerting rule")
    promtool = obtain("promtool", home=_home(), progress=_Progress())
    wrong = failures(promtool.path, promtool_files(proofs))
    rows = []
    for proof in proofs:
        where = f"{proof.rule.path}:{proof.rule.line}"
        if proof.not_shown:
            rows.append((proof.rule.name, "not shown", proof.not_shown, where))
            continue
        level = "" if proof.threshold is None else f" at {proof.threshold:g}"
        fires = f"fires {proof.fires_after_s:g} s after {proof.driver or 'the start'} turns{level}"
        rows.append((proof.rule.name, f"{len(proof.cases)} cases", fires, where))
    lines = [
        _columns(rows),
        *(["", wrong] if wrong else []),
        f"promtool {promtool.version} {'DISAGREES' if wrong else 'agrees with every case'}",
    ]
    _print(options, {"proofs": codec.to_json(proofs), "promtool": promtool.version, "wrong": wrong}, "\n".join(lines))
    if wrong:
        return 1
    return 3 if any(proof.not_shown for proof in proofs) else 0


def list_things(options: argparse.Namespace) -> int:
    listings: Mapping[str, Callable[[], list[tuple[str, str]]]] = {"claims": _claims, "scenarios": _scenarios, "mutants": _mutants}
    rows = listings[options.what]()
    _print(options, [{"name": name, "says": says} for name, says in rows], _columns(rows))
    return 0


def _place(options: argparse.Namespace, *, is_calibrated: bool) -> Any:
    from harness import target
    from harness.caller.prompts import load_prompts
    from harness.check import CLAIMS
    from harness.run import Order
    from harness.run import run as run_order

    prompts = {name: prompt.text for name, prompt in load_prompts().items()}
    planned = scenario.load(
        scenario.find(options.scenario), prompts=prompts, claims=tuple(CLAIMS), seed=options.seed, agent_name=options.agent
    )
    order = Order(
        scenario=planned,
        target=target.load(Path(options.target), os.environ) if options.target else None,
        defect=_defect(options),
        calibration=_calibration(options, planned) if is_calibrated else None,
        home=_home(),
        runs=rundir.RUNS,
        environ=os.environ,
        argv=options.argv,
    )
    return run_order(order, progress=_Progress())


def _show(finished: Any, options: argparse.Namespace) -> int:
    from reports import terminal

    code: int = finished.exit_code
    written = {"run": str(finished.path), "exit_code": code, **codec.to_json(finished.findings)}
    has_color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    text = terminal.table(finished.evidence, finished.findings, run=finished.name, width=_width(), color=has_color).rstrip("\n")
    if (page := finished.path / "report.html").is_file():
        text += f"\n  report  {page}"
    _print(options, written, text)
    return code


def _part_row(part: Any) -> tuple[str, ...]:
    if part.found is None:
        return part.name, f"missing, wanted {part.pin}", "", part.missing or ""
    return part.name, part.found.version, str(part.found.origin), str(part.found.path)


def _show_stack(standing: Any, options: argparse.Namespace) -> int:
    """A stack in the background, without its credentials."""
    their = standing.target
    urls = {
        "livekit": their.livekit_url,
        "prometheus": their.prometheus_url,
        "supabase": their.supabase_url,
        "agent metrics": their.agent_metrics_url,
        "livekit metrics": their.sfu_metrics_url,
    }
    deaths = [death.sentence for death in standing.deaths]
    rows = [(part.name, part.version, part.origin, f"pid {standing.pids.get(part.name, '-')}") for part in standing.parts]
    text = "\n".join((_columns(rows), _columns([(name, url) for name, url in urls.items() if url]), *deaths))
    _print(options, {"up": True, "parts": codec.to_json(standing.parts), "urls": urls, "deaths": deaths, "logs": standing.logs}, text)
    return 1 if deaths else 0


def _drift() -> list[str] | None:
    """How the database of the environment differs from what the migrations make. None: no database is named."""
    if not os.environ.get(DATABASE_URL):
        return None
    return list(_migrations().drift(_database()).sentences)


def _database() -> str:
    dsn = os.environ.get(DATABASE_URL)
    if not dsn:
        raise UsageError(
            f"{DATABASE_URL} is not set: export the connection string of the project's database; docs/supabase.md says where it is"
        )
    return dsn


def _migrations() -> Any:
    try:
        from harness.stack import migrations
    except ImportError as exc:
        raise EnvironmentFault(f"no {exc.name} here: install voxproof with its extra, voxproof[stack]") from exc
    return migrations


def _claims() -> list[tuple[str, str]]:
    from harness.check import CLAIMS

    return [(claim, "reads " + ", ".join(sources) if sources else "on what callers heard") for claim, sources in CLAIMS.items()]


def _scenarios() -> list[tuple[str, str]]:
    from harness.caller.prompts import load_prompts
    from harness.check import CLAIMS

    prompts = {name: prompt.text for name, prompt in load_prompts().items()}
    return [(name, scenario.load(scenario.find(name), prompts=prompts, claims=tuple(CLAIMS)).summary) for name in scenario.own()]


def _mutants() -> list[tuple[str, str]]:
    from harness.stack.breakage import catalogue

    return [(defect.name, f"{defect.what} (red at {defect.claim})") for defect in catalogue()]


def _defect(options: argparse.Namespace) -> Any:
    if options.defect is None:
        return None
    if options.target:
        raise UsageError("--defect breaks the embedded stack only: nothing is seeded into a stack of others; leave out --target")
    from harness.stack import breakage

    return breakage.load(options.defect)


def _calibration(options: argparse.Namespace, planned: Any) -> Any:
    """What was measured on the agent that answers, for the scenario's network and grade. None: nothing was, and it says nothing of another one."""
    from harness.measure import impaired
    from harness.measure.calibration import REFERENCE, RESPONDER, load
    from harness.stack import responder

    if options.calibration:
        found = load(Path(options.calibration))
    elif options.target:
        return None
    else:
        found = load(RESPONDER if planned.agent_name == responder.NAME else REFERENCE)
    return impaired.graded(impaired.calibrated(found, planned.impairments), planned.grade)


def _home() -> Path:
    from harness.stack.home import home_dir

    return home_dir(os.environ)


def _width() -> int:
    return shutil.get_terminal_size((110, 24)).columns


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return "none"
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _print(options: argparse.Namespace, data: Any, text: str) -> None:
    print(json.dumps(data, indent=1) if options.json else text)
    sys.stdout.flush()


def _say_error(sentence: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"voxproof: {sentence}\n")


class _Progress:
    """What happens, with the seconds since the command began, on stderr."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, sentence: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._began:6.1f} s  {sentence}\n")
        sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voxproof",
        description="Proves whether the monitoring of a LiveKit voice agent tells the truth.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"voxproof {harness.__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = _verb(verbs, "run", run, "place calls, read what the stack says of them, judge it", "voxproof run smoke")
    verb.add_argument("scenario", metavar="SCENARIO", help="a file, or one of: voxproof list scenarios")
    verb.add_argument("--target", metavar="FILE", help="target.yaml of a stack that runs already; without it the embedded stack is started")
    verb.add_argument("--seed", type=int, metavar="N", help="instead of the scenario's")
    verb.add_argument("--agent", metavar="NAME", help="instead of the scenario's; responder: the embedded stack answers with it")
    verb.add_argument("--defect", metavar="NAME", help="seed a defect into the embedded stack: voxproof list mutants")
    verb.add_argument("--calibration", metavar="FILE", help="measured bounds of TTFW; without it those of the reference agent")
    verb.add_argument("-u", "--users", help=argparse.SUPPRESS)
    verb.add_argument("-r", "--spawn-rate", help=argparse.SUPPRESS)

    verb = _verb(verbs, "check", check, "judge a recorded run again, offline", "voxproof check fixtures/runs/lying-agent")
    _add_run(verb)
    verb = _verb(verbs, "report", report, "write report.html, junit.xml and summary.md of a recorded run", "voxproof report latest")
    _add_run(verb)
    verb = _verb(verbs, "explain", explain, "say how one claim was judged", "voxproof explain fixtures/runs/lying-agent ttfw/exporter")
    _add_run(verb)
    verb.add_argument("claim", metavar="CLAIM", help="such as ttfw/rule: voxproof list claims")

    verb = _verb(
        verbs, "calibrate", calibrate, "bound by parts how far TTFW heard and TTFW reported may lie apart", "voxproof calibrate --times 4"
    )
    verb.add_argument("runs", metavar="RUN", nargs="*", help="recorded healthy runs of the embedded stack; without any, new ones are made")
    verb.add_argument("--times", type=int, default=5, metavar="N", help="how many runs to make (default 5)")
    verb.add_argument("--agent", metavar="NAME", help="responder: calibrate with it, and show what our own ruler is worth here")
    verb.add_argument("--out", metavar="FILE", help="where it is kept (default fixtures/calibration/, by the agent)")

    verb = _verb(verbs, "doctor", doctor, "what is there, what is missing", "voxproof doctor --target target.yaml")
    verb.add_argument("--target", metavar="FILE", help="ask every source of this target, too")

    verb = _verb(
        verbs,
        "alerts",
        alerts,
        "show in virtual time when the alerts of a rule file fire, and when not",
        "voxproof alerts --virtual --rules rules.yml",
    )
    verb.add_argument("--virtual", action="store_true", help="on the real engine's own clock, with series made from the rules")
    verb.add_argument("--rules", nargs="+", required=True, metavar="FILE", help="rule files of Prometheus")

    _verb(
        verbs,
        "migrate",
        migrate,
        f"bring the call history's schema of a Supabase up to date; its connection string is in {DATABASE_URL}",
        "voxproof migrate",
    )

    stack = verbs.add_parser("stack", help="the embedded stack in the background", allow_abbrev=False, epilog="example: voxproof stack up")
    parts = stack.add_subparsers(metavar="up|down|status|logs", required=True)
    _verb(parts, "up", stack_up, "start it", "voxproof stack up")
    _verb(parts, "down", stack_down, "end it", "voxproof stack down")
    _verb(parts, "status", stack_status, "what runs where", "voxproof stack status --json")
    verb = _verb(parts, "logs", stack_logs, "the last lines of its logs", "voxproof stack logs livekit")
    verb.add_argument("part", metavar="PART", nargs="?", help="one part only")

    verb = _verb(verbs, "list", list_things, "what there is", "voxproof list claims")
    verb.add_argument("what", choices=("claims", "scenarios", "mutants"))
    return parser


def _verb(verbs: Any, name: str, function: Callable[[argparse.Namespace], int], says: str, example: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=says,
        description=f"{says[0].upper()}{says[1:]}.",
        epilog=f"example: {example}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    verb.set_defaults(verb=function)
    return verb


def _add_run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="a run directory, a run id, or latest")


if __name__ == "__main__":
    sys.exit(main())
