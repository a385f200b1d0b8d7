"""The wire every five seconds."""

from __future__ import annotations

from typing import cast

from harness.caller.leg import Leg
from harness.caller.windows import Windows
from harness.measure.rtcp import Block
from harness.model import UnixNs, WireStats


class FakeLeg:
    """Statistics that grow by script: one step a ``wire_stats``."""

    def __init__(self, *steps: tuple[WireStats, WireStats]) -> None:
        self._steps = list(steps)
        self.blocks: tuple[Block, ...] = ()

    def wire_stats(self) -> tuple[WireStats, WireStats]:
        return self._steps.pop(0)

    def reports(self) -> tuple[Block, ...]:
        return self.blocks

    def take_peaks(self) -> tuple[float, float]:
        return 0.012, 0.0004

    def take_longest_at(self) -> UnixNs | None:
        return UnixNs(3)


def stats(direction: str, packets: int, lost: int = 0, rtt_s: tuple[float, ...] = (), **more: int) -> WireStats:
    return WireStats(
        direction=direction, packets=packets, expected=packets + lost, lost=lost, jitter_s=0.002, jitter_max_s=0.05, rtt_s=rtt_s, **more
    )


def block(lost: int, jitter: int) -> Block:
    return Block(ssrc=1, fraction_lost=0, lost=lost, highest_sequence=0, jitter=jitter, last_report=0, delay=0)


def test_a_window_holds_what_came_since_the_last_one() -> None:
    """Counters by difference, peaks by their own window, jitter and round trips of the reports that came in it."""
    leg = FakeLeg(
        (stats("up", 100, 1, (0.01,)), stats("down", 90)),
        (stats("up", 350, 3, (0.01, 0.02)), stats("down", 330, 10, reordered=4, duplicates=1)),
    )
    leg.blocks = (block(1, 480),)
    windows = Windows(cast(Leg, leg), UnixNs(0))
    leg.blocks += (block(2, 960), block(3, 96))
    up, down = windows.take(UnixNs(5))

    assert (up.since, up.until, up.packets, up.lost, up.rtt_s) == (0, 5, 250, 2, (0.02,))
    assert (up.jitter_s, up.jitter_max_s, up.send_late_max_s, up.rtt_max_at) == (0.002, 0.02, 0.0004, 3)
    assert (down.packets, down.lost, down.reordered, down.duplicates) == (240, 10, 4, 1)
    assert (down.jitter_s, down.jitter_max_s, down.send_late_max_s) == (0.002, 0.012, None)


def test_a_window_without_packets_has_no_jitter() -> None:
    """None, not 0: nothing was measured."""
    same = (stats("up", 100), stats("down", 90))
    windows = Windows(cast(Leg, FakeLeg(same, same)), UnixNs(0))
    up, down = windows.take(UnixNs(5))

    assert (up.jitter_s, up.jitter_max_s, down.jitter_s, down.jitter_max_s) == (None,) * 4
