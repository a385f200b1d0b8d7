"""The pipeline itself: how often Prometheus scraped and evaluated, whether its clock is ours, and when rows were written of what they tell."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from assertions import calls, turns
from assertions.facts import USER, Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree, exactly
from assertions.words import span
from harness.measure.series import Reader, Timeline
from harness.model import CallRecord, Gap, Row, Source, UnixNs

UP = "up"
ITERATIONS = "prometheus_rule_group_iterations_total"
INTERVAL = "prometheus_rule_group_interval_seconds"
OFFSET, DOUBT = "clock_offset_s", "clock_doubt_s"
"""Prometheus' clock less ours, by its own ``time()``, and half the round trip of the best answer."""
MARK = "scrape_samples_scraped"
"""In the request that reads what Prometheus says of itself."""
POLL_S = 1.0
"""We ourselves poll exporters so often: where our polls fell behind, so may scrapes."""
_MILLISECOND_S = 0.001
"""Prometheus' resolution."""


def trees(facts: Facts) -> Iterator[Tree]:
    """Four arrows, each from what was configured or from what happened."""
    yield _tree(_scrapes(facts), UP)
    yield _tree(_rules(facts), ITERATIONS)
    yield _tree(_clock(facts), OFFSET, DOUBT)
    yield _tree(_rows(facts), calls.TABLE, turns.TABLE)


def _tree(step: Step, *names: str) -> Tree:
    return Tree(root=step.source, truth=Reading(parts={}), steps=(step,), reads=frozenset(names))


def _scrapes(facts: Facts) -> Step:
    def expected(reader: Reader) -> Reading:
        until = next((poll.at for poll in reader.polls.get(Source.PROMETHEUS, ()) if MARK in poll.request), UnixNs(0))
        by_job = facts.evidence.info.settings.get("scrape_interval_s_by_job", {})
        parts: dict[Key, Thing] = {}
        behind_s = _behind_s(reader)
        for target, instants in _scraped(reader, facts).items():
            interval_s = float(by_job.get(target.partition(" ")[0], facts.setting("scrape_interval_s", 15.0)))
            slots = (until - instants[0]) / 1e9 / interval_s
            # The last may be under way, and all lie on a grid of their own.
            parts["times", target] = Range(lo=max(0.0, math.floor(slots - behind_s / interval_s) - 1), hi=math.ceil(slots) + 1)
        return Reading(parts=parts, because=("one an interval from the first of the load until they were read", *_because(behind_s)))

    def said(reader: Reader) -> Seen:
        if gap := unread(reader, Source.PROMETHEUS, MARK):
            return gap
        return Reading(parts={("times", target): exactly(len(instants)) for target, instants in _scraped(reader, facts).items()})

    return Step(
        claim="pipeline/scrapes",
        source="configured",
        title="scrapes of each target",
        admits=lambda _, reader: expected(reader),
        read=said,
        defects={"every second scrape is missing": _thinned, "scrapes stop in the middle of the load": _stopped(facts)},
        show=_show_times,
        explain=lambda difference: _explain_times(difference, "Prometheus scraped"),
        would_catch=lambda admitted, _: _fewest(admitted, "scrape"),
    )


def _rules(facts: Facts) -> Step:
    def expected(reader: Reader) -> Reading:
        parts: dict[Key, Thing] = {}
        behind_s = _behind_s(reader)
        for group, samples in _iterations(reader, facts).items():
            slots = (samples[-1][0] - samples[0][0]) / 1e9 / _interval_s(reader, group, facts)
            parts["times", group] = Range(lo=max(0.0, math.floor(slots - behind_s) - 1), hi=math.ceil(slots) + 1)
        return Reading(parts=parts, because=("one an interval between the first and the last scrape of the load", *_because(behind_s)))

    def said(reader: Reader) -> Seen:
        if gap := unread(reader, Source.PROMETHEUS, MARK):
            return gap
        return Reading(
            parts={("times", group): exactly(samples[-1][1] - samples[0][1]) for group, samples in _iterations(reader, facts).items()}
        )

    return Step(
        claim="pipeline/rules",
        source="configured",
        title="evaluations of each group",
        admits=lambda _, reader: expected(reader),
        read=said,
        defects={"every second evaluation is missing": _halved, "the rules stand still": _still},
        show=_show_times,
        explain=lambda difference: _explain_times(difference, "Prometheus evaluated"),
        would_catch=lambda admitted, _: _fewest(admitted, "evaluation"),
    )


