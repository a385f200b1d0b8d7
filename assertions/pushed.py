"""TTFW that is pushed, not scraped: a bucket layout that tells nothing, a flush at the end of a session, batches that the server refused.

OpenTelemetry's default bounds are meant for milliseconds: of a histogram in seconds everything lies in the first bucket, 0 to 5 s. livekit-agents
records the turns of a session when it ends. What a server refuses is not sent again.
"""

from __future__ import annotations

from collections.abc import Iterator

from assertions.agent import figures
from assertions.facts import Facts
from assertions.words import plural, whole
from harness.measure import histogram
from harness.measure.series import Reader, Timeline
from harness.model import Light, Source, Status, UnixNs, Verdict

NAME = "voice_agent_ttfw_seconds"
REFUSALS = {
    "prometheus_http_requests_total": "OTLP or remote-write batches",
    "prometheus_tsdb_out_of_order_samples_total": "samples out of order",
    "prometheus_tsdb_too_old_samples_total": "samples that were too old",
    "prometheus_tsdb_out_of_bound_samples_total": "samples outside of the time that it takes",
}
"""What Prometheus says of itself when it takes no sample, and what that means."""
CLAIMS = ("ttfw/layout", "ttfw/flush", "ttfw/refused")


def verdicts(facts: Facts, reader: Reader) -> Iterator[Verdict]:
    """One for each of the three that is so; nothing on a stack of which none is."""
    yield from _layout(facts, reader)
    yield from _flush(facts, reader)
    yield from _refused(facts, reader)


def _layout(facts: Facts, reader: Reader) -> Iterator[Verdict]:
    """Blind: the bucket that holds what callers waited is wider than all that they waited."""
    heard_s = figures(facts).ttfw_p95_s
    counts: dict[float, float] = {}
    for timeline in reader.series(Source.PROMETHEUS, f"{NAME}_bucket"):
        bound = float(timeline.labels.get("le", "nan"))
        counts[bound] = counts.get(bound, 0.0) + reader.grown(timeline, Source.PROMETHEUS, facts.since)
    filled = [(low, high, count) for low, high, count in histogram.per_bucket(counts) if count > 0]
    if heard_s is None or len(filled) != 1:
        return
    low, high, count = filled[0]
    if high - low <= heard_s:
        return
    reading = f"{low + 0.95 * (high - low):.2f} s" if high != float("inf") else f"{low:g} s"
    yield _verdict(
        "ttfw/layout",
        "bucket layout",
        sentence=f"all {plural(count, 'turn')} lie in one bucket, {low:g} to {high:g} s: a p95 of it reads {reading} whatever callers hear (heard "
        f"{heard_s:.2f} s); give the histogram bounds in seconds (OpenTelemetry: a View with explicit bucket boundaries)",
        says=f"one bucket, {low:g} to {high:g} s",
        blind=f"all in one bucket, {low:g} to {high:g} s",
    )


def _flush(facts: Facts, reader: Reader) -> Iterator[Verdict]:
    """Blind: nothing was counted before a call was over, though turns had been answered long before."""
    first = _first_growth(facts, reader.series(Source.PROMETHEUS, f"{NAME}_count"))
    answered = [turn.first_word_at for record in facts.records for turn in record.turns if turn.first_word_at is not None]
    left = [record.left_at for record in facts.records if record.left_at is not None]
    if first is None or not answered or not left:
        return
    lag_s = (first - min(answered)) / 1e9
    if first < min(left) or lag_s < 2 * facts.setting("scrape_interval_s", 15.0) + 5.0:
        return
    yield _verdict(
        "ttfw/flush",
        "samples in time",
        sentence=f"no turn was in a sample before a call had ended: the first came {lag_s:.0f} s after the first reply; turns are recorded at the "
        "end of a session, so panels and alerts know nothing of calls in progress; count each turn when it is answered (telemetry/ does)",
        says=f"first after {lag_s:.0f} s",
        blind="recorded at the end of a session",
    )


def _first_growth(facts: Facts, timelines: tuple[Timeline, ...]) -> UnixNs | None:
    grown = []
    for timeline in timelines:
        before = timeline.at(facts.since) or 0.0
        grown += [at for at, number in timeline.samples if at > facts.since and number > before][:1]
    return min(grown, default=None)


def _refused(facts: Facts, reader: Reader) -> Iterator[Verdict]:
    """FAIL where nobody else sends: what was refused is lost."""
    found = [
        (what, sum(reader.grown(timeline, Source.PROMETHEUS, facts.since) for timeline in reader.series(Source.PROMETHEUS, name)))
        for name, what in REFUSALS.items()
    ]
    if not found[0][1]:
        return
    told = [f"{whole(count)} {what}" for what, count in found if count]
    whose = "" if facts.is_alone else "; others send to it, too: whose they were is not said"
    yield _verdict(
        "ttfw/refused",
        "batches taken",
        sentence=f"Prometheus refused {' and '.join(told)} during the run; what it refuses is not sent again, so its counters miss it{whose}",
        says=", ".join(told),
        status=Status.FAIL if facts.is_alone else Status.INCONCLUSIVE,
    )


def _verdict(claim: str, hop: str, *, sentence: str, says: str, blind: str | None = None, status: Status = Status.INCONCLUSIVE) -> Verdict:
    return Verdict(
        claim=claim,
        light=Light.MONITORING,
        status=status,
        hop=hop,
        sentence=sentence,
        says=says,
        may_say="-",
        would_catch="nothing" if blind else "1 batch",
        blind=blind,
    )
