"""How far an impaired network, or listening less closely, moves what callers hear against what an agent reports.

Bounds from what was ordered, before anything is measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from harness.model import Calibration, CalibrationPart, Grade, Impairment

FRAME_S = 0.02
LIGHT_S = 0.003
"""What the light grade adds to the error of an onset: 0 but for an agent that sends noise; ``tests/caller/test_ears.py`` holds it to this."""
NEVER = 1e-6
"""Chance, at one place of a call, of more packets lost in a row than the bounds allow."""


def calibrated(calibration: Calibration, impairments: Sequence[Impairment]) -> Calibration:
    """``calibration`` on such a network: every direction adds its delays, and losses around an end of speech or an onset.

    The mean of a run is no longer known better than each of its turns.
    """
    parts = tuple(
        part
        for direction, name in (("up", "impaired uplink"), ("down", "impaired downlink"))
        if (part := _part(name, [each for each in impairments if each.direction == direction])) is not None
    )
    return dataclasses.replace(calibration, parts=(*calibration.parts, *parts), mean_s=None) if parts else calibration


def graded(calibration: Calibration, grade: Grade) -> Calibration:
    """``calibration`` for calls of that grade."""
    if grade is Grade.FULL:
        return calibration
    words = f"decoded around expected onsets only: at most {LIGHT_S * 1000:g} ms from the onset that full decoding finds"
    return dataclasses.replace(
        calibration, parts=(*calibration.parts, CalibrationPart(name="light grade", lo_s=-LIGHT_S, hi_s=LIGHT_S, because=words))
    )


def lost_in_a_row(impairment: Impairment) -> int:
    """Most packets lost one after the other, except with chance ``NEVER``; all of an outage."""
    most = 1 if impairment.lose_every is not None else 0
    ratio = impairment.loss_ratio
    if ratio >= 1:
        lasts_s = math.inf if impairment.until_s is None else impairment.until_s - impairment.from_s
        return most + math.ceil(min(lasts_s, 3600.0) / FRAME_S)
    if ratio > 0:
        again = ratio if impairment.burst_packets is None else 1 - 1 / impairment.burst_packets
        first = max(ratio, NEVER)
        most += 1 + (math.ceil(math.log(NEVER / first) / math.log(again) - 1e-9) if 0 < again < 1 else 0)
    return most


def _part(name: str, stages: Sequence[Impairment]) -> CalibrationPart | None:
    if not stages:
        return None
    low_s = sum(stage.delay_s for stage in stages if not stage.from_s and stage.until_s is None)
    high_s = sum(stage.delay_s + stage.jitter_s + _queued_s(stage) + (stage.reorder_s if stage.reorder_ratio else 0.0) for stage in stages)
    lost_s = FRAME_S * sum(map(lost_in_a_row, stages))
    words = f"delay {low_s * 1000:.0f} to {high_s * 1000:.0f} ms by the scenario, up to {lost_s / FRAME_S:.0f} packets lost in a row"
    return CalibrationPart(name=name, lo_s=round(low_s - lost_s, 4), hi_s=round(high_s + lost_s, 4), because=words)


def _queued_s(stage: Impairment) -> float:
    """The whole queue and the transmission of a full packet behind it."""
    return 0.0 if stage.rate_bps is None else stage.queue_s + 1500 * 8 / stage.rate_bps
