"""Where parts are made: whose machine, whom to tell, and one way to run a maker that takes minutes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import EnvironmentFault
from harness.model import value

TELL_EVERY_S = 10.0
"""A maker that runs longer than this is reported again, with its elapsed seconds."""
POLL_S = 0.1
_LAST_LINES = 15
_PROBE_TIMEOUT_S = 20.0
_NUMBER = re.compile(r"\d+(?:\.\d+)+")


def _nothing(said: str) -> str:
    return ""


@value
class Workshop:
    """Carried by everything that makes a part."""

    home: Path
    """The cache: ``$VOXPROOF_HOME`` or ``~/.cache/voxproof``."""
    environ: Mapping[str, str]
    progress: Callable[[str], None]
    """Told one sentence at a time, from any thread."""
    stop: threading.Event
    """Set: whoever waits or runs gives up and cleans up."""

    def which(self, executable: str) -> Path | None:
        """The executable on PATH. None: there is none."""
        found = shutil.which(executable, path=self.environ.get("PATH", os.defpath))
        return None if found is None else Path(found)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        doing: str,
        cwd: Path,
        changes: Mapping[str, str | None] | None = None,
        stage: Callable[[str], str] = _nothing,
        noise: re.Pattern[str] | None = None,
    ) -> None:
        """Runs a maker to its end and tells how long it takes.

        changes: environment variables to set, or with None to unset. stage: what it is at, in a word, from what it printed so far.
        noise: lines that say nothing about a failure.
        Raises EnvironmentFault with its last lines if it fails.
        """
        environ = {**self.environ, **(changes or {})}
        begun = time.monotonic()
        with tempfile.TemporaryFile() as said:
            child = _started(argv, doing, cwd, {name: text for name, text in environ.items() if text is not None}, said.fileno())
            try:
                tell_at = begun + TELL_EVERY_S
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(POLL_S)
                        break
                    if self.stop.is_set():
                        raise KeyboardInterrupt
                    if time.monotonic() >= tell_at:
                        tell_at += TELL_EVERY_S
                        self.progress(f"{doing}: {time.monotonic() - begun:.0f} s{stage(_text(said.fileno()))}")
            finally:
                _end(child)
            if child.returncode:
                last = "\n".join(f"    {line}" for line in last_lines(_text(said.fileno()), noise))
                msg = f"{doing} failed ({Path(argv[0]).name} ended with {child.returncode}); its last lines:\n{last}"
                raise EnvironmentFault(msg)
        self.progress(f"{doing}: done in {time.monotonic() - begun:.0f} s")


def version_of(argv: Sequence[str | Path], environ: Mapping[str, str] | None = None) -> str | None:
    """The first dotted number that a program says of itself. None: it cannot be run, or says none."""
    try:
        said = subprocess.run(
            [str(arg) for arg in argv],
            capture_output=True,
            check=True,
            env=environ,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _NUMBER.search(said.stdout + said.stderr)
    return None if found is None else found.group()


def is_at_least(version: str, wanted: str) -> bool:
    """Whether ``version`` is ``wanted`` or newer, number by number."""
    return _numbers(version) >= _numbers(wanted)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def last_lines(said: str, noise: re.Pattern[str] | None = None) -> tuple[str, ...]:
    """The end of what a maker printed, without empty lines and those that are ``noise`` from end to end."""
    telling = [line for line in said.splitlines() if line.strip() and not (noise and noise.fullmatch(line))]
    return tuple(telling[-_LAST_LINES:])


def _started(argv: Sequence[str | Path], doing: str, cwd: Path, environ: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
    cwd.mkdir(parents=True, exist_ok=True)
    try:
        return subprocess.Popen(
            [str(arg) for arg in argv],
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the whole group ends with us, a compiler's children included
        )
    except OSError as exc:
        msg = f"{doing}: cannot start {argv[0]}: {exc.strerror}"
        raise EnvironmentFault(msg) from exc


def _text(descriptor: int) -> str:
    # pread: the child writes through the same file description, so seeking here would move its next line.
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode(errors="replace")


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
            return
