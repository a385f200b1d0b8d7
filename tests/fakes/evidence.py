"""Evidence and Findings made by hand: a smoke run of three calls, honest or with TTFW missing for turns that call a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.model import (
    AgentFigures,
    Calibration,
    CalibrationPart,
    CallOutcome,
    CallPlan,
    CallRecord,
    Evidence,
    Findings,
    Gap,
    GeneratorHealth,
    Light,
    Observation,
    Part,
    PlantedLie,
    Poll,
    Row,
    Ruler,
    RunInfo,
    Sample,
    Scenario,
    Slo,
    Source,
    Status,
    TurnPlan,
    TurnRecord,
    UnixNs,
    Verdict,
    WireStats,
)

START = UnixNs(1_795_464_000_000_000_000)
"""2026-11-23 20:00:00 UTC."""
LATENCIES_S = ((1.46, 1.08, 1.02), (1.41, 1.16, 1.05), (1.44, 1.12, 1.04))
"""Heard, by call and turn; the first turn of each call uses a tool."""
REPORTED_LESS_S = 0.16
"""What an honest agent reports less than callers hear: VAD hangover and the network."""
BOUNDS = (0.58, 0.73, 0.91, 1.14, 1.42, 1.78, 2.22)
EXPORTER = "http://127.0.0.1:9102/metrics"
PROMETHEUS = "http://127.0.0.1:9090/api/v1/query?query=voice_agent_ttfw_seconds_count%5B90s%5D&time=1795464071"
RULE = "http://127.0.0.1:9090/api/v1/query?query=voice_agent%3Attfw_seconds%3Ap95&time=1795464071"
TRANSCRIPTS = "http://127.0.0.1:54321/rest/v1/transcripts?call_id=in.(voxproof-k3f9-1,voxproof-k3f9-2,voxproof-k3f9-3)"
TURNS = (
    TurnPlan(
        prompt="weather",
        text="what is the weather in london today",
        reply="The weather is sunny in London. Can I help with more?",
        tool="lookup_weather",
        tool_arguments={"city": "London"},
    ),
    TurnPlan(
        prompt="book-table",
        text="i want to book a table for two people",
        reply="Sure. A table for two is booked. Anything else?",
    ),
    TurnPlan(prompt="opening-hours", text="what are your opening hours", reply="We are open from nine to five."),
)


def after(seconds: float) -> UnixNs:
    """The instant ``seconds`` after the run started."""
    return UnixNs(START + round(seconds * 1e9))


def scenario(**changes: Any) -> Scenario:
    """Smoke: three calls at once, three turns each."""
    base = Scenario(
        name="smoke",
        summary="three calls at once, three turns each, one with a tool call",
        path="scenarios/smoke.yaml",
        seed=7,
        calls=3,
        arrival={"model": "at-once"},
        agent_name="ref-agent",
        greeting="Hello, how can I help?",
        turns=TURNS,
        requires=("calls/answered", "calls/rows", "turns/rows", "ttfw/exporter", "ttfw/samples", "ttfw/rule"),
        slo=Slo(),
    )
    return replace(base, **changes)


def plan(index: int = 1, turns: tuple[TurnPlan, ...] = TURNS) -> CallPlan:
    """One planned call."""
    return CallPlan(
        call_id=f"voxproof-k3f9-{index}",
        index=index,
        room=f"voxproof-k3f9-{index}",
        identity=f"caller-{index}",
        phone_number=f"+1555010000{index}",
        agent_name="ref-agent",
        due_s=0.0,
        turns=turns,
        seed=70 + index,
        greeting="Hello, how can I help?",
    )


def turn(
    index: int, asked: TurnPlan, started_s: float, latency_s: float | None, *, spoke_s: float = 2.1, reply_s: float = 2.4
) -> TurnRecord:
    """One exchange that begins ``started_s`` after the run started."""
    ended_s = started_s + spoke_s
    heard = None if latency_s is None else after(ended_s + latency_s)
    return TurnRecord(
        index=index,
        prompt=asked.prompt,
        text=asked.text,
        tool=asked.tool,
        user_speech_started_at=after(started_s),
        user_speech_ended_at=after(ended_s),
        first_word_at=heard,
        agent_speech_ended_at=None if heard is None else UnixNs(heard + round(reply_s * 1e9)),
    )


def record(planned: CallPlan | None = None, latencies_s: Sequence[float | None] = LATENCIES_S[0], **changes: Any) -> CallRecord:
    """One call as it happened: placed 8 s into the run, a greeting, then its turns one after another."""
    planned = planned or plan()
    placed_s = 8.0 + 0.1 * planned.index
    begins_s = placed_s + 3.3
    turns = []
    for number, (asked, latency_s) in enumerate(zip(planned.turns, latencies_s, strict=True), start=1):
        turns.append(turn(number, asked, begins_s, latency_s))
        begins_s += 2.1 + (10.0 if latency_s is None else latency_s + 2.4) + 0.4
    base = CallRecord(
        plan=planned,
        outcome=CallOutcome.COMPLETED,
        placed_at=after(placed_s),
        joined_at=after(placed_s + 0.21),
        agent_joined_at=after(placed_s + 0.64),
        greeted_at=after(placed_s + 1.18),
        left_at=after(begins_s),
        turns=tuple(turns),
        wire=(
            WireStats(direction="up", packets=1004, expected=1004, lost=0, jitter_s=0.0004, jitter_max_s=0.0011, rtt_s=(0.0006, 0.0008)),
            WireStats(direction="down", packets=998, expected=998, lost=0, jitter_s=0.0006, jitter_max_s=0.0014),
        ),
        audio=f"audio/call-{planned.index}.wav",
        audio_started_at=after(placed_s + 0.2),
    )
    return replace(base, **changes)


def records() -> tuple[CallRecord, ...]:
    """Three calls that were all answered."""
    return tuple(record(plan(index), latencies) for index, latencies in enumerate(LATENCIES_S, start=1))


def ttfw_samples(source: Source, latencies_s: Sequence[float], at: UnixNs, request: str) -> tuple[Sample, ...]:
    """The TTFW histogram that has observed ``latencies_s``."""
    name = "voice_agent_ttfw_seconds"

    def one(suffix: str, number: float, **labels: str) -> Sample:
        return Sample(source=source, name=name + suffix, labels=labels, value=number, at=at, request=request)

    buckets = [one("_bucket", sum(1 for one in latencies_s if one <= bound), le=str(bound)) for bound in BOUNDS]
    return (
        *buckets,
        one("_bucket", len(latencies_s), le="+Inf"),
        one("_sum", sum(latencies_s)),
        one("_count", len(latencies_s)),
    )


def _seen(call_records: Sequence[CallRecord], *, has_tool_ttfw: bool) -> tuple[Observation, ...]:
    told = sorted(
        ((heard.first_word_at, (heard.response_latency_s or 0.0) - REPORTED_LESS_S))
        for call in call_records
        for heard in call.turns
        if heard.first_word_at is not None and (has_tool_ttfw or heard.tool is None)
    )
    seen: list[Observation] = []
    for second in range(72):
        at = after(second)
        so_far = [latency for spoke_at, latency in told if spoke_at < at]
        if second % 2 == 0:
            polled = ttfw_samples(Source.AGENT_EXPORTER, so_far, at, EXPORTER)
            seen += [*polled, Poll(source=Source.AGENT_EXPORTER, at=at, took_s=0.004, count=len(polled), request=EXPORTER)]
        seen += ttfw_samples(Source.PROMETHEUS, so_far, UnixNs(at + 400_000_000), PROMETHEUS)
        if so_far:
            quantile = sorted(so_far)[int(0.95 * (len(so_far) - 1))]
            seen.append(
                Sample(
                    source=Source.RULES,
                    name="voice_agent:ttfw_seconds:p95",
                    labels={},
                    value=round(quantile, 2),
                    at=UnixNs(at + 700_000_000),
                    request=RULE,
                )
            )
    for call in call_records:
        for heard in call.turns:
            lines = ((heard.user_speech_ended_at, "user", heard.text), (heard.first_word_at, "assistant", "..."))
            seen += [_transcript(call.plan.call_id, role, words, at) for at, role, words in lines if at is not None]
    return tuple(seen)


def _transcript(call_id: str, role: str, words: str, at: UnixNs) -> Row:
    stamp = f"2026-11-23T20:00:{(at - START) / 1e9:09.6f}+00:00"
    return Row(
        source=Source.ROWS,
        table="transcripts",
        columns={"call_id": call_id, "role": role, "content": words, "timestamp": stamp},
        at=after(70.5),
        request=TRANSCRIPTS,
    )


def info(**changes: Any) -> RunInfo:
    """``run.json`` of a smoke run on the embedded stack."""
    base = RunInfo(
        run_id="k3f9",
        scenario=scenario(),
        target="embedded",
        argv=("voxproof", "run", "scenarios/smoke.yaml"),
        harness_version="0.1.0",
        started_at=START,
        load_started_at=after(8.0),
        load_ended_at=after(28.0),
        read_at=after(71.0),
        parts=(
            Part(
                name="livekit-server", version="1.13.5", origin="cache", location="livekit-server", started_s=0.9, rss_mib=71.2, cpu_s=3.1
            ),
            Part(name="prometheus", version="3.13.5", origin="cache", location="prometheus", started_s=1.4, rss_mib=96.4, cpu_s=2.2),
            Part(name="postgres", version="18.4", origin="package", location="postgres", started_s=1.1, rss_mib=58.0, cpu_s=0.8),
            Part(name="postgrest", version="12.0.2", origin="package", location="postgrest", started_s=1.9, rss_mib=41.0, cpu_s=0.4),
            Part(name="agents", version="1.8.9", origin="package", location="agent.py", started_s=5.8, rss_mib=412.0, cpu_s=14.6),
        ),
        digests={"deploy/monitoring/rules/recording.yml": "9f2c" * 16, "scenarios/smoke.yaml": "41d8" * 16},
        settings={
            "scrape_interval_s": 1.0,
            "evaluation_interval_s": 1.0,
            "lookback_s": 20.0,
            "time_scale": 15.0,
            "changes": ["global.scrape_interval: 15s -> 1s", "every duration in rules/: as written -> divided by 15"],
            "postgres": "throw-away data: fsync off",
        },
    )
    return replace(base, **changes)


def calibration() -> Calibration:
    """Heard less reported, bounded by parts."""
    return Calibration(
        made_at="2026-11-20",
        digest="c0ffee" * 10 + "c0ff",
        method="reference agent with programmed delays of 0 to 3 s, 120 turns",
        turns=120,
        parts=(
            CalibrationPart(name="VAD hangover", lo_s=0.02, hi_s=0.11, because="prompt end is known to the sample"),
            CalibrationPart(name="uplink", lo_s=0.02, hi_s=0.06, because="one frame of 20 ms and the SFU's forwarding"),
            CalibrationPart(name="downlink", lo_s=0.02, hi_s=0.05, because="the agent's output queue and one frame"),
            CalibrationPart(name="lead silence", lo_s=0.0, hi_s=0.04, because="silence before the first voiced sample of the voice"),
        ),
    )


def health(**changes: Any) -> GeneratorHealth:
    """A punctual caller process."""
    base = GeneratorHealth(
        process="caller-1",
        callers=3,
        ticks=1020,
        pacing_p50_ms=0.2,
        pacing_p99_ms=0.7,
        pacing_max_ms=2.4,
        late=(),
        priority="SCHED_RR 1",
        engine="python",
        cpu_s=1.9,
        receive_drops=0,
        peer_drops=0,
        clock_steps=0,
    )
    return replace(base, **changes)


def evidence(*, has_tool_ttfw: bool = True, **changes: Any) -> Evidence:
    """What a smoke run recorded. ``has_tool_ttfw``: the agent reports TTFW for turns that call a tool."""
    calls = records()
    base = Evidence(
        info=info(),
        plans=tuple(call.plan for call in calls),
        records=calls,
        health=(health(),),
        observations=_seen(calls, has_tool_ttfw=has_tool_ttfw),
        gaps=(),
        calibration=calibration(),
    )
    return replace(base, **changes)


def verdict(claim: str, status: Status = Status.PASS, **changes: Any) -> Verdict:
    """One judged claim that shows only what matters to a test."""
    light = Light.AGENT if claim.startswith(("calls/answered", "slo/")) else Light.MONITORING
    base = Verdict(
        claim=claim,
        light=light,
        status=status,
        hop=claim.split("/")[1],
        sentence=f"{claim} is as it should be",
        says="3",
        may_say="{3}",
        would_catch="1",
    )
    return replace(base, **changes)


def findings(verdicts: Sequence[Verdict] = (), **changes: Any) -> Findings:
    """Conclusions around ``verdicts``: a straight ruler, every planted lie caught."""
    base = Findings(
        verdicts=tuple(verdicts),
        planted=tuple(
            PlantedLie(claim=claim, defect=defect, caught_at=(claim,))
            for claim, defect in (
                ("calls/rows", "row lost"),
                ("turns/rows", "row lost"),
                ("ttfw/exporter", "in ms"),
                ("ttfw/exporter", "+300 ms"),
                ("ttfw/samples", "sample lost"),
                ("ttfw/rule", "rule without rate"),
            )
        ),
        ruler=Ruler(is_straight=True, bent=None, pacing_p99_ms=0.7, void_turns=0, turns=9),
        agent=AgentFigures(calls=3, answered=3, turns=9, missed=0, ttfw_p50_s=1.12, ttfw_p95_s=1.46),
        status=Status.worst(one.status for one in verdicts if one.blind is None),
    )
    return replace(base, **changes)


def _told(told: Mapping[str, Verdict]) -> Findings:
    honest = (
        verdict("calls/answered", says="3", may_say="{3}", would_catch="1 call", hop="answered", sentence="3 of 3 calls were answered"),
        verdict("calls/rows", would_catch="1 call", sentence="3 calls placed, 3 rows"),
        verdict("calls/status", hop="rows, status", says="completed", may_say="{completed}", would_catch="1 call"),
        verdict("turns/rows", hop="transcripts rows", says="21", may_say="{21}", would_catch="1 row"),
        verdict("turns/exporter", hop="agent /metrics", says="21", may_say="{21}", would_catch="1 turn"),
        verdict("tools/rows", hop="tool_executions rows", says="3", may_say="{3}", would_catch="1 row"),
        verdict("ttfw/exporter", hop="agent /metrics, count", says="9", may_say="{9}", would_catch="1 turn"),
        verdict("ttfw/samples", hop="prometheus samples", says="9", may_say="{9}", would_catch="1 sample"),
        verdict("ttfw/rule", hop="rule ttfw:p95", says="1.31 s", may_say="(1.14, 1.42]", would_catch="1 bucket"),
        verdict(
            "rtt/exporter",
            Status.INCONCLUSIVE,
            hop="SFU histogram",
            says="1 ms",
            may_say="-",
            would_catch="nothing",
            blind="first bucket 50 ms",
            sentence="RTT of 1 ms lies below the first bucket of the SFU's histogram",
        ),
    )
    return findings([told.get(one.claim, one) for one in honest])


def healthy() -> tuple[Evidence, Findings]:
    """A run in which the agent was fast and the monitoring told the truth."""
    return evidence(), _told({})


def lying() -> tuple[Evidence, Findings]:
    """Design's own example: the agent reports no TTFW for turns that call a tool."""
    return evidence(has_tool_ttfw=False), _told(
        {
            "ttfw/exporter": verdict(
                "ttfw/exporter",
                Status.FAIL,
                hop="agent /metrics, count",
                says="6",
                may_say="{9}",
                would_catch="1 turn",
                sentence="the agent reports no TTFW for turns that call a tool (6 observations, 9 turns heard)",
                because=("9 turns were heard, none is void", "an honest agent observes once per user turn"),
                effect="rule p95 0.96 s, callers heard 1.46 s",
                evidence=("audio/call-1.wav#t=5.30", EXPORTER, "events/caller-1.jsonl"),
            ),
            "ttfw/samples": verdict(
                "ttfw/samples",
                hop="prometheus samples",
                says="6",
                may_say="{6}",
                would_catch="1 sample",
                is_faithful=True,
                sentence="6 observations scraped, 6 in the exporter's text",
            ),
            "ttfw/rule": verdict(
                "ttfw/rule",
                hop="rule ttfw:p95",
                says="0.96 s",
                may_say="(0.91, 1.14]",
                would_catch="1 bucket",
                is_faithful=True,
                sentence="the quantile of the samples that Prometheus holds",
            ),
        }
    )


def undecided() -> tuple[Evidence, Findings]:
    """Prometheus answered 500 when it was read: nothing failed, but required claims are undecided."""
    lost = {
        claim: verdict(
            claim,
            Status.INCONCLUSIVE,
            hop=hop,
            says="-",
            may_say="{9}",
            would_catch="nothing",
            sentence="prometheus could not be read: HTTP 500",
        )
        for claim, hop in (("ttfw/samples", "prometheus samples"), ("ttfw/rule", "rule ttfw:p95"))
    }
    gap = Gap(source=Source.PROMETHEUS, at=after(70.2), reason="HTTP 500 Internal Server Error", request=PROMETHEUS)
    return evidence(gaps=(gap,)), _told(lost)
