"""``voxproof compare``: what is otherwise in one run than in those before it, worst first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from assertions.comparison import Comparison
from harness.model import Status

_WORDS = {Status.PASS: "ok", Status.FAIL: "FAIL", Status.INCONCLUSIVE: "undecided", None: "not judged"}
_SHOWN = {
    Status.PASS: "nothing got worse",
    Status.FAIL: "something got worse",
    Status.INCONCLUSIVE: "nothing got worse as far as it could be compared",
}


def text(comparison: Comparison, *, width: int = 100) -> str:
    """The comparison for a terminal, ending in a newline."""
    runs = ", ".join(comparison.before)
    lines = [f"{runs} -> {comparison.after}: {_SHOWN[comparison.status]}", ""]
    worse_first = sorted(comparison.claims, key=lambda change: not change.is_worse)
    lines += ["claims" if worse_first else "claims  every verdict is what it was"]
    for change in worse_first:
        lines.append(f"  {change.claim:<22}{_WORDS[change.before]} -> {_WORDS[change.after]}")
        lines += textwrap.wrap(change.sentence, width, initial_indent=" " * 4, subsequent_indent=" " * 4, break_on_hyphens=False)
    lines += ["", "figures"]
    rows = [(figure.name, figure.before, figure.after, _figure(figure.status)) for figure in comparison.figures]
    for figure, line in zip(comparison.figures, _columns(rows), strict=True):
        lines.append(line)
        sentence = figure.sentence.partition(": ")[2]
        lines += textwrap.wrap(sentence, width, initial_indent=" " * 4, subsequent_indent=" " * 4, break_on_hyphens=False)
    lines += ["", "changed" if comparison.changes else "changed  nothing that is recorded: same versions, rules, settings"]
    lines += [f"  {change.words}" for change in comparison.changes]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _figure(status: Status) -> str:
    return {Status.PASS: "no worse", Status.FAIL: "WORSE", Status.INCONCLUSIVE: "too few"}[status]


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
