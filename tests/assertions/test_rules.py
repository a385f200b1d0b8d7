"""Raw samples against what the recording rules wrote."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assertions.facts import Facts
from assertions.recomputed import Engine
from assertions.rules import P95, shipped
from harness.check import check
from harness.measure.series import Reader
from harness.model import Evidence, Observation, Row, Sample, Source, Status, UnixNs, Verdict
from harness.rules.panelfile import ASKED
from tests.fakes import stack, wire
from tests.fakes.evidence import LATENCIES_S, after, info


def verdict(evidence: Evidence) -> Verdict:
    """What became of the rules."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == "ttfw/rule")


def with_rule(name: str = P95, *, since_s: float = 8.0, by: float = 1.0, labels: dict[str, str] | None = None) -> Evidence:
    """An honest run in which one rule says something else from some second on."""

    def change(item: Observation) -> Observation:
        if not isinstance(item, Sample) or item.name != name or item.at < after(since_s):
            return item
        return replace(item, value=item.value * by, labels=labels or item.labels)

    return stack.changed(stack.run(), change)


RULES = [f"voice_agent:ttfw_seconds:{what}" for what in ("p95", "p50", "mean")]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("by", [1000.0, 1.001])
def test_each_rule_is_recomputed_at_each_of_its_instants(name: str, by: float) -> None:
    """A thousandth is enough to be seen."""
    found = verdict(with_rule(name, by=by))

    assert found.status is Status.FAIL
    assert f"the rule {name} says" in found.sentence


RECORDS = {
    "voice_agent:stt_latency_seconds:mean": "stt",
    "voice_agent:turns:per_minute": "turns",
    "voice_agent:tool_calls:per_minute": "tools",
    "voice_agent:active_calls:sum": "active",
    "livekit_packet_loss_ratio": "loss",
    "livekit_jitter_ms": "jitter",
    "livekit_rtt_mean_ms": "rtt",
}


@pytest.mark.parametrize("record", RECORDS)
def test_every_rule_is_held_against_its_own_samples(record: str) -> None:
    """One that is a thousandth off is red at its own claim, and nothing else is."""
    findings = check(with_rule(record, by=1.001), control=False)

    assert [verdict.claim for verdict in findings.verdicts if verdict.status is Status.FAIL] == [f"{RECORDS[record]}/rule"]


def test_a_rule_without_a_line_that_it_is_split_by_fails() -> None:
    """Its label is lost, and two tools become one."""
    found = check(with_rule("voice_agent:tool_calls:per_minute", labels={"success": "true"}), control=False).verdicts

    assert next(each for each in found if each.claim == "tools/rule").status is Status.FAIL


def test_a_run_that_kept_no_rules_is_held_against_those_of_ttfw() -> None:
    """As runs were judged before."""
    old = stack.changed(stack.run(), lambda item: None if isinstance(item, Row) and item.table == "rule file" else item)

    assert [each.claim for each in check(old, control=False).verdicts if each.claim.endswith("/rule")] == ["ttfw/rule"]


def test_a_function_that_is_not_recomputed_leaves_its_rule_open() -> None:
    """By its name."""

    def change(item: Observation) -> Observation:
        if not isinstance(item, Row) or item.table != "rule file":
            return item
        return replace(
            item,
            columns={
                **item.columns,
                "text": str(item.columns["text"]).replace("sum(rate(voice_agent_turns", "sum(mad_over_time(voice_agent_turns"),
            },
        )

    found = next(each for each in check(stack.changed(stack.run(), change), control=False).verdicts if each.claim == "turns/rule")

    assert found.status is Status.INCONCLUSIVE
    assert "uses the function mad_over_time" in " ".join(found.because)
    assert "to decide it: an expression without the function mad_over_time" in found.sentence


def test_rounding_is_no_lie() -> None:
    """The engine adds up in an order that it does not promise."""
    assert verdict(with_rule(by=1 + 1e-13)).status is Status.PASS


