"""How far TTFW heard and TTFW reported may honestly lie apart, bounded by parts, from calls with programmed delays.

An honest agent starts its clock when it believes that the user stopped (its anchor) and stops it when it pushes its first frame. The caller starts
when the last voiced sample left and stops when the first one arrived. So

    heard - reported = (anchor - speech ended) + (first word heard - first frame pushed).

The agent's telemetry has no say in this: the anchor is the instant at which the agent asked its model less the programmed endpointing delay, the push
is noted where the voice hands over its audio. Both come from the reference agent's own ruler, on the clock of the same machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from harness import codec
from harness.errors import UsageError
from harness.model import Calibration, CalibrationPart, UnixNs, value

REFERENCE = Path(__file__).parents[2] / "fixtures/calibration/reference-agent.json"
"""Measured on the reference agent; the agent under test is judged against it unless it has one of its own."""
MARGIN = 0.5
"""The bounds are the extremes measured, widened on either side by this share of their distance: as many turns again would rarely exceed it."""
FLOOR_S = 0.02
"""Least widening: one packet."""


@value
class Exchange:
    """One turn with programmed delays, as both sides noted it."""

    speech_ended_at: UnixNs
    asked_at: UnixNs
    """The agent asked its model: its anchor plus the programmed endpointing delay."""
    pushed_at: UnixNs
    """The agent's voice handed over the first audio."""
    heard_at: UnixNs
    endpointing_s: float


def calibrate(exchanges: Sequence[Exchange], *, made_at: str, method: str) -> Calibration:
    """The bounds of both parts. Raises ValueError for fewer than ten turns: extremes of so few say nothing."""
    if len(exchanges) < 10:
        msg = f"{len(exchanges)} turns with programmed delays; wanted at least 10"
        raise ValueError(msg)
    anchors = [(each.asked_at - each.speech_ended_at) / 1e9 - each.endpointing_s for each in exchanges]
    downlinks = [(each.heard_at - each.pushed_at) / 1e9 for each in exchanges]
    numbers = json.dumps([[round(a, 6), round(d, 6)] for a, d in zip(anchors, downlinks, strict=True)])
    return Calibration(
        made_at=made_at,
        digest=hashlib.sha256(numbers.encode()).hexdigest(),
        method=method,
        turns=len(exchanges),
        parts=(
            _part("end of speech to the agent's anchor", anchors, "uplink, and the hangover of the agent's voice detection"),
            _part("first frame pushed to the caller's ear", downlinks, "the agent's audio queue, encoder and downlink"),
        ),
    )


def _part(name: str, measured: Sequence[float], because: str) -> CalibrationPart:
    low, high = min(measured), max(measured)
    wider = max((high - low) * MARGIN, FLOOR_S)
    words = f"{because}; {len(measured)} turns from {low * 1000:+.0f} to {high * 1000:+.0f} ms"
    return CalibrationPart(name=name, lo_s=round(low - wider, 4), hi_s=round(high + wider, 4), because=words)


def load(path: Path) -> Calibration:
    """A stored calibration. Raises UsageError, naming the file, for anything else."""
    try:
        found = codec.from_json(Calibration, json.loads(path.read_text()))
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror or exc}; make one with voxproof calibrate") from exc
    except ValueError as exc:
        raise UsageError(f"{path}: not a calibration: {exc}; make one with voxproof calibrate") from exc
    assert isinstance(found, Calibration)
    return found
