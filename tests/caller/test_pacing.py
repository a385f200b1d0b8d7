"""The media thread, with ports that only note when they are served."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from harness.caller.kernel import Batch
from harness.caller.pacing import FRAME_NS, SLOTS, MediaThread
from harness.caller.port import Port
from harness.clock import Clock

PACKETS = 5


class FakePort:
    """Speaks ``PACKETS`` times, then tells; ``before`` runs before each."""

    def __init__(self, before: Callable[[int], None] = lambda packet: None) -> None:
        self.outgoing: Any = self
        self.next_report_ns = 1 << 62
        self.next_release_ns: int | None = None
        self.due_ns: list[int] = []
        self.late_ns: list[int] = []
        """How long after its time each packet that was held back left."""
        self.skipped = 0
        self.has_spoken = threading.Event()
        self._before = before

    def speak(self, due_ns: int) -> None:
        self._before(len(self.due_ns))
        self.due_ns.append(due_ns)
        if len(self.due_ns) >= PACKETS:
            self.has_spoken.set()

    def skip(self, frames: int) -> None:
        self.skipped += frames

    def drain(self, batch: Batch, offset_ns: int) -> None:
        pass

    def release(self, now_ns: int) -> None:
        if self.next_release_ns is not None and self.next_release_ns <= now_ns:
            self.late_ns.append(now_ns - self.next_release_ns)
            self.next_release_ns = None


@contextmanager
def serving(*ports: FakePort) -> Iterator[MediaThread]:
    """A media thread that has served every port ``PACKETS`` times."""
    media = MediaThread(Clock.start())
    for port in ports:
        media.add(cast(Port, port))
    media.start()
    try:
        for port in ports:
            assert port.has_spoken.wait(10)
        yield media
    finally:
        media.stop()


def stall(packet: int, seconds: float) -> Callable[[int], None]:
    """Something holds the thread before that packet."""
    return lambda number: time.sleep(seconds) if number == packet else None


def steps_ns(port: FakePort) -> list[int]:
    return [later - earlier for earlier, later in itertools.pairwise(port.due_ns)]


def test_packets_are_due_every_20_ms_exactly() -> None:
    """Deadlines are absolute: whatever a tick took, the next is due 20 ms after this one was due."""
    port = FakePort()
    with serving(port):
        pass

    assert set(steps_ns(port)) == {FRAME_NS}


def test_callers_are_spread_over_the_frame() -> None:
    """Five callers, five ticks: none waits for another's packet."""
    ports = [FakePort() for _ in range(SLOTS)]
    with serving(*ports):
        pass

    assert len({port.due_ns[0] % FRAME_NS for port in ports}) == SLOTS


def test_a_stall_is_one_late_interval_and_moves_no_deadline() -> None:
    """30 ms: the ticks that catch up belong to it; nothing is skipped."""
    port = FakePort(stall(2, 0.03))
    with serving(port) as media:
        late = list(media.late)

    assert max(done - due for due, done in late) >= 30_000_000
    assert all(earlier[1] < later[0] for earlier, later in itertools.pairwise(late))
    assert (set(steps_ns(port)), port.skipped) == ({FRAME_NS}, 0)


def test_what_is_long_overdue_is_not_sent_in_a_burst() -> None:
    """A quarter of a second lost: those packets are never sent, and RTP time passes over them in step with the clock."""
    port = FakePort(stall(2, 0.25))
    with serving(port):
        pass

    assert port.skipped >= 10
    assert sum(steps_ns(port)) == (PACKETS - 1 + port.skipped) * FRAME_NS


def test_every_tick_with_something_to_send_is_counted() -> None:
    """Empty ones are not: they would flatter the quantiles."""
    port = FakePort()
    with serving(port) as media:
        pass

    assert media.lateness.ticks == len(port.due_ns)


def test_a_removed_port_is_never_touched_again() -> None:
    """Once the event is set, its socket may be closed."""
    port = FakePort()
    with serving(port) as media:
        assert media.remove(cast(Port, port)).wait(10)
        served = len(port.due_ns)
        other = FakePort()
        media.add(cast(Port, other))
        assert other.has_spoken.wait(10)

    assert len(port.due_ns) == served


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_thread_is_kept_and_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    """It is told with its traceback, and whoever waits for a port gets it."""

    def broken(packet: int) -> None:
        if packet == PACKETS - 1:
            port.has_spoken.set()
            raise ZeroDivisionError

    port = FakePort(broken)
    with caplog.at_level(logging.CRITICAL, logger="harness.caller.pacing"), serving(port) as media:
        media.stop()

        assert isinstance(media.failure, ZeroDivisionError)
        assert media.remove(cast(Port, port)).wait(1)


def test_what_was_held_back_leaves_at_its_own_instant() -> None:
    """Between two ticks: no packet waits for its port's next turn, 20 ms later."""
    port = FakePort()

    def hold(packet: int) -> None:
        port.next_release_ns = time.monotonic_ns() + 6_500_000

    port._before = hold
    with serving(port):
        pass

    assert len(port.late_ns) >= PACKETS - 1
    assert min(port.late_ns) < 3_000_000


def test_what_a_port_holds_leaves_with_it() -> None:
    """A port that is gone is not asked for what it held."""
    port = FakePort(lambda packet: setattr(port, "next_release_ns", 1 << 62))
    with serving(port) as media:
        assert media.remove(cast(Port, port)).wait(10)

        assert media._holding == set()
