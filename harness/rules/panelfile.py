"""Panels as values: what each shows, how it asks for it, and what a reader takes it to mean. ``deploy/monitoring/panels.yml`` is ours."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Any

import promql_parser as pp

from harness.document import Document, Free, Key, Listing, Number, Table, Text, parse
from harness.errors import UsageError
from harness.model import value
from harness.rules.scale import scaled_expression, to_ms

SCHEMA = 1
FILE = "panel file"
"""Table of the rows of a run that keep its panels: columns ``file`` and ``text``."""
ASKED = "asked"
"""Table of the rows that tell what was asked of Prometheus: columns ``line``, and ``at``, the instants in nanoseconds."""
REFUSED = "refused"
"""Table of the rows that tell which question a server would not answer."""

SHARE = "share"
"""The column of a line that counts rows of two tables."""
TOLD = "in our words"
"""Table of the rows that tell a line in our names where its file has the target's: see `retold`."""


class Kind(enum.StrEnum):
    """What a panel says of the things that it names."""

    MEAN = "mean"
    """Sum over count of a histogram's observations in a window; or the mean of a column."""
    QUANTILE = "quantile"
    """Nearest rank of a histogram's observations in a window, to its bucket."""
    GROWTH = "growth"
    """What a counter counted in a window."""
    SUM = "sum"
    """A gauge now, all series together."""
    STATE = "state"
    """Gauges now, each by itself."""
    COUNT = "count"
    """Rows."""
    SHARE = "share"
    """Rows of one table over rows of another."""
    NEWEST = "newest"
    """Rows as they are, newest first."""


OF_ROWS = frozenset({Kind.COUNT, Kind.SHARE, Kind.NEWEST})


@value
class Computes:
    """What a reader takes a line's label to mean; evaluated without its query."""

    kind: Kind
    of: tuple[str, ...]
    """Metrics; or a table; or ``table.column``."""
    q: float | None = None
    over_s: float | None = None
    """The window before the instant asked for. None: now, or all rows."""
    per_s: float | None = None
    by: tuple[str, ...] = ()
    """One line for each value of these labels or columns."""
    worst: tuple[str, ...] = ()
    """Of these labels' values the one with the largest number."""
    where: Mapping[str, str]
    """Label or column to what it is; ``!`` before it: to what it is not; ``!~``: a pattern that it does not match."""
    times: float = 1.0
    at: str | None = None
    """The column that tells when a row was."""
    among: str | None = None
    """SHARE: the table below the line; ``where`` is of it."""
    among_at: str | None = None
    limit: int | None = None


@value
class Read:
    """A read of the call history over PostgREST."""

    table: str
    columns: tuple[str, ...]
    among: str | None
    """Rows are counted, not read: those of ``table`` for every 100 of this table, shown as the column `SHARE`."""
    filters: Mapping[str, str]
    """Column to PostgREST's operator and operand: ``eq.active``."""
    order: str | None
    limit: int | None


@value
class Line:
    """One thing that a panel draws."""

    name: str
    """``PAGE/PANEL``, or ``PAGE/PANEL LINE`` if the panel draws several."""
    quantity: str
    query: str | None
    """PromQL. None: it is read from the call history."""
    read: Read | None
    computes: Computes
    place: str
    """``FILE:LINE``."""
    unlike: str | None = None
    """Why the answer to the query cannot be calculated of the series as we know them. None: it can."""


@value
class Panel:
    """One panel of a page."""

    name: str
    page: str
    title: str
    unit: str
    says: str
    poll_s: float
    range_s: float | None
    """A chart of this much of the past. None: one number, or one a line."""
    step_s: float | None
    scraped: str | None
    """The job that its series come from, where not every stack has it."""
    lines: tuple[Line, ...]