def test_a_rule_that_is_split_by_instance_is_told() -> None:
    """Its sum by (le) is missing."""
    assert verdict(with_rule(labels={"instance": "a"})).sentence.startswith(f"the rule {P95} has no value")


def test_a_rule_that_is_silent_where_its_window_holds_turns_fails() -> None:
    """One evaluation without a value."""

    def change(item: Observation) -> Observation | None:
        return None if isinstance(item, Sample) and item.name == P95 and after(30) < item.at < after(31) else item

    found = verdict(stack.changed(stack.run(), change))

    assert (found.status, "has no value" in found.sentence) == (Status.FAIL, True)


def test_rules_that_stop_being_evaluated_fail() -> None:
    """What the dashboard shows from then on is old."""

    def change(item: Observation) -> Observation | None:
        return None if isinstance(item, Sample) and item.source is Source.RULES and item.at > after(40) else item

    assert verdict(stack.changed(stack.run(), change)).sentence == "the rules were not evaluated to the end of the run"


def test_rules_that_were_never_evaluated_fail() -> None:
    """The file was not loaded."""

    def change(item: Observation) -> Observation | None:
        return None if isinstance(item, Sample) and item.source is Source.RULES else item

    assert verdict(stack.changed(stack.run(), change)).status is Status.FAIL


@pytest.mark.parametrize("missed", [1, 2])
def test_a_scrape_under_way_may_not_have_been_stored_yet(missed: int) -> None:
    """A rule may lack the newest sample, which bears the instant at which its scrape began; not the one before that."""
    honest = stack.run()
    reader, facts = Reader.of(honest), Facts.of(honest)
    (expression,) = (rule.expression for rule in shipped(reader, facts) if rule.record == P95)

    def late(at: UnixNs) -> float:
        # What the rules said of the window when its last scrapes were not there yet.
        fewer = {
            name: tuple(
                each.changed(lambda moment, number: number if moment < at - (missed - 1) * 1e9 - 5e8 else None)
                for each in reader.series(Source.PROMETHEUS, name)
            )
            for name in ("voice_agent_ttfw_seconds_bucket", "voice_agent_ttfw_seconds_count", "voice_agent_ttfw_seconds_sum")
        }
        early = replace(reader, timelines={**reader.timelines, Source.PROMETHEUS: {**reader.timelines[Source.PROMETHEUS], **fewer}})
        (number,) = Engine(facts).vector(expression, early, at).values()
        return number

    def change(item: Observation) -> Observation:
        is_it = isinstance(item, Sample) and item.name == P95 and after(9) < item.at < after(60)
        return replace(item, value=late(item.at)) if is_it and isinstance(item, Sample) else item

    assert verdict(stack.changed(honest, change)).status is (Status.PASS if missed == 1 else Status.FAIL)


@pytest.mark.parametrize(
    ("settings", "status"), [({"time_scale": 1.0}, Status.FAIL), ({"prometheus_flavour": "unknown"}, Status.INCONCLUSIVE)]
)
def test_the_window_and_the_arithmetic_are_those_of_this_stack(settings: dict[str, Any], status: Status) -> None:
    """Rules of 20 s are no rules of 5 minutes; and another server calculates rates in a way of its own."""
    run = info()
    changed = replace(run, settings={**run.settings, **settings})

    assert verdict(replace(stack.run(), info=changed)).status is status


