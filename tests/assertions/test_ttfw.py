"""TTFW heard against the agent's histogram and Prometheus' samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assertions.distance import distances
from assertions.facts import Facts
from assertions.ledger import Key, Range, Reading, Thing, differs, exactly
from assertions.ttfw import heard, histograms
from harness.check import check
from harness.measure.series import Reader
from harness.model import CallOutcome, Evidence, Status, UnixNs, Verdict
from tests.fakes import stack
from tests.fakes.evidence import BOUNDS, LATENCIES_S, calibration, health, plan, record

ALL = [latency for call in LATENCIES_S for latency in call]


def verdict(evidence: Evidence, claim: str = "ttfw/exporter") -> Verdict:
    """What became of one claim."""
    return next(verdict for verdict in check(evidence, control=False).verdicts if verdict.claim == claim)


def admitted(evidence: Evidence) -> Reading:
    """The histograms that an honest agent may export."""
    facts = Facts.of(evidence)
    return histograms(heard(facts), Reader.of(evidence), distances(heard(facts), facts))


def exported(reported_s: list[float]) -> Reading:
    """The histogram of an agent that observed these numbers."""
    parts: dict[Key, Thing] = {("le", f"{bound:g}"): exactly(sum(one <= bound for one in reported_s)) for bound in (*BOUNDS, math.inf)}
    parts["count",] = exactly(len(reported_s))
    parts["sum",] = exactly(sum(reported_s))
    return Reading(parts=parts)


EVIDENCE = stack.run()


@given(st.lists(st.floats(0.06, 0.26), min_size=9, max_size=9))
def test_every_honest_histogram_is_admitted(distances_s: list[float]) -> None:
    """Whatever each turn's distance inside the calibrated bounds."""
    reported = [latency - distance for latency, distance in zip(ALL, distances_s, strict=True)]

    assert differs(admitted(EVIDENCE), exported(reported)) is None


@given(st.floats(0.06, 0.26), st.floats(0.201, 1.0), st.sampled_from([-1, 1]))
def test_a_shift_of_more_than_the_band_is_never_admitted(distance_s: float, shift_s: float, sign: int) -> None:
    """Wherever in the band the truth lies: the width is what the claim promises to catch (and our onset's 10 ms)."""
    reported = [max(latency - distance_s + sign * (shift_s + 0.01), 0.0) for latency in ALL]

    assert differs(admitted(EVIDENCE), exported(reported)) is not None


def test_the_promise_is_printed() -> None:
    """One turn, or the width of the band."""
    assert verdict(EVIDENCE).would_catch == "1 turn, 210 ms"


@pytest.mark.parametrize(
    "wrong", [exported([latency - 0.16 for latency in ALL][:8]), exported([*(latency - 0.16 for latency in ALL), 1.0])]
)
def test_each_turn_is_observed_once(wrong: Reading) -> None:
    """Not eight times, not ten."""
    found = differs(admitted(EVIDENCE), wrong)

    assert found is not None
    assert found.key == ("count",)


def test_a_mean_is_bounded_by_how_runs_scatter() -> None:
    """Turns do not all lie at one end of their bounds: the sum is known better than its parts."""
    by_turn = calibration()
    by_run = replace(by_turn, mean_s=0.16, turn_sd_s=0.03, run_sd_s=0.005, runs=20)
    wide, narrow = (admitted(replace(EVIDENCE, calibration=each)).number("sum") for each in (by_turn, by_run))

    assert wide is not None
    assert narrow is not None
    assert wide.lo < narrow.lo < narrow.hi < wide.hi
    assert admitted(replace(EVIDENCE, calibration=by_run)).alpha == 1e-3


def test_a_turn_without_a_reply_may_be_observed_or_not() -> None:
    """The agent may have spoken where nobody heard it."""
    silent = record(plan(), (1.2, 1.1, None), outcome=CallOutcome.SILENT)

    assert admitted(stack.of([silent])).number("count") == Range(lo=2, hi=3)


def test_a_void_turn_without_measured_lateness_is_not_known_at_all() -> None:
    """Its doubt has no size."""
    call = record()
    void = replace(call, turns=(replace(call.turns[0], void="42 datagrams were dropped"), *call.turns[1:]))
    total = admitted(stack.of([void])).number("sum")

    assert total is not None
    assert math.isinf(total.hi)


def test_a_void_turn_is_as_uncertain_as_we_were_late() -> None:
    """Both ways."""
    call = record()
    turn = call.turns[0]
    late = (turn.user_speech_started_at, UnixNs(turn.user_speech_started_at + 30_000_000))
    void = replace(call, turns=(replace(turn, void="late"), *call.turns[1:]))
    plain, wide = (admitted(stack.of([each], health=(health(late=(late,)),))).number("sum") for each in (call, void))

    assert plain is not None
    assert wide is not None
    assert [plain.lo - wide.lo, wide.hi - plain.hi] == pytest.approx([0.03, 0.03])


def test_a_turn_is_as_uncertain_as_the_way_stood_still() -> None:
    """0.1 s of stall by the callers' round trips: wider by that, both ways; without a stall as before."""
    honest = stack.run([(1.0, 1.0, 1.0)])
    turn = honest.records[0].turns[0]
    key = ("turn", honest.records[0].plan.call_id, "1")
    stall = (UnixNs(turn.user_speech_ended_at - 50_000_000), UnixNs(turn.user_speech_ended_at + 50_000_000))
    plain, wide = heard(Facts.of(honest)).parts[key], heard(replace(Facts.of(honest), stalls=(stall,))).parts[key]

    assert isinstance(plain, Range)
    assert isinstance(wide, Range)
    assert (plain.lo - wide.lo, wide.hi - plain.hi) == pytest.approx((0.1, 0.1))


def test_bounds_are_compared_as_numbers() -> None:
    """Prometheus 3 stores le="1" as le="1.0"."""
    assert verdict(EVIDENCE, "ttfw/samples").status is Status.PASS


def test_milliseconds_are_not_admitted() -> None:
    """A name that says seconds, a thousand times too long."""
    assert differs(admitted(EVIDENCE), exported([1000 * (latency - 0.16) for latency in ALL])) is not None


def test_turns_that_are_missing_by_kind_are_named() -> None:
    """Three turns called a tool, three are missing: look there first."""
    tool_turns = {latency for call in LATENCIES_S for latency in call[:1]}
    evidence = stack.run()
    without = stack.run([[latency for latency in call if latency not in tool_turns] + [None] for call in LATENCIES_S])
    lying = replace(
        evidence,
        observations=tuple(item for item in without.observations if "voice_agent" in str(getattr(item, "name", "")))
        + tuple(item for item in evidence.observations if "voice_agent" not in str(getattr(item, "name", ""))),
    )

    assert verdict(lying).sentence == "the agent's exporter has TTFW of 6 turns, callers heard 9; as many as call a tool are missing"