_DURATION = Text()
_BY = Listing(of=Text())
_COMPUTES = Table(
    keys={
        "a": Key(shape=Text(choices=tuple(Kind)), says="what kind of number it is", is_required=True),
        "of": Key(shape=_BY, says="metrics, a table, or table.column", is_required=True),
        "q": Key(shape=Number(at_least=0, at_most=1), says="quantile: the share of the observations at or below it"),
        "over": Key(shape=_DURATION, says="the window before the instant asked for"),
        "per": Key(shape=_DURATION, says="growth: the time to which it is brought"),
        "by": Key(shape=_BY, says="one line for each value of these labels or columns"),
        "worst": Key(shape=_BY, says="the largest over these labels"),
        "where": Key(shape=Free(), says="label or column to what it is; with ! before it, to what it is not"),
        "times": Key(shape=Number(), says="into the unit that is shown"),
        "at": Key(shape=Text(), says="the column that tells when a row was"),
        "among": Key(shape=Text(), says="share: the table below the line"),
        "among_at": Key(shape=Text(), says="share: the column that tells when its rows were"),
        "limit": Key(shape=Number(is_whole=True, at_least=1), says="newest: how many"),
    }
)
_READ = Table(
    keys={
        "from": Key(shape=Text(), says="table or view", is_required=True),
        "columns": Key(shape=_BY, says="what is read of it"),
        "among": Key(shape=Text(), says="in place of columns: a table; rows are counted, for every 100 rows of it"),
        "filters": Key(shape=Free(), says="column to PostgREST's operator and operand, such as eq.active"),
        "order": Key(shape=Text(), says="PostgREST's order, such as triggered_at.desc"),
        "limit": Key(shape=Number(is_whole=True, at_least=1), says="how many rows"),
    }
)
_LINE = {
    "quantity": Key(shape=Text(), says="the quantity whose claim it is: ttfw for ttfw/panel"),
    "query": Key(shape=Text(), says="PromQL"),
    "read": Key(shape=_READ, says="a read of the call history"),
    "computes": Key(shape=_COMPUTES, says="what a reader takes the label to mean"),
}
SHAPE = Table(
    keys={
        "schema": Key(shape=Number(is_whole=True, at_least=1), says=f"version of this layout: {SCHEMA}", is_required=True),
        "panels": Key(
            shape=Listing(
                of=Table(
                    keys={
                        "name": Key(shape=Text(), says="PAGE/PANEL, unique", is_required=True),
                        "page": Key(shape=Text(), says="the page it is on", is_required=True),
                        "title": Key(shape=Text(), says="its label", is_required=True),
                        "unit": Key(shape=Text(), says="of the number as it is shown", is_required=True),
                        "says": Key(shape=Text(), says="one sentence: what the number is", is_required=True),
                        "poll": Key(shape=_DURATION, says="how often the page asks", is_required=True),
                        "chart": Key(
                            shape=Table(
                                keys={
                                    "range": Key(shape=_DURATION, says="how much of the past it shows", is_required=True),
                                    "step": Key(shape=_DURATION, says="time between two points", is_required=True),
                                }
                            ),
                            says="a chart over time",
                        ),
                        "scraped": Key(shape=Text(), says="the job that its series come from, where not every stack has it"),
                        "lines": Key(
                            shape=Listing(of=Table(keys={"name": Key(shape=Text(), says="of the line", is_required=True), **_LINE})),
                            says="what it draws, if that is more than one line",
                        ),
                        **_LINE,
                    }
                )
            ),
            says="every panel",
            is_required=True,
        ),
    }
)


