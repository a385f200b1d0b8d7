"""The table that a run prints: both lights, every hop, what failed and the command that shows why."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from harness.measure import flavour
from harness.model import Evidence, Findings, Light, Status, Verdict, value
from reports import ledger, network, steps
from reports.cost import costs
from reports.headline import agent_line, headline, slo_words
from reports.words import milliseconds, offset, word

COLUMNS = ("says", "may say", "would catch")
_SHARES = {"hop": 18, "says": 8, "may say": 10, "would catch": 11}
"""Narrowest useful widths: a column is cut down to this before the table grows wider than the terminal."""
_QUANTITY = 11
_VERDICT = 9
_CONTROL_STYLES = {"ok": "ok", "not localised": "undecided", "NOT SHOWN": "FAIL"}
_SGR = {"FAIL": "1;31", "ok": "32", "faithful": "33", "undecided": "33", "blind": "2", "bold": "1", "dim": "2"}


@value
class Pen:
    """Paints words, or leaves them as they are."""

    has_color: bool

    def paint(self, style: str, text: str) -> str:
        """``text`` in a style of the table; plain without colours."""
        return f"\x1b[{_SGR[style]}m{text}\x1b[0m" if self.has_color and text.strip() else text


def table(
    evidence: Evidence,
    findings: Findings,
    *,
    run: str | None = None,
    since: Mapping[str, str] | None = None,
    width: int = 100,
    color: bool = False,
) -> str:
    """One run as text, ending in a newline.

    run: how a person names the run on the command line. since: see ``ledger.Run``. width: columns of the terminal. color: ANSI colours, for
    terminals only.
    """
    pen, named = Pen(has_color=color), ledger.Run.of(evidence, run, since)
    width = max(width, 60)
    lines = [
        *_head(evidence, width),
        *_ruler(evidence, findings, pen, width),
        *_grid(evidence, findings, pen, width),
        *_gaps(evidence, width),
        *_wrong(evidence, findings, named, pen, width),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(evidence: Evidence, width: int) -> list[str]:
    info = evidence.info
    engine = [flavour.described(info.settings)] if "prometheus_flavour" in info.settings else []
    stack = [f"{part.name} {part.version}" for part in info.parts] or [f"target {info.target}", *engine]
    setting = "real, loopback" if info.target == "embedded" else f"target {info.target}"
    if (scrape := info.settings.get("scrape_interval_s")) is not None:
        setting += f", {scrape:g} s scrape"
    lines = [*_items("", headline(evidence).split(" · "), width), *_items("stack  ", [*stack, setting], width)]
    if how := network.measured(evidence):
        lines += _items("calls  ", [*how], width)
    if asked := costs(evidence):
        lines += _items("cost   ", [*asked], width)
    if info.interrupted is not None:
        lines += textwrap.wrap(f"ended early: {info.interrupted}", width, subsequent_indent="  ")
    for sentence in (info.note or "").splitlines():
        is_log = sentence.startswith(" ")
        lines += (
            [_cut(f"       {sentence.strip()}", width)] if is_log else textwrap.wrap(f"note   {sentence}", width, subsequent_indent=" " * 7)
        )
    return lines


def _items(title: str, items: list[str], width: int) -> list[str]:
    """Items joined by dots; an item is never broken at the end of a line."""
    lines = [title + items[0]]
    for item in items[1:]:
        if len(lines[-1]) + 3 + len(item) <= width:
            lines[-1] += f" · {item}"
        else:
            lines[-1] += " ·"
            lines.append(" " * len(title) + item)
    return lines


def _ruler(evidence: Evidence, findings: Findings, pen: Pen, width: int) -> list[str]:
    if evidence.info.scenario.drill is not None:
        return []  # no caller measured anything
    ruler = findings.ruler
    parts = []
    if ruler.pacing_p99_ms is not None:
        parts.append(f"pacing p99 {ruler.pacing_p99_ms:.1f} ms")
    parts.append(f"void turns {ruler.void_turns}/{ruler.turns}")
    if evidence.calibration is not None:
        lo, hi, mean = evidence.calibration.lo_s, evidence.calibration.hi_s, evidence.calibration.mean_s
        usual = "" if mean is None else f"{milliseconds(mean)}, a turn "
        parts.append(f"TTFW heard - reported {usual}{milliseconds(lo)} to {milliseconds(hi)}")
    state = "STRAIGHT" if ruler.is_straight else "BENT"
    first, *rest = _items(f"ruler  {state}  ", parts if ruler.bent is None else [ruler.bent, *parts], width)
    return [first.replace(state, pen.paint("ok" if ruler.is_straight else "FAIL", state), 1), *rest]


def _grid(evidence: Evidence, findings: Findings, pen: Pen, width: int) -> list[str]:
    agent, slo = agent_line(findings), slo_words(findings)
    gap = " " * max(2, width - len("AGENT  ") - len(agent) - len(slo))
    light = ledger.light_status(evidence, findings, Light.AGENT)
    lines = [f"{pen.paint('bold', 'AGENT')}  {agent}{gap}{pen.paint(_style(light), slo) if slo != 'slo: none set' else slo}"]
    if evidence.info.scenario.drill is not None:
        lines = []
    widths = _widths(findings.verdicts, width)
    shown = [verdict for verdict in ledger.of_light(findings, Light.AGENT) if _is_told(verdict)]
    for group in ledger.groups(shown):
        lines += _group(group, widths, pen)
    lines += _steps(findings, pen)
    heads = [name.ljust(widths[name]) for name in ("hop", *COLUMNS)]
    lines.append(f"{pen.paint('bold', 'MONITORING')}   {'  '.join(heads)}  verdict")
    for group in ledger.groups(ledger.of_light(findings, Light.MONITORING)):
        lines += _group(group, widths, pen)
    count = f"{len(findings.planted)} planted lies"
    control = ledger.planted_sentence(findings.planted) if findings.planted else "none: nothing was shown"
    verdict = ledger.control(findings.planted)
    says = widths["says"] + widths["may say"] + widths["would catch"] + 4
    lines.append(
        f"{'control':<{_QUANTITY}}  {count:<{widths['hop']}}  {control:<{says}}  " + (pen.paint(_CONTROL_STYLES[verdict], verdict))
    )
    return lines


def _steps(findings: Findings, pen: Pen) -> list[str]:
    """The steps of a search for the knee."""
    if findings.knee is None:
        return []
    rows = steps.rows(findings.knee)
    widths = [max(len(row[column]) for row in (steps.HEAD, *rows)) for column in range(len(steps.HEAD))]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (steps.HEAD, *rows)]
    return [f"{pen.paint('bold', 'load') if number == 0 else ' ' * 4}         {line}" for number, line in enumerate(told)]


def _is_told(verdict: Verdict) -> bool:
    """The line above the table already tells a kept promise to answer; limits and broken promises get a row."""
    return verdict.claim.startswith(("slo/", "load/")) or verdict.status is not Status.PASS


def _widths(verdicts: tuple[Verdict, ...], width: int) -> dict[str, int]:
    """Widths of the four columns that hold words: as wide as they need, as narrow as the terminal asks."""
    needed = {
        "hop": max((len(one.hop) for one in verdicts), default=0),
        "says": max((len(one.says) for one in verdicts), default=0),
        "may say": max((len(one.may_say) for one in verdicts), default=0),
        "would catch": max((len(one.would_catch) for one in verdicts), default=0),
    }
    widths = {name: max(26 if name == "hop" else len(name), needed[name]) for name in _SHARES}
    spare = width - _QUANTITY - 2 - _VERDICT - 2 * len(widths)
    while sum(widths.values()) > spare:
        can_shrink = [name for name in widths if widths[name] > _SHARES[name]]
        if not can_shrink:
            break
        widths[max(can_shrink, key=lambda name: widths[name])] -= 1
    return widths


def _group(group: ledger.Group, widths: dict[str, int], pen: Pen) -> list[str]:
    lines = []
    for number, verdict in enumerate(group.verdicts):
        said = word(verdict)
        title = group.title if number == 0 else ""
        marker = "> " if said == "FAIL" else "  "
        cells = (("hop", verdict.hop), ("says", verdict.says), ("may say", verdict.may_say), ("would catch", verdict.would_catch))
        texts = "  ".join(_cut(text, widths[name]).ljust(widths[name]) for name, text in cells)
        shown = f"blind: {verdict.blind}" if said == "blind" else said
        row = f"{title:<{_QUANTITY}}{pen.paint('FAIL', marker)}"
        lines.append(f"{row}{texts}  {pen.paint(said, shown)}")
    return lines


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _gaps(evidence: Evidence, width: int) -> list[str]:
    lines = []
    for lost in ledger.losses(evidence):
        kind, when = ("blind", "") if lost.is_blind else ("gap", f" {lost.when}")
        lines += textwrap.wrap(f"{kind:<{_QUANTITY}}  {lost.source}{when}: {lost.reason}", width, subsequent_indent=" " * 13)
    return lines


def _wrong(evidence: Evidence, findings: Findings, run: ledger.Run, pen: Pen, width: int) -> list[str]:
    lines: list[str] = []
    for verdict in ledger.failed(findings):
        lines += ["", *_card(verdict, run, pen, width)]
    for verdict in ledger.undecided(findings):
        if ledger.is_required(evidence, verdict.claim):
            lines += ["", *_card(verdict, run, pen, width)]
    if unjudged := ledger.unjudged(evidence, findings):
        told = f"UNDECIDED {', '.join(unjudged)}: required by the scenario, and nothing judged it"
        lines += ["", *textwrap.wrap(told, width, subsequent_indent="  ", break_on_hyphens=False)]
    return lines


def _card(verdict: Verdict, run: ledger.Run, pen: Pen, width: int) -> list[str]:
    said = word(verdict)
    told = textwrap.wrap(f"{said.upper()} {verdict.claim}: {verdict.sentence}", width, subsequent_indent="  ", break_on_hyphens=False)
    lines = [told[0].replace(said.upper(), pen.paint(said, said.upper()), 1), *told[1:]]
    if verdict.effect is not None:
        lines += textwrap.wrap(f"  effect  {verdict.effect}", width, subsequent_indent=" " * 10, break_on_hyphens=False)
    if told_since := run.since.get(verdict.claim):
        lines += textwrap.wrap(f"  since   {told_since}", width, subsequent_indent=" " * 10, break_on_hyphens=False)
    if heard := ledger.moments(verdict):
        lines.append(f"  hear    {run.folder}/{heard[0].path} at {offset(heard[0].at_s)}")
    lines.append(f"  repeat  {run.explain(verdict.claim)}")
    return lines


def _style(status: Status) -> str:
    return {Status.PASS: "ok", Status.FAIL: "FAIL", Status.INCONCLUSIVE: "undecided"}[status]
