"""Loss, jitter and round trips: what each hop may say of a wire that is known, and how little of one that is not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from assertions.facts import Facts
from assertions.network import OUTGOING, Wire
from harness import rundir
from harness.check import check
from harness.model import Evidence, Findings, Observation, Sample, Source, Status, UnixNs, Verdict
from tests.fakes import stack
from tests.fakes.evidence import health, info

RUNS = Path(__file__).parents[2] / "fixtures/runs"
CLAIMS = (
    *("loss/server-reports", "loss/exporter", "loss/samples"),
    *("jitter/server-reports", "jitter/exporter", "jitter/samples"),
    *("rtt/exporter", "rtt/samples"),
)


@functools.cache
def impaired() -> Findings:
    """Three calls through 2 % loss and 30 ms of jitter, recorded."""
    return check(rundir.read_evidence(RUNS / "impaired"))


def verdict(findings: Findings, claim: str) -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in findings.verdicts if verdict.claim == claim)


def agents_are_microphones() -> Evidence:
    """An honest run with an agent whose track the server's metrics cannot tell from a caller's."""
    evidence = stack.run()
    return replace(evidence, records=tuple(replace(record, agent_source="MICROPHONE") for record in evidence.records))


def saying(name: str, change: Callable[[float], float], *, direction: str, evidence: Evidence | None = None) -> Evidence:
    """A run in which exporter and Prometheus say one series of one direction otherwise."""

    def told(item: Observation) -> Observation:
        is_it = isinstance(item, Sample) and item.name == name and item.labels.get("direction") == direction
        return replace(item, value=change(item.value)) if is_it and isinstance(item, Sample) else item

    return stack.changed(evidence or stack.run(), told)


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_real_run_through_a_bad_network_is_decided(claim: str) -> None:
    """The media server's own numbers lie in the sets that its arithmetic and the wire allow."""
    assert verdict(impaired(), claim).status is Status.PASS, verdict(impaired(), claim).sentence


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_lie_about_a_real_run_is_caught_where_it_is_told(claim: str) -> None:
    """Each defect that the hop promises, and no other hop is blamed."""
    told = [lie for lie in impaired().planted if lie.claim == claim]

    assert told
    assert [lie.defect for lie in told if not lie.is_localised] == []


def test_losses_are_exact_in_packets() -> None:
    """What the exporter says is what was lost on purpose, but for what left within a round trip of the end."""
    evidence = rundir.read_evidence(RUNS / "impaired")
    made = {
        way: sum(window.lost for call in evidence.records for window in call.impaired if window.direction == way) for way in ("up", "down")
    }
    says = verdict(impaired(), "loss/exporter").says

    up, down = (int(word[1:]) for word in says.split())
    assert 0 <= made["up"] - up <= 3
    assert 0 <= made["down"] - down <= 6


@pytest.mark.parametrize(
    ("evidence", "claim", "sentence"),
    [
        (
            saying("livekit_jitter_us_sum", lambda total: total * 1000, direction="incoming"),
            "jitter/exporter",
            "livekit_jitter_us_sum (incoming), may say",
        ),
        (
            saying("livekit_rtt_ms_sum", lambda total: total * 50, direction="outgoing"),
            "rtt/exporter",
            "livekit_rtt_ms_sum (outgoing), may say",
        ),
        (
            saying("livekit_packet_loss_percent_sum", lambda _: 9.0, direction="incoming"),
            "loss/exporter",
            "the media server's exporter says 9.0 % livekit_packet_loss_percent_sum (per cent lost, by window, caller to server), may say 2.4 %",
        ),
        (
            saying("livekit_packet_loss_percent_count", lambda count: 3 * count, direction="outgoing"),
            "loss/exporter",
            "livekit_packet_loss_percent_count (windows, server to caller), may say",
        ),
    ],
)
def test_a_lie_is_told_with_both_numbers(evidence: Evidence, claim: str, sentence: str) -> None:
    """What it says, of which series, which way, and what it may say."""
    findings = check(evidence, control=False)

    assert verdict(findings, claim).status is Status.FAIL
    assert sentence in verdict(findings, claim).sentence


def test_a_server_that_was_slow_to_let_a_caller_in_may_be_as_slow_to_see_it_leave() -> None:
    """Its last window may begin after we have left: in a run of a hundred calls one more than fitted was counted."""
    evidence = stack.run()
    slow = replace(
        evidence, records=tuple(replace(call, placed_at=UnixNs(call.placed_at - 2 * 10**9)) for call in evidence.records if call.placed_at)
    )
    ends = [[stream.life.ended[1] for stream in Wire.of(Facts.of(each)).streams[OUTGOING]] for each in (evidence, slow)]

    assert [late - soon for soon, late in zip(*ends, strict=True)] == [2 * 10**9] * len(evidence.records)


def test_round_trips_that_others_share_are_undecided() -> None:
    """An agent's microphone is in the same series: only the least is known, and what would decide it is said."""
    found = verdict(check(agents_are_microphones(), control=False), "rtt/exporter")

    assert found.status is Status.INCONCLUSIVE
    assert found.sentence == (
        "this run would not have shown: 50 ms too long; to decide it: an agent whose track has another source than a microphone"
        " (the responder), on a stack that nobody else uses"
    )


def test_losses_on_loopback_are_known_even_then() -> None:
    """What agents send only the kernel can lose on this machine, and it says that it did not."""
    assert verdict(check(agents_are_microphones(), control=False), "loss/exporter").status is Status.PASS


def test_what_the_kernel_dropped_may_have_been_counted() -> None:
    """Three datagrams that the server never read are three losses it may tell, and no lie."""
    evidence = saying("livekit_packet_loss_percent_sum", lambda _: 9.0, direction="incoming")

    assert verdict(check(replace(evidence, health=(health(peer_drops=3),)), control=False), "loss/exporter").status is not Status.FAIL


def test_on_a_foreign_stack_only_the_least_is_known() -> None:
    """Others lose packets there, too."""
    evidence = saying("livekit_packet_loss_percent_sum", lambda _: 9.0, direction="incoming")

    assert verdict(check(replace(evidence, info=info(target="staging")), control=False), "loss/exporter").status is not Status.FAIL


def test_a_run_without_reports_is_undecided() -> None:
    """As older harnesses recorded them."""
    evidence = stack.run()
    found = check(replace(evidence, records=tuple(replace(record, reports=()) for record in evidence.records)), control=False)

    assert {verdict(found, claim).status for claim in CLAIMS} == {Status.INCONCLUSIVE}


def test_samples_without_their_exporter_are_held_against_the_wire() -> None:
    """The set is carried across the hole, and a lie behind it is blamed on the span."""
    evidence = saying("livekit_rtt_ms_sum", lambda total: total * 50, direction="outgoing")
    evidence = stack.changed(evidence, lambda item: None if item.source is Source.SFU_EXPORTER else item)
    found = verdict(check(evidence, control=False), "rtt/samples")

    assert found.status is Status.FAIL
    assert "somewhere between wire and here" in found.sentence
