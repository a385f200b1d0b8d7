"""The ledger as reports lay it out."""

from __future__ import annotations

from dataclasses import replace

from harness.model import Gap, Light, Source, Status
from reports import ledger
from reports.ledger import Moment, Run
from tests.fakes.evidence import EXPORTER, after, evidence, findings, info, lying, scenario, verdict


def test_the_path_of_a_number_names_the_hop_that_lied() -> None:
    """From the callers to the rule, with the judged hop marked."""
    _, found = lying()
    steps = ledger.path_of(found, ledger.failed(found)[0])

    assert [(step.word, step.is_judged_here) for step in steps] == [
        ("truth", False),
        ("FAIL", True),
        ("faithful", False),
        ("faithful", False),
    ]


def test_an_entry_that_points_into_a_recording_is_a_moment() -> None:
    """A media fragment becomes a place to hear; everything else stays a request."""
    judged = verdict("ttfw/exporter", evidence=("audio/call-2.wav#t=7.31", "http://127.0.0.1:9102/metrics"))

    assert ledger.moments(judged) == (Moment(path="audio/call-2.wav", at_s=7.31),)
    assert ledger.requests(judged) == ("http://127.0.0.1:9102/metrics",)


def test_a_run_given_as_a_path_is_repeated_as_a_path() -> None:
    """The commands in a report work for whoever typed the one before."""
    named = Run.of(evidence(), "fixtures/runs/lying-agent/")

    assert named.explain("ttfw/rule") == "voxproof explain fixtures/runs/lying-agent ttfw/rule"
    assert named.folder == "fixtures/runs/lying-agent"


def test_a_run_without_a_name_is_found_by_its_id() -> None:
    """Fresh runs are below reports/runs."""
    assert Run.of(evidence(), None) == Run(name="k3f9", folder="reports/runs/k3f9")


def test_an_undecided_claim_that_nobody_requires_leaves_its_light_green() -> None:
    """As the exit code does."""
    judged = findings([verdict("calls/rows"), verdict("sfu/rooms", Status.INCONCLUSIVE)])

    assert ledger.light_status(evidence(), judged, Light.MONITORING) is Status.PASS


def test_a_light_under_which_nothing_was_judged_is_undecided() -> None:
    """Nothing shown is not green."""
    assert ledger.light_status(evidence(), findings(), Light.MONITORING) is Status.INCONCLUSIVE


def test_a_requirement_that_no_verdict_speaks_of_is_named() -> None:
    """Patterns count as spoken of when one claim matches."""
    ran = evidence(info=info(scenario=scenario(requires=("ttfw/*", "calls/rows"))))

    assert ledger.unjudged(ran, findings([verdict("ttfw/rule")])) == ("calls/rows",)


def test_nothing_planted_is_no_control() -> None:
    """An empty list of lies shows nothing."""
    assert ledger.control(()) == "NOT SHOWN"


def test_a_lie_blamed_on_two_hops_is_no_good_control() -> None:
    """Caught, and not localised."""
    lie = findings().planted[0]

    assert ledger.control((replace(lie, caught_at=(lie.claim, "ttfw/rule")),)) == "not localised"


def test_a_run_that_ended_early_is_never_green() -> None:
    """Exit code 3, although nothing failed."""
    assert ledger.exit_code(evidence(info=info(interrupted="Ctrl-C")), findings([verdict("calls/rows")])) == 3


def test_a_source_that_stays_away_is_one_loss() -> None:
    """Thirty refused polls are one line."""
    gaps = tuple(Gap(source=Source.AGENT_EXPORTER, at=after(10 + number), reason="refused", request=EXPORTER) for number in range(30))
    losses = ledger.losses(evidence(gaps=gaps))

    assert [(lost.source, lost.when) for lost in losses] == [(Source.AGENT_EXPORTER, "from 00:10.00 to 00:39.00, 30 times")]