def test_what_would_decide_a_rule_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network that lost nothing every rule says nothing but zeros; the run that loses packets is decided."""
    lossy = next(each for each in check(stack.run(), control=False).verdicts if each.claim == "loss/rule")
    monkeypatch.setattr(wire, "_losses", lambda *_: iter(()))
    lossless = next(each for each in check(stack.run(list(LATENCIES_S)), control=False).verdicts if each.claim == "loss/rule")

    assert (lossy.status, lossless.status) == (Status.PASS, Status.INCONCLUSIVE)
    assert lossless.sentence == (
        "this run would not have shown: in another unit, no rate: of all time; to decide it: a network that loses packets (impairment: "
        "lossy-2pct-jitter-30ms); calls over more than the 20 s of its window, so that it forgets some"
    )


def test_raw_samples_that_were_not_read_are_asked_for() -> None:
    """Nothing else would decide a rule."""
    unread = stack.changed(stack.run(), lambda item: None if item.source is Source.PROMETHEUS else item)

    assert verdict(unread).sentence.endswith("; to decide it: Prometheus' raw samples of the run")


def test_a_server_whose_arithmetic_was_never_measured_is_named() -> None:
    """With those that were."""
    run = info()
    mimir = replace(run, settings={**run.settings, "prometheus_flavour": "mimir", "prometheus_version": "2.15.0"})
    found = verdict(replace(stack.run(), info=mimir))

    assert found.status is Status.INCONCLUSIVE
    assert found.sentence.endswith(
        "to decide it: a server whose arithmetic was measured (Prometheus 2 or 3; VictoriaMetrics but for quantiles), not Mimir 2.15.0"
    )


LATE_S = 5.0


def looking_back(*, says_so: bool) -> Evidence:
    """An honest run whose rules look 5 s back: when it was read they had recorded nothing of its last 5 s, and panels were asked before that."""

    def change(item: Observation) -> Observation | None:
        if isinstance(item, Row) and item.table == "rule file" and says_so:
            text = str(item.columns["text"]).replace("    rules:\n", "    query_offset: 75s\n    rules:\n")
            return replace(item, columns={**item.columns, "text": text})
        if isinstance(item, Row) and item.table == ASKED:
            return item if item.columns["at"][0] < after(60) else None
        return (
            None if isinstance(item, Sample) and item.source in (Source.RULES, Source.PANELS) and item.at > after(70.5 - LATE_S) else item
        )

    return stack.changed(stack.run(), change)


def judged(evidence: Evidence) -> dict[str, Status]:
    """Of rules and panels."""
    return {each.claim: each.status for each in check(evidence, control=False).verdicts if each.claim.endswith(("/rule", "/panel"))}


def test_rules_that_look_back_record_the_instant_at_which_they_looked() -> None:
    """Their last value is as old, and so is what panels show of them; windows of production are divided by the time scale."""
    assert judged(looking_back(says_so=True)) == judged(stack.run())


def test_rules_that_look_back_without_being_told_to_have_stopped() -> None:
    """Five seconds at an evaluation a second."""
    assert judged(looking_back(says_so=False))["ttfw/rule"] is Status.FAIL


def test_a_server_may_tell_all_rules_to_look_back() -> None:
    """``rule_query_offset`` of its configuration, which is as it is there."""
    run = looking_back(says_so=False)
    told = replace(run, info=replace(run.info, settings={**run.info.settings, "rule_query_offset_s": LATE_S}))

    assert judged(told) == judged(stack.run())


@pytest.mark.parametrize(("older_s", "status"), [(LATE_S, Status.PASS), (2 * LATE_S, Status.FAIL)])
def test_a_panel_shows_what_rules_that_look_back_had_recorded_by_then(older_s: float, status: Status) -> None:
    """Asked for 50.9 s at 50.9 s it shows what they said of 45.7 s, and nothing older."""
    run = looking_back(says_so=True)
    values = {item.at: item.value for item in run.observations if isinstance(item, Sample) and item.name == "voice_agent:turns:per_minute"}

    def change(item: Observation) -> Observation:
        if isinstance(item, Row) and item.table == ASKED and item.columns["at"] == [after(50.9)]:
            return replace(item, at=after(50.9))
        if isinstance(item, Sample) and item.name == "agent-performance/turns-per-minute" and item.at == after(50.9):
            return replace(item, value=values[after(50.7 - older_s)])
        return item

    assert judged(stack.changed(run, change))["turns/panel"] is status
