"""Real faults on this machine: what it allows, the processes that do them, and a watch on the counters that the exporter reads, too.

Burning gives way to everybody, holding to whoever needs the memory, the full file system is 64 MiB in a mount namespace that goes with its exporter.
All of them are children of the stack, end by themselves if it does not end them, and at once if it is killed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.clock import Clock
from harness.rules.real import Machine, Plan, Watched
from harness.stack import fault
from harness.stack.beside import beside

if TYPE_CHECKING:
    from harness.stack.embedded import RunningStack

DISK_BYTES = 64 * 2**20
DISK_NODE = "node_exporter_disk"
DISK_HOST = "host-d"
"""The instance under which the exporter that sees the small file system is scraped."""
_SLOW_S = 0.02
"""A look that took longer says too little of when it was: it is left out."""
_PERMIT = "allow user namespaces to this user (sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a container with SYS_ADMIN)"
Look = Callable[[], float]
Seen = Callable[[str, Watched], None]


def machine(scratch: Path) -> Machine:
    """This one. scratch: where a mount may be tried."""
    quota = _limits("cpu.max", "cpu/cpu.cfs_quota_us")
    affinity = float(len(os.sched_getaffinity(0)))
    limits = [left for text in _limits("memory.max", "memory/memory.limit_in_bytes") if (left := _left(*text)) is not None]
    return Machine(
        cpus=_cpus(),
        cpus_ours=min([affinity, *(share for path, text in quota if (share := _share(path, text)) is not None)]),
        memory_total_bytes=_total_bytes(),
        memory_available_bytes=fault.available_bytes(),
        memory_limit_bytes=min(limits, default=None),
        no_disk=_no_disk(scratch),
    )


def within(directory: Path) -> tuple[str, ...]:
    """What is put before a command that shall have the small file system on ``directory``."""
    return (sys.executable, "-I", "-S", fault.__file__, "within", str(directory), str(DISK_BYTES))


class Real:
    """The faults of one stack. seconds: after which each ends by itself."""

    def __init__(self, stack: RunningStack, plan: Plan, seconds: float) -> None:
        self._stack, self._plan, self._seconds = stack, plan, seconds
        self._burning: tuple[str, ...] = ()

    @property
    def subjects(self) -> tuple[str, ...]:
        return self._plan.subjects

    def mount(self) -> SmallDisk:
        """A small file system, and the exporter that sees it."""
        directory = self._stack.scratch / "full"
        directory.mkdir(mode=0o700)
        view = self._stack.scratch / "proc"
        view.mkdir()
        # The exporter asks for the mounts of process 1, which is not in the namespace.
        for name in ("1", "self"):
            (view / name).symlink_to("/proc/self")
        port = self._stack.start_node(
            DISK_NODE,
            before=within(directory),
            collectors=("filesystem",),
            more=(
                f"--path.procfs={view}",
                "--collector.filesystem.fs-types-include=^overlay$",
                f"--collector.filesystem.mount-points-include=^{directory}$",
            ),
        )
        return SmallDisk(directory=directory, pid=self._stack.pids()[DISK_NODE], port=port)

    def burn(self) -> None:
        """Every processor that is ours."""
        self._burning = tuple(f"burn-{number}" for number in range(len(os.sched_getaffinity(0))))
        for name in self._burning:
            self._stack.start_fault(name, "burn", str(self._seconds))

    def rest(self) -> None:
        for name in self._burning:
            self._stack.end(name)
        self._burning = ()

    def hold(self) -> None:
        self._stack.start_fault("hold", "hold", str(self._plan.hold_bytes), str(self._plan.leave_bytes), str(self._seconds))

    def release(self) -> str | None:
        """Why it was not held all the time. None: it was."""
        why = self._stack.said("hold", fault.LET_GO)
        self._stack.end("hold")
        return f"the guard {why}" if why else None


class SmallDisk:
    """A file system that is filled to a level by one file."""

    def __init__(self, *, directory: Path, pid: int, port: int) -> None:
        self.directory, self.port = directory, port
        # Through the process that has it: it is mounted nowhere else.
        self._seen = Path(f"/proc/{pid}/root{directory}")

    @property
    def labels(self) -> Mapping[str, str]:
        """Of its alert."""
        return {"instance": DISK_HOST, "mountpoint": str(self.directory)}

    def hold(self, percent: float) -> None:
        """At least so full, by less than a block."""
        found = os.statvfs(self._seen)
        file = self._seen / "filled"
        size = file.stat().st_size if file.exists() else 0
        others = (found.f_blocks - found.f_bavail) - -(-size // found.f_frsize)
        wanted = max(0, -int(-percent * found.f_blocks // 100) - others) * found.f_frsize
        with file.open("ab") as out:
            out.truncate(min(size, wanted))
            if wanted:
                os.posix_fallocate(out.fileno(), 0, wanted)

    def percent(self) -> float:
        """As the rule counts: what is available to everybody, of all."""
        found = os.statvfs(self._seen)
        return 100 * (1 - found.f_bavail / found.f_blocks)


def idle_s() -> float:
    """Seconds that the processors idled since the start of the machine, mean over them."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[4]) / os.sysconf("SC_CLK_TCK") / _cpus()


