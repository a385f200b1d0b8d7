"""What this machine has of the things that callers use up, and a refusal before the first call where it is too little."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path

from harness.errors import EnvironmentFault
from harness.load.pool import CALLERS_PER_PROCESS
from harness.measure.capacity import DESCRIPTORS_PER_CALLER, SOCKETS_PER_CALLER, SPARE_DESCRIPTORS, SPARE_PORTS, Machine


def this_machine() -> Machine:
    """What there is of everything that callers use up."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    taken = {
        line.split()[1].rpartition(":")[2] for table in ("udp", "udp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    }
    return Machine(
        cores=os.cpu_count() or 1,
        processes=os.cpu_count() or 1,
        callers_per_process=CALLERS_PER_PROCESS,
        descriptors=1 << 20 if soft == resource.RLIM_INFINITY else soft,
        descriptors_per_caller=DESCRIPTORS_PER_CALLER,
        udp_ports=last - first + 1 - sum(first <= int(port, 16) <= last for port in taken),
        sockets_per_caller=SOCKETS_PER_CALLER,
    )


def refuse_too_many(callers: int, machine: Machine) -> None:
    """Raises EnvironmentFault if so many callers at once need more than there is, with the numbers and what to do."""
    carried = min(callers, machine.processes * machine.callers_per_process)
    each = min(
        machine.callers_per_process, math.ceil(carried / min(machine.processes, math.ceil(carried / machine.callers_per_process) or 1))
    )
    wanted = each * machine.descriptors_per_caller + SPARE_DESCRIPTORS
    if wanted > machine.descriptors:
        fits = max(0, machine.descriptors - SPARE_DESCRIPTORS) // machine.descriptors_per_caller
        raise EnvironmentFault(
            f"{callers} callers at once need {wanted} file descriptors in a caller process, and a process may open {machine.descriptors} here "
            f"({fits} callers); try: ulimit -n {max(1024, wanted)}"
        )
    if carried * machine.sockets_per_caller > machine.udp_ports - SPARE_PORTS:
        raise EnvironmentFault(
            f"{callers} callers at once need {carried * machine.sockets_per_caller} UDP ports, and {machine.udp_ports} are free here, "
            f"{SPARE_PORTS} of them for others; widen net.ipv4.ip_local_port_range, or place fewer calls: --max-calls N"
        )
