"""``voxproof explain``: how one claim was judged, from what callers heard to the lines that were read, with the arithmetic between."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise

from harness.errors import UsageError
from harness.measure.series import Reader, Timeline
from harness.model import Evidence, Findings, Row, Source, UnixNs, Verdict
from reports import ledger
from reports.words import offset, plural, seconds, word
from reports.words import since as elapsed_s

STAGES = ("stt", "llm", "tts")
SERIES = {
    "active": ("voice_agent_active_calls", "voice_agent:active_calls"),
    "ttfw": ("voice_agent_ttfw_seconds", "voice_agent:ttfw_seconds"),
    "turns": ("voice_agent_turns_total",),
    "tools": ("voice_agent_tool_calls_total",),
    "sfu": ("livekit_room", "livekit_participant"),
    "loss": ("livekit_packet_loss",),
    "jitter": ("livekit_jitter",),
    "rtt": ("livekit_rtt",),
    "availability": ("up",),
    "pipeline": ("up", "prometheus_rule_group", "clock_"),
    **{stage: (f"voice_agent_{stage}_latency_seconds",) for stage in STAGES},
}
"""How the names of a quantity's series begin."""
TABLES = {
    "calls": "calls",
    "turns": "transcripts",
    "tools": "tool_executions",
    "pipeline": "transcripts",
    "barge-ins": "transcripts",
}
"""Where a quantity's rows are."""
_COLUMNS = {
    "calls": ("call_id", "status", "start_time", "end_time", "duration_seconds"),
    "transcripts": ("call_id", "role", "timestamp", "recorded_at", "content"),
    "tool_executions": ("call_id", "tool_name", "success", "latency_ms", "executed_at"),
    "stages": ("room", "programmed_s", "waited_s", "took_s", "turn_s", "is_cut"),
    "realtime": ("call_id", "kind", "key", "at", "commit_timestamp"),
}
_SOURCES = {
    "exporter": (Source.AGENT_EXPORTER,),
    "samples": (Source.AGENT_EXPORTER, Source.PROMETHEUS),
    "rule": (Source.PROMETHEUS, Source.RULES),
    "rooms": (Source.SFU_EXPORTER, Source.SFU_API),
    "participants": (Source.SFU_EXPORTER, Source.SFU_API),
    "realtime": (Source.ROWS, Source.REALTIME),
}
"""What each hop is read from, after what the hop before it was read from; any other hop is read from rows."""
_OF_SFU = {
    "server-reports": (),
    "exporter": (Source.SFU_EXPORTER,),
    "samples": (Source.SFU_EXPORTER, Source.PROMETHEUS),
    "rule": (Source.PROMETHEUS, Source.RULES),
}
"""The same for quantities of the wire, which the media server's exporter says; its reports are told with the wire."""
_WIRE = ("loss", "jitter", "rtt")
_OF_ITSELF = ("availability", "pipeline")
"""Quantities of which Prometheus tells by itself; what callers heard has no part in them."""
_OWNER = ("job", "instance", "rule_group")
_MOST_LINES = 40
_MOST_CHANGES = 12


