"""Turns spoken and heard -> rows of ``transcripts``; -> the agent's counter -> Prometheus' raw samples."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from assertions import answers, counted
from assertions.facts import ASSISTANT, USER, Facts, rowless, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree
from assertions.words import quoted, span
from harness.measure.alignment import aligned, words_of
from harness.measure.delivery import PROOFS
from harness.measure.series import Reader, Timeline
from harness.measure.word_error import word_error_ratio
from harness.model import Row, Source

TABLE = "transcripts"
MARK = "/transcripts?"
COUNTER = "voice_agent_turns_total"
NAMES = {COUNTER: lambda timeline: ("role", timeline.labels.get("role", "?"))}
ANYTHING = "*"
"""The words of an agent without a script: any will do."""
ROLES = (USER, ASSISTANT)


def trees(facts: Facts) -> Iterator[Tree]:
    """The rows, and the counter with its samples."""
    yield Tree(root="spoken", truth=_spoken(facts), steps=(_rows_step(facts),), reads=frozenset({TABLE, "calls", PROOFS}))
    yield Tree(root="spoken", truth=_counted(facts), steps=_counter_steps(facts), reads=frozenset(NAMES))


def _rows_step(facts: Facts) -> Step:
    return Step(
        claim="turns/rows",
        reads=frozenset({TABLE}),
        source="spoken",
        title="transcripts rows",
        admits=lambda given, reader: _stored(given, facts, reader),
        read=lambda reader: _transcripts(reader, facts),
        defects={
            "a transcript row is lost": _changed(facts, lambda rows, at: [*rows[:at], *rows[at + 1 :]]),
            "a transcript row is doubled": _changed(facts, lambda rows, at: [*rows[: at + 1], *rows[at:]]),
            "a transcript is cut short": _changed(facts, lambda rows, at: [*rows[:at], _cut(rows[at]), *rows[at + 1 :]]),
            "user and assistant are swapped": _changed(facts, lambda rows, at: [*rows[:at], _swapped(rows[at]), *rows[at + 1 :]]),
            "rows are out of order": _reordered,
            **answers.defects(TABLE, MARK),
        },
        show=_show_rows,
        explain=lambda difference: _explain_row(difference, facts),
        would_catch=lambda admitted, said: "1 row",
    )


def _spoken(facts: Facts) -> Reading:
    """Every line that was said, by call, role and place; the order of those rows that are there."""
    parts: dict[Key, Thing] = dict(answers.WHOLE)
    may_lack: set[Key] = set(answers.NOT_TOLD)
    places: dict[tuple[str, str], int] = {}
    torn = {call_id for call_id, lines in facts.lines_of.items() if len({(line.turn, line.role) for line in lines}) < len(lines)}
    for line in facts.lines:
        place = places[line.call_id, line.role] = places.get((line.call_id, line.role), 0) + 1
        key = ("row", line.call_id, line.role, str(place))
        parts[key] = frozenset({ANYTHING if line.text is None else words_of(line.text)})
        if not line.is_sure or line.cut_from is not None:  # of a reply that was talked down its own claim tells
            may_lack.add(key)
        # Which piece of a torn prompt a row tells is not known, and so not its place.
        parts["order", line.call_id] = frozenset({"in order", "out of order"} if line.call_id in torn else {"in order"})
        may_lack.add(("order", line.call_id))
    because = ["the words of the prompts, and of the script where the agent has one; case and punctuation do not count"]
    if (band := facts.evidence.info.scenario.word_error_ratio) is not None:
        because.append(f"a recogniser may get {band * 100:g} % of the words of a sentence wrong")
    if any(key[0] == "row" for key in may_lack):
        because.append("a line that was not answered, not heard to its end, or said while our own media was late, may be missing or differ")
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=tuple(because))


def _stored(given: Reading, facts: Facts, reader: Reader) -> Reading:
    """A row each; none of a call without a row of its own. How late it was written is for pipeline/rows to say."""
    parts, may_lack, because = dict(given.parts), set(given.may_lack), list(given.because)
    gone = rowless(reader, facts)
    may_lack.update(key for key in parts if key[0] == "row" and key[1] in gone)
    if gone:
        because.append("a call that has no row in calls can have none here: the one refers to the other")
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=tuple(because))


def _transcripts(reader: Reader, facts: Facts) -> Seen:
    """The rows, each at the place of the line that it tells; what no line accounts for is numbered on behind them."""
    if gap := unread(reader, Source.ROWS, MARK):
        return gap
    return Reading(parts={**answers.said(reader, MARK), **reader.of_calls(TABLE, _of_call, facts)})


def _of_call(call_id: str, rows: Sequence[Row], facts: Facts) -> dict[Key, Thing]:
    return dict(_told(call_id, sorted(rows, key=_instant), facts))


def _told(call_id: str, rows: list[Row], facts: Facts) -> Iterator[tuple[Key, Thing]]:
    lines = facts.lines_of.get(call_id, ())
    order: list[tuple[int, int]] = []
    for role in dict.fromkeys([*ROLES, *(str(row.columns.get("role")) for row in rows)]):
        spoken = [place for place, line in enumerate(lines) if line.role == role]
        written = [place for place, row in enumerate(rows) if str(row.columns.get("role")) == role]
        wanted = [_wanted(lines[place].text) for place in spoken]
        found = [words_of(str(rows[place].columns.get("content"))) for place in written]
        if (band := facts.evidence.info.scenario.word_error_ratio) is not None and role == USER:
            found = within(wanted, found, band)
        extra = len(spoken)
        for pair in aligned(wanted, found):
            if pair.found is None:
                continue
            words = found[pair.found]
            if pair.wanted is None:
                extra += 1
                yield ("row", call_id, role, str(extra)), frozenset({words})
                continue
            order.append((spoken[pair.wanted], written[pair.found]))
            is_free = wanted[pair.wanted] is None
            yield ("row", call_id, role, str(pair.wanted + 1)), frozenset({ANYTHING if is_free else words})
    told = [row for _, row in sorted(order)]
    yield ("order", call_id), frozenset({"in order" if told == sorted(told) else "out of order"})


def within(wanted: Sequence[str | None], found: Sequence[str], band: float) -> list[str]:
    """What was found, in the words that were wanted wherever a recogniser may have heard the one for the other."""
    told = list(found)
    for pair in aligned(wanted, found):
        words = None if pair.wanted is None else wanted[pair.wanted]
        if words is not None and pair.found is not None and word_error_ratio(words, found[pair.found]) <= band:
            told[pair.found] = words
    return told


def _wanted(text: str | None) -> str | None:
    return None if text is None else words_of(text)


def _instant(row: Row) -> str:
    return str(row.columns.get("timestamp"))


def _show_rows(reading: Reading) -> str:
    rows = [key for key in reading.parts if key[0] == "row"]
    sure = sum(key not in reading.may_lack for key in rows)
    return span(Range(lo=sure, hi=len(rows)))


def _explain_row(difference: Difference, facts: Facts) -> str:
    if words := answers.explained(difference, TABLE):
        return words
    call = facts.named(difference.key[1])
    if difference.key[0] == "order":
        return f"{call}: the rows of transcripts are not in the order of the conversation"
    _, _, role, place = difference.key
    admitted, said = quoted(difference.admitted), quoted(difference.said)
    match difference.kind:
        case Kind.LACKS:
            return f"{call}: what the {role} said as their line {place} has no row in transcripts: {admitted}"
        case Kind.EXTRA:
            again = [line for line in facts.lines_of.get(difference.key[1], ()) if words_of(line.text or "") == span(difference.said)]
            why = "was said once and is there twice" if again and again[0].role == role else "nobody said"
            return f"{call}: transcripts holds a line of the {role} that {why}: {said}"
        case Kind.OTHER:
            return f"{call}: line {place} of the {role} is {said} in transcripts{_cut_words(difference)}; what was said is {admitted}"


def _cut_words(difference: Difference) -> str:
    """``, cut short after 3 of 6 words``, if the text is the beginning of what was said."""
    said, admitted = span(difference.said).split(), span(difference.admitted).split()
    is_cut = len(said) < len(admitted) and said == admitted[: len(said)]
    return f", cut short after {len(said)} of {len(admitted)} words" if is_cut else ""


def _changed(facts: Facts, change: Callable[[list[Row], int], list[Row]]) -> Defect:
    """A change of one row that tells a line of which we are sure."""

    def defect(reader: Reader) -> Reader | None:
        rows = list(reader.rows.get(TABLE, ()))
        sure = {(line.call_id, line.role, words_of(line.text)) for line in facts.lines if line.is_sure and line.text}
        for place, row in reversed(list(enumerate(rows))):
            if (row.columns.get("call_id"), row.columns.get("role"), words_of(str(row.columns.get("content")))) in sure:
                return reader.with_rows(TABLE, change(rows, place))
        return None

    return defect


def _reordered(reader: Reader) -> Reader | None:
    """Two lines of a call, one after the other, have each other's instant."""
    for call_id in reader.calls_in(TABLE):
        for row, other in itertools.pairwise(sorted(reader.rows_of_call(TABLE, call_id), key=_instant)):
            if _instant(row) != _instant(other):
                lies = {id(row): _with(row, timestamp=_instant(other)), id(other): _with(other, timestamp=_instant(row))}
                return reader.with_rows(TABLE, [lies.get(id(each), each) for each in reader.rows[TABLE]])
    return None


