"""Where everything that outlives a run is kept: finished parts, locks, the state of a running stack."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def home_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``$VOXPROOF_HOME``, or ``~/.cache/voxproof``."""
    configured = environ.get("VOXPROOF_HOME")
    return Path(configured).absolute() if configured else Path.home() / ".cache" / "voxproof"
