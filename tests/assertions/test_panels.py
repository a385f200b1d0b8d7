"""Panels held against their queries and against their labels: each query as it was first written, and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.check import check
from harness.model import Evidence, Gap, Observation, Poll, Row, Sample, Source, Status, Verdict
from tests.fakes import stack, wire
from tests.fakes.evidence import LATENCIES_S

FIRST = Path(__file__).resolve().parents[2] / "scenarios" / "first-draft-dashboard.panels.yml"


@pytest.fixture(scope="module")
def first() -> dict[str, Verdict]:
    """What becomes of the panels as they were first written, on an honest stack."""
    found = check(stack.showing(stack.run(), FIRST), control=False).verdicts
    return {verdict.claim: verdict for verdict in found if verdict.claim.endswith("/panel")}


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ("first-active-calls", "never has data: no series livekit_sip_calls_active was seen here"),
        ("first-ttfw-average", "promql/quantile-all-time: raw buckets: the quantile of all observations since each process started"),
        ("first-mean-duration", "was refused: 400: Use of aggregate functions is not allowed"),
        ("first-tool-calls", "shows 14.3 % after the calls, may show 33.3 %: tool calls for every 100 things that callers said"),
        ("first-call-volume", "was refused: 400: invalid expression type"),
        ("first-sip-errors", "never has data: no series livekit_sip_errors_total was seen here"),
        ("first-service-status", "shows nothing for instance=127.0.0.1:9102,job=voice-agent"),
        ("first-ttfw-p95", "promql/quantile-per-series: one line a series"),
        ("first-packet-loss", "shows one line for every direction; its label promises one for each direction"),
        ("first-jitter", "promql/hidden-mean: avg(livekit_jitter_ms) weighs every series alike"),
        ("first-rtt", "never has data: no series livekit_rtt_ms was seen here"),
        ("first-mean-latency", "promql/quantile-all-time"),
        ("first-turns-per-minute", "shows 2 lines, split by instance and job and role; its label promises one line"),
    ],
)
def test_each_panel_as_first_written_is_red_with_its_reason(first: dict[str, Verdict], claim: str, words: str) -> None:
    """By what it showed, and by what can be seen of its query."""
    verdict = first[f"{claim}/panel"]

    assert verdict.status is Status.FAIL
    assert words in verdict.sentence


@pytest.mark.parametrize(("claim", "words"), [("first-call-volume", "was refused: 400"), ("first-sip-errors", "promql/counter")])
def test_what_can_be_seen_without_data_is_said_without_data(claim: str, words: str) -> None:
    """On a stack that has no telephony at all."""
    mute = stack.changed(stack.run(), lambda item: None if isinstance(item, Sample) and item.labels.get("job") == "livekit-sip" else item)

    assert words in judged(stack.showing(mute, FIRST), f"{claim}/panel").sentence


def test_what_was_right_from_the_first_is_green(first: dict[str, Verdict]) -> None:
    """Rows of the last 24 hours are counted as their label says."""
    assert [claim for claim, verdict in first.items() if verdict.status is Status.PASS] == ["first-calls-24h/panel"]


def judged(evidence: Evidence, claim: str) -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def test_a_number_that_its_query_does_not_give_is_told() -> None:
    """A thousandth is enough, though the label would admit it."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Sample) and item.source is Source.PANELS and item.name == "voice-quality/ttfw-p95"
        return replace(item, value=item.value * 1.001) if is_it and isinstance(item, Sample) else item

    assert "its query gives" in judged(stack.changed(stack.run(), change), "ttfw/panel").sentence


def test_a_row_that_a_panel_does_not_count_is_told() -> None:
    """The table has it, the view has not."""

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Row) and item.table == "overview/calls-24h" and item.columns.get("calls")
        return replace(item, columns={**item.columns, "calls": 2}) if is_it and isinstance(item, Row) else item

    assert "shows 2 calls after the calls, may show 3 calls" in judged(stack.changed(stack.run(), change), "calls/panel").sentence


def test_a_panel_of_rows_that_could_not_be_read_is_open() -> None:
    """It is not accused of what we do not know: a connection was lost, once in eighty runs."""
    kept = stack.run()
    request = "http://rest/rest/v1/transcripts?select=*"
    gap = Gap(source=Source.ROWS, at=kept.observations[-1].at, reason="transcripts: ReadError", request=request)
    unread = replace(
        kept,
        observations=tuple(
            item for item in kept.observations if getattr(item, "table", "") != "transcripts" and not _reads(item, "transcripts")
        ),
        gaps=(*kept.gaps, gap),
    )

    found = judged(unread, "tools/panel")
    assert (found.status, found.sentence) == (Status.INCONCLUSIVE, "rows could not be read: transcripts: ReadError")


def test_panels_that_were_never_asked_are_open() -> None:
    """The run was interrupted."""
    kept = stack.run()
    unasked = replace(kept, observations=tuple(item for item in kept.observations if item.source is not Source.PANELS or _is_file(item)))

    found = judged(unasked, "ttfw/panel")
    assert (found.status, found.sentence) == (
        Status.INCONCLUSIVE,
        "panels could not be read: they were never asked; a run that ends by itself asks them",
    )


def test_what_would_decide_a_panel_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The panel of a network that lost nothing shows zeros, whatever its unit; that of one that loses packets is decided."""
    lossy = judged(stack.run(), "loss/panel")
    monkeypatch.setattr(wire, "_losses", lambda *_: iter(()))
    lossless = judged(stack.run(list(LATENCIES_S)), "loss/panel")

    assert (lossy.status, lossless.status) == (Status.PASS, Status.INCONCLUSIVE)
    assert (
        "to decide it: a network that loses packets (impairment: lossy-2pct-jitter-30ms); calls over more than the 20 s"
        in lossless.sentence
    )


def _reads(item: Observation, table: str) -> bool:
    return isinstance(item, Poll) and item.source is Source.ROWS and f"/{table}?" in item.request


def _is_file(item: Observation) -> bool:
    return isinstance(item, Row) and item.table == "panel file"