def _cut(row: Row) -> Row:
    words = str(row.columns.get("content")).split()
    return _with(row, content=" ".join(words[: len(words) // 2]))


def _swapped(row: Row) -> Row:
    return _with(row, role=ASSISTANT if row.columns.get("role") == USER else USER)


def _with(row: Row, **columns: str) -> Row:
    return dataclasses.replace(row, columns={**row.columns, **columns})


def _counted(facts: Facts) -> Reading:
    """Turns by role: those of which we are sure, and those that may have been."""
    parts: dict[Key, Thing] = {}
    for role in ROLES:
        lines = [line for line in facts.lines if line.role == role]
        parts["role", role] = Range(lo=sum(line.is_sure for line in lines), hi=len(lines))
    because = ["a greeting is a turn of the assistant"]
    if any(not line.is_sure for line in facts.lines):
        because.append("a line that was not answered, or not heard to its end, may have been counted or not")
    return Reading(parts=parts, because=tuple(because))


def _counter_steps(facts: Facts) -> tuple[Step, Step]:
    def explain(hop: str) -> Callable[[Difference], str]:
        return lambda difference: counted.explained(difference, facts, hop, f"turns of the {difference.key[-1]}", "turn")

    exporter = Step(
        claim="turns/exporter",
        source="spoken",
        title="agent /metrics",
        admits=lambda given, reader: counted.counts(given, reader, NAMES),
        read=lambda reader: counted.exported(reader, NAMES, facts),
        defects={
            "a turn is not counted": counted.moved(NAMES, -1, only=_is(USER)),
            "a turn is counted twice": counted.moved(NAMES, 1, only=_is(ASSISTANT)),
            "the scrape is green and empty": counted.silenced(NAMES),
        },
        show=_show_counts,
        explain=explain("the agent's exporter"),
        would_catch=lambda admitted, said: "1 turn",
    )
    samples = Step(
        claim="turns/samples",
        source="turns/exporter",
        title="prometheus samples",
        admits=lambda given, reader: counted.scraped(given, reader, NAMES, facts),
        read=lambda reader: counted.stored(reader, NAMES, facts),
        defects={
            "a turn is not stored": counted.moved(NAMES, -1, sources=(Source.PROMETHEUS,), only=_is(USER)),
            "samples end in the middle of the load": counted.ended_early(NAMES, facts),
        },
        show=_show_counts,
        explain=explain("Prometheus"),
        would_catch=lambda admitted, said: "1 turn",
    )
    return exporter, samples


def _is(role: str) -> Callable[[Timeline], bool]:
    return lambda timeline: timeline.labels.get("role") == role


def _show_counts(reading: Reading) -> str:
    words = [span(reading.parts[key]) for role in ROLES if (key := ("role", role)) in reading.parts]
    return " + ".join(words) or "no series"
