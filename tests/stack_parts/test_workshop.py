"""Makers that run for minutes, and what programs say of their version."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from harness.errors import EnvironmentFault
from harness.stack import workshop
from harness.stack.workshop import Workshop, is_at_least, last_lines, version_of
from tests.stack_parts.conftest import Machine


def test_a_failed_maker_is_quoted(machine: Machine) -> None:
    """The fault carries its exit code and last lines."""
    script = machine.executable("compiler", "echo 'main.go:7: undefined: x'; exit 3")

    with pytest.raises(EnvironmentFault) as caught:
        machine.shop.run([script], doing="building server 1.2", cwd=machine.root)

    assert str(caught.value) == "building server 1.2 failed (compiler ended with 3); its last lines:\n    main.go:7: undefined: x"


def test_a_missing_maker_is_named(machine: Machine) -> None:
    """A program that cannot be started is the machine's fault, not a traceback."""
    with pytest.raises(EnvironmentFault, match=r"building server 1\.2: cannot start /nowhere/go: No such file or directory"):
        machine.shop.run(["/nowhere/go"], doing="building server 1.2", cwd=machine.root)


def test_a_long_maker_is_told_of_while_it_runs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress has the elapsed seconds and what it is at."""
    monkeypatch.setattr(workshop, "TELL_EVERY_S", 0.0)
    gate = machine.root / "gate"
    os.mkfifo(gate)
    script = machine.executable("compiler", f"echo one; read line < {gate}")

    def tell(sentence: str) -> None:
        machine.told.append(sentence)
        if len(machine.told) == 1:
            gate.write_text("go on\n")

    shop = Workshop(home=machine.home, environ=machine.environ, progress=tell, stop=machine.stop)
    shop.run([script], doing="building", cwd=machine.root, stage=lambda said: f", at {said.strip() or 'one'}")

    assert (machine.told[0], machine.told[-1]) == ("building: 0 s, at one", "building: done in 0 s")


def test_a_stopped_maker_does_not_outlive_us(machine: Machine) -> None:
    """Its whole process group ends."""
    gate = machine.root / "gate"
    os.mkfifo(gate)
    pid_file = machine.root / "pid"
    script = machine.executable("compiler", f"echo $$ > {pid_file}; (read line < {gate}) & wait")
    machine.stop.set()

    with pytest.raises(KeyboardInterrupt):
        machine.shop.run([script], doing="building", cwd=machine.root)

    pid = pid_file.read_text() if pid_file.exists() else ""
    assert not (pid and Path(f"/proc/{pid.strip()}").exists())


def test_a_maker_sees_the_changes_of_its_environment(machine: Machine) -> None:
    """A variable can be set, and with None taken away."""
    script = machine.executable("maker", f'echo "${{A-unset}} ${{B-unset}}" > {machine.root}/saw')
    machine.environ["B"] = "1"
    machine.shop.run([script], doing="making", cwd=machine.root, changes={"A": "2", "B": None})

    assert machine.wrote("saw") == "2 unset\n"


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("livekit-server version 1.13.5", "1.13.5"),
        ("prometheus, version 3.13.5 (branch: , revision: unknown)", "3.13.5"),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18"),
        ("go version go1.26.8 linux/amd64", "1.26.8"),
        ("nothing of the kind", None),
    ],
)
def test_a_version_is_the_first_dotted_number(machine: Machine, said: str, version: str | None) -> None:
    """Programs say it in many ways."""
    assert version_of((machine.says("server", said),)) == version


def test_a_program_that_fails_says_no_version(machine: Machine) -> None:
    """An error message may hold a number that is none."""
    assert version_of((machine.executable("server", "echo needs glibc 2.38 >&2; exit 1"),)) is None


@pytest.mark.parametrize(("version", "is_enough"), [("1.26.0", True), ("1.26", False), ("1.100.1", True), ("1.9.9", False)])
def test_versions_compare_by_number(version: str, is_enough: bool) -> None:
    """1.100 is newer than 1.26, and 1.9 is older."""
    assert is_at_least(version, "1.26.0") is is_enough


def test_last_lines_leave_out_noise() -> None:
    """What only counts progress says nothing about a failure."""
    assert last_lines("fmt\n# example.org/m/pkg\n\nm.go:1: bad\nnet/http\n", re.compile(r"[\w/]+")) == (
        "# example.org/m/pkg",
        "m.go:1: bad",
    )
