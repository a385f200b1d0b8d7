"""What is pushed instead of scraped: each of its three weaknesses is named where it is so, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from assertions import pushed
from assertions.facts import Facts
from harness.measure.series import Reader
from harness.model import Evidence, Observation, Sample, Source, Status, Verdict
from tests.fakes import stack
from tests.fakes.evidence import PROMETHEUS, after, info

NAME = pushed.NAME


def verdicts(evidence: Evidence) -> dict[str, Verdict]:
    return {each.claim: each for each in pushed.verdicts(Facts.of(evidence), Reader.of(evidence))}


def with_samples(change: Callable[[Sample], Sample | None], *more: Observation) -> Evidence:
    """An honest run in which Prometheus' samples are otherwise."""
    evidence = stack.changed(
        stack.run(), lambda item: change(item) if isinstance(item, Sample) and item.source is Source.PROMETHEUS else item
    )
    return replace(evidence, observations=(*evidence.observations, *more))


def refusals(count: float) -> tuple[Sample, ...]:
    """What Prometheus said of refused batches before and after the load."""
    labels = {"code": "400", "handler": "/api/v1/otlp/v1/metrics"}
    return tuple(
        Sample(
            source=Source.PROMETHEUS,
            name="prometheus_http_requests_total",
            labels=labels,
            value=value,
            at=after(second),
            request=PROMETHEUS,
        )
        for second, value in ((0, 2.0), (70.6, 2.0 + count))
    )


def test_a_scraped_stack_is_silent() -> None:
    """Bounds in steps of 1.25x, counted when answered, nothing refused."""
    assert verdicts(stack.run()) == {}


def test_one_wide_bucket_tells_nothing() -> None:
    """The default bounds of OpenTelemetry, of a histogram in seconds."""

    def change(sample: Sample) -> Sample | None:
        if sample.name != f"{NAME}_bucket":
            return sample
        return None if sample.labels["le"] != "+Inf" else sample

    evidence = with_samples(change)
    wide = tuple(
        replace(item, labels={**item.labels, "le": le}, value=0.0 if le == "0" else item.value)
        for item in evidence.observations
        if isinstance(item, Sample) and item.source is Source.PROMETHEUS and item.name == f"{NAME}_bucket"
        for le in ("0", "5", "10")
    )
    found = verdicts(replace(evidence, observations=(*evidence.observations, *wide)))

    assert set(found) == {"ttfw/layout"}
    assert (found["ttfw/layout"].status, found["ttfw/layout"].blind) == (Status.INCONCLUSIVE, "all in one bucket, 0 to 5 s")
    assert "a p95 of it reads 4.75 s whatever callers hear" in found["ttfw/layout"].sentence


def test_a_flush_at_the_end_is_told() -> None:
    """Nothing in any sample until the calls are over."""
    late = with_samples(lambda sample: replace(sample, value=0.0) if sample.name.startswith(NAME) and sample.at < after(64) else sample)
    found = verdicts(late)

    assert set(found) == {"ttfw/flush"}
    assert found["ttfw/flush"].blind == "recorded at the end of a session"


def test_refused_batches_fail_where_nobody_else_sends() -> None:
    """They are lost."""
    found = verdicts(with_samples(lambda sample: sample, *refusals(3)))

    assert found["ttfw/refused"].status is Status.FAIL
    assert found["ttfw/refused"].sentence.startswith("Prometheus refused 3 OTLP or remote-write batches during the run")


def test_refused_batches_of_anyone_are_undecided() -> None:
    """A server that others send to does not say whose they were."""
    evidence = with_samples(lambda sample: sample, *refusals(3))
    found = verdicts(replace(evidence, info=replace(info(), target="theirs")))

    assert found["ttfw/refused"].status is Status.INCONCLUSIVE


def test_old_refusals_are_no_news() -> None:
    """What was refused before the load is another run's."""
    assert verdicts(with_samples(lambda sample: sample, *refusals(0))) == {}
