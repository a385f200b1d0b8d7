"""Our own truth as metrics: computed from the records, parsed by the same library that made them."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from harness.collect.truth import exposed
from tests.fakes.evidence import healthy

RECORDS = healthy()[0].records


def test_what_callers_heard_is_exposed_while_the_block_runs() -> None:
    """Calls placed and answered, and every latency in the histogram."""
    with exposed(lambda: RECORDS) as url:
        text = httpx.get(url, trust_env=False).text

    said = {(s.name, s.labels.get("le", "")): s.value for family in text_string_to_metric_families(text) for s in family.samples}
    latencies = [turn.response_latency_s for record in RECORDS for turn in record.turns]
    assert said["voxproof_calls_placed_total", ""] == len(RECORDS)
    assert said["voxproof_calls_answered_total", ""] == sum(record.is_answered for record in RECORDS)
    assert said["voxproof_ttfw_seconds_bucket", "+Inf"] == len(latencies)
    assert said["voxproof_ttfw_seconds_sum", ""] == sum(filter(None, latencies))


def test_nothing_is_exposed_afterwards() -> None:
    """The port is free again."""
    with exposed(lambda: RECORDS) as url:
        pass

    with httpx.Client(trust_env=False) as client:
        try:
            client.get(url)
        except httpx.ConnectError:
            refused = True
    assert refused
