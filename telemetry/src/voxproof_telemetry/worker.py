"""What a worker must be for its metrics to be scraped: under the PROCESS executor each job's counters live in a process of their own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from voxproof_telemetry import metrics
from voxproof_telemetry.errors import TelemetryError
from voxproof_telemetry.metrics import MULTIPROC

SWEEP_S = 5.0
"""Pause between two looks for job processes that were killed in the middle of a call."""


def prepare(server: Any, *, tools: Iterable[str] = ()) -> None:
    """At module level, after ``server = AgentServer(...)``: a worker whose metrics would be lost does not start.

    tools: names whose counters shall stand at 0 before the first call; later ones appear when their agent does.
    Raises TelemetryError as `attach` does, but before the first call instead of during it.
    """
    check_executor(server)
    metrics.announce_tools(tools)
    if MULTIPROC in os.environ and multiprocessing.parent_process() is None:
        threading.Thread(target=_sweep_for_ever, name="voxproof-telemetry-sweep", daemon=True).start()


def check_executor(owner: Any) -> None:
    """Raises TelemetryError if job processes would keep their metrics to themselves.

    owner: livekit-agents' AgentServer, or the JobProcess of a running job.
    """
    # The server keeps both to itself; where a release renames them, the first call tells instead.
    executor = getattr(owner, "executor_type", None) or getattr(owner, "_job_executor_type", None)
    has_directory = os.environ.get(MULTIPROC) or getattr(owner, "_prometheus_multiproc_dir", None)
    if getattr(executor, "name", "") == "PROCESS" and not has_directory:
        raise TelemetryError(
            f"this worker runs each job in its own process and {MULTIPROC} is not set: the worker's /metrics would answer without a single"
            f" voice_agent_* series. Set {MULTIPROC} to an empty directory in the environment of the worker, before Python starts,"
            " or use AgentServer(job_executor_type=JobExecutorType.THREAD)."
        )


def forget_the_dead(directory: Path) -> tuple[int, ...]:
    """Takes the gauges of processes that no longer live out of the sum, and returns their ids: a killed job never says that its call ended.

    livekit-agents does not do it. Counters and histograms stay, as they must.
    """
    pids = {int(file.stem.rpartition("_")[2]) for file in directory.glob("gauge_live*_*.db")}
    dead = tuple(pid for pid in sorted(pids) if not _is_alive(pid))
    for pid in dead:
        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
    return dead


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sweep_for_ever() -> None:
    while not threading.Event().wait(SWEEP_S):
        forget_the_dead(Path(os.environ[MULTIPROC]))
