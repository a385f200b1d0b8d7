"""The media engine of one caller process: a thread that keeps time, one that listens, and what both say of themselves."""

from __future__ import annotations

import asyncio
import functools
import gc
import operator
import sys
import time

from harness.caller.compiled import CompiledThread
from harness.caller.kernel import BESIDE, peer_drops, raise_priority, restore_priority
from harness.caller.leg import Leg
from harness.caller.listening import ListeningThread
from harness.caller.native.build import Library
from harness.caller.pacing import MediaThread
from harness.clock import Clock
from harness.errors import HarnessError
from harness.measure.pacing import Lateness
from harness.model import GeneratorHealth, UnixNs

LOOPBACK = "127.0.0.1"
SWITCH_INTERVAL_S = 0.0005
"""How long a busy Python thread keeps the interpreter from the media thread: 5 ms by default, 9.7 ms late at p99 with this one."""


class Engine:
    """One per process. ``start`` before the first leg, ``stop`` at the end; legs come and go between."""

    def __init__(self, clock: Clock, library: Library | None = None) -> None:
        """library: the compiled core. None: the Python one, which carries impaired legs in any case.

        Raises EnvironmentFault where the kernel lacks recvmmsg or receive timestamps.
        """
        self._python = MediaThread(clock)
        self._compiled = None if library is None else CompiledThread(clock, library)
        self._cores: tuple[MediaThread | CompiledThread, ...] = (
            (self._python,) if self._compiled is None else (self._compiled, self._python)
        )
        self._listening = ListeningThread(clock, None if self._compiled is None else self._compiled.due)
        self._is_python_started = False
        self._legs: dict[Leg, MediaThread | CompiledThread] = {}
        self._callers = 0
        self._peer_drops: dict[int, int] = {}
        """At the media server's ports on this machine, before our first call there."""
        self._is_started = False
        self._priority = "normal"
        self._switch_interval_s = sys.getswitchinterval()

    def start(self) -> None:
        """Starts the threads. Call it in the asyncio thread: its priority rises, too."""
        # A collection of everything that was imported holds the interpreter for 50 ms and more.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._priority = raise_priority()
        if self._compiled is None:
            self._start_python()
        else:
            self._compiled.start()
            # It waits for no Python thread, so they need not be its equals.
            raise_priority(BESIDE)
        self._listening.start()
        self._is_started = True

    def stop(self) -> None:
        """Drops every leg, joins the threads. May be called twice."""
        if not self._is_started:
            return
        self._is_started = False
        for core in self._cores:
            core.stop()
        self._listening.stop()
        for leg in self._legs:
            _close(leg)
        self._legs.clear()
        sys.setswitchinterval(self._switch_interval_s)
        restore_priority()
        gc.unfreeze()

    def add(self, leg: Leg) -> None:
        """The leg sends and hears from the next tick on. Its PeerConnection must be connected, its impairments set.

        Raises HarnessError if one of the threads has died.
        """
        failure = self._failure
        if failure is not None:
            msg = f"the media engine died of {failure!r}; its traceback is in the log of this caller process"
            raise HarnessError(msg) from failure
        is_impaired = any(port.up is not None or port.down is not None for port in leg.ports)
        core = self._python if self._compiled is None or is_impaired else self._compiled
        if core is self._python and not self._is_python_started:
            self._start_python()
        self._legs[leg] = core
        self._callers += 1
        for port in leg.ports:
            core.add(port)
            host, peer, *_ = port.wire.socket.getpeername()
            if host == LOOPBACK and peer not in self._peer_drops:
                self._peer_drops[peer] = peer_drops(peer)
        self._listening.add(leg)

    async def remove(self, leg: Leg) -> None:
        """Returns when no thread touches the leg any more and everything it received is decoded; close its PeerConnection afterwards."""
        if leg not in self._legs:
            return
        core = self._legs.pop(leg)
        for done in [core.remove(port) for port in leg.ports]:
            await asyncio.to_thread(done.wait)
        loop = asyncio.get_running_loop()
        decoded = loop.create_future()
        self._listening.remove(leg, lambda: loop.call_soon_threadsafe(decoded.set_result, None))
        await decoded
        _close(leg)

    def doubt(self, since: UnixNs, until: UnixNs) -> str | None:
        """Why our own evidence forbids trusting a measurement in this window. None: it does not.

        A late tick, datagrams that the kernel dropped, a clock step.
        """
        if self._failure is not None:
            return "our media engine died"
        late_ns = max((done - due for due, done in self._late() if due < until and done > since), default=None)
        if late_ns is not None:
            return f"our media thread was {late_ns / 1e6:.1f} ms late"
        for before, after, dropped in list(self._listening.drops):
            if before < until and after > since:
                return f"the kernel dropped {dropped} datagrams at our sockets"
        for before, after, step_ns in list(self._listening.steps):
            if before < until and after > since:
                return f"the wall clock stepped by {step_ns / 1e6:.1f} ms"
        return None

    @property
    def _failure(self) -> BaseException | None:
        return self._python.failure or self._listening.failure

    def _late(self) -> list[tuple[UnixNs, UnixNs]]:
        return sorted(interval for core in self._cores for interval in list(core.late))

    def _start_python(self) -> None:
        """It waits for the interpreter: whoever may hold that must get to run when it does (88 ms were seen beside a load of 5)."""
        for thread in (0, self._listening.native_id):
            if thread is not None:
                raise_priority(thread=thread)
        self._python.start()
        self._is_python_started = True

    @property
    def lateness(self) -> Lateness:
        """Of every tick since its start; a copy."""
        return functools.reduce(operator.add, (core.lateness for core in self._cores), Lateness())

    def health(self, process: str) -> GeneratorHealth:
        """What the engine says of its own punctuality since its start."""
        peers = dict(self._peer_drops)
        lateness = self.lateness
        return GeneratorHealth(
            process=process,
            callers=self._callers,
            ticks=lateness.ticks,
            pacing_p50_ms=lateness.quantile_ms(0.5),
            pacing_p99_ms=lateness.quantile_ms(0.99),
            pacing_max_ms=lateness.max_ns / 1e6,
            late=tuple(self._late()),
            priority=self._priority,
            engine="python" if self._compiled is None else "compiled",
            cpu_s=time.process_time(),
            receive_drops=sum(dropped for _, _, dropped in list(self._listening.drops)),
            clock_steps=len(self._listening.steps),
            peer_drops=sum(peer_drops(port) - before for port, before in peers.items()) if peers else None,
            pacing=lateness.histogram(),
        )


def _close(leg: Leg) -> None:
    for port in leg.ports:
        port.close()
