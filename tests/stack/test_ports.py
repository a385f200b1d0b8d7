"""Free ports, and the holder of a taken one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import EnvironmentFault
from harness.stack import ports


def listening() -> socket.socket:
    """A socket that listens on a port of the system's choice."""
    server = socket.create_server((ports.LOOPBACK, 0))
    return server


def test_every_name_has_a_port_of_its_own() -> None:
    """Ports differ, and can be bound."""
    chosen = ports.free(("a", "b", "c"))

    assert len(set(chosen.values())) == 3
    for port in chosen.values():
        socket.create_server((ports.LOOPBACK, port)).close()


def test_ports_are_outside_of_the_clients_range() -> None:
    """No outgoing connection can be given one of ours between the choice and the start of its part."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert all(port < first for port in ports.free(("a", "b", "c")).values())


def test_a_fixed_port_is_kept() -> None:
    """A port that the user chose is not replaced."""
    (chosen,) = ports.free(("a",)).values()

    assert ports.free(("a", "b"), fixed={"a": chosen})["a"] == chosen


def test_a_taken_fixed_port_is_named_with_its_holder() -> None:
    """The sentence has the port, what it was for, the pid and the command that has it."""
    with listening() as server:
        port = server.getsockname()[1]

        with pytest.raises(EnvironmentFault, match=rf"port {port}, wanted for livekit, is taken by pid {os.getpid()} \(.*python"):
            ports.free(("livekit",), fixed={"livekit": port})


def test_a_taken_udp_port_is_noticed() -> None:
    """Media ports are UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((ports.LOOPBACK, 0))
        port = server.getsockname()[1]

        with pytest.raises(EnvironmentFault, match=f"is taken by pid {os.getpid()}"):
            ports.free(("livekit-udp",), fixed={"livekit-udp": port})


def test_a_promised_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens there yet, and still neither this process nor another is promised it again, until it is given back."""
    chosen = ports.free(("a",))
    (port,) = chosen.values()
    program = f"import random; random.randint = lambda *_: {port}; from harness.stack import ports; ports.free(('b',))"

    def others() -> str:
        done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=False)
        return done.stderr.strip().rpartition("\n")[2]

    monkeypatch.setattr("random.randint", lambda *_: port)
    with pytest.raises(EnvironmentFault, match="no free port"):
        ports.free(("b",))
    assert "no free port" in others()

    ports.release(chosen)
    assert others() == ""
    assert ports.free(("b",)) == {"b": port}
    ports.release({"b": port})


def test_nobody_holds_a_free_port() -> None:
    """A free port has no holder."""
    (port,) = ports.free(("a",)).values()

    assert ports.holder(port) is None


def test_only_the_listener_itself_counts() -> None:
    """An answer on the port proves nothing about a process that does not have the socket."""
    with listening() as server:
        port = server.getsockname()[1]

        assert ports.listens(frozenset((os.getpid(),)), port)
        assert not ports.listens(frozenset((os.getppid(),)), port)
