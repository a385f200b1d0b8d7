"""Turns spoken and heard -> rows of ``transcripts``; -> the agent's counter -> Prometheus' raw samples."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping

from assertions.facts import Facts, count_words, plural, replaced, shifted, whole_number
from assertions.ledger import Difference, Key, Kind, Range, Reading, Step, Thing, Tree
from harness.measure.series import Timeline
from harness.model import CallRecord, Gap, Row, Source

COUNTER = "voice_agent_turns_total"
ROLES = ("user", "assistant")


def trees(facts: Facts) -> Iterator[Tree]:
    """The rows, and the counter with its samples."""
    yield _rows_tree(facts)
    yield _counter_tree(facts)


def normalised(text: str) -> str:
    """Words alone: case, punctuation and spacing are not what a transcript is judged by."""
    return " ".join(re.sub(r"[^\w\s']", " ", text.lower()).split())


def _rows_tree(facts: Facts) -> Tree:
    calls = {record.plan.call_id: record.plan.index for record in facts.evidence.records}
    truth = _spoken(facts)
    gap = facts.unread(Source.ROWS)
    said: Reading | Gap = gap or _transcripts(facts.reader.rows.get("transcripts", ()), truth)
    step = Step(
        claim="turns/rows",
        source="spoken",
        title="transcripts rows",
        admits=lambda given: given,
        defects={"a transcript row is lost": _lose_row, "a transcript row is doubled": _double_row, "a transcript is cut": _cut_row},
        show=lambda reading: _show_rows(reading),
        explain=lambda difference: _explain_row(difference, calls),
        resolution=lambda admitted, found: "1 row",
    )
    return Tree(root="spoken", truth=truth, steps=(step,), seen={"turns/rows": said})


def _spoken(facts: Facts) -> Reading:
    """Every line that was said, by call, role and place. A reply that nobody heard may have a row or not."""
    parts: dict[Key, Thing] = {}
    may_lack: set[Key] = set()
    for record in facts.whole:
        for key, words, is_sure in _lines(record):
            parts[key] = frozenset({words})
            if not is_sure:
                may_lack.add(key)
        if parts.keys() and record.agent_joined_at is not None:
            parts["order", record.plan.call_id] = frozenset({"in order"})
            may_lack.add(("order", record.plan.call_id))
    because = ("the words of the prompts, and of the script where the agent has one",)
    return Reading(parts=parts, may_lack=frozenset(may_lack), because=because)


def _lines(record: CallRecord) -> Iterator[tuple[Key, str, bool]]:
    call_id, said = record.plan.call_id, {"user": 0, "assistant": 0}

    def line(role: str, text: str | None, *, is_sure: bool) -> tuple[Key, str, bool]:
        said[role] += 1
        return ("row", call_id, role, str(said[role])), _ANYTHING if text is None else normalised(text), is_sure

    if record.agent_joined_at is None:
        return
    if record.plan.greeting is not None or record.greeted_at is not None:
        yield line("assistant", record.plan.greeting, is_sure=record.greeted_at is not None)
    for turn in record.turns:
        # Our media stuttered in a void turn: the agent may have heard anything.
        is_sure = turn.first_word_at is not None and turn.void is None
        reply = record.plan.turns[turn.index - 1].reply
        yield line("user", turn.text if turn.void is None else None, is_sure=is_sure)
        yield line("assistant", reply if turn.void is None else None, is_sure=is_sure)


_ANYTHING = "*"
"""The words of an agent without a script: any will do."""


def _transcripts(rows: tuple[Row, ...], truth: Reading) -> Reading:
    """The rows, each at the place of the line that it tells; what no line accounts for is numbered on behind them."""
    by_call: dict[str, list[Row]] = {}
    for row in rows:
        by_call.setdefault(str(row.columns.get("call_id")), []).append(row)
    parts: dict[Key, Thing] = {}
    for call_id, found in by_call.items():
        ordered = sorted(found, key=lambda row: (str(row.columns.get("timestamp")), str(row.columns.get("id"))))
        said = [(str(row.columns.get("role")), normalised(str(row.columns.get("content")))) for row in ordered]
        for role in dict.fromkeys([*ROLES, *(role for role, _ in said)]):
            wanted = {key: thing for key, thing in truth.parts.items() if key[0] == "row" and key[1] == call_id and key[2] == role}
            parts.update(_placed([words for each, words in said if each == role], wanted, call_id, role))
        if ("order", call_id) in truth.parts:
            roles = [role for role, _ in said]
            is_in_order = all(before != after for before, after in itertools.pairwise(roles)) or len(roles) != _lines_of(truth, call_id)
            parts["order", call_id] = frozenset({"in order" if is_in_order else " ".join(roles)})
    return Reading(parts=parts)


def _lines_of(truth: Reading, call_id: str) -> int:
    return sum(key[0] == "row" and key[1] == call_id for key in truth.parts)


def _placed(said: list[str], wanted: Mapping[Key, Thing], call_id: str, role: str) -> dict[Key, Thing]:
    """Lines of one role against those that were spoken, by the longest common sequence: a lost row moves no other row's place."""
    keys = list(wanted)
    spoken = [next(iter(thing)) if isinstance(thing, frozenset) else "" for thing in wanted.values()]
    if _ANYTHING in spoken and len(said) == len(spoken):
        said = [_ANYTHING if free == _ANYTHING else words for free, words in zip(spoken, said, strict=True)]
    parts: dict[Key, Thing] = {}
    extra = len(keys)
    for _, from_spoken, to_spoken, from_said, to_said in difflib.SequenceMatcher(None, spoken, said, autojunk=False).get_opcodes():
        pairs = list(zip(range(from_spoken, to_spoken), range(from_said, to_said), strict=False))
        for place, other in pairs:
            parts[keys[place]] = frozenset({said[other]})
        for other in range(from_said + len(pairs), to_said):
            extra += 1
            parts["row", call_id, role, str(extra)] = frozenset({said[other]})
    return parts