def text(evidence: Evidence, findings: Findings, claim: str, *, run: str | None = None, width: int = 100) -> str:
    """Samples, arithmetic and the requests that repeat them, ending in a newline.

    Raises UsageError, naming the nearest claim, if this run judged no such claim.
    """
    verdict = _find(findings, claim)
    named = ledger.Run.of(evidence, run)
    lines = [f"{claim} · {word(verdict)} · {verdict.hop}"]
    lines += textwrap.wrap(verdict.sentence, width, break_on_hyphens=False)
    lines += ["", *_verdict(verdict, width), "", *_heard(evidence, claim), *_read(evidence, claim, width), *_again(verdict, claim, named)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _find(findings: Findings, claim: str) -> Verdict:
    by_claim = {verdict.claim: verdict for verdict in findings.verdicts}
    if claim not in by_claim:
        near = get_close_matches(claim, by_claim, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; it judged {', '.join(by_claim) or 'nothing'}"
        msg = f"this run judged no claim '{claim}'{hint}"
        raise UsageError(msg)
    return by_claim[claim]


def _verdict(verdict: Verdict, width: int) -> Iterable[str]:
    told = [("says", verdict.says), ("may say", verdict.may_say), ("would catch", verdict.would_catch)]
    told += [("because" if number == 0 else "", reason) for number, reason in enumerate(verdict.because)]
    if verdict.effect is not None:
        told.append(("effect", verdict.effect))
    if verdict.blind is not None:
        told.append(("blind", verdict.blind))
    if verdict.alpha:
        told.append(("by chance", f"an honest hop falls outside with probability {verdict.alpha:.1g}"))
    for title, words in told:
        yield from textwrap.wrap(f"{title:<13}{words}", width, subsequent_indent=" " * 13, break_on_hyphens=False) or [title]


def _heard(evidence: Evidence, claim: str) -> Iterable[str]:
    """What the callers know of it: calls, or their turns."""
    if claim.partition("/")[0] in ("sfu", *_OF_ITSELF, *STAGES):
        return
    if claim.partition("/")[0] in _WIRE:
        yield from _wire(evidence)
        return
    yield "HEARD by the callers"
    if claim.startswith(("calls/", "active/", "slo/answered")):
        rows: list[tuple[str, ...]] = [("call", "call_id", "outcome", "placed at", "left at", "turns heard")]
        for record in evidence.records:
            heard = sum(turn.first_word_at is not None for turn in record.turns)
            rows.append(
                (
                    f"call-{record.plan.index}",
                    record.plan.call_id,
                    record.outcome.value,
                    _clock(evidence, record.placed_at),
                    _clock(evidence, record.left_at),
                    f"{heard}/{len(record.plan.turns)}",
                )
            )
    else:
        rows = [("call", "turn", "prompt", "tool", "speech ended", "first word", "TTFW")]
        for record in evidence.records:
            for turn in record.turns:
                rows.append(
                    (
                        f"call-{record.plan.index}",
                        str(turn.index),
                        turn.prompt,
                        turn.tool or "-",
                        _clock(evidence, turn.user_speech_ended_at),
                        _clock(evidence, turn.first_word_at),
                        f"void: {turn.void}" if turn.void else seconds(turn.response_latency_s, missing="no reply"),
                    )
                )
    yield from _columns(rows)
    yield ""


def _wire(evidence: Evidence) -> Iterable[str]:
    """By call what was sent, lost on purpose and reported, both ways."""
    yield "ON THE WIRE at the callers"
    rows: list[tuple[str, ...]] = [
        ("call", "way", "packets", "lost on purpose", "reported lost", "jitter", "reported jitter", "delay", "round trips")
    ]
    for record in evidence.records:
        for stats in record.wire:
            made = [window for window in record.impaired if window.direction == stats.direction]
            said = next((each for each in record.reports if each.direction == stats.direction), None)
            peak_s = max((peak for window in made for peak in window.jitter_peaks_s), default=None)
            delays_s = [each for window in made for each in (window.delay_min_s, window.delay_max_s) if each is not None]
            rows.append(
                (
                    f"call-{record.plan.index}",
                    stats.direction,
                    str(stats.packets),
                    str(sum(window.lost for window in made)) if made else "-",
                    str(said.lost[-1]) if said else "-",
                    "-" if peak_s is None else f"{1000 * peak_s:.1f} ms",
                    f"{1000 * max(said.jitter_s):.1f} ms" if said else "-",
                    f"{1000 * min(delays_s):.0f} to {1000 * max(delays_s):.0f} ms" if delays_s else "-",
                    f"{1000 * min(stats.rtt_s):.1f} to {1000 * max(stats.rtt_s):.1f} ms" if stats.rtt_s else "-",
                )
            )
    yield from _columns(rows)
    yield ""


def _read(evidence: Evidence, claim: str, width: int) -> Iterable[str]:
    first, _, hop = claim.partition("/")
    sources = (_OF_SFU if first in _WIRE else _SOURCES).get(hop, (Source.ROWS,))
    if first in _OF_ITSELF and hop != "rows":
        sources = (Source.PROMETHEUS,)
    if first in STAGES and hop == "exporter":
        sources = (Source.AGENT_RULER, *sources)
    if first in ("slo",) or claim == "calls/answered":
        return
    reader, since = Reader.of(evidence), evidence.info.load_started_at or evidence.info.started_at
    for source in sources:
        if source is Source.ROWS:
            yield from _rows(evidence, TABLES.get(first, first))
        elif source is Source.REALTIME:
            yield from _rows(evidence, "realtime")
        elif source is Source.AGENT_RULER:
            yield from _rows(evidence, "stages", lambda row: row.columns["stage"].lower() == first)
        elif source is Source.RULES or first in _OF_ITSELF:
            yield from _instants(reader, evidence, source, SERIES.get(first, ()))
        else:
            yield from _series(reader, since, source, SERIES.get(first, ()))
        yield from _lost([lost for lost in ledger.losses(evidence) if lost.source is source], width)
        yield f"  kept in observations/{source}.jsonl"
        yield ""


def _series(reader: Reader, since: UnixNs, source: Source, prefixes: Sequence[str]) -> Iterable[str]:
    """Growth of each series from the start of the load to the end of reading; those that did not move are counted, not listed."""
    found = _timelines(reader, source, prefixes)
    shared = set.intersection(*(set(one.labels.items()) for one in found)) if len(found) > 1 else set()
    moved = [one for one in found if one.samples[0][1] != one.samples[-1][1] or reader.grown(one, source, since)]
    yield f"READ from {source}, growth since the load began" + (f", all with {_labels(dict(shared))}" if shared else "")
    rows = [("series", "before", "last", "growth", "samples")]
    for one in sorted(moved, key=_order)[:_MOST_LINES]:
        before = one.at(since)
        rows.append(
            (
                one.name + _labels({name: label for name, label in one.labels.items() if (name, label) not in shared}),
                "-" if before is None else f"{before:g}",
                f"{one.samples[-1][1]:g}",
                f"{reader.grown(one, source, since):g}",
                str(len(one.samples)),
            )
        )
    yield from _columns(rows) if moved else ["  no such series" if not found else "  nothing moved"]
    if still := len(found) - len(moved):
        yield f"  {still} series did not move"
    if len(moved) > _MOST_LINES:
        yield f"  {len(moved) - _MOST_LINES} more series moved"


def _instants(reader: Reader, evidence: Evidence, source: Source, prefixes: Sequence[str]) -> Iterable[str]:
    """Every change of what each rule said, or each series of a gauge."""
    found = _timelines(reader, source, prefixes)
    yield f"READ from {source}, each change of each {'rule' if source is Source.RULES else 'series'}"
    if not found:
        yield "  no such series"
        return
    rows = [("rule" if source is Source.RULES else "series", "at", "value")]
    for one in sorted(found, key=_order):
        said = [one.samples[0], *(after for before, after in pairwise(one.samples) if not _is_same(before[1], after[1]))]
        owner = {} if source is Source.RULES else {name: one.labels[name] for name in _OWNER if name in one.labels}
        rows += [(one.name + _labels(owner), _clock(evidence, at), f"{number:g}") for at, number in said[-_MOST_CHANGES:]]
    yield from _columns(rows)


def _timelines(reader: Reader, source: Source, prefixes: Sequence[str]) -> list[Timeline]:
    by_name = reader.timelines.get(source, {})
    return [one for name, found in by_name.items() if name.startswith(tuple(prefixes)) for one in found]


def _order(timeline: Timeline) -> tuple[str, float, str]:
    """By name, then by bucket."""
    return timeline.name, float(timeline.labels.get("le", "nan")) if "le" in timeline.labels else 0.0, _labels(timeline.labels)


def _labels(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{name}="{label}"' for name, label in sorted(labels.items()))
    return f"{{{shown}}}" if shown else ""


def _is_same(before: float, after: float) -> bool:
    return math.isclose(before, after, rel_tol=1e-6) or (math.isnan(before) and math.isnan(after))


def _rows(evidence: Evidence, table: str, is_wanted: Callable[[Row], bool] = lambda _: True) -> Iterable[str]:
    rows = [row for row in evidence.observations if isinstance(row, Row) and row.table == table and is_wanted(row)]
    yield f"READ from table {table}: {plural(len(rows), 'row')}"
    names = _COLUMNS.get(table) or tuple(dict.fromkeys(name for row in rows for name in row.columns))
    if rows:
        yield from _columns([names, *(tuple(_short(row.columns.get(name)) for name in names) for row in rows[:_MOST_LINES])])
    if len(rows) > _MOST_LINES:
        yield f"  {len(rows) - _MOST_LINES} more rows"


def _lost(losses: Sequence[ledger.Loss], width: int) -> Iterable[str]:
    for lost in losses:
        told = f"not read {lost.when}: {lost.reason} ({lost.request})"
        yield from textwrap.wrap(told, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _again(verdict: Verdict, claim: str, run: ledger.Run) -> Iterable[str]:
    yield "AGAIN"
    for moment in ledger.moments(verdict):
        yield f"  hear     {run.folder}/{moment.path} at {offset(moment.at_s)}"
    for request in ledger.requests(verdict):
        is_address = ledger.is_address(request)
        yield f"  {'request' if is_address else 'file':<9}{request if is_address else f'{run.folder}/{request}'}"
    yield f"  check    voxproof check {run.name}"


def _clock(evidence: Evidence, at: UnixNs | None) -> str:
    """Seconds since the run started: one clock for everything that is printed."""
    return "-" if at is None else f"{elapsed_s(evidence.info.started_at, at):.3f}"


def _short(entry: object) -> str:
    words = "-" if entry is None else str(entry)
    return words if len(words) <= 48 else words[:47] + "…"


def _columns(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
