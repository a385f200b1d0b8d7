"""STT, LLM, TTS: what the agent's ruler measured against its histograms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.check import check
from harness.model import Evidence, Gap, Observation, Sample, Source, Status, UnixNs, Verdict
from tests.fakes import stack

RULER = Source.AGENT_RULER


def verdict(evidence: Evidence, claim: str) -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def told(stage: str, suffix: str, lie: Callable[[float], float]) -> Evidence:
    """An honest run in which exporter and samples say one series of a stage otherwise."""
    name = f"voice_agent_{stage}_latency_seconds_{suffix}"

    def change(item: Observation) -> Observation:
        return replace(item, value=lie(item.value)) if isinstance(item, Sample) and item.name == name else item

    return stack.changed(stack.run(), change)


def without_ruler(*, is_blind: bool) -> Evidence:
    """A run of an agent that notes nothing of its stages."""
    run = stack.changed(stack.run(), lambda item: None if item.source is RULER else item)
    return replace(run, gaps=(Gap(source=RULER, at=UnixNs(1), reason="it has none", request="", is_blind=is_blind),))


@pytest.mark.parametrize(
    ("stage", "suffix", "lie", "sentence"),
    [
        ("llm", "count", lambda count: count * 0.75, "the agent's exporter says 9 model calls (count), may say 12: 3 model calls too few"),
        ("stt", "sum", lambda total: 0.0, "the agent's exporter says 0.000 s in all recognitions, which really took 1.305 to 1.445 s"),
        (
            "tts",
            "sum",
            lambda total: total * 1000,
            "the agent's exporter says 1469.400 s in all segments, which really took 1.380 to 1.566 s",
        ),
    ],
)
def test_a_stage_that_lies_is_told_in_a_sentence(stage: str, suffix: str, lie: Callable[[float], float], sentence: str) -> None:
    """A lost call of the model, zeros of a streaming recogniser, milliseconds."""
    found = verdict(told(stage, suffix, lie), f"{stage}/exporter")

    assert (found.status, found.sentence) == (Status.FAIL, sentence)
    assert verdict(told(stage, suffix, lie), f"{stage}/samples").is_faithful


def test_a_text_that_was_read_between_count_and_sum_is_honest() -> None:
    """The exporter's count is there already, its sum not yet: nothing is red, and a lost observation is told at its own hop only."""
    stem = "voice_agent_llm_latency_seconds"
    exported = [item for item in stack.run().observations if isinstance(item, Sample) and item.source is Source.AGENT_EXPORTER]
    counts, sums = ({item.at: item.value for item in exported if item.name == stem + suffix} for suffix in ("_count", "_sum"))
    torn_at = min(at for at, count in counts.items() if count == max(counts.values()))
    before = sums[max(at for at in sums if at < torn_at)]

    def tear(item: Observation) -> Observation:
        if isinstance(item, Sample) and item.source is Source.AGENT_EXPORTER and (item.name, item.at) == (f"{stem}_sum", torn_at):
            return replace(item, value=before)
        return item

    found = check(stack.changed(stack.run(), tear))

    assert [verdict.claim for verdict in found.verdicts if verdict.status is Status.FAIL] == []
    assert [lie for lie in found.planted if lie.claim.startswith("llm/") and not lie.is_localised] == []


def test_a_busy_loop_widens_the_set_by_what_was_measured() -> None:
    """Three turns of the loop each time: one before, two after."""
    found = verdict(stack.run(), "stt/exporter")

    assert found.would_catch == "1 recognition, 16 ms"
    assert any("a turn of the event loop later: 5 ms at most" in reason for reason in found.because)


def test_without_a_ruler_the_exporter_is_blind_and_samples_are_held_against_it() -> None:
    """An agent of somebody else's."""
    found = without_ruler(is_blind=True)

    assert verdict(found, "llm/exporter").blind == "it has none"
    assert verdict(found, "llm/samples").status is Status.PASS


def test_an_agent_without_stages_is_blind_throughout() -> None:
    """The responder: nothing was observed, and nothing should have been."""
    name = "voice_agent_llm_latency_seconds"

    def silent(item: Observation) -> Observation:
        return replace(item, value=0.0) if isinstance(item, Sample) and item.name.startswith(name) else item

    run = stack.changed(without_ruler(is_blind=True), silent)

    assert (verdict(run, "llm/exporter").blind, verdict(run, "llm/samples").blind) == ("it has none", "it has none")


def test_with_neither_ruler_nor_exporter_no_sample_is_accused() -> None:
    """An agent that only pushes: what it observed is not known, so nothing is missing."""
    found = stack.changed(without_ruler(is_blind=True), lambda item: None if item.source is Source.AGENT_EXPORTER else item)
    lost = Gap(source=Source.AGENT_EXPORTER, at=UnixNs(1), reason="it has none", request="", is_blind=True)

    assert verdict(replace(found, gaps=(*found.gaps, lost)), "llm/samples").blind == "it has none"


def test_a_ruler_that_could_not_be_read_is_undecided() -> None:
    """And no pass."""
    assert verdict(without_ruler(is_blind=False), "tts/exporter").status is Status.INCONCLUSIVE
