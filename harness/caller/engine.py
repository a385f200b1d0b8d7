"""The media engine of one caller process: one thread that keeps time, one that listens, and what both say of themselves."""

from __future__ import annotations

from harness.caller.leg import Leg
from harness.clock import Clock
from harness.model import GeneratorHealth, UnixNs


class Engine:
    """One per process. ``start`` before the first leg, ``stop`` at the end; legs come and go between."""

    def __init__(self, clock: Clock) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Starts both threads. Raises EnvironmentFault where the kernel lacks recvmmsg or receive timestamps."""
        raise NotImplementedError

    def stop(self) -> None:
        """Removes every leg, joins both threads. May be called twice."""
        raise NotImplementedError

    def add(self, leg: Leg) -> None:
        """The leg sends and hears from the next tick on. Its PeerConnection must be connected."""
        raise NotImplementedError

    async def remove(self, leg: Leg) -> None:
        """Returns when no thread touches the leg any more and everything it received is decoded; close its PeerConnection afterwards."""
        raise NotImplementedError

    def doubt(self, since: UnixNs, until: UnixNs) -> str | None:
        """Why our own evidence forbids trusting a measurement in this window: a late tick, a kernel drop, a clock step. None: nothing does."""
        raise NotImplementedError

    def health(self, process: str) -> GeneratorHealth:
        """What the engine says of its own punctuality since its start."""
        raise NotImplementedError
