"""What ``make prove`` writes down in ``docs/proof/``: where and at which commit, then its tables."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.model import value

ROOT = Path(__file__).resolve().parents[2]


@value
class Table:
    """Rows under a heading; one without rows is not written."""

    heads: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def written(name: str, title: str, notes: str, *tables: Table) -> None:
    """``docs/proof/<name>.md``, those of a failed proof too."""
    asked = ("git", "describe", "--always", "--dirty")
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    parts = [f"# {title}", f"Made by `make prove` at {commit}: {machine}.\n{notes}"]
    for table in tables:
        lines = (table.heads, ("---",) * len(table.heads), *table.rows)
        if table.rows:
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    path = ROOT / "docs" / "proof" / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n")
