"""Rules, samples and rows -> what a panel shows of them: held against its own query, and against what a reader takes its label to mean.

Each number that a panel of Prometheus showed must be what the server's arithmetic makes of its query, and lie in the set of what the panel must
compute, which is evaluated of the raw samples without the query. A query that is wrong passes the first and fails the second.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from assertions.deciding import SINCE_START, needs
from assertions.facts import Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Step, Thing
from assertions.meaning import Meaning, meaning
from assertions.recomputed import Engine
from assertions.rowmeaning import reading, reversed_rows, shown, tables
from assertions.rules import Rule, digits, false_instants, labelled, roundings
from assertions.words import span
from harness.measure.series import Reader, Timeline
from harness.model import Gap, Source, UnixNs, value
from harness.rules import panelfile
from harness.rules.evaluate import Hidden, NotAnalysed
from harness.rules.lint import lint
from harness.rules.panelfile import ASKED, FILE, REFUSED, TOLD, Computes, Line, Panel
from harness.rules.queries import Query, Use

QUANTITIES = ("active", "ttfw", "calls", "sip", "targets", "history", "loss", "jitter", "rtt", "stt", "llm", "tts", "turns", "tools")
"""Of which we ship panels."""
_KINDS = frozenset({"means", "asked", "data", "split"})
_AS_PROMISED = "as promised"
_DATA = "has data"


@value
class Drawn:
    """One line of a panel."""

    panel: Panel
    line: Line


def drawn(reader: Reader, facts: Facts) -> tuple[Drawn, ...]:
    """Every line of the panels that the run kept."""
    factor = facts.setting("time_scale", 1.0)
    files = ((str(row.columns["file"]), str(row.columns["text"])) for row in reader.rows.get(FILE, ()))
    told = {str(row.columns["line"]): row.columns for row in reader.rows.get(TOLD, ())}
    found = (each for file, text in files for each in _drawn(file, text, factor))
    return tuple(
        dataclasses.replace(each, line=panelfile.retold(each.line, told[each.line.name])) if each.line.name in told else each
        for each in found
    )


@functools.lru_cache(maxsize=16)
def _drawn(file: str, text: str, factor: float) -> tuple[Drawn, ...]:
    return tuple(Drawn(panel=panel, line=line) for panel, line in panelfile.lines(panelfile.panels(text, file=file, factor=factor)))


def quantities(all_drawn: Sequence[Drawn], reader: Reader) -> tuple[str, ...]:
    """The quantities whose panels have something to show, or cannot, in their order."""
    return tuple(dict.fromkeys(each.line.quantity for each in all_drawn if _has_something(each, reader)))


def _has_something(each: Drawn, reader: Reader) -> bool:
    line = each.line
    is_refused = any(row.columns["line"] == line.name for row in reader.rows.get(REFUSED, ()))
    if reader.gaps.get(Source.PANELS) or each.panel.scraped is not None or is_refused or _findings(line.query):
        return True
    if line.read is not None:
        is_shown = any(
            number for row in reader.rows.get(line.name, ()) for number in row.columns.values() if isinstance(number, float | int)
        )
        return is_shown or any(reader.rows.get(name.partition(".")[0]) for name in line.computes.of)
    sources = ((Source.PANELS, line.name), *((Source.PROMETHEUS, name) for name in (*_sources(line.computes), *line.computes.of)))
    return any(number for source, name in sources for timeline in reader.series(source, name) for _, number in timeline.samples)


def step(
    quantity: str, source: str, all_drawn: Sequence[Drawn], all_rules: Sequence[Rule], reader: Reader, engine: Engine, facts: Facts
) -> Step:
    """The claim ``QUANTITY/panel``."""
    ours = tuple(each for each in all_drawn if each.line.quantity == quantity)
    hop = _Hop(ours, all_rules, engine, facts)
    defects = hop.defects()
    titles = dict.fromkeys(each.panel.title.partition(",")[0] for each in ours)
    asked = [each.line for each in ours if each.line.query is not None]
    window_s = min((line.computes.over_s for line in asked if line.computes.over_s is not None), default=None)
    return Step(
        claim=f"{quantity}/panel",
        source=source,
        title=f"panel{'s' if len(titles) > 1 else ''} {', '.join(titles)}",
        admits=lambda _, reader: hop.admitted(reader),
        read=hop.said,
        defects=defects,
        show=hop.show,
        explain=hop.explain,
        would_catch=lambda admitted, said: "any change" if admitted.parts else "nothing",
        needs=needs(quantity, defects, [str(line.query) for line in asked if not line.unlike], window_s, reader, engine),
    )


def reads(all_drawn: Sequence[Drawn], quantity: str, engine: Engine) -> frozenset[str]:
    """Names of series and tables that the step of a quantity reads."""
    ours = [each.line for each in all_drawn if each.line.quantity == quantity]
    names = {name for line in ours for name in (line.name, *_sources(line.computes))}
    return frozenset(names).union(*(engine.asked(line.query).names for line in ours if line.query))


def retold(before: Reader, lie: Reader, touched: frozenset[str], all_drawn: Sequence[Drawn], engine: Engine, facts: Facts) -> Reader:
    """A copy of ``lie`` in which the panels show what follows from what an earlier hop says otherwise than ``before``."""
    for each in all_drawn:
        line = each.line
        if line.query is not None and engine.asked(line.query).names & touched:
            told = {at: None if line.unlike else _told(line.query, lie, at, engine) for at in _asked(lie, line)}
            if None not in told.values():
                lie = _saying(lie, line, lambda at, labels, number, told=told: (told[at] or {}).get(labels) if at in told else number)  # type: ignore[misc]
        elif line.read is not None and set(_sources(line.computes)) & touched:
            lie = reading(before, line, facts).retold(lie, reading(lie, line, facts))
    return lie


def _sources(computes: Computes) -> Iterator[str]:
    for name in (*computes.of, *([computes.among] if computes.among else [])):
        table = name.partition(".")[0]
        yield from (table, *(f"{table}_{part}" for part in ("sum", "count", "bucket")))


def _asked(reader: Reader, line: Line) -> list[UnixNs]:
    """The instants of which the line was asked."""
    rows = (row for row in reader.rows.get(ASKED, ()) if row.columns["line"] == line.name)
    return sorted({UnixNs(at) for row in rows for at in row.columns["at"]})


def _told(query: str, reader: Reader, at: UnixNs, engine: Engine, hidden: Hidden | None = None) -> dict[str, float] | None:
    """What the server must have answered, by labels, without what was ``hidden`` from it. None: it is not known."""
    names = engine.asked(query).names
    if unread(reader, Source.RULES) and any(not reader.series(Source.PROMETHEUS, name) for name in names):
        return None
    try:
        found = engine.stored(query, reader).vector(query, at, hidden)
    except NotAnalysed:
        return None
    return {labelled(labels): number for labels, number in found.items()}


def _saying(reader: Reader, line: Line, change: Callable[[UnixNs, str, float], float | None]) -> Reader:
    """A copy in which the line showed other numbers."""

    def changed(timeline: Timeline) -> Timeline:
        labels = labelled(tuple(timeline.labels.items()))
        return timeline.changed(lambda at, number: change(at, labels, number))

    return reader.with_series(Source.PANELS, line.name, changed)


class _Hop:
    """What the panels of one quantity showed, and what they may have shown."""

    def __init__(self, ours: Sequence[Drawn], all_rules: Sequence[Rule], engine: Engine, facts: Facts) -> None:
        self._ours, self._rules, self._engine, self._facts = ours, all_rules, engine, facts
        self._titles = {each.line.name: each for each in ours}

    def said(self, reader: Reader) -> Seen:
        if gap := self._unread(reader):
            return gap
        parts: dict[Key, Thing] = {}
        refused = {str(row.columns["line"]): row.columns for row in reader.rows.get(REFUSED, ())}
        for each in self._ours:
            line = each.line
            if line.query is not None:
                parts["data", line.name] = self._data(reader, line)
                parts["split", line.name] = frozenset({_split(reader, line)})
                parts.update(_numbers(reader, line))
            else:
                parts.update(reading(reader, line, self._facts).said)
            told = refused.get(line.name)
            parts["answered", line.name] = frozenset({f"{told['status']}: {told['error']}" if told else "yes"})
            parts["sound", line.name] = frozenset({_findings(line.query) or "sound"})
        return Reading(parts=parts)

    def _unread(self, reader: Reader) -> Gap | None:
        """Why the panels could not be read, or can have nothing to show."""
        gaps = reader.gaps.get(Source.PANELS, ())
        found = next(
            (
                gap
                for gap in gaps
                if gap.is_blind or not gap.request or any(gap.reason.startswith(f"{each.line.name}:") for each in self._ours)
            ),
            None,
        )
        if found is not None:
            return found
        needed = dict.fromkeys(table for each in self._ours for table in tables(each.line) if self._is_asked(reader, each.line))
        if gap := next((gap for table in needed if (gap := unread(reader, Source.ROWS, f"/{table}?"))), None):
            return gap
        absent = {each.panel.scraped for each in self._ours if self._is_absent(reader, each)}
        if absent and all(self._is_absent(reader, each) for each in self._ours):
            reason = f"no {' and no '.join(sorted(str(job) for job in absent))} is scraped here"
            return Gap(source=Source.PANELS, at=UnixNs(0), reason=reason, request="", is_blind=True)
        if any(self._is_asked(reader, each.line) for each in self._ours):
            return None
        return Gap(source=Source.PANELS, at=UnixNs(0), reason="they were never asked; a run that ends by itself asks them", request="")

    @staticmethod
    def _is_absent(reader: Reader, each: Drawn) -> bool:
        jobs = {up.labels.get("job") for up in reader.series(Source.PROMETHEUS, "up")}
        return each.panel.scraped is not None and each.panel.scraped not in jobs

    @staticmethod
    def _is_asked(reader: Reader, line: Line) -> bool:
        is_refused = any(row.columns["line"] == line.name for row in reader.rows.get(REFUSED, ()))
        return is_refused or bool(_asked(reader, line)) or bool(reader.rows.get(line.name))

    def admitted(self, reader: Reader) -> Reading:
        parts: dict[Key, Thing] = {}
        may_lack: set[Key] = set()
        may_add: set[str] = set()
        because = []
        is_raw = bool(reader.series(Source.PROMETHEUS, "up"))
        for each in self._ours:
            line = each.line
            parts["answered", line.name] = frozenset({"yes"})
            if line.query is not None and is_raw:
                before = len(parts)
                parts["data", line.name] = frozenset({_DATA})
                parts["split", line.name] = frozenset({_AS_PROMISED})
                for at in _asked(reader, line):
                    self._add(line, reader, at, parts, may_lack, may_add)
                if all(key in may_lack for key in list(parts)[before + 2 :]):
                    parts["data", line.name] = frozenset({_DATA}) | self._data(reader, line)
                because.append(f"{line.name}: {each.panel.says}; every window that may have been shown, recomputed of the raw samples")
                if line.unlike:
                    because.append(f"{line.name}: what its query gives is not recomputed: {line.unlike}")
            elif line.query is not None:
                may_add |= _KINDS
                because.append("without the raw samples nothing is known of the window")
            else:
                found = reading(reader, line, self._facts)
                parts.update(found.admitted)
                may_lack |= found.may_lack
                may_add |= found.may_add
                because.append(f"{line.name}: {each.panel.says}; counted in the rows, and in what was there before the calls")
            parts["sound", line.name] = frozenset({"sound"})
        return Reading(parts=parts, may_lack=frozenset(may_lack), may_add=frozenset(may_add), because=tuple(dict.fromkeys(because)))

    def _data(self, reader: Reader, line: Line) -> frozenset[str]:
        if reader.series(Source.PANELS, line.name) or any(row.columns["line"] == line.name for row in reader.rows.get(REFUSED, ())):
            return frozenset({_DATA})
        names = sorted(self._engine.asked(line.query or "").names)
        unseen = [name for name in names if not any(reader.series(source, name) for source in (Source.PROMETHEUS, Source.RULES))]
        return frozenset({f"never has data: no series {' and '.join(unseen)} was seen here" if unseen else "never has data"})

    def _add(self, line: Line, reader: Reader, at: UnixNs, parts: dict[Key, Thing], may_lack: set[Key], may_add: set[str]) -> None:
        """What the line may have shown at one instant."""
        assert line.query is not None
        told = None if line.unlike else _told(line.query, reader, at, self._engine)
        earlier = {} if told is None else self._earlier(line, reader, at)
        if told is not None and self._is_misled(line, reader, at):
            # The rule is to blame; of what it said this is right.
            for labels in dict.fromkeys((*told, *earlier)):
                said = [view[labels] for view in (told, earlier) if math.isfinite(view.get(labels, math.nan))]
                if said:
                    parts["means", line.name, str(at), labels] = Range(lo=min(said), hi=max(said))
        else:
            meant = self._meaning(line, reader, at)
            for group, numbers in meant.numbers.items():
                key = ("means", line.name, str(at), labelled(group))
                parts[key] = numbers
                if group in meant.may_lack:
                    may_lack.add(key)
        if told is None:
            may_add.add("asked")
            return
        is_old = self._is_old(line, reader, at)
        for labels in dict.fromkeys((*told, *earlier)):
            key = ("asked", line.name, str(at), labels)
            parts[key] = frozenset().union(*(roundings(view[labels]) for view in (told, earlier) if labels in view))
            if is_old or (earlier and not (labels in told and labels in earlier)):
                may_lack.add(key)

    def _earlier(self, line: Line, reader: Reader, at: UnixNs) -> dict[str, float]:
        """What the line showed if what its rules recorded of the time just before ``at`` was not there yet. Nothing if they do not look back."""
        if not (offset_s := self._query_offset_s(line)):
            return {}
        asked_at = min(row.at for row in reader.rows[ASKED] if row.columns["line"] == line.name and at in row.columns["at"])
        there_until = min(at, UnixNs(asked_at - round(1e9 * offset_s)))
        if there_until >= at:
            return {}
        return _told(line.query or "", reader, at, self._engine, hidden={("", ""): there_until // 1_000_000 + 1}) or {}

    def _meaning(self, line: Line, reader: Reader, at: UnixNs) -> Meaning:
        """As `meaning`, once for one set of series."""
        names = (*_sources(line.computes), *line.computes.of, "up")
        families = tuple(reader.series(Source.PROMETHEUS, name) for name in names)
        key = (self, line.name, at, *map(id, families))
        if key not in reader.known:
            offset_s = self._query_offset_s(line)
            reader.known[key] = meaning(line.computes, reader, at, self._facts, query_offset_s=offset_s), families
        found: Meaning = reader.known[key][0]
        return found

    def _is_misled(self, line: Line, reader: Reader, at: UnixNs) -> bool:
        """A rule that the line reads said something false, or nothing, when it was evaluated last."""
        names = self._engine.asked(line.query or "").names
        instants = {each for rule in self._rules if rule.record in names for each in self._evaluated(rule.quantity, reader)}
        newest = max((each for each in instants if each <= at), default=None)
        return newest is not None and newest in false_instants(reader, self._rules, names, self._engine, self._facts)

    def _evaluated(self, quantity: str, reader: Reader) -> frozenset[UnixNs]:
        records = [rule.record for rule in self._rules if rule.quantity == quantity]
        return frozenset(at for record in records for timeline in reader.series(Source.RULES, record) for at, _ in timeline.samples)

    def _query_offset_s(self, line: Line) -> float:
        """By how much what its rules record lies before their evaluation, at most."""
        names = self._engine.asked(line.query or "").names
        return max((rule.query_offset_s for rule in self._rules if rule.record in names), default=0.0)

    def _is_old(self, line: Line, reader: Reader, at: UnixNs) -> bool:
        """A rule may have written since that there is nothing to say: a marker of that cannot be read."""
        late_ns = 1.1e9 * self._facts.setting("evaluation_interval_s", 15.0) + 1e9 * self._query_offset_s(line)
        names = self._engine.asked(line.query or "").at_once
        newest = [
            max((each for each, _ in timeline.samples if each <= at), default=0)
            for name in names
            for timeline in reader.series(Source.RULES, name)
        ]
        return bool(newest) and at - max(newest) > late_ns

    def defects(self) -> Mapping[str, Defect]:
        found: dict[str, Defect] = {}
        if any(each.line.query is not None for each in self._ours):
            found["in another unit"] = self._scaled
            found["a line for each instance"] = self._split
            if any(_of_all_time(each.line.computes) for each in self._ours):
                found[SINCE_START] = self._of_all_time
        if any(each.line.computes.kind is panelfile.Kind.NEWEST for each in self._ours):
            found["oldest first"] = lambda reader: reversed_rows(reader, [each.line for each in self._ours])
        elif any(each.line.read is not None for each in self._ours):
            found["a row is not counted"] = lambda reader: shown(
                reader, [each.line for each in self._ours], self._facts, lambda number: number - 1
            )
            found["rows count twice"] = lambda reader: shown(
                reader, [each.line for each in self._ours], self._facts, lambda number: number * 2
            )
        return found

    def _scaled(self, reader: Reader) -> Reader | None:
        """The first line that showed a number shows another."""
        for each in self._ours:
            found = [number for timeline in reader.series(Source.PANELS, each.line.name) for _, number in timeline.samples]
            if any(math.isfinite(number) and number for number in found):
                return _saying(reader, each.line, lambda at, labels, number: number * 1000)
        return None

    def _of_all_time(self, reader: Reader) -> Reader | None:
        """The first line of which it makes a difference shows what the bare counters give."""
        lie = None
        for each in self._ours:
            line, query = each.line, _of_all_time(each.line.computes)
            if query is None or not reader.series(Source.PANELS, line.name):
                continue
            told = {at: _told(query, reader, at, self._engine) or {} for at in _asked(reader, line)}
            lie = _saying(reader, line, lambda at, labels, number, told=told: told.get(at, {}).get(labels, number))  # type: ignore[misc]
            if any(
                one.samples != other.samples
                for one, other in zip(reader.series(Source.PANELS, line.name), lie.series(Source.PANELS, line.name), strict=True)
            ):
                return lie
        return lie

    def _split(self, reader: Reader) -> Reader | None:
        for each in self._ours:
            line = each.line
            if reader.series(Source.PANELS, line.name) and "instance" not in line.computes.by:
                return reader.with_series(Source.PANELS, line.name, _of_an_instance)
        return None

    def show(self, reading_: Reading) -> str:
        """The last number of each panel, of the first three."""
        words = []
        for each in self._ours:
            found = [
                (key, thing)
                for key, thing in reading_.parts.items()
                if key[0] == "means" and key[1] == each.line.name and isinstance(thing, Range)
            ]
            if found:
                last = max(int(key[2]) for key, _ in found)
                numbers = [_short(thing) for key, thing in found if int(key[2]) == last]
                words.append(f"{', '.join(dict.fromkeys(numbers[:3]))} {each.panel.unit}")
        return "; ".join(dict.fromkeys(words[:3])) if words else "no number" if reading_.parts else "any number"

    def explain(self, difference: Difference) -> str:
        kind, name = difference.key[:2]
        each = self._titles[name]
        finding = _findings(each.line.query)
        why = f" ({finding})" if finding and kind != "sound" else ""
        return f"panel {name} ({each.line.place}) {self._words(kind, each, difference)}{why}"

    def _words(self, kind: str, each: Drawn, difference: Difference) -> str:
        unit = each.panel.unit
        match kind:
            case "sound":
                return f"is asked wrongly: {span(difference.said)}"
            case "data":
                return f"{span(difference.said)}; its label promises: {each.panel.says}"
            case "split":
                wanted = f"one for each {' and '.join(each.line.computes.by)}" if each.line.computes.by else "one line"
                return f"shows {span(difference.said)}; its label promises {wanted}: {each.panel.says}"
            case "answered":
                return f"was refused: {span(difference.said)}"
            case "order":
                return f"shows its rows {span(difference.said)}"
        labels = difference.key[3]
        split = f" for {labels}" if labels else ""
        place = self._facts.moment(int(difference.key[2])) if int(difference.key[2]) else "after the calls"
        match difference.kind:
            case Kind.LACKS:
                return f"shows nothing{split} {place}; its label promises {_number(difference.admitted, unit)}: {each.panel.says}"
            case Kind.EXTRA if labels and kind == "means":
                wanted = f"by {', '.join(each.line.computes.by)}" if each.line.computes.by else "one"
                return f"shows a line of its own{split}; its label promises {wanted}: {each.panel.says}"
            case Kind.EXTRA:
                return f"shows {_number(difference.said, unit)}{split} {place}, of which nothing is known"
            case Kind.OTHER if kind == "asked":
                return f"shows {_number(difference.said, unit)}{split} {place}; its query gives {_number(difference.admitted, unit)}"
            case Kind.OTHER:
                said, may = _number(difference.said, unit), _number(difference.admitted, unit)
                return f"shows {said}{split} {place}, may show {may}: {each.panel.says}"


def _numbers(reader: Reader, line: Line) -> dict[Key, Thing]:
    asked = set(_asked(reader, line))
    parts: dict[Key, Thing] = {}
    exact: dict[Key, Thing] = {}
    for timeline in reader.series(Source.PANELS, line.name):
        labels = labelled(tuple(timeline.labels.items()))
        for at, number in timeline.samples:
            if at in asked:
                exact["asked", line.name, str(at), labels] = frozenset({digits(number)})
                if math.isfinite(number):
                    parts["means", line.name, str(at), labels] = Range(lo=number, hi=number)
    return parts | exact


def _split(reader: Reader, line: Line) -> str:
    """What the line is split by that its label does not say, or is not split by although it says so."""
    shown = reader.series(Source.PANELS, line.name)
    names = {label for timeline in shown for label in timeline.labels}
    if more := sorted(names - set(line.computes.by)):
        return f"{len(shown)} line{'s' if len(shown) > 1 else ''}, split by {' and '.join(more)}"
    lacking = [label for label in line.computes.by if label not in names]
    return f"one line for every {' and '.join(lacking)}" if shown and lacking else _AS_PROMISED


@functools.lru_cache(maxsize=256)
def _findings(query: str | None) -> str:
    """What can be seen to be wrong with a line's query without a run. Empty: nothing."""
    if query is None:
        return ""
    found = lint(Query(expression=query, use=Use.PANEL, name="", place=""), scrape_s=0.0)
    return "; ".join(f"{finding.check}: {finding.sentence}" for finding in found)


