"""The steps of a search for the knee, as rows of words: one layout for the terminal, Markdown and the page."""

from __future__ import annotations

from harness.model import Knee
from reports.words import seconds

HEAD = ("step", "calls/s", "at once", "answered", "TTFW p50", "p95", "void", "slo")


def rows(knee: Knee) -> tuple[tuple[str, ...], ...]:
    """One a step, in order. The last cell says what broke, and whether our own load was what was planned."""
    return tuple(
        (
            str(step.number),
            f"{step.per_s:g}",
            str(step.at_once),
            f"{step.figures.answered}/{step.figures.calls}",
            seconds(step.figures.ttfw_p50_s),
            seconds(step.figures.ttfw_p95_s),
            f"{step.void}/{step.figures.turns}",
            ("; ".join(step.broken) or "held") + (f" (our own load bent: {step.bent})" if step.bent else ""),
        )
        for step in knee.steps
    )
