"""``stack``: the embedded stack in the background."""

from __future__ import annotations

import argparse
from typing import Any

from harness import codec
from harness.verbs.output import Progress, columns, home, print_result


def up(options: argparse.Namespace) -> int:
    from harness.stack.detached import detached_up

    return _show_stack(detached_up(home=home(), progress=Progress()), options)


def down(options: argparse.Namespace) -> int:
    from harness.stack import detached

    was_up = detached.down(home())
    print_result(options, {"was_up": was_up}, "stack is down" if was_up else "no stack was up")
    return 0


def status(options: argparse.Namespace) -> int:
    from harness.stack import detached

    standing = detached.status(home())
    if standing is None:
        print_result(options, {"up": False}, "no stack is up; start one: voxproof stack up")
        return 3
    return _show_stack(standing, options)


def logs(options: argparse.Namespace) -> int:
    from harness.stack import detached

    found = detached.logs(home(), options.part)
    text = "\n".join(f"{name}  {line}" if options.part is None else line for name, lines in found.items() for line in lines)
    print_result(options, {name: list(lines) for name, lines in found.items()}, text)
    return 0


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
    text = "\n".join((columns(rows), columns([(name, url) for name, url in urls.items() if url]), *deaths))
    print_result(options, {"up": True, "parts": codec.to_json(standing.parts), "urls": urls, "deaths": deaths, "logs": standing.logs}, text)
    return 1 if deaths else 0
