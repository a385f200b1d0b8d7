"""The media thread: keeps time on absolute ticks, sends what is due, takes what arrived. The Python reference of the engine's core."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from harness.caller.kernel import Batch
from harness.caller.port import Port
from harness.clock import Clock, offset_ns
from harness.measure.pacing import Lateness
from harness.model import UnixNs

FRAME_NS = 20_000_000
SLOTS = 5
"""Ticks in a frame: callers are spread over them, so that a hundred do not send at once."""
LATE_NS = 10_000_000
"""Half a frame: a tick later than this leaves its mark on what is measured meanwhile."""
DRAIN_FRAMES = 2
"""Frames after which a socket is emptied: the kernel's stamps do not mind, and every look costs as much as two packets."""
_LOST_NS = 200_000_000
"""Further behind, the missed packets are not sent in a burst but never."""

_LOG = logging.getLogger(__name__)


class MediaThread:
    """Ports come and go by ``add`` and ``remove``, from any thread."""

    def __init__(self, clock: Clock) -> None:
        self.lateness = Lateness()
        self.late: list[tuple[UnixNs, UnixNs]] = []
        """From when a tick was due until it was done, for those over ``LATE_NS``; disjoint."""
        self.failure: BaseException | None = None
        self._clock = clock
        self._batch = Batch()
        self._slots: list[list[Port]] = [[] for _ in range(SLOTS)]
        self._orders: deque[tuple[Port, threading.Event | None]] = deque()
        self._holding: set[Port] = set()
        """Ports whose impairment holds something back."""
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="media", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Joins the thread. Ports keep their sockets."""
        self._is_stopping = True
        if self._thread.is_alive():
            self._thread.join()

    def add(self, port: Port) -> None:
        """Served from the next tick on."""
        self._orders.append((port, None))

    def remove(self, port: Port) -> threading.Event:
        """The event is set when the thread no longer touches the port."""
        done = threading.Event()
        self._orders.append((port, done))
        if not self._thread.is_alive():
            self._admit()
        return done

    def _run(self) -> None:
        try:
            self._tick()
        except BaseException as exc:
            self.failure = exc
            _LOG.exception("the media thread died")
            raise
        finally:
            self._admit()

    def _tick(self) -> None:
        step = FRAME_NS // SLOTS
        due = time.monotonic_ns() + step
        slot = frame = 0
        while not self._is_stopping:
            if self._orders:
                self._admit()
            if self._holding:
                self._release(due)
            early = due - time.monotonic_ns()
            if early > 0:
                time.sleep(early / 1e9)
            ports = self._slots[slot]
            if ports:
                self._serve(ports, due, frame % DRAIN_FRAMES == 0)
            slot += 1
            if slot == SLOTS:
                slot, frame = 0, frame + 1
            due += step
            behind = time.monotonic_ns() - due
            if behind > _LOST_NS:
                due += self._give_up(behind)

    def _serve(self, ports: list[Port], due: int, is_draining: bool) -> None:
        has_sent = False
        for port in ports:
            if port.outgoing is not None:
                port.speak(due)
                has_sent = True
        done = time.monotonic_ns()
        if has_sent:
            self._record(due, done)
        if is_draining:
            offset = offset_ns()
            for port in ports:
                port.drain(self._batch, offset)
        now = time.monotonic_ns()
        for port in ports:
            port.release(now)
            if now >= port.next_report_ns:
                port.report(now)
            if port.next_release_ns is not None:
                self._holding.add(port)

    def _release(self, until: int) -> None:
        """Sends, each at its own instant, what impairments hold back until the next tick."""
        while due := [(at, port) for port in self._holding if (at := port.next_release_ns) is not None and at < until]:
            at, port = min(due, key=lambda held: held[0])
            early = at - time.monotonic_ns()
            if early > 0:
                time.sleep(early / 1e9)
            port.release(time.monotonic_ns())
        self._holding = {port for port in self._holding if port.next_release_ns is not None}

    def _record(self, due: int, done: int) -> None:
        self.lateness.add(done - due)
        if done - due <= LATE_NS:
            return
        began, ended = self._clock.at_monotonic(due), self._clock.at_monotonic(done)
        # Ticks that catch up after one stall are one interval.
        if self.late and self.late[-1][1] >= began:
            began = self.late.pop()[0]
        self.late.append((began, ended))

    def _give_up(self, behind: int) -> int:
        """Skips the frames that were missed, in RTP time too. Returns the nanoseconds skipped."""
        frames = behind // FRAME_NS
        for ports in self._slots:
            for port in ports:
                if port.outgoing is not None:
                    port.outgoing.skip(frames)
        return frames * FRAME_NS

    def _admit(self) -> None:
        while self._orders:
            port, done = self._orders.popleft()
            if done is None:
                min(self._slots, key=len).append(port)
                continue
            for ports in self._slots:
                if port in ports:
                    ports.remove(port)
            self._holding.discard(port)
            done.set()
