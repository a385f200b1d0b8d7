"""What each panel would have shown: its query asked as a page asks it, its read of the call history as a page reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import httpx

from harness.clock import Clock
from harness.model import Gap, Observation, Poll, Row, Sample, Source, Target, UnixNs
from harness.rules.panelfile import ASKED, FILE, REFUSED, Line, Panel, lines, panels

_TIMEOUT_S = 20.0
_SETTLED_S = 1.5
"""Asked of this long ago, a server has stored what was scraped and evaluated until then."""
_REFUSALS = frozenset({httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.NOT_FOUND})
"""The server answers, and what it says is that this cannot be asked."""


class Panels:
    """The panels of one file, asked of one target. A context manager: it keeps connections."""

    def __init__(self, target: Target, file: tuple[str, str] | None, *, scale: float, clock: Clock) -> None:
        """file: name and text. None: no panels. scale: production seconds in one second of the target."""
        self._clock = clock
        self._file = file
        self._panels: tuple[Panel, ...] = panels(file[1], file=file[0], factor=scale) if file else ()
        # A proxy of the environment is no way to our own loopback.
        self._http = httpx.Client(timeout=_TIMEOUT_S, trust_env=not target.is_embedded)
        self._prometheus = target.prometheus_url.rstrip("/") if target.prometheus_url and Source.PROMETHEUS not in target.blind else None
        self._rest = f"{target.supabase_url.rstrip('/')}/rest/v1" if target.supabase_url and Source.ROWS not in target.blind else None
        key = target.supabase_key or ""
        self._headers = {"apikey": key, "Authorization": f"Bearer {target.supabase_token or key}"}

    def __enter__(self) -> Panels:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def before(self) -> tuple[Observation | Gap, ...]:
        """What the panels are, and what those of the call history show before the first call."""
        if self._file is None:
            return ()
        name, text = self._file
        kept = Row(source=Source.PANELS, table=FILE, columns={"file": name, "text": text}, at=self._clock.now(), request=name)
        return (kept, *self._reads())

    def after(self, since: UnixNs, *, scrape_s: float) -> tuple[Observation | Gap, ...]:
        """What all panels show when the calls are over, and showed since ``since``."""
        return (*self._queries(since, scrape_s), *self._reads())

    def given_up(self, reason: str) -> tuple[Gap, ...]:
        """Nothing was asked."""
        return (Gap(source=Source.PANELS, at=self._clock.now(), reason=reason, request="", is_blind=False),) if self._file else ()

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
            response = self._http.get(request)
            if response.status_code in _REFUSALS:
                yield _refused(line, response, instants[-1], request)
                return
            response.raise_for_status()
            samples = tuple(_samples(response.json()["data"], line, request))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
            yield Gap(source=Source.PANELS, at=at, reason=f"{line.name}: {type(exc).__name__}: {exc}", request=request)
            return
        yield Poll(source=Source.PANELS, at=at, took_s=(self._clock.now() - at) / 1e9, count=len(samples), request=request)
        yield Row(source=Source.PANELS, table=ASKED, columns={"line": line.name, "at": list(instants)}, at=at, request=request)
        yield from samples

    def _read(self, line: Line, rest: str) -> Iterator[Observation | Gap]:
        assert line.read is not None
        read, at = line.read, self._clock.now()
        parameters = {"select": ",".join(read.columns), **read.filters}
        parameters |= {"order": read.order} if read.order else {}
        parameters |= {"limit": str(read.limit)} if read.limit else {}
        request = str(httpx.URL(f"{rest}/{read.table}", params=parameters))
        try:
            response = self._http.get(request, headers=self._headers)
            if response.status_code in _REFUSALS:
                yield _refused(line, response, at, request)
                return
            response.raise_for_status()
            rows: list[dict[str, Any]] = response.json()
        except (httpx.HTTPError, ValueError) as exc:
            yield Gap(source=Source.PANELS, at=at, reason=f"{line.name}: {type(exc).__name__}: {exc}", request=request)
            return
        yield Poll(source=Source.PANELS, at=at, took_s=(self._clock.now() - at) / 1e9, count=len(rows), request=request)
        # A reading that is empty is told from none by a line of its own.
        for place, columns in enumerate(rows or [{}]):
            yield Row(source=Source.PANELS, table=line.name, columns={**columns, "#": place if rows else None}, at=at, request=request)


def _refused(line: Line, response: httpx.Response, at: UnixNs, request: str) -> Row:
    try:
        said = response.json()
        words = str(said.get("error") or said.get("message") or said)
    except (ValueError, AttributeError):
        words = response.text[:200]
    columns = {"line": line.name, "status": response.status_code, "error": words, "at": at}
    return Row(source=Source.PANELS, table=REFUSED, columns=columns, at=at, request=request)


def _samples(data: dict[str, Any], line: Line, request: str) -> Iterator[Sample]:
    """Of a vector, a matrix or a scalar. A range vector that was asked for at one instant has many samples at once: of raw instants."""
    if data["resultType"] == "scalar":
        yield _sample(line, {}, data["result"], request)
        return
    for entry in data["result"]:
        labels = {name: text for name, text in entry["metric"].items() if name != "__name__"}
        for point in entry.get("values") or [entry["value"]]:
            yield _sample(line, labels, point, request)


def _sample(line: Line, labels: dict[str, str], point: Sequence[Any], request: str) -> Sample:
    at = UnixNs(round(float(point[0]) * 1000) * 1_000_000)
    return Sample(source=Source.PANELS, name=line.name, labels=labels, value=float(point[1]), at=at, request=request)


def _whole_ms(at: int) -> UnixNs:
    return UnixNs(at // 1_000_000 * 1_000_000)
