"""The media server's receiver reports to our callers as series, and what they show of the way there and back."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence

from harness.model import CallRecord, Control, Impaired, Poll, Reports, Source, UnixNs

LOST, JITTER = "reported_lost", "reported_jitter_s"


def polls(records: Iterable[CallRecord]) -> Iterator[Poll]:
    """One a call that was reported to, as if its reports had been read."""
    for record in records:
        if (said := of(record, "up")) is not None:
            yield Poll(source=Source.SFU_REPORTS, at=said.at[-1], took_s=0.0, count=len(said.at), request=_request(record))


def series(records: Iterable[CallRecord]) -> Iterator[tuple[str, str, tuple[tuple[UnixNs, float], ...], str]]:
    """What the server's reports said: ``reported_lost`` and ``reported_jitter_s``, the call, its samples in time, and what finds them again."""
    for record in records:
        if (said := of(record, "up")) is None:
            continue
        for name, values in ((LOST, said.lost), (JITTER, said.jitter_s)):
            yield name, record.plan.call_id, tuple(sorted(zip(said.at, map(float, values), strict=True))), _request(record)


def _request(record: CallRecord) -> str:
    return f"events: reports of call-{record.plan.index}"


def of(record: CallRecord, direction: str) -> Reports | None:
    """Of one direction of a call."""
    return next((each for each in record.reports if each.direction == direction), None)


def impaired(record: CallRecord, direction: str) -> tuple[Impaired, ...]:
    """What was really done to one direction, window by window."""
    return tuple(each for each in record.impaired if each.direction == direction)


def control(record: CallRecord, direction: str) -> tuple[Control, ...]:
    """What was really done to the reports of one direction, in the order in which they were sent."""
    return tuple(each for window in impaired(record, direction) for each in window.control)


def excess_s(record: CallRecord) -> tuple[float, ...]:
    """By report of the server's: the round trip that it shows less what impairments added to this very round trip.

    That is what wire, server and machine took. Empty if it cannot be told apart: no reports, or of an older run.
    """
    said = of(record, "up")
    if said is None:
        return ()
    if not record.impaired:
        return tuple(rtt_s for rtt_s in said.rtt_s if rtt_s is not None)
    back = dict(arrivals(control(record, "down")))
    there = arrivals(control(record, "up"))
    is_down = bool(impaired(record, "down"))
    found = []
    for at, rtt_s in zip(said.at, said.rtt_s, strict=True):
        back_s = back.get(at) if is_down else 0.0
        if rtt_s is None or back_s is None:
            continue
        sent = at - round(back_s * 1e9)
        index = bisect.bisect_right(there, (sent, float("inf")))
        if impaired(record, "up"):
            if not index:
                continue
            found.append(rtt_s - back_s - there[index - 1][1])
        else:
            found.append(rtt_s - back_s)
    return tuple(max(0.0, each) for each in found)


def arrivals(sent: Sequence[Control]) -> list[tuple[UnixNs, float]]:
    """When each datagram of reports that was not lost came out of an impairment, and after which delay; in the order of arrival."""
    return sorted((UnixNs(each.at + round(each.delay_s * 1e9)), each.delay_s) for each in sent if each.delay_s is not None)
