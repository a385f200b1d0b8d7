"""Round trips by the media server's histogram: shown, so that nobody takes them for proven on a fast network."""

from __future__ import annotations

from collections.abc import Iterator

from harness.measure.series import Reader
from harness.model import Light, Source, Status, Verdict

CLAIM = "rtt/exporter"
NAME = "livekit_rtt_ms"
FIRST_BUCKET_MS = 50
"""Smallest bound of the server's histogram: nothing below it can be told apart, and samples of zero are dropped."""


def verdicts(reader: Reader) -> Iterator[Verdict]:
    """Blind where every round trip lies below the first bucket. Nothing if the server said nothing of round trips."""
    sums, counts = (reader.series(Source.SFU_EXPORTER, NAME + suffix) for suffix in ("_sum", "_count"))
    count = sum(timeline.samples[-1][1] for timeline in counts)
    if not count:
        return
    mean_ms = sum(timeline.samples[-1][1] for timeline in sums) / count
    if mean_ms >= FIRST_BUCKET_MS:
        return
    reason = f"first bucket {FIRST_BUCKET_MS} ms"
    yield Verdict(
        claim=CLAIM,
        light=Light.MONITORING,
        status=Status.INCONCLUSIVE,
        hop="SFU histogram",
        sentence=f"a mean of {mean_ms:.0f} ms lies below the first bucket of {FIRST_BUCKET_MS} ms, and samples of zero are dropped",
        says=f"{mean_ms:.0f} ms",
        may_say="-",
        would_catch="nothing",
        blind=reason,
        evidence=(sums[0].request,) if sums else (),
    )
