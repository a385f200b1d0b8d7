"""Polls of an exporter: what is kept, what a repeat looks like, what a failure looks like."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import httpx
import pytest

from harness.clock import Clock
from harness.collect.exporter import Exporter, judged_lines, record
from harness.model import Gap, Observation, Poll, Sample, Source

URL = "http://127.0.0.1:1/metrics"
TEXT = """\
# TYPE voice_agent_turns_total counter
voice_agent_turns_total{role="user"} 3.0
# TYPE voice_agent_active_calls gauge
voice_agent_active_calls 1.0
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 393.0
"""


class Scripted:
    """Answers one scripted response after the other, then the last again."""

    def __init__(self, *answers: httpx.Response | httpx.HTTPError) -> None:
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx.HTTPError):
            raise answer
        return answer


def exporter(*answers: httpx.Response | httpx.HTTPError) -> Exporter:
    client = httpx.Client(transport=httpx.MockTransport(Scripted(*answers)))
    return Exporter(Source.AGENT_EXPORTER, URL, clock=Clock.start(), client=client)


def text(body: str) -> httpx.Response:
    return httpx.Response(200, text=body, headers={"content-type": "text/plain; version=0.0.4"})


def kinds(items: Iterable[Observation | Gap]) -> list[str]:
    return [type(item).__name__ for item in items]


def test_only_judged_series_are_kept() -> None:
    """A poll counts them and lists them, all at its own instant."""
    poll, *samples = exporter(text(TEXT)).poll()

    assert isinstance(poll, Poll)
    assert poll.count == 2
    assert [(s.name, s.value, s.at) for s in samples if isinstance(s, Sample)] == [
        ("voice_agent_turns_total", 3.0, poll.at),
        ("voice_agent_active_calls", 1.0, poll.at),
    ]


def test_a_reading_without_change_is_a_poll_alone() -> None:
    """Its count says that it was not empty."""
    source = exporter(text(TEXT), text(TEXT))
    source.poll()

    (poll,) = source.poll()

    assert isinstance(poll, Poll)
    assert poll.count == 2


def test_a_reading_after_a_failure_is_kept_whole() -> None:
    """What was said before the hole is not assumed after it."""
    source = exporter(text(TEXT), httpx.ConnectError("refused"), text(TEXT))

    assert [kinds(source.poll()) for _ in range(3)] == [["Poll", "Sample", "Sample"], ["Gap"], ["Poll", "Sample", "Sample"]]


def test_a_green_and_empty_answer_is_a_poll_of_nothing() -> None:
    """Absence that was read is told from a source that was not."""
    (poll,) = exporter(text("")).poll()

    assert isinstance(poll, Poll)
    assert poll.count == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(500), "answered 500"),
        (httpx.ConnectError("refused"), "ConnectError: refused"),
        (text("<html>not metrics</html>"), "not an exposition"),
    ],
)
def test_a_source_that_cannot_be_read_is_a_gap(answer: httpx.Response | httpx.HTTPError, reason: str) -> None:
    """With the reason and the URL, never an exception."""
    (gap,) = exporter(answer).poll()

    assert isinstance(gap, Gap)
    assert gap.reason.startswith(reason)
    assert gap.request == URL


def test_a_lasting_failure_is_one_gap() -> None:
    """And one more at the end of the run, where it is asked for in full."""
    source = exporter(httpx.ConnectError("refused"))

    assert [kinds(source.poll()), kinds(source.poll()), kinds(source.poll(in_full=True))] == [["Gap"], [], ["Gap"]]


def test_a_reading_in_full_repeats_what_is_known() -> None:
    """The last state of a run is explicit."""
    source = exporter(text(TEXT))
    source.poll()

    assert kinds(source.poll(in_full=True)) == ["Poll", "Sample", "Sample"]


def test_openmetrics_is_understood() -> None:
    """An exporter may insist on it."""
    body = "# TYPE voice_agent_turns counter\nvoice_agent_turns_total 2.0\n# EOF\n"

    assert [line.value for line in judged_lines(body, "application/openmetrics-text; version=1.0.0")] == [2.0]


def test_recording_reads_at_the_start_and_once_more_at_the_end() -> None:
    """The last reading is after everything that happened in the block."""
    said: list[str] = []
    lock = threading.Lock()

    def sink(source: Source, items: Iterable[Observation | Gap]) -> None:
        with lock:
            said.extend(kinds(items))

    with record([exporter(text(TEXT), text(TEXT.replace("3.0", "4.0")))], sink, every_s=3600):
        pass

    assert said in (["Poll", "Sample", "Sample"] * 2, ["Poll", "Sample", "Sample"])  # the block may end before the first reading
