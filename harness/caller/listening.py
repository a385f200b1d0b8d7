"""The listening thread: decrypts, decodes and watches what the media thread received. It keeps no time, so it may be late."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.caller.kernel import receive_drops
from harness.caller.leg import Leg
from harness.clock import STEP_NS, Clock
from harness.model import UnixNs

_ROUND_S = 0.04
"""With the media thread's ``DRAIN_FRAMES``, decoding included, a sound is told within 0.1 s, as ``dialogue.TELLING_S`` promises."""
_WATCH_S = 1.0

_LOG = logging.getLogger(__name__)


class ListeningThread:
    """Legs come and go by ``add`` and ``remove``, from any thread."""

    def __init__(self, clock: Clock, due: Callable[[tuple[Leg, ...], UnixNs], Iterable[Leg]] | None = None) -> None:
        """due: which of the legs have anything for us now. None: all are looked at."""
        self.drops: list[tuple[UnixNs, UnixNs, int]] = []
        """Between which two looks the kernel dropped how many datagrams."""
        self.steps: list[tuple[UnixNs, UnixNs, int]] = []
        """Between which two looks the wall clock stepped by how many ns."""
        self.failure: BaseException | None = None
        self._clock = clock
        self._due = due
        self._legs: tuple[Leg, ...] = ()
        self._leaving: list[tuple[Leg, Callable[[], object]]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listening", daemon=True)
        self._looked_at = clock.now()
        self._step_ns = clock.step_ns()
        self._dropped: Mapping[int, int] = {}

    def start(self) -> None:
        self._thread.start()

    @property
    def native_id(self) -> int | None:
        """Of the thread, as the kernel calls it. None: it does not run."""
        return self._thread.native_id if self._thread.is_alive() else None

    def stop(self) -> None:
        """Joins the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, leg: Leg) -> None:
        """Listened to from the next round on."""
        with self._lock:
            self._legs = (*self._legs, leg)

    def remove(self, leg: Leg, done: Callable[[], object]) -> None:
        """``done`` is called on the listening thread when all that the leg received is decoded and nothing more will be."""
        with self._lock:
            self._leaving.append((leg, done))
        if not self._thread.is_alive():
            self._part()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(_ROUND_S):
                self._round()
        except BaseException as exc:
            self.failure = exc
            _LOG.exception("the listening thread died")
            raise
        finally:
            self._part()

    def _round(self) -> None:
        legs = self._legs
        for leg in legs if self._due is None else self._due(legs, self._clock.now()):
            leg.digest()
        if self._leaving:
            self._part()
        elif self._clock.now() - self._looked_at > _WATCH_S * 1e9:
            self._watch(legs)

    def _part(self) -> None:
        with self._lock:
            leaving, self._leaving = self._leaving, []
            legs, self._legs = self._legs, tuple(leg for leg in self._legs if all(leg is not gone for gone, _ in leaving))
        self._watch(legs)
        for leg, done in leaving:
            try:
                leg.digest(is_final=True)
            finally:
                done()

    def _watch(self, legs: Sequence[Leg]) -> None:
        """Looks at the clock and at the kernel's drops."""
        now, before = self._clock.now(), self._looked_at
        self._looked_at = now
        step_ns = self._clock.step_ns()
        if abs(step_ns - self._step_ns) > STEP_NS:
            self.steps.append((before, now, step_ns - self._step_ns))
        self._step_ns = step_ns
        dropped = receive_drops({port.inode for leg in legs for port in leg.ports})
        new = sum(count - self._dropped.get(inode, 0) for inode, count in dropped.items())
        self._dropped = dropped
        if new > 0:
            self.drops.append((before, now, new))
