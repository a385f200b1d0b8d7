"""Evidence in, findings out: an honest run is green, each lie is red at its hop, and what cannot be known is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from assertions import rules
from harness.check import CLAIMS, check, undecidable
from harness.model import CallOutcome, Evidence, Findings, Gap, Observation, Poll, Row, Sample, Slo, Source, Status, UnixNs
from harness.verbs.running import order
from tests.fakes import stack
from tests.fakes.evidence import LATENCIES_S, TURNS, after, health, info, plan, record, scenario

SCENARIOS = Path(__file__).parents[1] / "scenarios"
SHIPPED = tuple(claim for claim in CLAIMS if not claim.startswith(("slo/", "load/", "alerts/", "barge-ins/")))


def statuses(findings: Findings, *wanted: Status) -> set[str]:
    """Claims with one of these statuses, blind ones aside."""
    return {verdict.claim for verdict in findings.verdicts if verdict.status in wanted and verdict.blind is None}


def failed(evidence: Evidence) -> set[str]:
    """Claims that failed."""
    return statuses(check(evidence, control=False), Status.FAIL)


@cache
def honest() -> Findings:
    """Of an honest run that must decide everything that ships."""
    return check(stack.run(info=info(scenario=scenario(requires=SHIPPED))))


def test_an_honest_run_passes_every_claim() -> None:
    """Nothing failed, nothing is left open, and the run is green."""
    findings = honest()

    assert statuses(findings, Status.FAIL, Status.INCONCLUSIVE) == set()
    assert statuses(findings, Status.PASS) == set(SHIPPED)
    assert findings.status is Status.PASS


def test_every_planted_lie_turns_red_at_its_own_hop_only() -> None:
    """The negative control of every run."""
    planted = honest().planted

    assert len(planted) >= 35
    assert [lie for lie in planted if not lie.is_localised] == []


def test_every_step_has_a_planted_lie() -> None:
    """A step that no defect can fail is none."""
    lied = {lie.claim for lie in honest().planted}

    assert lied == {claim for claim in SHIPPED if claim != "calls/answered"}


def test_the_same_evidence_gives_the_same_findings() -> None:
    """verdicts.json is compared byte by byte."""
    assert check(stack.run(info=info(scenario=scenario(requires=SHIPPED)))) == honest()


@pytest.mark.parametrize("gap_s", [-0.14, 0.46])
def test_an_agent_that_is_300_ms_wrong_fails_at_the_exporter(gap_s: float) -> None:
    """Too long or too short, from the first day: the calibration knows the way between."""
    assert failed(stack.run(gap_s=gap_s)) == {"ttfw/exporter"}


@pytest.mark.parametrize("gap_s", [0.08, 0.16, 0.24])
def test_an_agent_inside_the_calibrated_bounds_is_honest(gap_s: float) -> None:
    """The way between may be shorter or longer."""
    assert failed(stack.run(gap_s=gap_s)) == set()


def test_hops_behind_a_lie_are_faithful() -> None:
    """They passed on what the exporter said; it is blamed once."""
    verdicts = {verdict.claim: verdict for verdict in check(stack.run(gap_s=-0.14), control=False).verdicts}

    assert verdicts["ttfw/samples"].is_faithful
    assert verdicts["ttfw/rule"].is_faithful
    assert verdicts["ttfw/rule"].status is Status.PASS


def test_a_failed_claim_says_what_to_hear_and_what_the_dashboard_shows() -> None:
    """An audio path below the run directory, and both numbers."""
    verdicts = {verdict.claim: verdict for verdict in check(stack.run(gap_s=-0.14), control=False).verdicts}

    assert verdicts["ttfw/exporter"].evidence[0] == "audio/call-1.wav#t=5.20"
    assert verdicts["ttfw/exporter"].effect == "rule p95 1.76 s, callers heard 1.46 s"


def lost(source: Source, since_s: float = 20.0) -> Callable[[Evidence], Evidence]:
    """A source that answers nothing any more."""

    def change(evidence: Evidence) -> Evidence:
        gap = Gap(source=source, at=after(since_s + 1), reason="answered 500", request="http://127.0.0.1/rest/v1/calls?voice_agent")
        kept = tuple(item for item in evidence.observations if item.source is not source or item.at < after(since_s))
        return replace(evidence, observations=kept, gaps=(gap,))

    return change


@pytest.mark.parametrize("source", [Source.AGENT_EXPORTER, Source.SFU_EXPORTER, Source.SFU_API, Source.RULES])
def test_a_lost_source_leaves_its_claims_open_and_fails_none(source: Source) -> None:
    """A Gap is no lie; others are judged on."""
    findings = check(lost(source)(stack.run(info=info(scenario=scenario(requires=SHIPPED)))), control=False)

    assert statuses(findings, Status.FAIL) == set()
    assert {claim for claim, sources in CLAIMS.items() if source in sources} <= statuses(findings, Status.INCONCLUSIVE)
    assert findings.status is Status.INCONCLUSIVE


def test_a_hop_behind_a_lost_one_is_held_against_the_truth() -> None:
    """The set is carried across the hole: an exporter that stopped is seen in the samples, and the span is named."""
    evidence = lost(Source.AGENT_EXPORTER, 14.0)(stack.run())
    evidence = stack.changed(
        evidence,
        lambda item: item if not isinstance(item, Sample) or not item.name.startswith("voice_agent_") or item.at < after(14) else None,
    )
    verdict = next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == "turns/samples")

    assert verdict.status is Status.FAIL
    assert "somewhere between spoken and here: turns/exporter could not be read" in verdict.sentence


def test_prometheus_lost_leaves_samples_and_rules_open() -> None:
    """Without samples no window can be recomputed."""
    evidence = lost(Source.RULES)(stack.run())
    evidence = replace(evidence, gaps=(*evidence.gaps, *lost(Source.PROMETHEUS)(evidence).gaps))
    evidence = stack.changed(evidence, lambda item: None if item.source is Source.PROMETHEUS else item)

    assert {"turns/samples", "tools/samples", "ttfw/samples", "ttfw/rule"} <= statuses(check(evidence, control=False), Status.INCONCLUSIVE)
    assert failed(evidence) == set()


def test_rules_without_raw_samples_are_open() -> None:
    """They were read, but nothing is known of their window."""
    evidence = stack.changed(stack.run(), lambda item: None if item.source is Source.PROMETHEUS else item)

    assert "ttfw/rule" in statuses(check(evidence, control=False), Status.INCONCLUSIVE)


def test_a_blind_source_is_listed_outside_the_status() -> None:
    """Declared by the target, with its reason. Samples that no exporter narrows are only as sure as the wire, and not required here."""
    required = tuple(claim for claim in SHIPPED if claim.partition("/")[0] not in ("loss", "jitter", "rtt"))
    evidence = stack.run(info=info(scenario=scenario(requires=required)))
    gaps = tuple(
        Gap(source=source, at=after(0), reason="hosted SFU", request="", is_blind=True) for source in (Source.SFU_EXPORTER, Source.SFU_API)
    )
    evidence = stack.changed(
        replace(evidence, gaps=gaps), lambda item: None if item.source in (Source.SFU_EXPORTER, Source.SFU_API) else item
    )
    findings = check(evidence)

    assert {verdict.claim: verdict.blind for verdict in findings.verdicts if verdict.blind} == {
        claim: "hosted SFU" for claim, sources in CLAIMS.items() if Source.SFU_EXPORTER in sources
    }
    assert findings.status is Status.PASS


def test_a_metric_that_the_target_has_not_is_blind() -> None:
    """Its hops are listed with the target's reason; everything else is judged."""
    evidence = stack.run(info=replace(info(), settings={**info().settings, "lacking": {"voice_agent_turns_total": "absent: no counter"}}))
    findings = check(evidence)

    assert {verdict.claim: verdict.blind for verdict in findings.verdicts if verdict.blind and verdict.claim.startswith("turns")} == {
        "turns/exporter": "absent: no counter",
        "turns/samples": "absent: no counter",
        "turns/rule": "absent: no counter",
        "turns/panel": "absent: no counter",
    }
    assert findings.status is Status.PASS


