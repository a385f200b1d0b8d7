"""Finished parts, keyed by name and version: two provisioners at once make each part once, and nothing unfinished is ever found."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.errors import EnvironmentFault
from harness.stack.workshop import POLL_S, Workshop


def place(home: Path, name: str, version: str) -> Path:
    """The directory that holds a part of this name and version, finished or not there at all."""
    return home / "bin" / name / version


def is_kept(directory: Path, finished: str) -> bool:
    """Whether the part is there. finished: path below ``directory`` of the executable that makes it one."""
    return os.access(directory / finished, os.X_OK)


def keep(shop: Workshop, name: str, version: str, finished: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
    """The part's directory, and whether it was made now.

    ``make`` fills an empty directory beside the place, renamed to the place only if ``make`` left an executable ``finished`` there.
    """
    directory = place(shop.home, name, version)
    if is_kept(directory, finished):
        return directory, False
    with lock(shop, f"{name}-{version}", what=f"{name} {version}"):
        if is_kept(directory, finished):
            return directory, False
        partial = directory.with_name(f".{version}.partial")
        try:
            _remove(partial)  # of a provisioner that was killed: the lock says that nobody works in it
            partial.mkdir(parents=True)
            make(partial)
            if not is_kept(partial, finished):
                msg = f"making {name} {version} ended without an error and without {finished}; is the pin right?"
                raise EnvironmentFault(msg)
            _remove(directory)  # there, but without its executable
            partial.rename(directory)
        except OSError as exc:
            msg = f"cannot keep {name} {version} in {directory}: {exc.strerror or exc}; set VOXPROOF_HOME to a directory with room"
            raise EnvironmentFault(msg) from exc
        finally:
            _remove(partial)
    return directory, True


@contextlib.contextmanager
def lock(shop: Workshop, key: str, *, what: str, shared: bool = False) -> Iterator[None]:
    """Held by one process (or by many sharers) at a time; the kernel lets go of it when its holder dies."""
    path = shop.home / "locks" / f"{key}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = path.open("a")
    except OSError as exc:
        msg = f"cannot write {path}: {exc.strerror}; set VOXPROOF_HOME to a directory of your own"
        raise EnvironmentFault(msg) from exc
    with held:
        is_told = False
        while not _take(held.fileno(), shared=shared):
            if not is_told:
                shop.progress(f"{what}: another process is making it, waiting for it")
                is_told = True
            if shop.stop.wait(POLL_S):
                raise KeyboardInterrupt
        yield


@contextlib.contextmanager
def lock_if_free(shop: Workshop, key: str) -> Iterator[bool]:
    """Whether the lock could be had at once; held meanwhile if so."""
    path = shop.home / "locks" / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as held:
        yield _take(held.fileno(), shared=False)


def _take(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(directory: Path) -> None:
    if directory.is_symlink() or directory.is_file():
        directory.unlink()
    elif directory.exists():
        shutil.rmtree(directory)
