"""The reference agent as a part of the stack: its environment and its start."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from harness.stack.supervise import Child, Command, Supervisor

NAME = "ref-agent"
RULER = "agent-ruler.jsonl"
"""The agent's own instants, beside its log: what a calibration is made of."""
# `/` of the worker's own health port answers before it is registered; a dispatch made in between is dropped for good.
_REGISTERED = b"registered worker"
_READY_S = 60.0
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


def environment(
    *,
    repository: Path,
    livekit: tuple[str, str, str],
    supabase: tuple[str, str],
    health_port: int,
    metrics_port: int,
    extra: Mapping[str, str],
) -> dict[str, str]:
    """What the worker reads; spec section 1 and ``fixtures/agent``.

    livekit: URL, API key, API secret. supabase: URL and service key.
    """
    url, api_key, api_secret = livekit
    own = {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(repository / "telemetry" / "src"),
        "LIVEKIT_URL": url,
        "LIVEKIT_API_KEY": api_key,
        "LIVEKIT_API_SECRET": api_secret,
        "SUPABASE_URL": supabase[0],
        "SUPABASE_SERVICE_KEY": supabase[1],
        "AGENT_NAME": NAME,
        "AGENT_EXECUTOR": "thread",
        "AGENT_HEALTH_PORT": str(health_port),
        "AGENT_METRICS_PORT": str(metrics_port),
    }
    before = os.pathsep.join(filter(None, (extra.get("PYTHONPATH"), own["PYTHONPATH"])))
    return {**own, **extra, "PYTHONPATH": before}


def start(supervisor: Supervisor, python: Path, *, repository: Path, env: Mapping[str, str]) -> Child:
    """Starts the worker and waits until it is registered with the media server."""
    child = supervisor.start(
        Command(
            name="agent",
            argv=(str(python), "agent.py", "start"),
            env=env,
            cwd=repository / "fixtures" / "agent",
            # It waits for its calls on the first SIGTERM, and writes its last rows.
            signals=(signal.SIGTERM, signal.SIGTERM, signal.SIGKILL),
            stops_before=True,
        )
    )
    supervisor.wait_ready(child, lambda: child.said(_REGISTERED), timeout_s=_READY_S)
    return child
