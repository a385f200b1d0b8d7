"""The settings of one alert to choose from, as one self-contained page: how late against how often, and the table."""

from __future__ import annotations

import math
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from harness.rules.tune import Choice, Tuning

_WIDTH, _HEIGHT = 1000, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 18, 44
_TICKS = (0, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


def page(tuning: Tuning, source: str) -> str:
    """source: where the history is from, as a person names it."""
    told = [choice for choice in tuning.choices if choice.delay is not None]
    longest = max((choice.delay.latest_s for choice in told if choice.delay), default=1.0)
    most = max((choice.fires for choice in told), default=0)
    return _template().render(
        css=_file("page.css"),
        tuning=tuning,
        source=source,
        history=time(tuning.history_s),
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        bottom=_HEIGHT - _BOTTOM,
        right=_WIDTH - _RIGHT,
        top=_TOP,
        points=[_point(choice, longest, most) for choice in sorted(told, key=lambda choice: (choice.is_best, choice.is_own))],
        delays=[(round(_x(at_s, longest), 1), time(at_s)) for at_s in _TICKS if at_s <= longest],
        counts=[(round(_y(count, most), 1), count) for count in _counts(most)],
        rows=rows(tuning),
        not_told=len(tuning.choices) - len(told),
    )


def rows(tuning: Tuning, *, best_only: bool = False) -> list[tuple[str, ...]]:
    """Threshold, window, for, delay, fires, resolves, mark; the quietest and soonest first."""
    found = [choice for choice in tuning.choices if not best_only or choice.is_best or choice.is_own]
    found.sort(key=lambda choice: (choice.fires, math.inf if choice.delay is None else choice.delay.latest_s))
    return [
        (
            f"{tuning.compared.operation} {choice.threshold:g}",
            "-" if choice.window_s is None else time(choice.window_s),
            time(choice.for_s),
            "not told" if choice.delay is None else f"{time(choice.delay.earliest_s)} to {time(choice.delay.latest_s)}",
            str(choice.fires),
            "-" if choice.resolves is None else f"{choice.resolves:.4g}",
            " ".join(word for word, holds in (("as written", choice.is_own), ("*", choice.is_best)) if holds),
        )
        for choice in found
    ]


HEADINGS = ("threshold", "window", "for", "told after", "fires", "resolves", "")


def time(duration_s: float) -> str:
    """``90 s`` up to two minutes, then minutes."""
    if duration_s < 120:
        return f"{duration_s:.3g} s"
    return f"{duration_s / 60:.3g} min" if duration_s < 7200 else f"{duration_s / 3600:.3g} h"


def _point(choice: Choice, longest: float, most: int) -> dict[str, Any]:
    assert choice.delay is not None
    window = "" if choice.window_s is None else f", window {time(choice.window_s)}"
    return {
        "x": round(_x(choice.delay.latest_s, longest), 1),
        "from": round(_x(choice.delay.earliest_s, longest), 1),
        "y": round(_y(choice.fires, most), 1),
        "tone": "own" if choice.is_own else "best" if choice.is_best else "other",
        "title": f"{choice.threshold:g}{window}, for {time(choice.for_s)}: told after at most {time(choice.delay.latest_s)}, {choice.fires} fires",
    }


def _x(delay_s: float, longest_s: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.sqrt(delay_s / longest_s)


def _y(fires: int, most: int) -> float:
    """A logarithm that begins at 0, since most settings fire seldom."""
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (math.log1p(fires) / math.log1p(most) if most else 0.0)


def _counts(most: int) -> list[int]:
    """0, 1, 3, 10, 30 ..."""
    return [0, *(count for power in range(7) for count in (10**power, 3 * 10**power) if count <= most)]


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string((resources.files("reports") / "page" / "tuning.html.j2").read_text(encoding="utf-8"))


@cache
def _file(name: str) -> Markup:
    return Markup((resources.files("reports") / "page" / name).read_text(encoding="utf-8"))
