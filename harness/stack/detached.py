"""The embedded stack in the background: ``voxproof stack up``, ``down``, ``status``, ``logs``. Its state file is its owner's alone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from harness import codec
from harness.clock import Clock
from harness.errors import EnvironmentFault, HarnessError, StackError, UsageError
from harness.model import Part, Target, UnixNs, value
from harness.stack import guard
from harness.stack.supervise import Death, tail

_STATE = "stack.json"
_LOCK = "stack.lock"
_LOGS = "stack-logs"
_DOWN_S = 15.0
_POLL_S = 0.2
_REPOSITORY = Path(__file__).resolve().parents[2]


@value
class Standing:
    """A stack in the background. Holds credentials: never print it whole."""

    pid: int
    start: int | None
    """Start of the process in clock ticks: the pid alone may be another's by now."""
    up_at: UnixNs
    target: Target
    parts: tuple[Part, ...]
    pids: Mapping[str, int]
    logs: str
    deaths: tuple[Death, ...] = ()
    """Parts that died since."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


def detached_up(
    *,
    home: Path,
    progress: Callable[[str], None],
    fixed_ports: Mapping[str, int] | None = None,
    time_scale: float = 15,
    with_agent: bool = True,
) -> Standing:
    """Starts the stack in a process of its own and returns when it is up.

    Raises UsageError if one is up already, and whatever its start raises.
    """
    if (standing := status(home)) is not None:
        raise UsageError(f"a stack is up already (pid {standing.pid}); try: voxproof stack down")
    home.mkdir(parents=True, exist_ok=True)
    options = {"fixed_ports": dict(fixed_ports or {}), "time_scale": time_scale, "with_agent": with_agent}
    command = [sys.executable, "-m", "harness.stack.detached", json.dumps({"home": str(home), "options": options})]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, cwd=_REPOSITORY, text=True
    ) as process:
        _follow(process, progress)
    standing = status(home)
    if standing is None:
        raise StackError(f"the stack ended as soon as it was up; see {home / _LOGS}")
    return standing


def down(home: Path) -> bool:
    """Ends the background stack and waits until it is gone. False: none was up."""
    standing = status(home)
    if standing is None:
        return False
    os.kill(standing.pid, signal.SIGTERM)
    if not _gone(standing, _DOWN_S):
        # Its guard ends the parts then.
        os.kill(standing.pid, signal.SIGKILL)
        _gone(standing, _DOWN_S)
        (home / _STATE).unlink(missing_ok=True)
    return True


def status(home: Path) -> Standing | None:
    """The background stack. None: none is up."""
    path = home / _STATE
    try:
        standing = codec.from_json(Standing, json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise UsageError(f"{path} is not the state of a stack: {exc}; remove it") from exc
    assert isinstance(standing, Standing)
    return standing if guard.start_ticks(standing.pid) == standing.start else None


def logs(home: Path, part: str | None = None, *, lines: int = 40) -> Mapping[str, tuple[str, ...]]:
    """The last lines by part, of the stack that is up or was up last.

    Raises UsageError with the known names for an unknown part.
    """
    found = {path.stem: path for path in sorted((home / _LOGS).glob("*.log"))}
    if part is not None and part not in found:
        raise UsageError(f"no log of {part!r} in {home / _LOGS}; there are {', '.join(found) or 'none'}")
    return {name: tail(path, lines) for name, path in found.items() if part in (None, name)}


def _follow(process: subprocess.Popen[str], progress: Callable[[str], None]) -> None:
    """Relays progress until the stack is up; raises what its start raised. If we are interrupted, so is the start."""
    assert process.stdout is not None
    pid = None
    try:
        for line in process.stdout:
            message = json.loads(line)
            if "pid" in message:
                pid = message["pid"]
            elif "progress" in message:
                progress(message["progress"])
            elif "error" in message:
                raise _ERRORS[message["kind"]](message["error"])
            else:
                return
    except KeyboardInterrupt:
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            process.stdout.read()  # until it has ended and closed the pipe
        raise
    raise StackError("the background process ended without a word")


_ERRORS: Mapping[str, type[HarnessError]] = {each.__name__: each for each in (HarnessError, UsageError, EnvironmentFault, StackError)}


def _gone(standing: Standing, timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while guard.start_ticks(standing.pid) == standing.start:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _main() -> None:
    """The background process."""
    if os.fork():
        # Nobody's child: whoever started it need not stay to wait for it.
        os._exit(0)
    arguments = json.loads(sys.argv[1])
    _say({"pid": os.getpid()})
    home = Path(arguments["home"])
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with (home / _LOCK).open("w") as lock:
            _hold(lock.fileno(), home)
            _serve(home, arguments["options"])
    except HarnessError as exc:
        _say({"error": str(exc), "kind": type(exc).__name__})
        sys.exit(2)
    except KeyboardInterrupt:
        pass


def _serve(home: Path, options: Mapping[str, Any]) -> None:
    from harness.stack.embedded import up  # the parent process needs none of it

    directory = home / _LOGS
    for old in directory.glob("*.log"):
        old.unlink()
    clock = Clock.start()
    with ExitStack() as exits:
        stack = exits.enter_context(up(home=home, logs=directory, progress=lambda text: _say({"progress": text}), **options))
        exits.callback((home / _STATE).unlink, missing_ok=True)
        standing = Standing(
            pid=os.getpid(),
            start=guard.start_ticks(os.getpid()),
            up_at=clock.now(),
            target=stack.target,
            parts=stack.parts,
            pids=stack.pids(),
            logs=str(directory),
            settings=stack.settings,
            digests=stack.digests,
        )
        _write(home / _STATE, standing)
        _say({"up": True})
        # The parent stops listening now, and whoever reads our errors through a pipe must see its end.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        while True:
            time.sleep(_POLL_S)
            if (deaths := stack.deaths()) != standing.deaths:
                standing = replace(standing, deaths=deaths)
                _write(home / _STATE, standing)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _hold(descriptor: int, home: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise UsageError(f"another stack is starting or up in {home}; try: voxproof stack down") from exc


def _say(message: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _write(path: Path, standing: Standing) -> None:
    """Replaces the state file; only its owner may read it, from its first byte on."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(codec.to_json(standing), out)
    partial.replace(path)


if __name__ == "__main__":
    _main()
