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
import statistics
from collections.abc import Sequence
from pathlib import Path

from harness import codec
from harness.errors import UsageError
from harness.model import Calibration, CalibrationPart, UnixNs, value

REFERENCE = Path(__file__).parents[2] / "fixtures/calibration/reference-agent.json"
"""Measured on the reference agent; it says nothing of another one."""
RESPONDER = REFERENCE.with_name("responder.json")
"""Measured on the calibrated responder, with what our own ruler is worth."""
LEAST_TURNS, LEAST_RUNS = 30, 5
"""Extremes of fewer turns, and the scatter of fewer runs, say little."""
AGREEMENT_S = 0.02
"""How closely, in its best turn, the agent must keep to its programmed delays: one packet."""
WIDENING_S = 0.02
"""The extremes measured are widened on either side by one packet: an onset or an end may fall anywhere in its packet."""


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

    @property
    def uplink_s(self) -> float:
        return (self.anchor_at - self.speech_ended_at) / 1e9

    @property
    def downlink_s(self) -> float:
        return (self.heard_at - self.pushed_at) / 1e9

    @property
    def distance_s(self) -> float:
        """Heard less reported."""
        return self.uplink_s + self.downlink_s

    @property
    def ask_delay_s(self) -> float:
        """How much later than programmed the model was asked."""
        return (self.asked_at - self.anchor_at) / 1e9 - self.endpointing_s

    @property
    def push_delay_s(self) -> float:
        """How much later than the voice handed it over the first frame was pushed."""
        return (self.pushed_at - self.handed_over_at) / 1e9


def calibrate(runs: Sequence[Sequence[Exchange]], *, made_at: str, method: str) -> Calibration:
    """The bounds of both parts over all turns, and how the mean of a run scatters.

    Raises ValueError for too few turns or runs, and for an agent that does not keep to its programmed delays.
    """
    runs = [run for run in runs if run]
    turns = [each for run in runs for each in run]
    if len(turns) < LEAST_TURNS or len(runs) < LEAST_RUNS:
        msg = f"{len(turns)} turns with programmed delays in {len(runs)} runs; wanted at least {LEAST_TURNS} in {LEAST_RUNS}"
        raise ValueError(msg)
    _check_agreement("its end of speech and the question to its model", [each.ask_delay_s for each in turns])
    _check_agreement("the voice's audio and its first frame", [each.push_delay_s for each in turns])
    numbers = [[round(part, 6) for part in (each.uplink_s, each.downlink_s, each.ask_delay_s, each.push_delay_s)] for each in turns]
    turn_sd_s, run_sd_s = _scatter([[each.distance_s for each in run] for run in runs])
    return Calibration(
        made_at=made_at,
        digest=hashlib.sha256(json.dumps(numbers).encode()).hexdigest(),
        method=method,
        turns=len(turns),
        parts=(
            _part("end of speech", [each.uplink_s for each in turns], "uplink, and the hangover of the agent's voice detection"),
            _part("first word", [each.downlink_s for each in turns], "audio queue, encoder, downlink, lead silence"),
        ),
        mean_s=round(statistics.fmean(each.distance_s for each in turns), 4),
        turn_sd_s=round(turn_sd_s, 4),
        run_sd_s=round(run_sd_s, 4),
        runs=len(runs),
    )


def mean_of(calibration: Calibration, turns: int, alpha: float) -> tuple[float, float] | None:
    """The interval in which the mean distance of another run's ``turns`` lies, except with probability ``alpha``.

    Student's prediction interval, no wider than the bounds of every single turn. None: nothing is known of the mean.
    """
    if calibration.mean_s is None or calibration.runs < LEAST_RUNS or not turns:
        return None
    between = calibration.run_sd_s**2 * (1 + 1 / calibration.runs)
    within = calibration.turn_sd_s**2 * (1 / turns + 1 / calibration.turns)
    away_s = student(1 - alpha / 2, calibration.runs - 1) * math.sqrt(between + within)
    return max(calibration.mean_s - away_s, calibration.lo_s), min(calibration.mean_s + away_s, calibration.hi_s)


def student(share: float, degrees: int) -> float:
    """Quantile of Student's t: the number below which ``share`` of it lies, for 0.5 <= share < 1."""
    low, high = 0.0, 1.0
    while _student_below(high, degrees) < share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_below(middle, degrees) < share else (low, middle)
    return (low + high) / 2


def _student_below(number: float, degrees: int) -> float:
    """Share of Student's t below ``number`` >= 0, by the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(number / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    if degrees % 2:
        term, total = cosine, 0.0
        for index in range(1, degrees, 2):
            total += term
            term *= cosine**2 * (index + 1) / (index + 2)
        return 0.5 + (angle + sine * total) / math.pi
    term, total = 1.0, 0.0
    for index in range(0, degrees, 2):
        total += term
        term *= cosine**2 * (index + 1) / (index + 2)
    return 0.5 + sine * total / 2


def _scatter(runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Standard deviations of a turn inside its run, and of a run's true mean: a one-way analysis of variance."""
    turns = sum(len(run) for run in runs)
    means = [statistics.fmean(run) for run in runs]
    squares = sum((number - mean) ** 2 for run, mean in zip(runs, means, strict=True) for number in run)
    within = squares / (turns - len(runs)) if turns > len(runs) else 0.0
    usual = turns / len(runs)
    between = max(statistics.variance(means) - within / usual, 0.0)
    return math.sqrt(within), math.sqrt(between)


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