def _of_all_time(computes: Computes) -> str | None:
    """A query of what a line must compute, since each process started and not of its window."""
    name = computes.of[0]
    labels = ", ".join(f'{label}="{text}"' for label, text in computes.where.items() if not text.startswith("!"))
    where, by = f"{{{labels}}}" if labels else "", f" by ({', '.join(computes.by)})" if computes.by else ""
    match computes.kind:
        case panelfile.Kind.MEAN:
            return f"{computes.times} * sum{by} ({name}_sum{where}) / sum{by} ({name}_count{where})"
        case panelfile.Kind.QUANTILE:
            return f"histogram_quantile({computes.q}, sum by (le) ({name}_bucket{where}))"
        case panelfile.Kind.GROWTH:
            return f"sum{by} ({name}{where})"
        case _:
            return None


def _of_an_instance(timeline: Timeline) -> Timeline:
    return Timeline(name=timeline.name, labels={**timeline.labels, "instance": "a"}, samples=timeline.samples, request=timeline.request)


def _short(thing: Range) -> str:
    low, high = f"{thing.lo:.3g}", f"{thing.hi:.3g}"
    return low if low == high else f"{low} to {high}"


def _number(thing: Thing | None, unit: str) -> str:
    if isinstance(thing, Range):
        return f"{_short(thing)} {unit}"
    numbers = [text if text == "NaN" else f"{float(text):.4g}" for text in sorted(thing)] if thing else []
    return " or ".join(dict.fromkeys(numbers)) + f" {unit}"