def test_round_trips_below_the_first_bucket_are_blind() -> None:
    """Shown, so that nobody takes a quantile of them for proven."""
    verdict = honest().verdicts[-1]

    assert (verdict.claim, verdict.says, verdict.blind) == ("rtt/quantile", "2 ms", "first bucket 50 ms")


def test_a_run_in_which_nothing_was_read_is_open() -> None:
    """Nothing checked is not green."""
    findings = check(replace(stack.run(), observations=()), control=False)

    assert findings.status is Status.INCONCLUSIVE
    assert statuses(findings, Status.FAIL) == set()


def test_a_green_and_empty_scrape_fails() -> None:
    """Absence from a source that answers is a lie."""

    def emptied(item: Observation) -> Observation | None:
        if isinstance(item, Poll) and item.source is Source.AGENT_EXPORTER:
            return replace(item, count=0)
        is_agents = isinstance(item, Sample) and item.name.startswith("voice_agent") and item.source is not Source.RULES
        return None if is_agents else item

    evidence = stack.changed(
        stack.changed(stack.run(), emptied),
        lambda item: None if isinstance(item, Sample) and item.name.startswith("voice_agent:") else item,
    )

    assert failed(evidence) == {"turns/exporter", "tools/exporter", "ttfw/exporter", "stt/exporter", "llm/exporter", "tts/exporter"}


