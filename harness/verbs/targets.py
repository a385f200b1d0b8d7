"""``init``, ``cleanup``: the target file of a stack that is there already, and what our runs left on it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import codec
from harness.errors import UsageError
from harness.verbs.output import Progress, print_result, shown

_LIVEKIT = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")


def init(options: argparse.Namespace) -> int:
    """Looks at what is given, writes the target file, and prints what could be proven there."""
    from harness import coverage, survey, target

    out = Path(options.out)
    if out.exists() and not options.force:
        raise UsageError(
            f"{out} is there already; --force replaces it, --out FILE writes another, voxproof doctor --target {out} looks again"
        )
    if missing := [name for name in _LIVEKIT if not os.environ.get(name)]:
        raise UsageError(f"{missing[0]} is not set: a look begins with {', '.join(_LIVEKIT)}; export them")
    their = _given(options, name=options.name or out.stem)
    Progress()(f"looking at {their.name}")
    found = coverage.learned(their, survey.look(their))
    text = coverage.target_yaml(their, found)
    target.read(text, file=str(out), environ=os.environ)
    out.write_text(text)
    data, table = covered(found)
    print_result(
        options, {"written": str(out), **data}, f"{table}\nwritten to {shown(out)}; next: voxproof run smoke --target {shown(out)}"
    )
    return 0


def covered(found: Any) -> tuple[dict[str, Any], str]:
    """The coverage map as data and as text."""
    from harness import coverage
    from harness.check import CLAIMS

    covers = coverage.coverage(found, CLAIMS)
    data = {"looks": codec.to_json(found.looks), "coverage": codec.to_json(covers)}
    return data, coverage.text(covers, found)


def cleanup(options: argparse.Namespace) -> int:
    """What our runs left at a target; removed only when asked."""
    from harness import rundir, target

    their = target.load(Path(options.target), os.environ)
    left, sentence = leftovers([rundir.find(name) for name in options.runs], their, is_removing=options.yes)
    print_result(options, {"removed": options.yes, **codec.to_json(left)}, sentence)
    return 0


def leftovers(paths: Sequence[Path], their: Any, *, is_removing: bool) -> tuple[Any, str]:
    """What the runs in these directories left there, and the sentence that says so."""
    from harness import cleanup, rundir

    left = cleanup.find(their, tuple(plan for path in paths for plan in rundir.read_plans(path)))
    if is_removing:
        cleanup.remove(their, left)
    return left, left.sentence(is_removed=is_removing)


def _given(options: argparse.Namespace, *, name: str) -> Any:
    from harness.model import Target

    url, key, secret = (os.environ[each] for each in _LIVEKIT)
    service = os.environ.get("SUPABASE_SERVICE_KEY")
    if options.supabase and not service:
        raise UsageError("SUPABASE_SERVICE_KEY is not set: --supabase is looked at with a key of the project; export it")
    return Target(
        name=name,
        livekit_url=url,
        livekit_api_key=key,
        livekit_api_secret=secret,
        prometheus_url=options.prometheus,
        agent_metrics_url=options.agent_metrics,
        sfu_metrics_url=options.livekit_metrics,
        supabase_url=options.supabase,
        supabase_key=service if options.supabase else None,
        supabase_token=os.environ.get("SUPABASE_JUDGE_TOKEN") if options.supabase else None,
        blind={},
    )
