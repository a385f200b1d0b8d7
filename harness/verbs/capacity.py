"""``doctor --callers``: how many callers this machine carries, and what ends first, within 20 seconds."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from harness import codec
from harness.errors import EnvironmentFault
from harness.load.machine import this_machine
from harness.measure.capacity import Limit, Machine, Tried, beside_server, limits
from harness.verbs.output import Progress, columns, home, print_result

STEPS, SECONDS = (10, 20, 40), 2.0
_PROBE_S = 14.5
"""Then it is judged by the steps that are done: the media server's start and ours fit into what is left of 20 s."""


def callers(options: argparse.Namespace) -> int:
    progress = Progress()
    tried = _tried(progress)
    machine = this_machine()
    found = limits(tried, machine)
    print_result(
        options,
        {
            "callers": found[0].callers,
            "limit": found[0].name,
            "beside_the_media_server": beside_server(tried, machine),
            "limits": codec.to_json(found),
            "tried": codec.to_json(tried),
            "machine": codec.to_json(machine),
        },
        _text(found, tried, machine),
    )
    return 0


def _tried(progress: Progress) -> list[Tried]:
    """Every step that was measured in time."""
    from harness.stack.lone import lone_media_server
    from harness.stack.provision import inventory

    part = next(part for part in inventory(home()) if part.name == "livekit-server")
    if part.found is None:
        raise EnvironmentFault(
            f"callers are tried on a real media server, and livekit-server is missing here ({part.missing}); try: make provision"
        )
    with tempfile.TemporaryDirectory() as logs, lone_media_server(part.found.path, Path(logs)) as server:
        progress(f"trying {', '.join(map(str, STEPS))} callers on livekit-server {part.found.version}")
        argv = (sys.executable, "-m", "harness.caller.probe", "--steps", ",".join(map(str, STEPS)), "--seconds", str(SECONDS))
        own = {"LIVEKIT_URL": server.url, "LIVEKIT_API_KEY": server.api_key, "LIVEKIT_API_SECRET": server.api_secret}
        log = Path(logs) / "probe.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                (*argv, "--server-pid", str(server.pid), "--home", str(home())),
                env={**os.environ, **own},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert process.stdout is not None
        overtime = threading.Timer(_PROBE_S, process.kill)
        overtime.start()
        try:
            tried = list(_steps(process.stdout, progress))
        finally:
            overtime.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        if not tried:
            said = log.read_text(errors="replace").strip().splitlines()[-1:] or [f"{STEPS[0]} callers were not up after {_PROBE_S:g} s"]
            raise EnvironmentFault(f"no callers could be tried here: {said[0]}")
    return tried


def _steps(lines: IO[str], progress: Progress) -> list[Tried]:
    steps = []
    for line in lines:
        step: Tried = codec.from_json(Tried, json.loads(line))
        progress(f"{step.callers} callers: {step.cpu_ms_per_caller_s:.2f} ms of CPU each a second, pacing p99 {step.pacing_p99_ms:.1f} ms")
        steps.append(step)
    return steps


def _text(found: tuple[Limit, ...], tried: list[Tried], machine: Machine) -> str:
    first, most = found[0], tried[-1]
    others = max(step.others_cores for step in tried)
    return "\n".join(
        (
            f"this machine carries {first.callers} callers; {first.name} ends first: {first.because}",
            f"with the media server and as many agents as cheap beside them: {min(first.callers, beside_server(tried, machine))}",
            columns([("limit", "callers", "because"), *((limit.name, str(limit.callers), limit.because) for limit in found)]),
            f"tried with up to {most.callers}, priority {most.priority}, {machine.cores} cores of which others burnt {others:.1f}; "
            "more is extrapolated",
        )
    )
