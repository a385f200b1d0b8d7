"""How many callers a machine carries: from a few that were tried on it, the limit that bends first."""

from __future__ import annotations

from collections.abc import Sequence

from harness.model import value

PACE_MS = 10.0
"""Half a frame: a later tick voids turns."""
BUSY_RATIO = 0.8
"""Share of the free cores that may be spent: above it, queues grow faster than load."""
DESCRIPTORS_PER_CALLER, SOCKETS_PER_CALLER = 3, 1
"""Websocket, the UDP socket that aioice opens, and our own handle of the same; ``tests/stack/test_capacity.py`` counts them."""
SPARE_DESCRIPTORS, SPARE_PORTS = 64, 256
"""What a process opens beside its calls, and what the machine keeps for others."""


@value
class Tried:
    """So many callers for some seconds, 50 packets a second each way."""

    callers: int
    cpu_ms_per_caller_s: float
    server_ms_per_caller_s: float
    """Of the media server's, if it runs here."""
    others_cores: float
    """Cores that neither callers nor media server burnt."""
    pacing_p99_ms: float
    priority: str
    engine: str

    @property
    def kept_pace(self) -> bool:
        """Its packets left when they were due."""
        return self.pacing_p99_ms <= PACE_MS


@value
class Machine:
    """What there is of everything that callers use up."""

    cores: int
    processes: int
    """Caller processes that a run starts at most."""
    callers_per_process: int
    descriptors: int
    """That one process may open, by its soft limit."""
    descriptors_per_caller: int
    udp_ports: int
    """Free ones of the range that the kernel gives out."""
    sockets_per_caller: int


@value
class Limit:
    """One thing that ends."""

    name: str
    callers: int
    because: str


def limits(tried: Sequence[Tried], machine: Machine) -> tuple[Limit, ...]:
    """Every limit, the one that bends first at the head. ``tried`` holds one step at least, fewest callers first."""
    found = [_cpu(tried, machine), *_pacing(tried), *countable(machine)]
    return tuple(sorted(found, key=lambda limit: limit.callers))


def countable(machine: Machine) -> tuple[Limit, ...]:
    """Those that need no trial."""
    descriptors = max(0, machine.descriptors - SPARE_DESCRIPTORS) // machine.descriptors_per_caller
    ports = max(0, machine.udp_ports - SPARE_PORTS) // machine.sockets_per_caller
    return (
        Limit(
            name="file descriptors",
            callers=descriptors * machine.processes,
            because=f"a process may open {machine.descriptors} (ulimit -n), a caller needs {machine.descriptors_per_caller}, "
            f"{machine.processes} processes",
        ),
        Limit(
            name="UDP ports",
            callers=ports,
            because=f"{machine.udp_ports} are free (net.ipv4.ip_local_port_range), a caller needs {machine.sockets_per_caller}",
        ),
        Limit(
            name="caller processes",
            callers=machine.processes * machine.callers_per_process,
            because=f"one a core, {machine.callers_per_process} callers each",
        ),
    )


def beside_server(tried: Sequence[Tried], machine: Machine) -> int:
    """Callers whose media server, and as many agents as cheap as callers, run on the same machine: by CPU alone."""
    most = tried[-1]
    per_call_ms = 2 * (most.cpu_ms_per_caller_s + most.server_ms_per_caller_s)
    return int(_free_ms(tried, machine) / per_call_ms)


def _cpu(tried: Sequence[Tried], machine: Machine) -> Limit:
    most = tried[-1]
    free_ms = _free_ms(tried, machine)
    return Limit(
        name="CPU",
        callers=int(free_ms / most.cpu_ms_per_caller_s),
        because=f"{most.cpu_ms_per_caller_s:.2f} ms a caller-second with {most.callers} ({most.engine} core), {free_ms / 1e3:.2f} cores to spend",
    )


def _pacing(tried: Sequence[Tried]) -> tuple[Limit, ...]:
    """Only where it bent: how late the next step would have been cannot be told from those before it."""
    bent = next((step for step in tried if not step.kept_pace), None)
    if bent is None:
        return ()
    kept = max((step.callers for step in tried if step.callers < bent.callers and step.kept_pace), default=0)
    because = (
        f"packets of {bent.callers} callers were {bent.pacing_p99_ms:.1f} ms late at p99, {PACE_MS:g} are allowed; priority {bent.priority}"
    )
    return (Limit(name="pacing", callers=kept, because=because),)


def _free_ms(tried: Sequence[Tried], machine: Machine) -> float:
    """Milliseconds of CPU a second that others leave, in the busiest step."""
    return max(0.0, machine.cores - max(step.others_cores for step in tried)) * 1e3 * BUSY_RATIO
