"""What each panel would have shown: its query asked as a page asks it, its read of the call history as a page reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import httpx

from harness import door
from harness.clock import Clock
from harness.collect.naming import Translator
from harness.door import Meter
from harness.model import Cost, Door, Gap, Observation, Poll, Row, Sample, Source, Target, UnixNs
from harness.rules.panelfile import ASKED, FILE, REFUSED, SHARE, TOLD, Line, Panel, lines, panels, told

_TIMEOUT_S = 20.0
_SETTLED_S = 1.5
"""Asked of this long ago, a server has stored what was scraped and evaluated until then."""
_REFUSALS = frozenset({httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.NOT_FOUND})
"""The server answers, and what it says is that this cannot be asked."""

_COUNTING = {"Prefer": "count=exact"}


class Panels:
    """The panels of one file, asked of one target. A context manager: it keeps connections."""

    def __init__(self, target: Target, file: tuple[str, str] | None, *, scale: float, clock: Clock) -> None:
        """file: name and text. None: no panels. scale: production seconds in one second of the target."""
        self._clock = clock
        self._names = Translator(target.names)
        self._file = file
        """In the target's own words, as its pages ask."""
        self._panels: tuple[Panel, ...] = panels(file[1], file=file[0], factor=scale) if file else ()
        self._exits = ExitStack()
        self._meter = Meter(Source.PANELS)
        self._items = 0
        self._to_prometheus, self._to_rest = (
            self._exits.enter_context(
                # A proxy of the environment is no way to our own loopback.
                door.client(target.doors.get(source, Door()), trust_env=not target.is_embedded, timeout_s=_TIMEOUT_S, meter=self._meter)
            )
            for source in (Source.PROMETHEUS, Source.ROWS)
        )
        self._prometheus = target.prometheus_url.rstrip("/") if target.prometheus_url and Source.PROMETHEUS not in target.blind else None
        self._rest = f"{target.supabase_url.rstrip('/')}/rest/v1" if target.supabase_url and Source.ROWS not in target.blind else None
        key = target.supabase_key or ""
        self._headers = {"apikey": key, "Authorization": f"Bearer {target.supabase_token or key}"}

    def __enter__(self) -> Panels:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._exits.close()

    def cost(self) -> Cost:
        """What our requests have put on Prometheus and the call history so far."""
        return dataclasses.replace(self._meter.cost, items=self._items)

    def before(self) -> tuple[Observation | Gap, ...]:
        """What the panels are, and what those of the call history show before the first call."""
        if self._file is None:
            return ()
        name, text = self._file
        kept = Row(source=Source.PANELS, table=FILE, columns={"file": name, "text": text}, at=self._clock.now(), request=name)
        return (kept, *self._told(), *self._reads())

    def after(self, since: UnixNs, *, scrape_s: float) -> tuple[Observation | Gap, ...]:
        """What all panels show when the calls are over, and showed since ``since``."""
        return (*self._queries(since, scrape_s), *self._reads())

    def given_up(self, reason: str) -> tuple[Gap, ...]:
        """Nothing was asked."""
        return (Gap(source=Source.PANELS, at=self._clock.now(), reason=reason, request="", is_blind=False),) if self._file else ()

    def _told(self) -> Iterator[Row]:
        """Lines in our names, where the target has others."""
        for _, line in lines(self._panels):
            ours = in_our_words(line, self._names)
            if ours != line:
                yield Row(source=Source.PANELS, table=TOLD, columns=told(ours), at=self._clock.now(), request=line.place)

    def _reads(self) -> Iterator[Observation | Gap]:
        for _, line in lines(self._panels):
            if line.read is not None and self._rest is not None:
                yield from self._read(line, self._rest)

    def _queries(self, since: UnixNs, scrape_s: float) -> Iterator[Observation | Gap]:
        """What the panels of Prometheus showed at four instants from ``since`` to the newest that is settled; charts, all that they show."""
        if self._prometheus is None:
            return
        latest = max(since, self._clock.now() - round(1e9 * max(_SETTLED_S, scrape_s)))
        instants = [_whole_ms(since + (latest - since) * place // 4) for place in range(1, 5)]
        for panel, line in lines(self._panels):
            if line.query is None:
                continue
            for at in instants:
                parameters = {"query": line.query, "time": f"{at / 1e9:.3f}"}
                yield from self._asked(line, f"{self._prometheus}/api/v1/query", parameters, (at,))
            if panel.range_s is not None and panel.step_s is not None:
                start, end = _whole_ms(max(since, instants[-1] - round(1e9 * panel.range_s))), instants[-1]
                chart = {"start": f"{start / 1e9:.3f}", "end": f"{end / 1e9:.3f}", "step": f"{panel.step_s:g}"}
                points = tuple(UnixNs(at) for at in range(start, end + 1, round(1e9 * panel.step_s)))
                yield from self._asked(line, f"{self._prometheus}/api/v1/query_range", {"query": line.query, **chart}, points)

    def _asked(self, line: Line, url: str, parameters: dict[str, str], instants: Sequence[UnixNs]) -> Iterator[Observation | Gap]:
        request, at = str(httpx.URL(url, params=parameters)), self._clock.now()
        try:
            response = self._to_prometheus.get(request)
            if response.status_code in _REFUSALS:
                yield _refused(line, response, instants[-1], request)
                return
            response.raise_for_status()
            samples = tuple(_samples(response.json()["data"], line, request, self._names))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
            yield Gap(source=Source.PANELS, at=at, reason=f"{line.name}: {type(exc).__name__}: {exc}", request=request)
            return
        self._items += len(samples)
        yield Poll(source=Source.PANELS, at=at, took_s=(self._clock.now() - at) / 1e9, count=len(samples), request=request)
        yield Row(source=Source.PANELS, table=ASKED, columns={"line": line.name, "at": list(instants)}, at=at, request=request)
        yield from samples

    def _read(self, line: Line, rest: str) -> Iterator[Observation | Gap]:
        assert line.read is not None
        read, at = line.read, self._clock.now()
        columns = {"limit": "0"} if read.among else {"select": ",".join(read.columns)}
        parameters = {**columns, **read.filters}
        parameters |= {"order": read.order} if read.order else {}
        parameters |= {"limit": str(read.limit)} if read.limit else {}
        request = str(httpx.URL(f"{rest}/{read.table}", params=parameters))
        try:
            response = self._to_rest.get(request, headers={**self._headers, **(_COUNTING if read.among else {})})
            if response.status_code in _REFUSALS:
                yield _refused(line, response, at, request)
                return
            response.raise_for_status()
            rows: list[dict[str, Any]] = response.json()
            if read.among:
                among = self._to_rest.get(f"{rest}/{read.among}", params={"limit": "0"}, headers={**self._headers, **_COUNTING})
                rows = [{SHARE: _share(_total(response), _total(among.raise_for_status()))}]
        except (httpx.HTTPError, ValueError) as exc:
            yield Gap(source=Source.PANELS, at=at, reason=f"{line.name}: {type(exc).__name__}: {exc}", request=request)
            return
        self._items += len(rows)
        yield Poll(source=Source.PANELS, at=at, took_s=(self._clock.now() - at) / 1e9, count=len(rows), request=request)
        # A reading that is empty is told from none by a line of its own.
        for place, columns in enumerate(rows or [{}]):
            told = {**_row(columns, line, self._names), "#": place if rows else None}
            yield Row(source=Source.PANELS, table=line.name, columns=told, at=at, request=request)


def in_our_words(line: Line, names: Translator) -> Line:
    """The line of a file that is in the words of a target: its query and what it must compute, by our names. How it is asked stays theirs."""
    computes = line.computes
    if line.query is not None:
        of, where = names.computed(computes.of, computes.where)
        by, worst = (tuple(names.computed(computes.of, dict.fromkeys(labels, ""))[1]) for labels in (computes.by, computes.worst))
        computes = dataclasses.replace(computes, of=of, where=where, by=by, worst=worst)
        return dataclasses.replace(line, query=names.expression(line.query), unlike=names.unlike(line.query), computes=computes)
    table, dot, column = computes.of[0].partition(".")
    ours, among = names.ours(table), names.ours(computes.among) if computes.among else None

    def named(of: str | None, theirs: str | None) -> str | None:
        return next(iter(names.row(of, {theirs: None}))) if of and theirs else theirs

    computes = dataclasses.replace(
        computes,
        of=(ours + dot + (named(ours, column) or ""),),
        by=tuple(str(named(ours, each)) for each in computes.by),
        at=named(ours, computes.at),
        among=among,
        among_at=named(among, computes.among_at),
        where={column: str(said) for column, said in names.row(among or ours, computes.where).items()},
    )
    return dataclasses.replace(line, computes=computes)


def _row(columns: dict[str, Any], line: Line, names: Translator) -> dict[str, Any]:
    """Of a row that a page reads, what it is split by and ordered by in our words; its number stays as it is shown."""
    theirs = {*line.computes.by, line.computes.at}
    ours = names.ours(line.computes.of[0].partition(".")[0])
    told: dict[str, Any] = {}
    for column, said in columns.items():
        told |= names.row(ours, {column: said}) if column in theirs else {column: said}
    return told


def _total(response: httpx.Response) -> int:
    """The number of rows that a request matched. Raises ValueError if the server does not say."""
    return int(response.headers.get("Content-Range", "").rpartition("/")[2])


def _share(count: int, among: int) -> float | None:
    return 100 * count / among if among else None


def _refused(line: Line, response: httpx.Response, at: UnixNs, request: str) -> Row:
    try:
        said = response.json()
        words = str(said.get("error") or said.get("message") or said)
    except (ValueError, AttributeError):
        words = response.text[:200]
    columns = {"line": line.name, "status": response.status_code, "error": words, "at": at}
    return Row(source=Source.PANELS, table=REFUSED, columns=columns, at=at, request=request)


def _samples(data: dict[str, Any], line: Line, request: str, names: Translator) -> Iterator[Sample]:
    """Of a vector, a matrix or a scalar. A range vector that was asked for at one instant has many samples at once: of raw instants."""
    if data["resultType"] == "scalar":
        yield _sample(line, {}, data["result"], request)
        return
    for entry in data["result"]:
        theirs = {name: text for name, text in entry["metric"].items() if name != "__name__"}
        labels = names.answered(line.query or "", theirs)
        for point in entry.get("values") or [entry["value"]]:
            yield _sample(line, labels, point, request)


def _sample(line: Line, labels: Mapping[str, str], point: Sequence[Any], request: str) -> Sample:
    at = UnixNs(round(float(point[0]) * 1000) * 1_000_000)
    return Sample(source=Source.PANELS, name=line.name, labels=labels, value=float(point[1]), at=at, request=request)


def _whole_ms(at: int) -> UnixNs:
    return UnixNs(at // 1_000_000 * 1_000_000)
