"""What ends first when more callers come."""

from __future__ import annotations

import dataclasses

from harness.measure.capacity import Machine, Tried, beside_server, limits

MACHINE = Machine(
    cores=2,
    processes=2,
    callers_per_process=60,
    descriptors=1024,
    descriptors_per_caller=3,
    udp_ports=28_000,
    sockets_per_caller=1,
)


def tried(callers: int, **differs: object) -> Tried:
    step = Tried(
        callers=callers,
        cpu_ms_per_caller_s=2.0,
        server_ms_per_caller_s=3.0,
        others_cores=0.0,
        pacing_p99_ms=0.3,
        priority="SCHED_RR 1",
        engine="compiled",
    )
    return dataclasses.replace(step, **differs)  # type: ignore[arg-type] # a test names its own fields


def bends(machine: Machine, *steps: Tried) -> tuple[str, int]:
    first = limits(steps, machine)[0]
    return first.name, first.callers


def test_a_machine_with_room_ends_with_its_processes() -> None:
    """Two cores spend 1.6 of them on 2 ms a caller-second: 800 callers; two processes carry 120."""
    assert bends(MACHINE, tried(10), tried(40)) == ("caller processes", 120)


def test_cpu_that_others_burn_is_not_there() -> None:
    """Half a core of two is left, and a fifth of that stays free."""
    assert bends(MACHINE, tried(10, others_cores=1.5, cpu_ms_per_caller_s=8.0)) == ("CPU", 50)


def test_a_pace_that_was_not_kept_ends_with_the_step_before() -> None:
    """How late a step between would have been nobody knows."""
    assert bends(MACHINE, tried(10), tried(20), tried(40, pacing_p99_ms=12.0)) == ("pacing", 20)


def test_a_machine_that_keeps_no_pace_carries_nobody() -> None:
    """Its first step was late."""
    assert bends(MACHINE, tried(10, pacing_p99_ms=40.0)) == ("pacing", 0)


def test_descriptors_end() -> None:
    """124, less 64 of the process's own, three a caller, two processes."""
    assert bends(dataclasses.replace(MACHINE, descriptors=124), tried(10)) == ("file descriptors", 40)


def test_ports_end() -> None:
    """300 free, 256 of them for others."""
    assert bends(dataclasses.replace(MACHINE, udp_ports=300), tried(10)) == ("UDP ports", 44)


def test_a_media_server_and_agents_beside_them_take_their_share() -> None:
    """2 x (2 + 3) ms a call of 1.6 cores."""
    assert beside_server((tried(10),), MACHINE) == 160
