"""What the wire did in the last five seconds: one call's running statistics, cut into windows."""

from __future__ import annotations

from harness.caller.leg import Leg
from harness.caller.opus import RATE_HZ
from harness.model import UnixNs, WireStats, WireWindow


class Windows:
    """One leg's. ``take`` a window whenever its time has come."""

    def __init__(self, leg: Leg, since: UnixNs) -> None:
        self._leg = leg
        self._since = since
        self._before = leg.wire_stats()
        self._reports = len(leg.reports())

    def take(self, until: UnixNs) -> tuple[WireWindow, WireWindow]:
        """Up and down since the last window."""
        now, since, before = self._leg.wire_stats(), self._since, self._before
        reports, self._reports = self._leg.reports()[self._reports :], len(self._leg.reports())
        jitter_peak_s, send_late_s = self._leg.take_peaks()
        self._before, self._since = now, until
        up = WireWindow(
            direction="up",
            since=since,
            until=until,
            packets=now[0].packets - before[0].packets,
            lost=now[0].lost - before[0].lost,
            reordered=0,
            duplicates=0,
            jitter_s=reports[-1].jitter / RATE_HZ if reports else None,
            jitter_max_s=max(report.jitter for report in reports) / RATE_HZ if reports else None,
            rtt_s=now[0].rtt_s[len(before[0].rtt_s) :],
            send_late_max_s=send_late_s,
            rtt_max_at=self._leg.take_longest_at(),
        )
        return up, _down(since, until, before[1], now[1], jitter_peak_s)


def _down(since: UnixNs, until: UnixNs, before: WireStats, now: WireStats, jitter_peak_s: float) -> WireWindow:
    has_heard = now.packets > before.packets
    return WireWindow(
        direction="down",
        since=since,
        until=until,
        packets=now.packets - before.packets,
        lost=now.lost - before.lost,
        reordered=now.reordered - before.reordered,
        duplicates=now.duplicates - before.duplicates,
        jitter_s=now.jitter_s if has_heard else None,
        jitter_max_s=jitter_peak_s if has_heard else None,
    )
