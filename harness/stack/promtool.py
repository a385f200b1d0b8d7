"""promtool: rule files tested on the real engine in virtual time."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.errors import StackError

_TIMEOUT_S = 120.0


def failures(promtool: Path, files: Mapping[str, Mapping[str, Any]]) -> str:
    """What the real engine says against the cases; empty if it agrees with all of them.

    files: of ``harness.rules.virtual.promtool_files``. Raises StackError if promtool cannot run them.
    """
    with tempfile.TemporaryDirectory(prefix="voxproof-promtool-") as scratch:
        for name, document in files.items():
            (Path(scratch) / name).write_text(yaml.safe_dump(document, width=1 << 30))
        tests = sorted(name for name in files if name.startswith("test-"))
        try:
            done = subprocess.run(
                [str(promtool), "test", "rules", *tests], cwd=scratch, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise StackError(f"promtool could not test the rules: {exc}") from exc
    if done.returncode == 0:
        return ""
    return (done.stdout + done.stderr).strip()
