"""How far TTFW heard and TTFW reported may honestly lie apart, bounded by parts, from calls with programmed delays.

An honest agent starts its clock when it believes that the user stopped (its anchor) and stops it when it pushes its first frame. The caller starts
when the last voiced sample left and stops when the first one arrived. So

    heard - reported = (anchor - speech ended) + (first word heard - first frame pushed).

The agent's telemetry has no say in this, and its own two instants are not believed: programmed delays are the transfer standard. The model is asked
the programmed endpointing delay after the anchor, and the first frame is pushed once the voice hands over its audio after its programmed delay.
An agent whose anchor or first frame were off by a constant would be off against them in every single turn; the smallest disagreement shows it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

from harness import codec
from harness.errors import UsageError
from harness.model import Calibration, CalibrationPart, UnixNs, value

REFERENCE = Path(__file__).parents[2] / "fixtures/calibration/reference-agent.json"
"""Measured on the reference agent; it says nothing of another one."""
LEAST_TURNS = 30
"""Extremes of fewer turns say little."""
AGREEMENT_S = 0.02
"""How closely, in its best turn, the agent must keep to its programmed delays: one packet."""
WIDENING_S = 0.02
"""The extremes measured are widened on either side by one packet: an onset or an end may fall anywhere in its packet."""
STALL_WIDENING = 1.5
"""Stalls are rare and few were measured: the longest may be this much longer."""
CONFIDENCE = 0.95
"""Of the bound on the share of turns that stall unseen."""


@value
class Exchange:
    """One turn with programmed delays, as both sides noted it."""

    speech_ended_at: UnixNs
    """Caller: last voiced sample on the wire."""
    anchor_at: UnixNs
    """Agent: the user stopped speaking, in its belief."""
    asked_at: UnixNs
    """Agent: it asked its model, the programmed endpointing delay after its anchor."""
    endpointing_s: float
    handed_over_at: UnixNs
    """Agent: its voice handed over the first audio, after its programmed delay."""
    pushed_at: UnixNs
    """Agent: its first frame was pushed."""
    heard_at: UnixNs
    """Caller: first word."""
    is_void: bool = False
    """The caller's own evidence says that the machine stalled."""

    @property
    def uplink_s(self) -> float:
        return (self.anchor_at - self.speech_ended_at) / 1e9

    @property
    def downlink_s(self) -> float:
        return (self.heard_at - self.pushed_at) / 1e9

    @property
    def ask_delay_s(self) -> float:
        """How much later than programmed the model was asked."""
        return (self.asked_at - self.anchor_at) / 1e9 - self.endpointing_s

    @property
    def push_delay_s(self) -> float:
        """How much later than the voice handed it over the first frame was pushed."""
        return (self.pushed_at - self.handed_over_at) / 1e9


def calibrate(exchanges: Sequence[Exchange], *, made_at: str, method: str) -> Calibration:
    """The bounds of both parts, and what a stall adds.

    Raises ValueError for too few turns, and for an agent that does not keep to its programmed delays.
    """
    sound = [each for each in exchanges if not each.is_void]
    if len(sound) < LEAST_TURNS:
        msg = f"{len(sound)} turns with programmed delays that our own evidence does not void; wanted at least {LEAST_TURNS}"
        raise ValueError(msg)
    _check_agreement("its end of speech and the question to its model", [each.ask_delay_s for each in sound])
    _check_agreement("the voice's audio and its first frame", [each.push_delay_s for each in sound])
    numbers = [[round(part, 6) for part in (each.uplink_s, each.downlink_s, each.ask_delay_s, each.push_delay_s)] for each in exchanges]
    parts = (
        _part("end of speech", [each.uplink_s for each in sound], "uplink, and the hangover of the agent's voice detection"),
        _part("first word", [each.downlink_s for each in sound], "audio queue, encoder, downlink, lead silence"),
    )
    highest = sum(part.hi_s for part in parts)
    beyond = max((each.uplink_s + each.downlink_s - highest for each in exchanges if each.is_void), default=0.0)
    return Calibration(
        made_at=made_at,
        digest=hashlib.sha256(json.dumps(numbers).encode()).hexdigest(),
        method=method,
        turns=len(sound),
        parts=parts,
        stall_s=round(max(beyond, 0.0) * STALL_WIDENING, 4),
        stall_ratio=round(1 - (1 - CONFIDENCE) ** (1 / len(sound)), 5),
    )


def stalls(turns: int, ratio: float, alpha: float) -> int:
    """The most of ``turns`` that stall unseen, except with probability ``alpha``: a binomial bound."""
    tail = 1.0
    for count in range(turns + 1):
        tail -= math.comb(turns, count) * ratio**count * (1 - ratio) ** (turns - count)
        if tail <= alpha:
            return count
    return turns


def _check_agreement(what: str, delays_s: Sequence[float]) -> None:
    if not -AGREEMENT_S <= min(delays_s) <= AGREEMENT_S:
        msg = (
            f"between {what} the agent is {min(delays_s) * 1000:+.0f} ms off its programmed delay at best, in {len(delays_s)} turns;"
            f" wanted within {AGREEMENT_S * 1000:.0f} ms: its clock cannot be trusted"
        )
        raise ValueError(msg)


def _part(name: str, measured: Sequence[float], because: str) -> CalibrationPart:
    low, high = min(measured), max(measured)
    words = f"{because}; measured {low * 1000:+.0f} to {high * 1000:+.0f} ms, widened by a packet"
    return CalibrationPart(name=name, lo_s=round(low - WIDENING_S, 4), hi_s=round(high + WIDENING_S, 4), because=words)


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
