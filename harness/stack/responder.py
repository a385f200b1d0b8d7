"""The calibrated responder as a part of the stack, in the place of the reference agent."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.stack.supervise import Child, Command, Supervisor

NAME = "responder"
"""Name under which it takes dispatches: a scenario that asks for this agent is answered by it."""
_REGISTERED = b"registered worker"
_READY_S = 30.0
SPREAD_S = "0.8"
"""Delays differ, unless RESPONDER_SPREAD_S says otherwise: where all turns take as long, no rule over the wrong time shows (claim ttfw/rule)."""


def start(supervisor: Supervisor, *, repository: Path, env: Mapping[str, str], part: str = "agent", delay_s: float | None = None) -> Child:
    """Starts it and waits until it is registered with the media server. env: as for the reference agent. delay_s: of each reply, all alike."""
    slow = {} if delay_s is None else {"RESPONDER_DELAY_S": str(delay_s), "RESPONDER_SPREAD_S": "0"}
    own = {name: said for name, said in os.environ.items() if name.startswith("RESPONDER_") or name in ("VOXPROOF_HOME", "CC")}
    path = os.pathsep.join((str(repository), env["PYTHONPATH"]))
    child = supervisor.start(
        Command(
            name=part,
            argv=(sys.executable, "-m", "fixtures.responder"),
            env={"RESPONDER_SPREAD_S": SPREAD_S, **own, **env, **slow, "PYTHONPATH": path},
            cwd=repository,
            signals=(signal.SIGTERM, signal.SIGTERM, signal.SIGKILL),
            stops_before=True,
        )
    )
    supervisor.wait_ready(child, lambda: child.said(_REGISTERED), timeout_s=_READY_S)
    return child
