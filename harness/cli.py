"""``voxproof``: the verbs, their options, exit codes. What a verb does is in ``harness/verbs``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import harness
from harness.errors import HarnessError
from harness.verbs import alerts, listing, machine, recorded, running, stack, targets, tune
from harness.verbs.output import say_error

EXIT_CODES = """exit codes: 0 every required claim passed and nothing failed; 1 something failed;
            2 usage: command, file, unreachable target, or a plan that cannot decide; 3 undecided;
            70 a bug of voxproof itself"""
INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h: never 1, which would blame the stack."""


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
        say_error(str(exc))
        return 2
    except KeyboardInterrupt:
        say_error("interrupted before anything could be judged")
        return 3
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); stdout must not be flushed again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        traceback.print_exc()
        say_error("this is a bug of voxproof, not a verdict: exit code 70")
        return INTERNAL_ERROR


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

    verb = _verb(verbs, "run", running.run, "place calls, read what the stack says of them, judge it", "voxproof run smoke")
    verb.add_argument("scenario", metavar="SCENARIO", help="a file, or one of: voxproof list scenarios")
    verb.add_argument("--target", metavar="FILE", help="target.yaml of a stack that runs already; without it the embedded stack is started")
    verb.add_argument("--seed", type=int, metavar="N", help="instead of the scenario's")
    verb.add_argument("--max-calls", type=_whole, metavar="N", help="place at most the first N calls of the scenario")
    verb.add_argument(
        "--abort-on-breach", action="store_true", help="place no more calls once a step of a search for the knee broke a limit"
    )
    verb.add_argument("--agent", metavar="NAME", help="instead of the scenario's; responder: the embedded stack answers with it")
    verb.add_argument("--defect", metavar="NAME", help="seed a defect into the embedded stack: voxproof list mutants")
    real = "in a drill, really burn processors, hold memory and fill a small file system; bounded, and gone with the run"
    verb.add_argument("--real-faults", action="store_true", help=real)
    verb.add_argument("--calibration", metavar="FILE", help="measured bounds of TTFW; without it those of the reference agent")
    verb.add_argument("--cleanup", action="store_true", help="say what the run leaves at the target; with --yes remove it")
    verb.add_argument("--yes", action="store_true", help="see --cleanup")
    verb.add_argument("-u", "--users", help=argparse.SUPPRESS)
    verb.add_argument("-r", "--spawn-rate", help=argparse.SUPPRESS)

    verb = _verb(verbs, "check", recorded.check, "judge a recorded run again, offline", "voxproof check fixtures/runs/lying-agent")
    _add_run(verb)
    verb = _verb(
        verbs, "report", recorded.report, "write report.html, junit.xml and summary.md of a recorded run", "voxproof report latest"
    )
    _add_run(verb)
    verb = _verb(
        verbs, "explain", recorded.explain, "say how one claim was judged", "voxproof explain fixtures/runs/lying-agent ttfw/exporter"
    )
    _add_run(verb)
    verb.add_argument("claim", metavar="CLAIM", help="such as ttfw/rule: voxproof list claims")

    verb = _verb(
        verbs,
        "compare",
        recorded.compare,
        "say what is worse in a run than in the runs before it, and what changed",
        "voxproof compare k3f9 latest",
    )
    verb.add_argument("runs", metavar="RUN", nargs="+", help="runs before, oldest first: directories, run ids")
    verb.add_argument("run", metavar="RUN", help="the run after")

    verb = _verb(
        verbs,
        "calibrate",
        running.calibrate,
        "bound by parts how far TTFW heard and TTFW reported may lie apart",
        "voxproof calibrate --times 4",
    )
    verb.add_argument("runs", metavar="RUN", nargs="*", help="recorded healthy runs of the embedded stack; without any, new ones are made")
    verb.add_argument("--times", type=int, default=5, metavar="N", help="how many runs to make (default 5)")
    verb.add_argument("--agent", metavar="NAME", help="responder: calibrate with it, and show what our own ruler is worth here")
    verb.add_argument("--out", metavar="FILE", help="where it is kept (default fixtures/calibration/, by the agent)")

    verb = _verb(
        verbs,
        "init",
        targets.init,
        "look at a stack that is there already, write its target.yaml, and say what could be proven there",
        "voxproof init --prometheus http://prometheus:9090 --agent-metrics http://agent:8080/metrics",
    )
    verb.add_argument(
        "--livekit-metrics", metavar="URL", help="exposition of livekit-server; LIVEKIT_URL, _API_KEY and _API_SECRET are read"
    )
    verb.add_argument("--agent-metrics", metavar="URL", help="exposition of the agent")
    verb.add_argument("--prometheus", metavar="URL", help="API of the Prometheus that scrapes both, with its path prefix")
    verb.add_argument("--supabase", metavar="URL", help="the call history; SUPABASE_SERVICE_KEY and SUPABASE_JUDGE_TOKEN are read")
    verb.add_argument("--name", metavar="NAME", help="what reports call it; the file's name if absent")
    verb.add_argument("--out", metavar="FILE", default="target.yaml", help="where it is written (target.yaml)")
    verb.add_argument("--force", action="store_true", help="replace the file if it is there")

    verb = _verb(
        verbs,
        "cleanup",
        targets.cleanup,
        "remove what our own runs left at a target: rows of their calls, rooms still open; without --yes only counted",
        "voxproof cleanup latest --target target.yaml --yes",
    )
    verb.add_argument("runs", metavar="RUN", nargs="+", help="run directories, run ids, or latest")
    verb.add_argument("--target", metavar="FILE", required=True, help="target.yaml of the stack")
    verb.add_argument("--yes", action="store_true", help="remove it")

    verb = _verb(
        verbs,
        "doctor",
        machine.doctor,
        "what is there, what is missing; --callers: how many callers this machine carries",
        "voxproof doctor --target target.yaml",
    )
    verb.add_argument("--target", metavar="FILE", help="ask every source of this target, too")
    verb.add_argument("--callers", action="store_true", help="how many callers this machine carries, and what ends first; within 20 s")

    verb = _verb(
        verbs,
        "alerts",
        alerts.alerts,
        "show when alerts fire, and which never can: in virtual time, or on a server's history",
        "voxproof alerts --rules rules.yml --prometheus http://localhost:9090",
    )
    verb.add_argument("--virtual", action="store_true", help="on the real engine's own clock, with series made from the rules")
    verb.add_argument("--rules", nargs="+", metavar="FILE", help="rule files; without it the shipped ones, or those that --prometheus runs")
    verb.add_argument("--prometheus", metavar="URL", help="hold the rules against the stored window of this server; it is only read")
    verb.add_argument("--window", default="1d", metavar="DURATION", help="how much of the server's history (1d)")
    verb.add_argument("--budget", type=float, default=30.0, metavar="SECONDS", help="what was not asked by then is listed (30)")
    shadow = "run the rules for so long on a Prometheus of ours that follows this one, without an Alertmanager: nobody is paged"
    verb.add_argument("--shadow", type=float, metavar="SECONDS", help=shadow)
    verb.add_argument(
        "--drill", metavar="ALERT", help='send this alert, labelled drill="true", through the real route: people may be paged'
    )
    verb.add_argument("--alertmanager", metavar="URL", help="where --drill sends it")

    verb = _verb(
        verbs,
        "tune",
        tune.tune,
        "threshold, window and for of one alert to choose from: how late, how often on a history",
        "voxproof tune HostCpuHigh --prometheus http://localhost:9090",
    )
    verb.add_argument("alert", metavar="ALERT", help="its name")
    verb.add_argument("--rules", nargs="+", metavar="FILE", help="rule files that hold it; without it the shipped ones")
    verb.add_argument("--prometheus", metavar="URL", help="replay on the stored window of this server; it is only read")
    verb.add_argument("--run", metavar="RUN", help="replay offline on the raw samples of a recorded run")
    verb.add_argument("--window", default="1d", metavar="DURATION", help="how much of the server's history (1d)")
    verb.add_argument("--budget", type=float, default=30.0, metavar="SECONDS", help="longest time for the server's answers (30)")
    verb.add_argument("--scrape-interval", type=float, default=15.0, metavar="SECONDS", help="of the series in the alert (15)")
    verb.add_argument("--level", type=float, metavar="NUMBER", help="the injected truth, in the unit of the threshold")
    verb.add_argument("--thresholds", nargs="+", type=float, metavar="NUMBER", help="instead of half to twice the alert's own")
    verb.add_argument("--windows", nargs="+", metavar="DURATION", help="instead of a fifth to twice the alert's own")
    verb.add_argument("--for", dest="fors", nargs="+", metavar="DURATION", help="instead of none to twice the alert's own")
    verb.add_argument("--out", metavar="FILE", help="the page with the plot (ALERT-tuning.html)")

    verb = _verb(
        verbs,
        "lint",
        alerts.lint,
        "what is wrong with the queries of rule files and Grafana dashboards",
        "voxproof lint rules.yml board.json",
    )
    verb.add_argument("files", nargs="+", metavar="FILE", help="rule files (.yml) and dashboards (.json)")
    verb.add_argument("--prometheus", metavar="URL", help="hold names and types against this server's, too; it is only read")
    verb.add_argument("--scrape-interval", type=float, default=15.0, metavar="SECONDS", help="of the series in the queries (15)")

    _verb(
        verbs,
        "migrate",
        machine.migrate,
        f"bring the call history's schema of a Supabase up to date; its connection string is in {machine.DATABASE_URL}",
        "voxproof migrate",
    )

    background = verbs.add_parser(
        "stack", help="the embedded stack in the background", allow_abbrev=False, epilog="example: voxproof stack up"
    )
    parts = background.add_subparsers(metavar="up|down|status|logs", required=True)
    _verb(parts, "up", stack.up, "start it", "voxproof stack up")
    _verb(parts, "down", stack.down, "end it", "voxproof stack down")
    _verb(parts, "status", stack.status, "what runs where", "voxproof stack status --json")
    verb = _verb(parts, "logs", stack.logs, "the last lines of its logs", "voxproof stack logs livekit")
    verb.add_argument("part", metavar="PART", nargs="?", help="one part only")

    verb = _verb(verbs, "list", listing.list_things, "what there is", "voxproof list claims")
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


def _whole(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        msg = f"wanted a whole number of at least 1, got '{text}'"
        raise argparse.ArgumentTypeError(msg)
    return number


if __name__ == "__main__":
    sys.exit(main())
