"""Builds the compiled media core into the cache and loads it; the machine needs a C compiler for it, and nothing needs the core."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from cffi import FFI

SOURCE, SHARED = Path(__file__).with_name("core.c"), Path(__file__).with_name("core.h")
_FLAGS = ("-O2", "-shared", "-fPIC", "-pthread")
_BUILD_S = 60.0
_LOG = logging.getLogger(__name__)


class Library:
    """The loaded core."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if ``path`` is not the core of this source."""
        self.ffi: Any = FFI()
        self.ffi.cdef(SHARED.read_text())
        functions: Any = self.ffi.dlopen(str(path))
        self.functions = functions
        expected = self.ffi.sizeof("media_core") * 1_000_003 + self.ffi.sizeof("core_port")
        if functions.core_sizes() != expected:
            msg = f"{path} was built from another source: its structures have other sizes"
            raise OSError(msg)


@functools.cache
def library(home: Path) -> Library | None:
    """The core, built below ``home`` if it is not there yet. None, with the reason logged, where it cannot be."""
    try:
        return Library(_built(home))
    except (OSError, subprocess.SubprocessError) as exc:
        said = exc.stderr.strip() if isinstance(exc, subprocess.CalledProcessError) and exc.stderr else exc
        _LOG.warning("no compiled media core, callers use the Python one: %s", said)
        return None


def _built(home: Path) -> Path:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        msg = f"it is written for 64 bit Linux, this is {platform.system()} {platform.machine()}"
        raise OSError(msg)
    if shutil.which(compiler[0]) is None:
        msg = f"there is no C compiler '{compiler[0]}'"
        raise OSError(msg)
    digest = hashlib.sha256(SOURCE.read_bytes() + SHARED.read_bytes() + " ".join((*compiler, *_FLAGS)).encode()).hexdigest()[:16]
    place = home / "media-core" / f"{digest}-{platform.machine()}.so"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is finished: two processes may build at once, and the last one wins with the same bytes.
    with tempfile.TemporaryDirectory(dir=place.parent) as building:
        made = Path(building) / "core.so"
        argv = [*compiler, *_FLAGS, "-o", str(made), str(SOURCE)]
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=_BUILD_S)
        made.replace(place)
    return place
