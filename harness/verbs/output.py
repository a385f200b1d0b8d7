"""What verbs share: results on stdout, progress and errors on stderr, columns, the home directory."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def print_result(options: argparse.Namespace, data: Any, text: str) -> None:
    print(json.dumps(data, indent=1) if options.json else text)
    sys.stdout.flush()


def say_error(sentence: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"voxproof: {sentence}\n")


class Progress:
    """What happens, with the seconds since the command began, on stderr."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, sentence: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._began:6.1f} s  {sentence}\n")
        sys.stderr.flush()


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return "none"
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def width() -> int:
    return shutil.get_terminal_size((110, 24)).columns


def shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def home() -> Path:
    from harness.stack.home import home_dir

    return home_dir(os.environ)
