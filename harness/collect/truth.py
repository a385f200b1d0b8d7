"""Our own truth as metrics: ``voxproof_*`` on a loopback port while a run lasts, for the team's own Prometheus or a curious eye."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from harness.model import CallOutcome, CallRecord

TTFW_BOUNDS_S = tuple(0.05 * 1.25**step for step in range(25))
"""0.05 s to 10.6 s in steps of 1.25x, like the agent's."""


class Truth(Collector):
    """Metrics computed from the call records at every scrape; it keeps no counts of its own."""

    def __init__(self, records: Callable[[], tuple[CallRecord, ...]]) -> None:
        self._records = records

    def describe(self) -> tuple[Metric, ...]:
        return ()

    def collect(self) -> Iterator[Metric]:
        records = self._records()
        yield GaugeMetricFamily("voxproof_calls_planned", "Calls of this run.", value=len(records))
        yield CounterMetricFamily("voxproof_calls_placed", "Calls placed.", value=sum(record.placed_at is not None for record in records))
        yield CounterMetricFamily(
            "voxproof_calls_answered", "Calls in which the agent was heard.", value=sum(r.is_answered for r in records)
        )
        ended = CounterMetricFamily("voxproof_calls_ended", "Calls by how they ended.", labels=("outcome",))
        outcomes = Counter(record.outcome for record in records if record.left_at is not None or record.error is not None)
        for outcome in CallOutcome:
            ended.add_metric((outcome.value,), outcomes[outcome])
        yield ended
        yield _ttfw([turn.response_latency_s for record in records for turn in record.turns if turn.void is None])


def _ttfw(latencies: list[float | None]) -> HistogramMetricFamily:
    heard = [latency for latency in latencies if latency is not None]
    buckets = [(f"{bound:g}", sum(latency <= bound for latency in heard)) for bound in TTFW_BOUNDS_S]
    family = HistogramMetricFamily("voxproof_ttfw_seconds", "Time to first word as callers heard it.")
    family.add_metric((), [*buckets, ("+Inf", len(heard))], sum_value=sum(heard))
    return family


@contextlib.contextmanager
def exposed(records: Callable[[], tuple[CallRecord, ...]]) -> Iterator[str]:
    """Serves the metrics on a free loopback port until the block ends; yields their URL."""
    registry = CollectorRegistry()
    registry.register(Truth(records))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)
