"""What we ask of Linux."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from harness.caller.kernel import Batch, raise_priority, receive_drops, restore_priority, stamp_arrivals

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Sockets]:
    """Two UDP sockets on loopback, connected to each other; the second stamps."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        for end in (sender, receiver):
            end.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        receiver.connect(sender.getsockname())
        stamp_arrivals(receiver)
        yield sender, receiver


def test_datagrams_come_whole_and_in_order(pair: Sockets) -> None:
    """More than one batch, of different lengths; then nothing."""
    sender, receiver = pair
    sent = [bytes([n]) * (n + 1) for n in range(40)]
    for datagram in sent:
        sender.send(datagram)
    batch = Batch()

    assert [datagram for _, datagram in batch.receive(receiver.fileno())] == sent
    assert list(batch.receive(receiver.fileno())) == []


def test_stamps_are_the_kernels(pair: Sockets) -> None:
    """The time of arrival, not of reading, which comes some milliseconds later.

    In one of many tries, and never before it was sent: the kernel turns stamping on in the background when the first socket asks for it,
    and on a busy machine it may deliver late.
    """
    sender, receiver = pair
    batch = Batch()
    began_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
    for _ in range(200):
        sent_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        sender.send(b"now")
        for _ in range(20_000):
            pass
        reading_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        stamps = [stamp for stamp, _ in batch.receive(receiver.fileno())]
        assert all(began_ns <= stamp for stamp in stamps)
        if any(stamp < sent_ns + (reading_ns - sent_ns) / 2 for stamp in stamps):
            return

    pytest.fail("every datagram bears the time at which it was read")


def test_drops_are_counted_by_socket(pair: Sockets) -> None:
    """A receive buffer that nobody reads overflows, and the kernel says how often."""
    sender, receiver = pair
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    inode = os.fstat(receiver.fileno()).st_ino
    for _ in range(100):
        sender.send(bytes(100))
    kept = len(list(Batch().receive(receiver.fileno())))

    assert receive_drops({inode}) == {inode: 100 - kept}
    assert kept < 100


def test_priority_goes_up_and_down_again() -> None:
    """What was got is named, and the thread is ordinary afterwards."""
    found: list[tuple[str, int, int]] = []

    def work() -> None:
        name = raise_priority()
        raised = os.sched_getscheduler(0)
        restore_priority()
        found.append((name, raised, os.sched_getscheduler(0)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    ((name, raised, restored),) = found
    assert (raised == os.SCHED_RR) == (name == "SCHED_RR 3")
    assert name in ("SCHED_RR 3", "nice -10", "normal")
    assert restored == os.SCHED_OTHER
