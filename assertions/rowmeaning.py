"""What a panel of the call history must show: the run's own rows, and what it showed before them.

Rows of others are never read. What a panel showed before the first call stands for them; if it was something, the numbers after it are bounded and
not exact.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from assertions.facts import Facts
from assertions.ledger import Key, Range, Thing, exactly
from harness.measure.series import Reader
from harness.model import Row, value
from harness.rules.panelfile import Computes, Kind, Line

Number = Callable[[float], float]
_ROUNDING = 1e-9


@value
class RowReading:
    """What one line of the call history showed, and may have shown."""

    line: Line
    said: Mapping[Key, Thing]
    admitted: Mapping[Key, Thing]
    may_lack: frozenset[Key]
    may_add: frozenset[str]
    ours: Mapping[str, float]
    """By group, what our own rows come to."""

    def retold(self, lie: Reader, after: RowReading) -> Reader:
        """A copy of ``lie`` in which the line shows what our rows, which now come to ``after.ours``, give."""
        if self.ours == after.ours:
            return lie

        def change(group: str, number: float) -> float | None:
            # A group that only we are in goes with us.
            if group in self.ours and group not in after.ours and number == self.ours[group]:
                return None
            return number + after.ours.get(group, 0.0) - self.ours.get(group, 0.0)

        new = {group: number for group, number in after.ours.items() if group not in self.ours}
        return _showing(lie, self.line, change, new)


def reading(reader: Reader, line: Line, facts: Facts) -> RowReading:
    """The line as it was read before the calls and after them, beside the rows."""
    rows = reader.rows.get(line.name, ())
    last_at = max((row.at for row in rows), default=0)
    final = [row for row in rows if row.at == last_at and row.at > facts.since]
    before = [row for row in rows if row.at <= facts.since]
    if line.computes.kind is Kind.NEWEST:
        return _ordered(line, final)
    computes = line.computes
    ours = reader.once(_ours, computes, *(reader.rows.get(table or "", ()) for table in _counted(computes)))
    shown_before = _shown(line, before)
    admitted: dict[Key, Thing] = {}
    may_lack: set[Key] = set()
    for group in ours.keys() | shown_before.keys():
        key = _key(line, group)
        admitted[key] = _expected(line.computes, ours.get(group), shown_before.get(group), facts, was_read=bool(before))
        if group not in ours:
            may_lack.add(key)
    return RowReading(
        line=line,
        said={_key(line, group): exactly(number) for group, number in _shown(line, final).items()},
        admitted=admitted,
        may_lack=frozenset(may_lack),
        may_add=frozenset() if facts.is_ours and before else frozenset({"means"}),
        ours=ours,
    )


def tables(line: Line) -> tuple[str, ...]:
    """Whose rows say what the line must show. None of the newest rows: their order is in themselves."""
    computes = line.computes
    if line.read is None or computes.kind is Kind.NEWEST:
        return ()
    return tuple(table for table in _counted(computes) if table)


def _counted(computes: Computes) -> tuple[str, str | None]:
    """The table whose rows are counted, and the one among whose rows they are."""
    return computes.of[0].partition(".")[0], computes.among


def shown(reader: Reader, lines: Sequence[Line], facts: Facts, change: Number) -> Reader | None:
    """A lie: the first of these lines that shows a number shows another."""
    for line in lines:
        if line.read is not None and line.computes.kind is not Kind.NEWEST and any(_shown(line, reader.rows.get(line.name, ())).values()):
            return _showing(reader, line, lambda _, number: change(number), {})
    return None


def reversed_rows(reader: Reader, lines: Sequence[Line]) -> Reader | None:
    """A lie: the newest rows come last. None where there are no two."""
    for line in lines:
        rows = [row for row in reader.rows.get(line.name, ()) if row.columns.get("#") is not None]
        if line.computes.kind is Kind.NEWEST and len({row.columns.get(line.computes.at or "") for row in rows}) > 1:
            return reader.with_rows(
                line.name, [dataclasses.replace(row, columns={**row.columns, "#": -int(row.columns["#"])}) for row in rows]
            )
    return None


def _key(line: Line, group: str) -> Key:
    return ("means", line.name, "0", group)


def _shown(line: Line, rows: Sequence[Row]) -> dict[str, float]:
    """By group the number that a reading shows; no number where it shows nothing."""
    found = {}
    for row in rows:
        number = row.columns.get(_column(line))
        if isinstance(number, int | float):
            found[_group(line.computes, row.columns)] = float(number)
    return found


def _column(line: Line) -> str:
    assert line.read is not None
    return next(column for column in reversed(line.read.columns) if column not in line.computes.by)


def _group(computes: Computes, columns: Mapping[str, Any]) -> str:
    return ",".join(f"{column}={_word(columns.get(column))}" for column in computes.by)


def _word(found: Any) -> str:
    return _hour(str(found))


@functools.lru_cache(maxsize=65536)
def _hour(text: str) -> str:
    """An instant by its hour, whatever its time zone is written as."""
    try:
        return f"{datetime.fromisoformat(text).timestamp() // 3600:.0f}"
    except ValueError:
        return text


def _ours(computes: Computes, rows: Sequence[Row], of_among: Sequence[Row]) -> dict[str, float]:
    """By group, what our own rows come to. Nothing where nothing can be said: no mean of nothing."""
    _, _, column = computes.of[0].partition(".")
    if computes.kind is Kind.SHARE:
        among = _meant(of_among, computes.where)
        return {"": computes.times * len(rows) / len(among)} if among else {}
    rows = _meant(rows, computes.where)
    if computes.kind is Kind.MEAN:
        numbers = [float(row.columns[column]) for row in rows if row.columns.get(column) is not None]
        return {"": sum(numbers) / len(numbers)} if numbers else {}
    if not computes.by:
        return {"": float(len(rows))}
    groups: dict[str, float] = {}
    for row in rows:
        group = _group(computes, {**row.columns, "hour": row.columns.get(computes.at or "")})
        groups[group] = groups.get(group, 0.0) + 1
    return groups


def _meant(rows: Sequence[Row], where: Mapping[str, str]) -> Sequence[Row]:
    for column, wanted in where.items():
        rows = [row for row in rows if str(row.columns.get(column)) == wanted]
    return rows


def _expected(computes: Computes, ours: float | None, before: float | None, facts: Facts, *, was_read: bool) -> Range:
    """Without anything before, our rows exactly; else what others' rows may make of them."""
    if was_read and facts.is_ours and not before:
        return _about(ours or 0.0, ours or 0.0)
    if computes.kind is Kind.COUNT:
        return Range(lo=ours or 0.0, hi=(before or 0.0) + (ours or 0.0) if was_read and facts.is_ours else math.inf)
    if facts.is_ours and before is not None and ours is not None:
        return _about(min(before, ours), max(before, ours))
    return Range(lo=0.0, hi=math.inf)


