"""Refusals before the first call, where the machine has too little."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import EnvironmentFault
from harness.load.machine import refuse_too_many, this_machine
from harness.measure.capacity import Machine

MACHINE = Machine(
    cores=2, processes=2, callers_per_process=60, descriptors=1024, descriptors_per_caller=3, udp_ports=28_000, sockets_per_caller=1
)


def test_enough_is_not_refused() -> None:
    """More callers than there are places are dropped and counted, not refused."""
    refuse_too_many(1, MACHINE)
    refuse_too_many(500, MACHINE)


def test_too_few_descriptors_are_said_with_what_to_do() -> None:
    """50 callers in each of two processes need 214; 100 may be opened."""
    with pytest.raises(EnvironmentFault) as refused:
        refuse_too_many(100, dataclasses.replace(MACHINE, descriptors=100))

    assert str(refused.value) == (
        "100 callers at once need 214 file descriptors in a caller process, and a process may open 100 here (12 callers); try: ulimit -n 1024"
    )


def test_too_few_ports_are_said_with_what_to_do() -> None:
    """100 callers, 300 free ports of which 256 are for others."""
    with pytest.raises(
        EnvironmentFault, match=r"100 UDP ports, and 300 are free here, 256 of them for others; widen .*ip_local_port_range"
    ):
        refuse_too_many(100, dataclasses.replace(MACHINE, udp_ports=300))


def test_this_machine_has_something() -> None:
    """What is read from the kernel makes sense."""
    machine = this_machine()

    assert machine.cores >= 1
    assert machine.descriptors > 64
    assert 1_000 < machine.udp_ports < 65_536