def panels(text: str, *, file: str, factor: float = 1.0) -> tuple[Panel, ...]:
    """The panels in ``text``, in order.

    factor: production seconds in one second of the stack that they ask: ranges, windows and steps of series are divided by it, rows keep
    their hours.
    Raises UsageError with file and line.
    """
    document = parse(text, file=file, shape=SHAPE)
    if document.data["schema"] != SCHEMA:
        raise UsageError(f"{document.where('schema')}: layout {document.data['schema']}; this voxproof reads {SCHEMA}")
    found = tuple(_panel(entry, document, index, factor) for index, entry in enumerate(document.data["panels"]))
    names = [panel.name for panel in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UsageError(f"{document.where('panels', index, 'name')}: a second panel '{name}'; names are unique")
    return found


def lines(found: tuple[Panel, ...]) -> Iterator[tuple[Panel, Line]]:
    """Every line with its panel."""
    return ((panel, line) for panel in found for line in panel.lines)


def told(line: Line) -> dict[str, Any]:
    """The columns of a row that keeps what `retold` puts into a line."""
    computes = line.computes
    words = {key: getattr(computes, key) for key in _WORDS}
    return {"line": line.name, "query": line.query, "unlike": line.unlike, **words, "where": dict(computes.where)}


def retold(line: Line, columns: Mapping[str, Any]) -> Line:
    """The line of a file in the words of ``columns``."""
    words: dict[str, Any] = {key: tuple(columns[key]) if isinstance(columns[key], list) else columns[key] for key in _WORDS}
    computes = dataclasses.replace(line.computes, **words, where=columns["where"])
    return dataclasses.replace(line, query=columns["query"], unlike=columns["unlike"], computes=computes)


_WORDS = ("of", "by", "worst", "at", "among", "among_at")


def _panel(entry: Mapping[str, Any], document: Document, index: int, factor: float) -> Panel:
    chart = entry.get("chart")
    where = document.where("panels", index)
    if ("lines" in entry) == any(key in entry for key in _LINE):
        raise UsageError(f"{where}: panel '{entry['name']}': wanted lines, or query (or read) with quantity and computes; not both")
    if "lines" in entry:
        drawn = tuple(
            _line(one, f"{entry['name']} {one['name']}", document, ("panels", index, "lines", place), factor)
            for place, one in enumerate(entry["lines"])
        )
    else:
        drawn = (_line(entry, entry["name"], document, ("panels", index), factor),)
    return Panel(
        name=entry["name"],
        page=entry["page"],
        title=entry["title"],
        unit=entry["unit"],
        says=entry["says"],
        poll_s=_seconds(entry["poll"]),
        range_s=_seconds(chart["range"]) / factor if chart else None,
        step_s=_seconds(chart["step"]) / factor if chart else None,
        scraped=entry.get("scraped"),
        lines=drawn,
    )


def _line(entry: Mapping[str, Any], name: str, document: Document, path: tuple[str | int, ...], factor: float) -> Line:
    where = document.where(*path)
    for key in ("quantity", "computes"):
        if key not in entry:
            raise UsageError(f"{where}: '{name}': key '{key}' is missing: {_LINE[key].says}")
    if ("query" in entry) == ("read" in entry):
        raise UsageError(f"{where}: '{name}': wanted query or read, and not both")
    query = entry.get("query")
    if query is not None:
        query = _scaled(query, factor, document.where(*path, "query"))
    computes = _computes(entry["computes"], is_read="read" in entry, factor=factor, where=document.where(*path, "computes"))
    return Line(
        name=name,
        quantity=entry["quantity"],
        query=query,
        read=_read(entry["read"], document.where(*path, "read")) if "read" in entry else None,
        computes=computes,
        place=document.where(*path, "query" if query is not None else "read"),
    )


def _scaled(query: str, factor: float, where: str) -> str:
    try:
        pp.parse(query)
    except ValueError as exc:
        raise UsageError(f"{where}: not PromQL: {exc}") from exc
    return query if factor == 1 else scaled_expression(query, factor)


def _read(entry: Mapping[str, Any], where: str) -> Read:
    if ("columns" in entry) == ("among" in entry):
        raise UsageError(f"{where}: a read wants columns, or the table among whose rows it counts; not both")
    return Read(
        table=entry["from"],
        columns=entry.get("columns", (SHARE,)),
        among=entry.get("among"),
        filters={str(column): str(said) for column, said in entry.get("filters", {}).items()},
        order=entry.get("order"),
        limit=entry.get("limit"),
    )


def _computes(entry: Mapping[str, Any], *, is_read: bool, factor: float, where: str) -> Computes:
    kind = Kind(entry["a"])
    if (kind in OF_ROWS) > is_read:
        raise UsageError(f"{where}: {kind} is of rows, but the line is asked of Prometheus")
    for key in _NEEDED[kind] if not is_read or kind in OF_ROWS else ():
        if key not in entry:
            raise UsageError(f"{where}: {kind} needs '{key}': {_COMPUTES.keys[key].says}")
    by_time = 1.0 if is_read else factor
    return Computes(
        kind=kind,
        of=entry["of"],
        q=entry.get("q"),
        over_s=_seconds(entry["over"]) / by_time if "over" in entry else None,
        # A rate is of the stack's own time: turns per minute are counted in its minutes.
        per_s=_seconds(entry["per"]) if "per" in entry else None,
        by=entry.get("by", ()),
        worst=entry.get("worst", ()),
        where={str(label): str(said) for label, said in entry.get("where", {}).items()},
        times=float(entry.get("times", 1.0)),
        at=entry.get("at"),
        among=entry.get("among"),
        among_at=entry.get("among_at"),
        limit=entry.get("limit"),
    )


_NEEDED: Mapping[Kind, tuple[str, ...]] = {
    Kind.MEAN: ("over",),
    Kind.QUANTILE: ("q", "over"),
    Kind.GROWTH: ("over",),
    Kind.SUM: (),
    Kind.STATE: ("by",),
    Kind.COUNT: (),
    Kind.SHARE: ("among",),
    Kind.NEWEST: ("at",),
}


def _seconds(text: str) -> float:
    return to_ms(text) / 1000