def _about(low: float, high: float) -> Range:
    return Range(lo=low - abs(low) * _ROUNDING, hi=high + abs(high) * _ROUNDING)


def _showing(reader: Reader, line: Line, change: Callable[[str, float], float | None], new: Mapping[str, float]) -> Reader:
    """A copy in which the last reading shows other numbers; None: it does not show them. new: groups that it shows, too."""
    rows = reader.rows.get(line.name, ())
    last = [row for row in rows if row.at == max(row.at for row in rows)]
    column = _column(line)
    told = [row for row in rows if row.at < last[0].at] if last else []
    for row in last:
        number = row.columns.get(column)
        changed = change(_group(line.computes, row.columns), float(number)) if isinstance(number, int | float) else number
        told.append(dataclasses.replace(row, columns={**row.columns, column: changed}))
    for group, number in new.items() if last else ():
        labels = dict(pair.partition("=")[::2] for pair in group.split(",") if pair)
        told.append(dataclasses.replace(last[0], columns={**{name: _spelt(name, text) for name, text in labels.items()}, column: number}))
    return reader.with_rows(line.name, told)


def _spelt(column: str, text: str) -> str:
    """A group's word as a row has it."""
    return datetime.fromtimestamp(int(text) * 3600, tz=UTC).isoformat() if column == "hour" else text


def _ordered(line: Line, final: Sequence[Row]) -> RowReading:
    """Newest first, no more than asked for, none twice."""
    rows = sorted((row for row in final if row.columns.get("#") is not None), key=lambda row: int(row.columns["#"]))
    stamps = [datetime.fromisoformat(str(row.columns[line.computes.at or ""])) for row in rows]
    ids = [row.columns.get("id") for row in rows]
    is_ordered = all(newer >= older for newer, older in itertools.pairwise(stamps))
    words = "newest first" if is_ordered and len(set(ids)) == len(ids) else "out of order, or one twice"
    key: Key = ("order", line.name)
    return RowReading(
        line=line,
        said={key: frozenset({words})},
        admitted={key: frozenset({"newest first"})},
        may_lack=frozenset(),
        may_add=frozenset(),
        ours={},
    )