def test_a_dead_media_server_fails_the_agent_and_leaves_the_rest_open() -> None:
    """Of calls that were cut nobody knows what the stack should say."""
    cut = tuple(
        record(plan(index), latencies, outcome=CallOutcome.DISCONNECTED, left_at=None)
        for index, latencies in enumerate(LATENCIES_S, start=1)
    )
    evidence = replace(stack.run(), records=cut, info=info(interrupted="the media server died while calls were in progress"))

    assert failed(evidence) == {"calls/answered"}
    assert statuses(check(evidence, control=False), Status.PASS) == set()


def test_a_silent_agent_fails_only_the_agent() -> None:
    """A turn without a reply may be known to the stack or not."""
    evidence = stack.of([record(plan(), (1.2, 1.1, None), outcome=CallOutcome.SILENT)])

    assert failed(evidence) == {"calls/answered"}


def test_a_bent_ruler_decides_nothing_that_rests_on_it() -> None:
    """What the generator cannot vouch for is never green, and never red."""
    evidence = stack.run(gap_s=-0.14, health=(health(pacing_p99_ms=41.0),))
    findings = check(evidence, control=False)

    assert findings.ruler.bent == "packets left 41.0 ms late at p99, limit 10 ms"
    assert {"turns/rows", "turns/exporter", "tools/endpoint", "ttfw/exporter"} <= statuses(findings, Status.INCONCLUSIVE)
    assert statuses(findings, Status.FAIL) == set()


def test_a_run_without_calibration_cannot_decide_ttfw() -> None:
    """How far heard and reported lie apart is not known."""
    verdict = next(verdict for verdict in check(stack.run(calibration=None), control=False).verdicts if verdict.claim == "ttfw/exporter")

    assert verdict.status is Status.INCONCLUSIVE
    assert any("voxproof calibrate" in reason for reason in verdict.because)


def test_a_void_turn_widens_by_our_lateness() -> None:
    """18 ms in which we were late move both ends of what is admitted by as much."""
    calls = [record(plan(index), latencies) for index, latencies in enumerate(LATENCIES_S, start=1)]
    turn = calls[0].turns[0]
    late = (turn.user_speech_ended_at, UnixNs(turn.user_speech_ended_at + 18_000_000))
    void = replace(calls[0], turns=(replace(turn, void="our media thread ran 18 ms late"), *calls[0].turns[1:]))
    findings = check(stack.of([void, *calls[1:]], health=(health(late=(late,)),)), control=False)

    assert statuses(findings, Status.FAIL, Status.INCONCLUSIVE) == set()
    assert (findings.ruler.void_turns, findings.ruler.is_straight) == (1, True)


def without_row(table: str) -> Callable[[Evidence], Evidence]:
    """The last row of a table is gone."""

    def change(evidence: Evidence) -> Evidence:
        last = [item for item in evidence.observations if isinstance(item, Row) and item.table == table][-1]
        return stack.changed(evidence, lambda item: None if item is last else item)

    return change


@pytest.mark.parametrize(("table", "claim"), [("calls", "calls/rows"), ("transcripts", "turns/rows"), ("tool_executions", "tools/rows")])
def test_a_lost_row_is_blamed_on_its_table(table: str, claim: str) -> None:
    """Other quantities know nothing of it."""
    assert failed(without_row(table)(stack.run())) == {claim}