def memory_percent() -> float:
    """As the rule counts: what is not available."""
    return 100 * (1 - fault.available_bytes() / _total_bytes())


def looks(subjects: Collection[str], disk: SmallDisk | None) -> Mapping[str, Look]:
    """By subject, what ``watch`` looks at."""
    found: dict[str, Look] = {"cpu": idle_s, "memory": memory_percent}
    return {name: look for name, look in {**found, **({"disk": disk.percent} if disk else {})}.items() if name in subjects}


@contextmanager
def watch(looks: Mapping[str, Look], seen: Seen, *, clock: Clock, every_s: float, told_s: float = 10.0) -> Iterator[None]:
    """Each counter is looked at while the block lasts; what was seen is told every ``told_s``, and at the end."""

    def record(is_over: threading.Event) -> None:
        while not is_over.is_set():
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in looks}
            until = clock.now() + round(told_s * 1e9)
            while clock.now() < until and not is_over.is_set():
                for name, look in looks.items():
                    before = clock.now()
                    with contextlib.suppress(OSError):  # an exporter that is gone took its file system with it
                        number = look()
                        after = clock.now()
                        if (after - before) / 1e9 < _SLOW_S:
                            found[name].append((round((before + after) / 2e9, 4), number))
                is_over.wait(every_s)
            for name, points in found.items():
                if points:
                    seen(name, Watched(at_s=tuple(at for at, _ in points), values=tuple(number for _, number in points)))

    with beside(record, "watch"):
        yield


def _no_disk(scratch: Path) -> str | None:
    directory = scratch / "tried"
    directory.mkdir(exist_ok=True)
    done = subprocess.run([*within(directory), "/bin/true"], capture_output=True, text=True, check=False)
    said = done.stderr.strip().rpartition("\n")[2]
    return f"no file system of our own: {said or f'exit code {done.returncode}'}; {_PERMIT}" if done.returncode else None


def _cpus() -> int:
    lines = Path("/proc/stat").read_text().splitlines()
    return sum(line.startswith("cpu") and line[3:4].isdigit() for line in lines)


def _total_bytes() -> int:
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))


def _limits(unified: str, split: str) -> list[tuple[Path, str]]:
    """The files of that name of every control group that holds us, with what they say."""
    root, found = Path("/sys/fs/cgroup"), []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, inside = line.split(":", 2)
        controller, _, name = split.partition("/")
        if number == "0":
            base, name = root, unified
        elif controller in controllers.split(","):
            base = root / controller
        else:
            continue
        path = base / inside.lstrip("/")
        for directory in (path, *path.parents):
            # Inside a container the path is the outside's, and only the root of the tree is there.
            if directory.is_relative_to(root) and (directory / name).is_file():
                found.append((directory / name, (directory / name).read_text().strip()))
    return found


def _share(path: Path, text: str) -> float | None:
    """Processors of a quota. None: there is none."""
    quota, *period = text.split()
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period[0] if period else (path.parent / "cpu.cfs_period_us").read_text())


def _left(path: Path, text: str) -> int | None:
    """Bytes up to a limit of memory. None: there is none."""
    if text == "max" or int(text) >= _total_bytes():
        return None
    used = path.with_name("memory.current" if path.name == "memory.max" else "memory.usage_in_bytes")
    return max(0, int(text) - int(used.read_text()))
