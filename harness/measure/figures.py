"""What our own ruler is worth: measured less true, with bias, spread and the bound that 95 % keep."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from harness.model import CalibrationFigure, CallRecord, Grade, UnixNs

SETTLED_S = 5
"""Reports (one a second) passed over at the start of a call: the server's jitter has not seen the packets before its first one."""
Replies = Mapping[str, Sequence[UnixNs]]
"""By room, when the first voiced sample of each reply left the responder."""


def figures(records: Sequence[CallRecord], replies: Replies) -> tuple[CalibrationFigure, ...]:
    """Every figure that these calls show; none for what they do not."""
    found = [
        *(
            _figure(
                f"TTFW, {grade} grade",
                "s",
                ttfw_errors_s(records, replies, grade),
                "first word heard less first sample sent by the responder",
            )
            for grade in Grade
        ),
        _figure("RTT", "s", rtt_errors_s(records), "LSR and DLSR of the server's reports, less the delay injected both ways"),
        _figure("jitter, uplink", "s", jitter_errors_s(records), "the server's reports less RFC 3550 A.8 over what left the impairment"),
        _figure(
            "loss, uplink", "packets", uplink_loss_errors(records), "the server's cumulative count less the packets dropped on purpose"
        ),
        _figure("loss, downlink", "packets", downlink_loss_errors(records), "our count at the end less the packets dropped on purpose"),
    ]
    return tuple(figure for figure in found if figure is not None)


def ttfw_errors_s(records: Sequence[CallRecord], replies: Replies, grade: Grade) -> list[float]:
    """By turn that our own evidence does not void, of calls that nothing impairs."""
    errors = []
    for record in records:
        for turn in record.turns:
            if turn.first_word_at is None or turn.void is not None or turn.grade is not grade or record.plan.impairments:
                continue
            sent = [at for at in replies.get(record.plan.room, ()) if turn.user_speech_ended_at < at]
            if sent:
                errors.append((turn.first_word_at - min(sent)) / 1e9)
    return errors


def rtt_errors_s(records: Sequence[CallRecord]) -> list[float]:
    """By report, of calls whose delay is the same for every packet."""
    errors: list[float] = []
    for record in records:
        stages = record.plan.impairments
        if any(stage.jitter_s or stage.rate_bps or stage.from_s or stage.until_s is not None for stage in stages):
            continue
        injected_s = sum(stage.delay_s for stage in stages)
        errors += [rtt_s - injected_s for stats in record.wire for rtt_s in stats.rtt_s]
    return errors


def jitter_errors_s(records: Sequence[CallRecord]) -> list[float]:
    """By report of the server's."""
    return [
        reported - true
        for record in records
        if record.uplink is not None
        for reported, true in list(zip(record.uplink.reported_jitter_s, record.uplink.true_jitter_s, strict=True))[SETTLED_S:]
    ]


def uplink_loss_errors(records: Sequence[CallRecord]) -> list[float]:
    """By report of the server's. A packet lost before the server's first is no loss to it: what a call's first reports lack is taken off."""
    errors: list[float] = []
    for record in records:
        if record.uplink is not None and len(record.uplink.true_lost) > SETTLED_S:
            pairs = list(zip(record.uplink.reported_lost, record.uplink.true_lost, strict=True))[SETTLED_S:]
            first = pairs[0][0] - pairs[0][1]
            errors += [reported - true - first for reported, true in pairs]
    return errors


def downlink_loss_errors(records: Sequence[CallRecord]) -> list[float]:
    """By call."""
    errors = []
    for record in records:
        made = sum(window.lost for window in record.impaired if window.direction == "down")
        errors += [float(stats.lost - made) for stats in record.wire if stats.direction == "down"]
    return errors


def _figure(name: str, unit: str, errors: Sequence[float], because: str) -> CalibrationFigure | None:
    if not errors:
        return None
    ordered = sorted(map(abs, errors))
    return CalibrationFigure(
        name=name,
        unit=unit,
        count=len(errors),
        bias=round(statistics.fmean(errors), 6),
        spread=round(statistics.pstdev(errors), 6),
        bound=round(ordered[math.ceil(0.95 * len(ordered)) - 1], 6),
        because=because,
    )