def test_limits_are_judged_on_what_callers_heard() -> None:
    """The agent's light, apart from the monitoring's."""
    slo = Slo(ttfw_p50_s=1.0, ttfw_p95_s=2.0, missed_turns=0)
    found = {verdict.claim: verdict.status for verdict in check(stack.run(info=info(scenario=scenario(slo=slo))), control=False).verdicts}

    assert (found["slo/ttfw-p50"], found["slo/ttfw-p95"], found["slo/missed-turns"]) == (Status.FAIL, Status.PASS, Status.PASS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"turns": (), "requires": ("ttfw/rule",)}, "ttfw/rule: the scenario has no turns; give it one"),
        ({"turns": TURNS[1:], "requires": ("tools/rows",)}, "tools/rows: no turn of the scenario provokes a tool; give one a tool"),
        ({"requires": ("slo/ttfw-p95",)}, "slo/ttfw-p95: the scenario's slo sets no such limit"),
        ({"requires": ("turns/rows",)}, "turns/rows: the target declares rows blind: no key"),
    ],
)
def test_a_plan_that_cannot_decide_is_told_why(changes: dict[str, Any], reason: str) -> None:
    """Before the first call."""
    assert reason in undecidable(scenario(**changes), {"rows": "no key"})


def test_a_pattern_asks_for_what_the_target_can_show() -> None:
    """Smoke runs on a stack that shows less than ours; a claim by its name asks for itself."""
    assert undecidable(scenario(requires=("turns/rows",), asked=("turns/*",)), {"rows": "no key"}) == ()
    assert undecidable(scenario(requires=("turns/rows",), asked=("turns/rows",)), {"rows": "no key"}) != ()


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_plan_can_decide_what_it_requires(path: Path) -> None:
    """On a stack that shows everything: none is refused before its first call."""
    assert undecidable(order(str(path), target_path=None, argv=()).scenario, {}) == ()


def test_a_claim_of_real_faults_that_is_asked_for_by_name_needs_them() -> None:
    """A pattern does not ask for it."""
    asked = "alerts/real: only with --real-faults, which asks for it by itself"

    assert asked in undecidable(scenario(requires=("alerts/real",), asked=("alerts/real",)), {})
    assert asked not in undecidable(scenario(requires=("alerts/real",), asked=("alerts/*",)), {})


def test_evidence_that_we_cannot_judge_is_open_and_says_so() -> None:
    """A row without the columns it must have stops one tree, not the run."""

    def broken(item: Observation) -> Observation:
        return (
            replace(item, columns={**item.columns, "duration_seconds": "soon"}) if isinstance(item, Row) and item.table == "calls" else item
        )

    verdicts = {verdict.claim: verdict for verdict in check(stack.changed(stack.run(), broken), control=False).verdicts}

    assert verdicts["calls/duration"].status is Status.INCONCLUSIVE
    assert "please report it" in verdicts["calls/duration"].sentence
    assert verdicts["turns/rows"].status is Status.PASS


def test_a_server_that_rounds_what_it_stores_is_honest() -> None:
    """VictoriaMetrics keeps twelve digits; Prometheus keeps every bit, so there the same sum is another one."""

    def twelve_digits(item: Observation) -> Observation:
        is_sum = isinstance(item, Sample) and item.source is Source.PROMETHEUS and item.name == "voice_agent_ttfw_seconds_sum"
        return replace(item, value=float(f"{item.value + 1e-13:.12g}")) if is_sum and isinstance(item, Sample) else item

    def judged(product: str) -> Status:
        base = stack.run(info=replace(info(), settings={**info().settings, "prometheus_flavour": product}))
        return next(
            each.status for each in check(stack.changed(base, twelve_digits), control=False).verdicts if each.claim == "ttfw/samples"
        )

    assert judged("victoriametrics") is Status.PASS
    assert judged("prometheus") is Status.FAIL


def test_a_rule_that_a_target_has_not_is_blind_where_a_pattern_asks() -> None:
    """Its hop is listed; by its own name it stays open."""
    wanted = scenario(requires=("calls/rows", "jitter/rule"), asked=("calls/*", "jitter/*"))

    def verdict(asked: tuple[str, ...]) -> str | None:
        evidence = stack.run(info=replace(info(), target="theirs", scenario=replace(wanted, asked=asked)))
        # Of the shipped rules only those of TTFW are there.
        fewer = stack.changed(evidence, lambda item: None if isinstance(item, Row) and item.table == rules.TABLE else item)
        return next((each.blind for each in check(fewer, control=False).verdicts if each.claim == "jitter/rule"), None)

    assert verdict(("jitter/*",)) == "absent: the target has no recording rule of it"
    assert verdict(("jitter/rule",)) is None
