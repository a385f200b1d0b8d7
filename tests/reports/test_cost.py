"""What collecting cost, in every report."""

from __future__ import annotations

from dataclasses import replace

from harness.model import Cost, Source
from reports import html, markdown, terminal
from reports.cost import costs
from tests.fakes.evidence import healthy

EVIDENCE, FINDINGS = healthy()
COSTS = (
    Cost(source=Source.PROMETHEUS, requests=9, size_bytes=412_000, took_s=0.31, items=3210),
    Cost(source=Source.SFU_API, requests=2, took_s=0.02),
    Cost(source=Source.ROWS),
)
COUNTED = replace(EVIDENCE, info=replace(EVIDENCE.info, cost=COSTS))


def test_each_source_that_was_asked_is_told() -> None:
    """Requests, samples, bytes and seconds, as far as they are known."""
    assert costs(COUNTED) == ("prometheus: 9 requests, 3,210 samples, 0.4 MB, 0.31 s", "sfu-api: 2 requests, 0.02 s")


def test_every_report_tells_them() -> None:
    """A run that did not count them says nothing of them."""
    reports = (terminal.table, markdown.summary, html.page)

    assert ["prometheus: 9 requests" in report(COUNTED, FINDINGS) for report in reports] == [True, True, True]
    assert ["9 requests" in report(EVIDENCE, FINDINGS) for report in reports] == [False, False, False]
