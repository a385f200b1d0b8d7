"""The page."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from harness.model import CallOutcome, Evidence, Findings, Status
from reports.html import MOST_CALLS, page
from tests.fakes.evidence import evidence, findings, healthy, info, lying, plan, record, undecided, verdict

_VOID = {"meta", "link", "br", "hr", "img", "input"}
_LOADS = {"src", "srcset", "poster", "data", "action", "formaction", "background", "ping"}

Made = Callable[[], tuple[Evidence, Findings]]


class Nesting(HTMLParser):
    """Tags that are opened and closed in order, attributes that would load something, every id and every link inside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, text in attrs:
            if name in _LOADS or (tag == "link" and name == "href"):
                self.loads.append(text or "")
            if name == "id":
                self.ids.append(text or "")
            if tag == "a" and name == "href":
                self.links.append(text or "")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def read(text: str) -> Nesting:
    """The page, parsed."""
    nesting = Nesting()
    nesting.feed(text)
    return nesting


@pytest.mark.parametrize("made", [healthy, lying, undecided])
def test_the_page_is_well_formed(made: Made) -> None:
    """Every tag is closed in order, no id is used twice."""
    nesting = read(page(*made()))

    assert (nesting.wrong, nesting.open) == ([], [])
    assert len(set(nesting.ids)) == len(nesting.ids)


def test_nothing_is_asked_of_anyone() -> None:
    """Everything that a browser would load is inside the page."""
    text = page(*lying(), {"audio/call-1.wav": b"OggS"})

    assert all(load.startswith("data:") for load in read(text).loads)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", text)


def test_every_link_inside_the_page_leads_somewhere() -> None:
    """From the lights and the ledger to the cards."""
    nesting = read(page(*lying()))

    assert {link.removeprefix("#") for link in nesting.links if link.startswith("#")} <= set(nesting.ids)


def test_recordings_are_inside() -> None:
    """As data URIs, byte for byte."""
    opus = bytes(range(256))

    assert f"data:audio/ogg;base64,{base64.b64encode(opus).decode()}" in page(*lying(), {"audio/call-1.wav": opus})


def test_what_a_source_said_cannot_become_markup() -> None:
    """A hostile row is text."""
    judged = verdict("turns/rows", Status.FAIL, says="<script>alert(1)</script>", sentence="<img src=x onerror=alert(1)>")
    text = page(evidence(), findings([judged]))

    assert "<script>alert" not in text
    assert "<img" not in text


def test_a_failed_claim_has_a_card_with_everything() -> None:
    """Says, may say, would catch, because, effect, hear, repeat."""
    text = page(*lying())

    for words in ("Says", "May say", "Would catch", "Because", "Effect", "Hear", "voxproof explain k3f9 ttfw/exporter"):
        assert words in text
    assert 'data-call="call-1" data-at="5.3"' in text


def test_a_missed_reply_is_drawn() -> None:
    """The wait goes on to the next thing the caller says."""
    silent = record(latencies_s=(1.4, None, 1.0), outcome=CallOutcome.SILENT)

    assert "no reply was heard" in page(evidence(records=(silent,)), findings())


def test_a_call_that_was_never_placed_has_no_drawing() -> None:
    """And still a line that says what became of it."""
    dropped = record(outcome=CallOutcome.DROPPED, placed_at=None, turns=(), audio=None, wire=(), greeted_at=None)
    text = page(evidence(records=(dropped,)), findings())

    assert "dropped" in text
    assert "timeline of call-1" not in text


def test_a_large_run_draws_the_calls_that_went_wrong() -> None:
    """The page stays small; what is left out is said."""
    calls = tuple(record(plan(index)) for index in range(1, MOST_CALLS + 11))
    last = replace(calls[-1], outcome=CallOutcome.AGENT_LEFT)
    text = page(evidence(records=(*calls[:-1], last)), findings())

    assert f'id="call-{MOST_CALLS + 10}"' in text
    assert "10 calls more in the run directory" in text


def test_a_run_in_which_nothing_happened_still_has_a_page() -> None:
    """No calls, no verdicts, no readings, no parts."""
    empty = evidence(plans=(), records=(), health=(), observations=(), calibration=None, info=info(parts=(), read_at=None, settings={}))

    assert "undecided" in page(empty, findings(status=Status.INCONCLUSIVE, planted=()))


def test_the_same_run_gives_the_same_page() -> None:
    """Nothing of today is in it: a report repeats offline, years later."""
    assert page(*lying()) == page(*lying())
