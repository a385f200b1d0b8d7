"""An exporter's own text, polled while the run lasts: what it said before Prometheus, or anyone else, touched it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import httpx
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as Line

from harness.clock import Clock
from harness.collect.naming import OURS, Translator
from harness.collect.series import is_judged
from harness.model import Gap, Observation, Poll, Sample, Source, UnixNs

POLL_EVERY_S = 1.0
TIMEOUT_S = 3.0

Sink = Callable[[Source, Iterable[Observation | Gap]], None]
"""Where observations go: ``RunDir.observe``."""


class Exporter:
    """One exporter, as our own scrapes see it."""

    def __init__(self, source: Source, url: str, *, clock: Clock, client: httpx.Client, names: Translator = OURS) -> None:
        self.source = source
        self.url = url
        self._names = names
        self._clock = clock
        self._client = client
        self.changed_at: UnixNs | None = None
        """Instant of the last reading that differed from the one before. None: never read."""
        self._before: tuple[Line, ...] | None = None
        self._failure: str | None = None

    def poll(self, *, in_full: bool = False) -> tuple[Observation | Gap, ...]:
        """One reading: a Poll, then all judged samples if any of them changed since the reading before. Or the beginning of a Gap.

        A Poll that counts samples and is followed by none of its instant repeats the reading before. A failure for the same reason as the
        one before is no news. in_full: both are said all the same.
        """
        if in_full:
            self._before = self._failure = None
        at = self._clock.now()
        try:
            response = self._client.get(self.url, timeout=TIMEOUT_S)
            response.raise_for_status()
            lines = judged_lines(response.text, response.headers.get("content-type", ""), self._names)
        except httpx.HTTPStatusError as exc:
            return self._gap(at, f"answered {exc.response.status_code}")
        except httpx.HTTPError as exc:
            return self._gap(at, f"{type(exc).__name__}: {exc}")
        except ValueError as exc:
            return self._gap(at, f"not an exposition: {exc}")
        self._failure = None
        took_s = (self._clock.now() - at) / 1e9
        poll = Poll(source=self.source, at=at, took_s=took_s, count=len(lines), request=self.url)
        if lines == self._before:
            return (poll,)
        self._before, self.changed_at = lines, at
        return (poll, *(self._sample(line, at) for line in lines))

    def last_value(self, name: str) -> float | None:
        """Sum over the series of ``name`` in the last successful reading. None: it had none."""
        values = [line.value for line in self._before or () if line.name == name]
        return sum(values) if values else None

    def _sample(self, line: Line, at: UnixNs) -> Sample:
        return Sample(source=self.source, name=line.name, labels=line.labels, value=line.value, at=at, request=self.url)

    def _gap(self, at: UnixNs, reason: str) -> tuple[Gap, ...]:
        is_known = reason == self._failure
        self._before, self._failure = None, reason
        return () if is_known else (Gap(source=self.source, at=at, reason=reason, request=self.url),)


def judged_lines(text: str, content_type: str, names: Translator = OURS) -> tuple[Line, ...]:
    """The samples of an exposition that we judge, in its order, by our names.

    Raises ValueError if the text is no exposition.
    """
    parse = openmetrics.text_string_to_metric_families if "openmetrics" in content_type else text_string_to_metric_families
    told = (names.series(line.name, line.labels, line.value) for family in parse(text) for line in family.samples)
    return tuple(Line(found[0], dict(found[1]), found[2]) for found in told if found is not None and is_judged(found[0]))


@contextlib.contextmanager
def record(exporters: Sequence[Exporter], sink: Sink, *, every_s: float = POLL_EVERY_S) -> Iterator[None]:
    """Polls every exporter on absolute deadlines, each in its own thread, until the block ends; once more at its end."""
    is_over = threading.Event()
    threads = [
        threading.Thread(target=_poll_until, args=(exporter, sink, every_s, is_over), daemon=True, name=f"polls of {exporter.source}")
        for exporter in exporters
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(2 * TIMEOUT_S)


def _poll_until(exporter: Exporter, sink: Sink, every_s: float, is_over: threading.Event) -> None:
    due = time.monotonic()
    while True:
        was_over = is_over.is_set()
        sink(exporter.source, exporter.poll(in_full=was_over))
        if was_over:
            return
        due = max(due + every_s, time.monotonic())
        is_over.wait(due - time.monotonic())
