"""A part that the distribution has, fetched and unpacked without installing it or being root: VictoriaMetrics, in Prometheus' place."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import EnvironmentFault
from harness.stack import cache
from harness.stack.workshop import Workshop, version_of

PACKAGE = "victoria-metrics"
RELEASE = "debian"
"""No number: which one it is, is the distribution's to say; what runs says so itself."""
_BINARY = "usr/bin/victoria-metrics"


def victoria_metrics(shop: Workshop) -> tuple[Path, bool]:
    """The server, and whether it was unpacked now. Raises EnvironmentFault where there is no apt, or it has no such package."""
    directory, is_made = cache.keep(shop, PACKAGE, RELEASE, _BINARY, lambda place: _unpack(shop, place))
    return directory / _BINARY, is_made


def version(binary: Path) -> str | None:
    """``1.79.5``. None: it does not say."""
    return version_of((binary, "--version"))


def _unpack(shop: Workshop, place: Path) -> None:
    tools = {name: shop.which(name) for name in ("apt-get", "dpkg-deb")}
    if missing := [name for name, found in tools.items() if found is None]:
        msg = f"no {missing[0]} here: {PACKAGE} comes from Debian or Ubuntu; or set VOXPROOF_VICTORIA_METRICS to its executable"
        raise EnvironmentFault(msg)
    scratch = place / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    # Its own state: neither root's rights nor root's lists are needed.
    own = (
        *("-o", f"Dir::State::lists={scratch / 'lists'}", "-o", f"Dir::Cache={scratch / 'cache'}"),
        *("-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=true", "-q"),
    )
    shop.run((str(tools["apt-get"]), *own, "update"), doing=f"{PACKAGE}: reading the distribution's index", cwd=scratch)
    shop.run((str(tools["apt-get"]), *own, "download", PACKAGE), doing=f"{PACKAGE}: fetching it", cwd=scratch)
    (package,) = scratch.glob("*.deb")
    shop.run((str(tools["dpkg-deb"]), "-x", package, place), doing=f"{PACKAGE}: unpacking it", cwd=scratch)
    shutil.rmtree(scratch)
