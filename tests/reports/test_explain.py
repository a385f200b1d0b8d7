"""How one claim was judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.errors import UsageError
from harness.model import Evidence, Findings, Sample
from reports.explain import text
from tests.fakes.evidence import healthy, lying, undecided

Made = Callable[[], tuple[Evidence, Findings]]


def test_every_turn_that_was_heard_is_listed() -> None:
    """Nine turns with their latency on one clock."""
    shown = text(*lying(), "ttfw/exporter")

    assert shown.count(" s\n") >= 9
    assert "call-1  1     weather        lookup_weather  13.500        14.960      1.46 s" in shown


def test_the_growth_of_what_was_read_is_shown() -> None:
    """Before, last, growth: the arithmetic of a counter."""
    assert "voice_agent_ttfw_seconds_count              0       6     6       36" in text(*lying(), "ttfw/exporter")


def test_labels_that_all_series_share_are_said_once() -> None:
    """What differs is left to read."""
    ran, found = healthy()
    labelled = [replace(one, labels={**one.labels, "job": "voice-agent"}) if isinstance(one, Sample) else one for one in ran.observations]
    shown = text(replace(ran, observations=tuple(labelled)), found, "ttfw/samples")

    assert 'all with {job="voice-agent"}' in shown
    assert 'voice_agent_ttfw_seconds_bucket{le="1.14"}' in shown


def test_a_claim_on_rows_lists_the_rows() -> None:
    """With the table's own columns."""
    assert "READ from table transcripts: 18 rows" in text(*healthy(), "turns/rows")


def test_a_hop_is_shown_after_the_hop_before_it() -> None:
    """A rule is judged given the samples that Prometheus holds."""
    shown = text(*healthy(), "ttfw/rule")

    assert shown.index("READ from prometheus") < shown.index("READ from rules")


def test_what_could_not_be_read_is_shown_with_its_request() -> None:
    """The gap stands where the samples would."""
    assert "not read at 01:10.20: HTTP 500 Internal Server Error" in text(*undecided(), "ttfw/samples")


def test_requests_files_and_the_recording_are_named() -> None:
    """What repeats the judgement."""
    end = text(*lying(), "ttfw/exporter").split("AGAIN\n")[1]

    assert end.splitlines() == [
        "  hear     reports/runs/k3f9/audio/call-1.wav at 00:05.30",
        "  request  http://127.0.0.1:9102/metrics",
        "  file     reports/runs/k3f9/events/caller-1.jsonl",
        "  check    voxproof check k3f9",
    ]


def test_an_unknown_claim_names_the_nearest() -> None:
    """What, and what next."""
    with pytest.raises(UsageError, match="did you mean 'ttfw/exporter'"):
        text(*lying(), "ttfw/exportr")


@pytest.mark.parametrize("made", [healthy, lying, undecided])
def test_every_claim_can_be_explained(made: Made) -> None:
    """No claim of a run is without its text."""
    ran, found = made()

    assert all(text(ran, found, one.claim).endswith("\n") for one in found.verdicts)