def _clock(facts: Facts) -> Step:
    interval_s = facts.setting("scrape_interval_s", 15.0)
    admitted = exactly(0.0) if facts.is_ours else Range(lo=-interval_s / 2, hi=interval_s / 2)
    because = "it runs on this machine" if facts.is_ours else "within half a scrape its instants are told apart"

    def said(reader: Reader) -> Seen:
        offsets, doubts = (reader.series(Source.PROMETHEUS, name) for name in (OFFSET, DOUBT))
        if not offsets or not doubts:
            return Gap(source=Source.PROMETHEUS, at=UnixNs(0), reason="it was not asked for its time", request="")
        offset_s, doubt_s = offsets[0].samples[-1][1], doubts[0].samples[-1][1] + _MILLISECOND_S
        return Reading(parts={("offset",): Range(lo=offset_s - doubt_s, hi=offset_s + doubt_s)})

    return Step(
        claim="pipeline/clock",
        source="our clock",
        title="prometheus' clock less ours",
        admits=lambda _, __: Reading(parts={("offset",): admitted}, because=(because,)),
        read=said,
        defects={"its clock is a scrape ahead": _moved(interval_s), "its clock is a scrape behind": _moved(-interval_s)},
        show=lambda reading: _milliseconds(reading.number("offset")),
        explain=lambda difference: (
            f"Prometheus' clock is {_milliseconds(difference.said)} ahead of ours, may be {_milliseconds(difference.admitted)}"
        ),
        would_catch=lambda _, said: _milliseconds(exactly(_reach(admitted, said.number("offset")))),
    )


def _rows(facts: Facts) -> Step:
    records = {record.plan.call_id: record for record in facts.records}

    def said(reader: Reader) -> Seen:
        if gap := unread(reader, Source.ROWS, f"/{turns.TABLE}?") or unread(reader, Source.ROWS, f"/{calls.TABLE}?"):
            return gap
        return Reading(parts=_of_both(reader, _lag, records))

    def admitted(reader: Reader) -> Reading:
        return Reading(
            parts=_of_both(reader, _longest, records),
            because=("a row is written after what it tells has happened, and before it was read",),
        )

    return Step(
        claim="pipeline/rows",
        source="happened",
        title="rows, how long after",
        admits=lambda _, reader: admitted(reader),
        read=said,
        defects={
            "lines are written an hour early": _shifted(-3600.0, records),
            "lines are written an hour late": _shifted(3600.0, records),
        },
        show=_show_lag,
        explain=lambda difference: _explain_lag(difference, facts),
        would_catch=lambda admitted, _: "a clock that is wrong" if admitted.parts else "nothing",
    )


def _scraped(reader: Reader, facts: Facts) -> dict[str, list[UnixNs]]:
    """By target, when it was scraped in the load or after it."""
    found = {
        f"{each.labels.get('job')} {each.labels.get('instance')}": [at for at, _ in each.samples if at > facts.since]
        for each in reader.series(Source.PROMETHEUS, UP)
    }
    return {target: instants for target, instants in found.items() if instants}


def _iterations(reader: Reader, facts: Facts) -> dict[str, list[tuple[UnixNs, float]]]:
    """By group of rules, how often it was evaluated by each scrape in the load or after it."""
    found = {
        _group(each): [sample for sample in each.samples if sample[0] > facts.since]
        for each in reader.series(Source.PROMETHEUS, ITERATIONS)
    }
    return {group: samples for group, samples in found.items() if len(samples) > 1}


