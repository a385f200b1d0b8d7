"""A network that loses and jitters a little, and what an honest media server observes of it: windows of five seconds of each track."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from harness.model import CallRecord, Control, Impaired, Reports, UnixNs, Uplink

SECOND = 1_000_000_000
WINDOW = 5 * SECOND
PACKETS = 250
LOST_AFTER = 2 * SECOND
"""Of every other window, one packet is lost so long after its beginning."""
TRIPS_S = (0.0006, 0.0019)
"""Round trips, in turn; nothing of them is of our making."""
JITTER_S = (0.008, 0.009)
AGENT = "SCREEN_SHARE_AUDIO"

Counts = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and labels."""


def with_wire(call: CallRecord) -> CallRecord:
    """The call, with what was on its wire. One that was not seen to its end stays as it is."""
    if call.joined_at is None or call.left_at is None:
        return call
    at = [UnixNs(call.joined_at + second * SECOND) for second in range(1, (call.left_at - call.joined_at) // SECOND)]
    lost = list(_losses(call, call.joined_at))
    jitter_s = tuple(JITTER_S[place % 2] for place in range(len(at)))
    so_far = tuple(sum(each < moment for each in lost) for moment in at)
    up = Reports(direction="up", at=tuple(at), lost=so_far, jitter_s=jitter_s, rtt_s=tuple(TRIPS_S[place % 2] for place in range(len(at))))
    down = Reports(direction="down", at=tuple(at), lost=so_far, jitter_s=jitter_s, rtt_s=(None,) * len(at))
    uplink = Uplink(reported_jitter_s=jitter_s, true_jitter_s=jitter_s, reported_lost=so_far, true_lost=so_far)
    return replace(call, impaired=tuple(_impaired(call, lost, at)), reports=(up, down), uplink=uplink, agent_source=AGENT)


def _losses(call: CallRecord, since: int) -> Iterator[UnixNs]:
    """The first of every second window."""
    assert call.left_at is not None
    for begin in range(since, call.left_at - WINDOW, 2 * WINDOW):
        yield UnixNs(begin + LOST_AFTER)


def _impaired(call: CallRecord, lost: Sequence[UnixNs], at: Sequence[UnixNs]) -> Iterator[Impaired]:
    assert call.joined_at is not None
    assert call.left_at is not None
    for begin in range(call.joined_at, call.left_at, WINDOW):
        here = tuple(each for each in lost if begin <= each < begin + WINDOW)
        yield Impaired(
            direction="up",
            since=UnixNs(begin),
            until=UnixNs(begin + WINDOW),
            packets=PACKETS,
            lost=len(here),
            lost_sequences=tuple(range(len(here))),
            duplicated=0,
            reordered=0,
            delay_min_s=0.0,
            delay_mean_s=0.0,
            delay_max_s=0.0,
            lost_at=here,
            jitter_peaks_s=(max(JITTER_S),) * 5,
            control=tuple(
                Control(at=UnixNs(each - SECOND // 2), has_sender_report=True, delay_s=0.0) for each in at if begin <= each < begin + WINDOW
            ),
        )


def counted(calls: Sequence[CallRecord], at: UnixNs) -> Counts:
    """What the media server has observed by ``at``: of callers' tracks, which are microphones, and of agents' to them."""
    counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for direction, source in (("incoming", "MICROPHONE"), ("outgoing", AGENT)):
        labels = (("direction", direction), ("source", source), ("type", "AUDIO"))

        def add(name: str, number: float, labels: tuple[tuple[str, str], ...] = labels) -> None:
            counts[name, labels] = counts.get((name, labels), 0.0) + number

        for call in calls:
            for place, (begin, end) in enumerate(_windows(call, direction, at)):
                lost = _learned(call, direction, begin, end)
                add("livekit_packet_loss_percent_count", 1.0)
                add("livekit_packet_loss_percent_sum", 100.0 * lost / max((end - begin) * 50 / SECOND, 1.0))
                if lost:
                    add("livekit_packet_loss_total", float(lost))
                if direction == "outgoing" and not _is_answered(call, begin, end):
                    continue
                add("livekit_jitter_us_count", 1.0)
                add("livekit_jitter_us_sum", 9000.0 + (1000.0 if direction == "incoming" and place % 2 else 0.0))
                if direction == "outgoing":
                    add("livekit_rtt_ms_count", 1.0)
                    add("livekit_rtt_ms_sum", 1.0 + place % 2)
    return counts


def _windows(call: CallRecord, direction: str, at: UnixNs) -> Iterator[tuple[int, int]]:
    """Those that had ended by ``at``."""
    if call.joined_at is None or call.left_at is None or (direction == "outgoing" and call.agent_joined_at is None):
        return
    since = call.joined_at if direction == "incoming" else max(call.joined_at, call.agent_joined_at or 0) + SECOND // 20
    for begin in range(since, call.left_at, WINDOW):
        end = min(begin + WINDOW, call.left_at)
        if end < at:
            yield begin, end


def _is_answered(call: CallRecord, begin: int, end: int) -> bool:
    """A report of the caller's came in the window."""
    return any(begin <= at < end for each in call.reports if each.direction == "down" for at in each.at)


def _learned(call: CallRecord, direction: str, begin: int, end: int) -> int:
    """Packets whose loss the server learned of in a window: up when they lack, down when the next report tells it."""
    lost = list(_losses(call, call.joined_at or 0))
    if direction == "incoming":
        return sum(begin <= each < end for each in lost)
    own = next((each for each in call.reports if each.direction == "down"), None)
    told = [(at, number) for at, number in zip(own.at, own.lost, strict=True)] if own else []
    before = max((number for at, number in told if at < begin), default=0)
    return max((number for at, number in told if at < end), default=0) - before
