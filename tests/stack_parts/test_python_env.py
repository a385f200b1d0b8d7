"""Python environments by uv."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import EnvironmentFault
from harness.stack import environment, python_env
from tests.stack_parts.conftest import Machine


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text("livekit-agents[silero]==1.8.9 \\\n    --hash=sha256:00\n")
    return path


def test_the_agents_version_is_read_from_its_lock(lock: Path) -> None:
    """Extras do not hide it."""
    assert python_env.agent_version(lock) == "1.8.9"


def test_a_missing_lock_is_named(tmp_path: Path) -> None:
    """The next step is a checkout."""
    with pytest.raises(EnvironmentFault, match=r"no\.lock: No such file or directory; the reference agent's lock belongs to a checkout"):
        python_env.agent_version(tmp_path / "no.lock")


def test_another_lock_is_another_environment(lock: Path) -> None:
    """A changed pin never meets the old packages."""
    before = python_env.agent_key(lock)
    lock.write_text(lock.read_text() + "numpy==2.0.0 --hash=sha256:00\n")

    assert python_env.agent_key(lock) != before


def test_the_agents_environment_is_byte_compiled_and_checked_by_hash(machine: Machine, lock: Path) -> None:
    """Even where the machine forbids bytecode, and it is made once."""
    machine.uv()
    first = python_env.agent_python(machine.shop, lock)
    second = python_env.agent_python(machine.shop, lock)
    calls = machine.wrote("uv-calls").splitlines()

    assert (first[1], second[1], first[0] == second[0], len(calls), "--require-hashes --compile-bytecode" in calls[1]) == (
        True,
        False,
        True,
        2,
        True,
    )


def test_a_uv_that_is_too_old_is_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then pip fetches the pinned one; without pip the fault says what to install."""
    machine.says("uv", "uv 0.1.2")
    monkeypatch.setattr(python_env, "interpreter", lambda: machine.executable("python-without-pip", "exit 1"))

    with pytest.raises(EnvironmentFault, match="neither uv nor pip was found"):
        python_env.uv(machine.shop)

    assert machine.told == [f"{machine.bin}/uv is uv 0.1.2, wanted 0.5.0 or newer: ignored"]


def test_tools_are_pinned_by_hash() -> None:
    """What is fetched to build with is as fixed as what is built."""
    assert {path.name: "--hash=sha256:" in path.read_text() for path in python_env.LOCKS_DIR.iterdir()} == {
        "go.txt": True,
        "node.txt": True,
        "uv.txt": True,
    }


@pytest.fixture
def checkout(machine: Machine) -> Path:
    root = machine.root / "checkout"
    root.mkdir()
    (root / "requirements.lock").write_text("")
    (root / "pyproject.toml").write_text("")
    machine.uv()
    return root


def test_a_second_env_does_nothing(machine: Machine, checkout: Path) -> None:
    """The stamp says that the lock has not changed since."""
    first = environment.ensure(machine.shop, checkout)
    calls = machine.wrote("uv-calls")
    second = environment.ensure(machine.shop, checkout)

    assert (first, second, machine.wrote("uv-calls") == calls) == (True, False, True)


def test_a_changed_lock_is_installed(machine: Machine, checkout: Path) -> None:
    """And the environment is not made from nothing for it."""
    environment.ensure(machine.shop, checkout)
    (checkout / "requirements.lock").write_text("numpy==2.0.0\n")

    assert (environment.ensure(machine.shop, checkout), machine.wrote("uv-calls").count("venv --quiet")) == (True, 1)


def test_an_interrupted_env_is_finished_by_the_next(machine: Machine, checkout: Path) -> None:
    """No stamp is left by an installation that failed."""
    machine.executable("uv", 'if [ "$1" = --version ]; then echo 0.9.9; else exit 1; fi')
    with pytest.raises(EnvironmentFault):
        environment.ensure(machine.shop, checkout)
    machine.uv()

    assert environment.ensure(machine.shop, checkout)