def _group(timeline: Timeline) -> str:
    """Its name without the file's path."""
    return timeline.labels.get("rule_group", "").rpartition(";")[2]


def _interval_s(reader: Reader, group: str, facts: Facts) -> float:
    """A group may have an interval of its own."""
    own = [each.samples[-1][1] for each in reader.series(Source.PROMETHEUS, INTERVAL) if _group(each) == group]
    return own[0] if own else facts.setting("evaluation_interval_s", 15.0)


def _behind_s(reader: Reader) -> float:
    """By how much our own polls of exporters fell behind, in all: a machine that lets us wait lets others wait."""
    found = 0.0
    for source in (Source.SFU_EXPORTER, Source.AGENT_EXPORTER):
        polls = reader.polls.get(source, ())
        late = [(after.at - before.at) / 1e9 - POLL_S for before, after in itertools.pairwise(polls)]
        found = max(found, sum(each for each in late if each > POLL_S / 10))
    return found


def _because(behind_s: float) -> tuple[str, ...]:
    return (f"this machine was busy: our own polls were {behind_s:.1f} s late in all",) if behind_s else ()


Span = Callable[[int, int, int], Range]
"""Of three instants: when what a row tells had happened, when it was written, when it was read; in seconds."""
_Records = Mapping[str, CallRecord]


def _lag(since: int, written_at: int, _: int) -> Range:
    return exactly((written_at - since) / 1e9)


def _longest(since: int, _: int, read_at: int) -> Range:
    return Range(lo=-_MILLISECOND_S, hi=(read_at - since) / 1e9)


def _of_both(reader: Reader, span: Span, records: _Records) -> dict[Key, Thing]:
    """Rows of our calls: a call's after it was placed, what the user said after it was said."""
    return {**reader.of_calls(calls.TABLE, _of_call, span, records), **reader.of_calls(turns.TABLE, _of_lines, span, records)}


def _of_call(call_id: str, rows: Sequence[Row], span: Span, records: _Records) -> dict[Key, Thing]:
    told = [(written_at, row.at) for row in rows if (written_at := _instant(row)) is not None]
    since = records[call_id].placed_at if call_id in records else None
    return {("row", calls.TABLE, call_id): span(since, *told[-1])} if told and since is not None else {}


def _of_lines(call_id: str, rows: Sequence[Row], span: Span, records: _Records) -> dict[Key, Thing]:
    if call_id not in records:
        return {}
    ended = sorted(turn.user_speech_ended_at for turn in records[call_id].turns)
    lines = (row for row in rows if row.columns.get("role") == USER)
    told = sorted((written_at, row.at) for row in lines if (written_at := _instant(row)) is not None)
    if len(told) != len(ended):
        return {}
    # Only then each of them is of the turn in its place.
    return {
        ("row", turns.TABLE, call_id, str(index)): span(since, written_at, read_at)
        for index, (since, (written_at, read_at)) in enumerate(zip(ended, told, strict=True), start=1)
    }


def _instant(row: Row) -> int | None:
    """When the database wrote it, by its own clock. None: it does not say."""
    try:
        return round(datetime.datetime.fromisoformat(str(row.columns.get("recorded_at"))).timestamp() * 1e6) * 1000
    except ValueError:
        return None


def _show_times(reading: Reading) -> str:
    """Of the target, or the group, that has the fewest."""
    found = [thing for thing in reading.parts.values() if isinstance(thing, Range)]
    if not found:
        return "-"
    least = min(found, key=lambda thing: thing.hi)
    return f"{len(found)} x {span(least)}" if len({(thing.lo, thing.hi) for thing in found}) == 1 else f"{len(found)}, least {span(least)}"


def _fewest(admitted: Reading, noun: str) -> str:
    widths = [thing.hi - thing.lo for thing in admitted.parts.values() if isinstance(thing, Range)]
    return f"{math.floor(max(widths)) + 1} {noun}s" if widths else "nothing"


