"""promtool: rule files tested on the real engine in virtual time."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.errors import StackError

_TIMEOUT_S = 600.0
_BESIDE = 2
"""promtools at once: each waits for its scratch database as long as it calculates."""
_MEMORY = Path("/dev/shm")
_HEAP = {"GOGC": "off", "GOMEMLIMIT": "256MiB"}
"""What tests leave behind is collected once so much is there, and not before: few take no longer, and any number no more memory."""


def failures(promtool: Path, files: Mapping[str, Mapping[str, Any]]) -> str:
    """What the real engine says against the cases; empty if it agrees with all of them.

    files: of ``harness.rules.virtual.promtool_files``. Raises StackError if promtool cannot run them.
    """
    # Every test opens a database of its own and syncs it; where there is memory to write to, that costs nothing.
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="voxproof-promtool-", dir=place) as scratch:
        for name, document in files.items():
            # JSON is YAML, and is written ten times as fast.
            (Path(scratch) / name).write_text(json.dumps(document))
        tests = sorted(name for name in files if name.startswith("test-"))
        shares = [share for start in range(_BESIDE) if (share := tests[start::_BESIDE])]
        with ThreadPoolExecutor(_BESIDE) as pool:
            said = list(pool.map(lambda share: _said(promtool, share, scratch), shares))
    return "\n".join(each for each in said if each)


def _said(promtool: Path, tests: Sequence[str], scratch: str) -> str:
    try:
        done = subprocess.run(
            [str(promtool), "test", "rules", *tests],
            cwd=scratch,
            env={**os.environ, "TMPDIR": scratch, "GOMAXPROCS": "1", **_HEAP},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise StackError(f"promtool could not test the rules: {exc}") from exc
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip()
