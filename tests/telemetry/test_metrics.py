"""Names, labels and bounds of the series, and their sum over job processes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest
from voxproof_telemetry import metrics

SOURCE = Path(__file__).parents[2] / "telemetry" / "src"
README = SOURCE.parent / "README.md"


def test_bounds_are_fine_where_replies_lie() -> None:
    """From 0.05 s to 10 s, each at most 1.25 times the one before."""
    bounds = metrics.BOUNDS_S
    assert (bounds[0], bounds[-1]) == (0.05, 10.0)
    assert all(low < high <= low * 1.25 + 1e-9 for low, high in itertools.pairwise(bounds))


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_roles_stand_at_0_before_the_first_call(role: str) -> None:
    """A counter that appears with its first increment hides it from increase()."""
    assert REGISTRY.get_sample_value("voice_agent_turns_total", {"role": role}) is not None


@pytest.mark.parametrize(
    "name",
    [
        "voice_agent_ttfw_seconds_bucket",
        "voice_agent_stt_latency_seconds_bucket",
        "voice_agent_llm_latency_seconds_bucket",
        "voice_agent_tts_latency_seconds_bucket",
        "voice_agent_turns_total{",
        "voice_agent_active_calls ",
    ],
)
def test_names_are_a_contract(name: str) -> None:
    """Those of the specification, as exposed."""
    assert any(line.startswith(name) for line in generate_latest(REGISTRY).decode().splitlines())


def test_the_readme_lists_every_series() -> None:
    """None without its page."""
    families = {family.name for family in REGISTRY.collect() if family.name.startswith("voice_agent_")}
    text = README.read_text()
    assert [name for name in sorted(families) if f"`{name}" not in text] == []


def run(code: str, **env: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE), **env}, capture_output=True, text=True, check=True)
    return done.stdout


def test_job_processes_are_summed_and_killed_ones_forgotten(tmp_path: Path) -> None:
    """Under the PROCESS executor: a call whose process died is no longer active, while its turns still count."""
    directory = tmp_path / "made" / "by the library"
    job = "from voxproof_telemetry import metrics; metrics.ACTIVE_CALLS.inc(); metrics.TURNS.labels('user').inc()"
    worker = f"""
from pathlib import Path
from prometheus_client import CollectorRegistry, multiprocess
from voxproof_telemetry.worker import forget_the_dead
def told():
    registry = CollectorRegistry(); multiprocess.MultiProcessCollector(registry)
    print(registry.get_sample_value("voice_agent_active_calls"), registry.get_sample_value("voice_agent_turns_total", {{"role": "user"}}))
told(); print(len(forget_the_dead(Path({str(directory)!r})))); told()
"""
    for _ in range(2):
        run(job, PROMETHEUS_MULTIPROC_DIR=str(directory))
    assert run(worker, PROMETHEUS_MULTIPROC_DIR=str(directory)).splitlines() == ["2.0 2.0", "2", "0.0 2.0"]


def test_importing_it_does_not_import_livekit_agents() -> None:
    """The core works on what the entrypoint already has."""
    assert run("import sys, voxproof_telemetry; print([name for name in sys.modules if name.startswith('livekit')])") == "[]\n"
