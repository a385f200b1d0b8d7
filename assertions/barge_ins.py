"""Replies that a caller talked down -> rows of ``transcripts``: the text that was spoken so far, and no more."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

from assertions import turns
from assertions.facts import ASSISTANT, Facts, Line, rowless, unread
from assertions.ledger import Difference, Key, Kind, Reading, Seen, Step, Thing, Tree
from assertions.words import plural, quoted
from harness.measure.alignment import aligned, words_of
from harness.measure.series import Reader
from harness.model import Row, Source

SLACK_WORDS = 1
"""A word of which only the beginning was heard may be told or not."""


def trees(facts: Facts) -> Iterator[Tree]:
    """The rows. Nothing if nobody barged in."""
    if not any(turn.barge_in_after_s is not None for plan in facts.evidence.plans for turn in plan.turns):
        return
    step = Step(
        claim="barge-ins/rows",
        source="talked over",
        title="transcripts, cut replies",
        admits=lambda given, reader: _stored(given, facts, reader),
        read=lambda reader: _rows(reader, facts),
        defects={
            "a reply that was cut is told to its end": lambda reader: _told(reader, facts, lambda line: str(line.cut_from)),
            "a reply that was cut is told as another": lambda reader: _told(reader, facts, lambda line: f"so {line.cut_from}"),
            "a reply that was cut is not told": lambda reader: _told(reader, facts, lambda line: None),
        },
        show=lambda reading: plural(len(reading.parts), "reply").replace("replys", "replies"),
        explain=lambda difference: _explain(difference, facts),
        would_catch=lambda admitted, said: "1 reply",
        needs="a longer reply that is talked down sooner (barge_in_after_s), and two whole replies or more in the same run",
    )
    yield Tree(root="talked over", truth=_talked_over(facts), steps=(step,), reads=frozenset({turns.TABLE, "calls"}))


def _talked_over(facts: Facts) -> Reading:
    """Of each such reply the beginnings that it may have come to."""
    parts: dict[Key, Thing] = {}
    may_lack: set[Key] = set()
    rate = _fastest(facts)
    for key, line in _cut(facts):
        assert line.cut_from is not None
        parts[key] = frozenset(_beginnings(words_of(line.cut_from), line.heard_s, rate))
        if not line.is_sure:
            may_lack.add(key)
    because = ["the words that were spoken until the agent fell silent: a beginning of the reply"]
    if math.isfinite(rate):
        because.append(
            f"no faster than {rate:.1f} letters a second: the fastest whole reply of this run, and as much faster again as replies differ; "
            f"and {plural(SLACK_WORDS, 'word')} more"
        )
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=tuple(because))


def _cut(facts: Facts) -> Iterator[tuple[Key, Line]]:
    """Lines that were talked down and whose words are known, by call and place among the assistant's."""
    for call_id, lines in facts.lines_of.items():
        for place, line in enumerate((line for line in lines if line.role == ASSISTANT), start=1):
            if line.cut_from is not None:
                yield ("cut", call_id, str(place)), line


def _fastest(facts: Facts) -> float:
    """Letters a second that no part of a reply exceeds: parts differ as whole replies do. Infinite: fewer than two were heard to their end."""
    rates = []
    for record in facts.records:
        for turn in record.turns:
            text = record.plan.turns[turn.index - 1].reply
            if text and turn.index not in record.talked_over and turn.first_word_at and turn.agent_speech_ended_at:
                rates.append(len(words_of(text)) / max((turn.agent_speech_ended_at - turn.first_word_at) / 1e9, 0.1))
    return max(rates) ** 2 / min(rates) if len(rates) > 1 else math.inf


def _beginnings(text: str, heard_s: float | None, rate: float) -> Iterator[str]:
    words = text.split()
    most = len(words)
    if heard_s is not None and math.isfinite(rate):
        letters = heard_s * rate
        most = sum(len(" ".join(words[:count])) <= letters for count in range(1, len(words) + 1)) + SLACK_WORDS
    for count in range(1, min(most, len(words)) + 1):
        yield " ".join(words[:count])


def _stored(given: Reading, facts: Facts, reader: Reader) -> Reading:
    gone = rowless(reader, facts)
    return dataclasses.replace(given, may_lack=given.may_lack | {key for key in given.parts if key[1] in gone})


def _rows(reader: Reader, facts: Facts) -> Seen:
    """What the rows say of the replies that were talked down: the row at the place of each."""
    if gap := unread(reader, Source.ROWS, turns.MARK):
        return gap
    parts: dict[Key, Thing] = {}
    for key, row in _placed(reader, facts):
        parts[key] = frozenset({words_of(str(row.columns.get("content")))})
    return Reading(parts=parts)


def _placed(reader: Reader, facts: Facts) -> Iterator[tuple[Key, Row]]:
    """Rows of cut replies: between the rows of the lines before and after, whose words are known."""
    wanted_keys = {key for key, _ in _cut(facts)}
    by_call: dict[str, list[Row]] = {}
    for row in reader.rows.get(turns.TABLE, ()):
        if row.columns.get("role") == ASSISTANT:
            by_call.setdefault(str(row.columns.get("call_id")), []).append(row)
    for call_id in dict.fromkeys(key[1] for key in wanted_keys):
        rows = sorted(by_call.get(call_id, ()), key=lambda row: str(row.columns.get("timestamp")))
        lines = [line for line in facts.lines_of[call_id] if line.role == ASSISTANT]
        wanted = [None if line.text is None else words_of(line.text) for line in lines]
        for pair in aligned(wanted, [words_of(str(row.columns.get("content"))) for row in rows]):
            if pair.wanted is not None and pair.found is not None and (key := ("cut", call_id, str(pair.wanted + 1))) in wanted_keys:
                yield key, rows[pair.found]


def _explain(difference: Difference, facts: Facts) -> str:
    _, call_id, place = difference.key
    call = facts.named(call_id)
    line = next(line for key, line in _cut(facts) if key == difference.key)
    if difference.kind is Kind.LACKS:
        return f"{call}: line {place} of the assistant, which the caller talked down, has no row in transcripts"
    said = words_of(str(line.cut_from))
    heard = "" if line.heard_s is None else f" after {line.heard_s:.1f} s"
    if isinstance(difference.said, frozenset) and said in difference.said:
        return f"{call}: line {place} of the assistant is told to its end, although the agent fell silent{heard}: {quoted(difference.said)}"
    if isinstance(difference.said, frozenset) and all(said.startswith(each) for each in difference.said):
        return (
            f"{call}: line {place} of the assistant is {quoted(difference.said)}, more than can have been said before it fell silent{heard}"
        )
    return f"{call}: line {place} of the assistant is {quoted(difference.said)}, which is no beginning of what it was saying: '{said}'"


def _told(reader: Reader, facts: Facts, other: Callable[[Line], str | None]) -> Reader | None:
    """The row of the last reply that was talked down says something else; None: it is not there."""

    placed = list(_placed(reader, facts))
    lines = dict(_cut(facts))
    sure = [(key, row) for key, row in placed if lines[key].is_sure]
    if not sure:
        return None
    key, chosen = sure[-1]
    content = other(lines[key])
    changed = [
        dataclasses.replace(row, columns={**row.columns, "content": content}) if row is chosen else row
        for row in reader.rows[turns.TABLE]
        if row is not chosen or content is not None
    ]
    return reader.with_rows(turns.TABLE, changed)
