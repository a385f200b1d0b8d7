"""The reference agent's jobs are threads: what the SDK shares between them must be there before the first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.stack.home import home_dir
from harness.stack.provision import obtain

pytestmark = pytest.mark.stack
ROOT = Path(__file__).parents[2]
PROGRAM = "import agent; from livekit.rtc._ffi_client import FfiClient; print(FfiClient._instance is not None)"


@pytest.mark.parametrize(("executor", "is_made"), [("thread", "True"), ("process", "False")])
def test_the_native_client_is_made_before_the_first_job(executor: str, is_made: str, tmp_path: Path) -> None:
    """Two threads that make it at once make two, and one call never connects. A process per job makes its own: it would not survive a fork."""
    python = obtain("agent-python", home=home_dir(), progress=lambda _: None).path
    env = {
        **os.environ,
        "AGENT_EXECUTOR": executor,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT / "telemetry" / "src"),
    }
    done = subprocess.run([python, "-c", PROGRAM], cwd=ROOT / "fixtures" / "agent", env=env, capture_output=True, text=True, check=False)

    assert done.stdout.split() == [is_made], done.stderr
