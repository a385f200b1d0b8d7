"""The cache of finished parts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import EnvironmentFault
from harness.stack import cache
from harness.stack.workshop import Workshop
from tests.stack_parts.conftest import Machine


def maker(made: list[Path]) -> Callable[[Path], None]:
    """Makes a part that is one executable."""

    def make(into: Path) -> None:
        made.append(into)
        (into / "server").write_text("x")
        (into / "server").chmod(0o755)

    return make


def names(machine: Machine) -> list[str]:
    """Everything below the cache's directory of parts."""
    return sorted(path.relative_to(machine.home / "bin").as_posix() for path in (machine.home / "bin").rglob("*"))


def test_a_part_is_made_once(machine: Machine) -> None:
    """The second time it is found, and its maker is not asked."""
    made: list[Path] = []
    first = cache.keep(machine.shop, "server", "1.2", "server", maker(made))
    second = cache.keep(machine.shop, "server", "1.2", "server", maker(made))

    assert (first, second, len(made)) == ((machine.home / "bin/server/1.2", True), (machine.home / "bin/server/1.2", False), 1)


def test_versions_stand_beside_each_other(machine: Machine) -> None:
    """Another version is another part."""
    cache.keep(machine.shop, "server", "1.2", "server", maker([]))
    cache.keep(machine.shop, "server", "1.3", "server", maker([]))

    assert names(machine) == ["server", "server/1.2", "server/1.2/server", "server/1.3", "server/1.3/server"]


@pytest.mark.parametrize("error", [EnvironmentFault("the compiler failed"), KeyboardInterrupt()])
def test_what_is_not_finished_is_not_kept(machine: Machine, error: BaseException) -> None:
    """A maker that fails or is interrupted leaves nothing behind."""

    def make(into: Path) -> None:
        maker([])(into)
        raise error

    with pytest.raises(type(error)):
        cache.keep(machine.shop, "server", "1.2", "server", make)

    assert names(machine) == ["server"]


def test_a_maker_that_makes_nothing_is_a_fault(machine: Machine) -> None:
    """An end without an error and without the executable is not a part."""
    with pytest.raises(EnvironmentFault, match=r"making server 1\.2 ended without an error and without server"):
        cache.keep(machine.shop, "server", "1.2", "server", lambda into: None)

    assert names(machine) == ["server"]


def test_the_rest_of_a_killed_provisioner_is_removed(machine: Machine) -> None:
    """Its half-made directory never becomes a part, nor hinders the next one."""
    rest = machine.home / "bin/server/.1.2.partial"
    rest.mkdir(parents=True)
    (rest / "half").write_text("x")
    cache.keep(machine.shop, "server", "1.2", "server", maker([]))

    assert names(machine) == ["server", "server/1.2", "server/1.2/server"]


def test_a_part_without_its_executable_is_made_again(machine: Machine) -> None:
    """A directory alone is not a part."""
    made: list[Path] = []
    directory, _ = cache.keep(machine.shop, "server", "1.2", "server", maker(made))
    (directory / "server").unlink()
    cache.keep(machine.shop, "server", "1.2", "server", maker(made))

    assert (len(made), os.access(directory / "server", os.X_OK)) == (2, True)


def test_two_at_once_make_a_part_once(machine: Machine) -> None:
    """The second waits, says so, and finds what the first made."""
    is_making, is_waiting = threading.Event(), threading.Event()
    made: list[Path] = []
    results: list[tuple[Path, bool]] = []

    def slow(into: Path) -> None:
        is_making.set()
        assert is_waiting.wait(10)
        maker(made)(into)

    def tell(sentence: str) -> None:
        machine.told.append(sentence)
        is_waiting.set()

    first = threading.Thread(target=lambda: results.append(cache.keep(machine.shop, "server", "1.2", "server", slow)))
    first.start()
    assert is_making.wait(10)
    other = Workshop(home=machine.home, environ=machine.environ, progress=tell, stop=machine.stop)
    second = cache.keep(other, "server", "1.2", "server", maker(made))
    first.join()

    assert (results[0][1], second[1], len(made), machine.told) == (
        True,
        False,
        1,
        ["server 1.2: another process is making it, waiting for it"],
    )


def test_whoever_waits_can_be_stopped(machine: Machine) -> None:
    """Ctrl-C while another process builds is not a wait of minutes."""
    machine.stop.set()
    with (
        cache.lock(machine.shop, "server-1.2", what="server"),
        pytest.raises(KeyboardInterrupt),
    ):
        cache.keep(machine.shop, "server", "1.2", "server", maker([]))


def test_sharers_hold_a_lock_together(machine: Machine) -> None:
    """Two builds share the compiler's caches, and nobody removes them meanwhile."""
    with (
        cache.lock(machine.shop, "go", what="go", shared=True),
        cache.lock(machine.shop, "go", what="go", shared=True),
        cache.lock_if_free(machine.shop, "go") as is_free_meanwhile,
    ):
        pass
    with cache.lock_if_free(machine.shop, "go") as is_free_afterwards:
        pass

    assert (is_free_meanwhile, is_free_afterwards) == (False, True)


def test_a_cache_that_cannot_be_written_is_named(machine: Machine) -> None:
    """The sentence says where, and what to set."""
    machine.home.write_text("a file in its place")

    with pytest.raises(EnvironmentFault, match=r"cannot write .*/home/locks/server-1\.2\.lock: .*; set VOXPROOF_HOME"):
        cache.keep(machine.shop, "server", "1.2", "server", maker([]))
