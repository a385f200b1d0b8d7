"""Where speech begins and ends in a recording, to the sample.

A place is speech when it is loud and stays so; its onset is then followed back, down the rise, to where it leaves the noise floor.
So a soft beginning (a fricative, a fade) is found as early as a hard one, and a click is not speech.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOUD_DBFS = -45.0
"""Level of a 5 ms window that may be speech: quiet speech is -35, a quiet room below -60."""
AUDIBLE_DBFS = -50.0
"""Level to which an onset is followed back when there is no noise."""
PRE_ECHO_DB = 15.0
"""How far below the loudest of the first 30 ms an onset is followed back: further down, Opus' own pre-echo begins up to 10 ms early.
Onset of the coded sound less first sample, over 250 of each kind in `benchmarks/replies.py`: words -0.5 +-1.1 ms (99 % within 4.7), cut hard
-0.2 +-1.3 (3.9), faded in over 20 to 80 ms +3.4 +-1.9 (8.5), words behind noise of -60 to -50 dBFS -0.2 +-1.3 (4.7), faded in behind it
+3.4 +-2.4 (8.7). At 30 dB words were -0.9 +-1.5 (5.9) and sounds cut hard -3.1 +-2.1 (7.2)."""
FADE_DB = 30.0
"""The same for the last sample: no codec echoes after a sound, and words fade."""
SPEECH_OVER_NOISE_DB = 10.0
RISE_OVER_NOISE_DB = 6.0
"""A 5 ms window of noise alone strays by less than 1 dB from the mean of 20 ms."""
SAMPLE_OVER_NOISE_DB = 14.0
"""Five standard deviations: one of the 480 samples of a window of noise exceeds it once in 3000 windows."""
WINDOW_S, HOLD_S, FLOOR_WINDOW_S, FLOOR_MEMORY_S = 0.005, 0.020, 0.020, 0.300
RISE_WINDOW_S, ATTACK_S = 0.010, 0.030
"""A period of the lowest voices: between two glottal pulses a soft onset is not over."""
_HELD_RATIO = 0.5
"""Share of the 20 ms after a loud window that is at most 6 dB less loud, for it to be speech."""
FULL_SCALE_POWER = float(1 << 30)

Power = NDArray[np.float64]


def speech_span(pcm: NDArray[np.int16], rate_hz: int) -> tuple[int, int] | None:
    """First and last speech sample, both inclusive. None if nothing is loud enough."""
    first, last = onset(pcm, rate_hz), ending(pcm, rate_hz)
    return None if first is None or last is None else (first, last)


def liveliness_db(pcm: NDArray[np.int16], rate_hz: int) -> float:
    """How far the level of a sound moves: between the 10th and the 90th percentile of windows of 20 ms.

    Noises and tones stay below 8 dB, the prompts of ``fixtures/audio`` lie above 17: speech has syllables.
    """
    window = round(FLOOR_WINDOW_S * rate_hz)
    if len(pcm) < window:
        return 0.0
    whole = pcm[: len(pcm) // window * window].astype(np.float64).reshape(-1, window)
    low, high = np.percentile(10 * np.log10(np.square(whole).mean(axis=1) + 1), (10, 90))
    return float(high - low)


def ending(pcm: NDArray[np.int16], rate_hz: int) -> int | None:
    """Last speech sample in ``pcm``: the onset of the sound played backwards. None if nothing is loud for long enough."""
    found = onset(pcm[::-1], rate_hz, FADE_DB)
    return None if found is None else len(pcm) - 1 - found


def onset(pcm: NDArray[np.int16], rate_hz: int, depth_db: float = PRE_ECHO_DB) -> int | None:
    """First speech sample in ``pcm``. None if it never is loud for long enough.

    pcm: mono, shape (n,). Silence put before it moves the result by its length, if ``pcm`` itself begins with 0.3 s of silence.
    depth_db: how far below the loudest of its beginning speech begins.
    """
    window, floor_window = round(WINDOW_S * rate_hz), round(FLOOR_WINDOW_S * rate_hz)
    if len(pcm) < floor_window:
        return None
    total = np.concatenate([[0.0], np.cumsum(np.square(pcm.astype(np.float64)))])
    level = (total[window:] - total[:-window]) / window
    noise = _noise(total, floor_window, round(FLOOR_MEMORY_S * rate_hz), len(level))
    loud = np.maximum(power(LOUD_DBFS), noise * _ratio(SPEECH_OVER_NOISE_DB))
    start = _first_held(level, loud, round(HOLD_S * rate_hz))
    if start is None:
        return None
    attack = round(ATTACK_S * rate_hz)
    loudest = float(level[start : start + attack].max())
    audible = max(power(AUDIBLE_DBFS), loudest * _ratio(-depth_db))
    return _rise(pcm, total, start, attack, round(RISE_WINDOW_S * rate_hz), audible, float(noise[start]))


def _rise(pcm: NDArray[np.int16], total: Power, start: int, attack: int, rise_window: int, audible: float, floor: float) -> int:
    """First sample above ``audible`` and the noise ``floor`` of the sound that is loud from ``start`` on: its own echo may be, too."""
    level = (total[rise_window : start + rise_window + 1] - total[: start + 1][: len(total) - rise_window]) / rise_window
    below = np.flatnonzero(level <= max(audible, floor * _ratio(RISE_OVER_NOISE_DB)))
    first = int(below[-1]) + 1 if len(below) else 0
    least = max(audible, floor * _ratio(SAMPLE_OVER_NOISE_DB)) ** 0.5
    above = np.flatnonzero(np.abs(pcm[first : start + attack].astype(np.int32)) > least)
    return first + int(above[0]) if len(above) else start


def power(dbfs: float) -> float:
    """Mean square of int16 samples at a level; 0 dBFS is a full-scale square wave."""
    return FULL_SCALE_POWER * _ratio(dbfs)


def _ratio(db: float) -> float:
    return float(10 ** (db / 10))


def _noise(total: Power, window: int, memory: int, count: int) -> Power:
    """For each sample the least power of any ``window`` that lies in the ``memory`` samples before it; 0 where none fits."""
    level = (total[window:] - total[:-window]) / window
    step = max(1, window // 4)
    coarse = level[::step]
    reach = max(1, (memory - window) // step)
    least = coarse.copy()
    span = 1
    while span < reach:
        shift = min(span, reach - span)
        least[shift:] = np.minimum(least[shift:], least[: max(0, len(least) - shift)])
        span += shift
    noise = np.zeros(count)
    known = np.repeat(least, step)[: max(0, count - window)]
    noise[window : window + len(known)] = known
    return noise


def _first_held(level: Power, loud: Power, hold: int) -> int | None:
    """First window above ``loud`` after which the level stays near it."""
    near = np.concatenate([[0], np.cumsum(level > loud * _ratio(-6.0))])
    candidates = np.flatnonzero(level > loud)
    ends = np.minimum(candidates + hold, len(level))
    held = (near[ends] - near[candidates]) >= _HELD_RATIO * (ends - candidates)
    found = candidates[held]
    return int(found[0]) if len(found) else None