def _explain_times(difference: Difference, what: str) -> str:
    if difference.kind is not Kind.OTHER:
        return f"{what} {difference.key[1]} {'never' if difference.kind is Kind.LACKS else 'unasked'}"
    return f"{what} {difference.key[1]} {span(difference.said)} times, may have done so {span(difference.admitted)} times"


def _show_lag(reading: Reading) -> str:
    found = [thing for key, thing in reading.parts.items() if key[0] == "row" and isinstance(thing, Range)]
    if not found:
        return "-"
    if any(thing.lo != thing.hi for thing in found):
        return f"0 to {max(thing.hi for thing in found):.0f} s"
    return f"p50 {statistics.median(thing.lo for thing in found):.2f} s, at most {max(thing.hi for thing in found):.2f} s"


def _explain_lag(difference: Difference, facts: Facts) -> str:
    _, table, call_id, *index = difference.key
    row = f"{facts.named(call_id)}: its row of {table}" + (f" for turn {index[0]}" if index else "")
    return f"{row} was written {span(difference.said, ' s', 2)} after it happened, may be {span(difference.admitted, ' s', 2)}"


def _milliseconds(thing: Thing | None) -> str:
    return span(Range(lo=1000 * thing.lo, hi=1000 * thing.hi), " ms", 0) if isinstance(thing, Range) else "-"


def _reach(admitted: Range, said: Range | None) -> float:
    """The least by which a clock must be wrong to leave what is admitted, wherever in its doubt it lies."""
    return admitted.hi - admitted.lo + (0.0 if said is None else said.hi - said.lo)


def _thinned(reader: Reader) -> Reader | None:
    """Of every target."""
    if not any(len(each.samples) > 4 for each in reader.series(Source.PROMETHEUS, UP)):
        return None
    kept: Mapping[int, set[UnixNs]] = {id(each): {at for at, _ in each.samples[::2]} for each in reader.series(Source.PROMETHEUS, UP)}
    return reader.with_series(Source.PROMETHEUS, UP, lambda each: each.changed(lambda at, number: number if at in kept[id(each)] else None))


def _stopped(facts: Facts) -> Defect:
    def defect(reader: Reader) -> Reader | None:
        end = facts.evidence.info.load_ended_at
        if end is None or not reader.series(Source.PROMETHEUS, UP):
            return None
        half = (facts.since + end) // 2
        return reader.with_series(Source.PROMETHEUS, UP, lambda each: each.changed(lambda at, number: number if at < half else None))

    return defect


def _halved(reader: Reader) -> Reader | None:
    return _counting(reader, 0.5)


def _still(reader: Reader) -> Reader | None:
    return _counting(reader, 0.0)


def _counting(reader: Reader, by: float) -> Reader | None:
    if not reader.series(Source.PROMETHEUS, ITERATIONS):
        return None
    return reader.with_series(Source.PROMETHEUS, ITERATIONS, lambda each: each.changed(lambda _, number: by * number))


def _moved(seconds: float) -> Defect:
    def defect(reader: Reader) -> Reader | None:
        if not reader.series(Source.PROMETHEUS, OFFSET):
            return None
        return reader.with_series(Source.PROMETHEUS, OFFSET, lambda each: each.changed(lambda _, number: number + seconds))

    return defect


def _shifted(seconds: float, records: _Records) -> Defect:
    """Of one call."""

    def defect(reader: Reader) -> Reader | None:
        call_ids = reversed(reader.calls_in(turns.TABLE))
        judged = next((each for each in call_ids if _of_lines(each, reader.rows_of_call(turns.TABLE, each), _lag, records)), None)
        if judged is None:
            return None
        rows = reader.rows[turns.TABLE]
        return reader.with_rows(turns.TABLE, [_later(row, seconds) if str(row.columns.get("call_id")) == judged else row for row in rows])

    return defect


def _later(row: Row, seconds: float) -> Row:
    written_at = _instant(row)
    if written_at is None:
        return row
    told = datetime.datetime.fromtimestamp(written_at / 1e9 + seconds, datetime.UTC).isoformat()
    return dataclasses.replace(row, columns={**row.columns, "recorded_at": told})
