"""``check``, ``report``, ``explain``, ``compare``: recorded runs, offline."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from harness import codec, rundir
from harness.errors import UsageError
from harness.verbs.output import print_result, width


def check(options: argparse.Namespace) -> int:
    from harness.run import judge

    return show(judge(rundir.find(options.run)), options)


def report(options: argparse.Namespace) -> int:
    from harness.run import judge
    from harness.run import report as write_report

    finished = write_report(judge(rundir.find(options.run)))
    paths = [str(finished.path / name) for name in ("report.html", "junit.xml", "summary.md")]
    print_result(options, {"written": paths}, "\n".join(paths))
    return finished.exit_code


def explain(options: argparse.Namespace) -> int:
    from harness.run import judge
    from reports import explain as explanation

    finished = judge(rundir.find(options.run))
    text = explanation.text(finished.evidence, finished.findings, options.claim, run=finished.name, width=width())
    verdict = next((verdict for verdict in finished.findings.verdicts if verdict.claim == options.claim), None)
    print_result(options, codec.to_json(verdict), text.rstrip("\n"))
    return 0


def compare(options: argparse.Namespace) -> int:
    from assertions.comparison import Judged
    from assertions.comparison import compare as compared
    from harness.model import Status
    from harness.run import judge
    from reports import comparison as rendered

    runs = [judge(rundir.find(name)) for name in (*options.runs, options.run)]
    names = {finished.evidence.info.scenario.name for finished in runs}
    if len(names) > 1:
        raise UsageError(f"runs of different scenarios cannot be compared: {', '.join(sorted(names))}")
    *before, after = (Judged(evidence=finished.evidence, findings=finished.findings) for finished in runs)
    found = compared(before, after)
    print_result(options, codec.to_json(found), rendered.text(found, width=width()).rstrip("\n"))
    return {Status.PASS: 0, Status.FAIL: 1, Status.INCONCLUSIVE: 3}[found.status]


def show(finished: Any, options: argparse.Namespace) -> int:
    from reports import terminal

    code: int = finished.exit_code
    written = {"run": str(finished.path), "exit_code": code, **codec.to_json(finished.findings)}
    has_color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    text = terminal.table(
        finished.evidence, finished.findings, run=finished.name, since=finished.since, width=width(), color=has_color
    ).rstrip("\n")
    if (page := finished.path / "report.html").is_file():
        text += f"\n  report  {page}"
    print_result(options, written, text)
    return code