def _show_rows(reading: Reading) -> str:
    rows = [key for key in reading.parts if key[0] == "row"]
    sure = [key for key in rows if key not in reading.may_lack]
    return f"{len(sure)}" if len(sure) == len(rows) else f"{len(sure)}..{len(rows)}"


def _explain_row(difference: Difference, calls: Mapping[str, int]) -> str:
    call = f"call-{calls.get(difference.key[1], 0)}"
    if difference.key[0] == "order":
        return f"the rows of {call} are not in the order of the conversation"
    _, _, role, place = difference.key
    admitted = _words(difference.admitted)
    said = _words(difference.said)
    match difference.kind:
        case Kind.LACKS:
            return f"{call}: the {role}'s line {place} has no row in transcripts: {admitted}"
        case Kind.EXTRA:
            return f"{call}: transcripts holds a {role} line {place} that nobody said, or said once: {said}"
        case Kind.OTHER:
            return f"{call}: the {role}'s line {place} is {said} in transcripts; what was said is {admitted}"


def _words(thing: Thing | None) -> str:
    return repr(" or ".join(sorted(thing))) if isinstance(thing, frozenset) else "nothing"


def _last_row(said: Reading) -> Key | None:
    rows = [key for key in said.parts if key[0] == "row" and key[2] == "user"]
    return rows[-1] if rows else None


def _lose_row(said: Reading) -> Reading | None:
    key = _last_row(said)
    return replaced(said, {key: None}) if key else None


def _double_row(said: Reading) -> Reading | None:
    key = _last_row(said)
    if key is None:
        return None
    return replaced(said, {(*key[:3], str(int(key[3]) + 1)): said.parts[key]})


def _cut_row(said: Reading) -> Reading | None:
    key = _last_row(said)
    thing = said.parts[key] if key else None
    if key is None or not isinstance(thing, frozenset):
        return None
    (words,) = thing
    return replaced(said, {key: frozenset({words[: len(words) // 2]})}) if len(words) > 1 else None


def _counter_tree(facts: Facts) -> Tree:
    exporter = Step(
        claim="turns/exporter",
        source="spoken",
        title="agent /metrics",
        admits=lambda given: given,
        defects={"one turn is not counted": shifted(("user",), -1), "a turn is counted twice": shifted(("assistant",), 1)},
        show=_show_counts,
        explain=lambda difference: explain_count(difference, "the agent's exporter", "turns by the {key}"),
        resolution=lambda admitted, said: "1 turn",
    )
    samples = Step(
        claim="turns/samples",
        source="turns/exporter",
        title="prometheus samples",
        admits=lambda given: given,
        defects={"one turn is not counted": shifted(("user",), -1)},
        show=_show_counts,
        explain=lambda difference: explain_count(difference, "Prometheus", "turns by the {key}"),
        resolution=lambda admitted, said: "1 turn",
    )
    seen = {
        "turns/exporter": facts.counters(Source.AGENT_EXPORTER, COUNTER, _role),
        "turns/samples": facts.counters(Source.PROMETHEUS, COUNTER, _role),
    }
    return Tree(root="spoken", truth=_counted(facts), steps=(exporter, samples), seen=seen)


def _role(timeline: Timeline) -> Key | None:
    role = timeline.labels.get("role")
    return (role,) if role in ROLES else None


def _counted(facts: Facts) -> Reading:
    """Turns by role: those heard for certain, and those that may have been."""
    user = [0, 0]
    assistant = [0, 0]
    for record in facts.whole:
        for key, _, is_sure in _lines(record):
            place = user if key[2] == "user" else assistant
            place[0] += is_sure
            place[1] += 1
    for record in facts.broken:
        user[1] += len(record.plan.turns)
        assistant[1] += len(record.plan.turns) + 1
    parts: dict[Key, Thing] = {("user",): Range(lo=user[0], hi=user[1]), ("assistant",): Range(lo=assistant[0], hi=assistant[1])}
    because = ("a greeting is a turn of the assistant", "a reply that nobody heard may have been counted")
    return Reading(parts=parts, because=because if user[0] != user[1] or assistant[0] != assistant[1] else because[:1])


def _show_counts(reading: Reading) -> str:
    words = [count_words(reading.parts[key]).strip("{}") for key in (("user",), ("assistant",)) if key in reading.parts]
    return " + ".join(words) or "nothing"


def explain_count(difference: Difference, hop: str, what: str) -> str:
    """A counter's difference as a sentence."""
    named = what.format(key=" ".join(difference.key))
    if difference.kind is Kind.LACKS:
        return f"{hop} has no series for {named}, {count_words(difference.admitted).strip('{}')} happened"
    if difference.kind is Kind.EXTRA:
        return f"{hop} counts {named}, which nobody made"
    assert isinstance(difference.said, Range)
    assert isinstance(difference.admitted, Range)
    said, admitted = difference.said, difference.admitted
    away = said.lo - admitted.hi if said.lo > admitted.hi else admitted.lo - said.hi
    direction = "more" if said.lo > admitted.hi else "fewer"
    return f"{hop} says {whole_number(said.lo)} {named}, may say {count_words(admitted)}: {plural(away, '').strip()} {direction}"
