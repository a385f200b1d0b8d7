"""A machine of shell scripts: its PATH, its cache and what it told, without a network."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from harness.stack.workshop import Workshop


class Machine:
    """Starts with an empty PATH but for a shell's own tools, an empty cache and a user who never used Go."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.bin = root / "bin"
        self.bin.mkdir()
        self.told: list[str] = []
        self.stop = threading.Event()
        self.environ = {"PATH": str(self.bin), "HOME": str(root)}
        for tool in ("cat", "chmod", "cp", "env", "mkdir", "sh"):
            (self.bin / tool).symlink_to(_system(tool))

    def executable(self, path: Path | str, script: str) -> Path:
        """A shell script at ``path``, by default on PATH."""
        file = self.bin / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    def says(self, path: Path | str, version: str) -> Path:
        """An executable that does nothing but say its version."""
        return self.executable(path, f"echo '{version}'")

    def go(self, path: Path | str = "go", version: str = "1.26.3") -> Path:
        """A compiler that writes down its environment and makes binaries out of nothing."""
        return self.executable(
            path,
            f"""if [ "$1" = version ]; then echo go version go{version} linux/amd64; exit; fi
env > {self.root}/go-env; echo "$0 $*" >> {self.root}/go-calls
while [ "$1" != -o ]; do shift; done
if [ -d "$2" ]; then into=$2; shift 2; for p in "$@"; do echo x > "$into/${{p##*/}}"; chmod +x "$into/${{p##*/}}"; done
else echo x > "$2"; chmod +x "$2"; fi""",
        )

    def uv(self) -> Path:
        """An installer that unpacks nothing but a Go, and makes environments of one file."""
        self.go(self.root / "wheel-go", "1.26.6")
        return self.executable(
            "uv",
            f"""if [ "$1" = --version ]; then echo uv 0.9.9; exit; fi
echo "$*" >> {self.root}/uv-calls
for last; do :; done
if [ "$1" = venv ]; then mkdir -p "$last/bin"; cp {self.bin}/sh "$last/bin/python"; exit; fi
while [ $# -gt 0 ]; do if [ "$1" = --target ]; then mkdir -p "$2/go/bin"; cp {self.root}/wheel-go "$2/go/bin/go"; fi; shift; done""",
        )

    def wrote(self, name: str) -> str:
        """What the scripts wrote down under this name."""
        path = self.root / name
        return path.read_text() if path.exists() else ""

    @property
    def shop(self) -> Workshop:
        return Workshop(home=self.home, environ=self.environ, progress=self.told.append, stop=self.stop)


def _system(tool: str) -> Path:
    return next(path for place in os.defpath.split(":") if (path := Path(place or ".") / tool).exists())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)
