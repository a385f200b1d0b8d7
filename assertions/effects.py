"""What a failed claim means to a reader of the dashboard, where to hear it, and what shows it again."""

from __future__ import annotations

from collections.abc import Iterator

from assertions import active, agent, calls, rules, stages, tools, turns
from assertions.facts import Facts
from assertions.ledger import Judgement
from harness.measure.series import Reader
from harness.model import Source, TurnRecord

_TABLES = {
    "calls": calls.TABLE,
    "turns": turns.TABLE,
    "tools": tools.TABLE,
    "pipeline": turns.TABLE,
    "barge-ins": turns.TABLE,
}
_METRICS = {
    "active": active.NAME,
    "turns": turns.COUNTER,
    "tools": tools.COUNTER,
    "ttfw": "voice_agent_ttfw_seconds_count",
    "sfu": "livekit_room_total",
    "loss": "livekit_packet_loss_total",
    "jitter": "livekit_jitter_us_sum",
    "rtt": "livekit_rtt_ms_sum",
}
_METRICS |= {quantity: f"{stages.name(quantity)}_count" for quantity in stages.WORDS}


def effect(judgement: Judgement, facts: Facts, reader: Reader) -> str | None:
    """What a reader of the monitoring sees because of it. None: nothing that we could name."""
    quantity = judgement.step.claim.partition("/")[0]
    if judgement.step.claim == "ttfw/rule" and judgement.said is not None:
        return f"in the end the rule's p95 is {judgement.step.show(judgement.said)}, of its window it is {judgement.step.show(judgement.admitted)}"
    if quantity == "ttfw":
        return _ttfw(facts, reader)
    if judgement.step.claim == "calls/status":
        still = sum(row.columns.get("status") == "active" for row in reader.rows.get(calls.TABLE, ()))
        return f"the dashboard shows {still} calls in progress, and none is" if still else None
    if quantity != "pipeline" and judgement.step.claim.endswith("/rows"):
        table = _TABLES[quantity]
        return (
            f"the call history shows {len(reader.rows.get(table, ()))} rows of {table}, may show {judgement.step.show(judgement.admitted)}"
        )
    return None


def _ttfw(facts: Facts, reader: Reader) -> str | None:
    heard = agent.figures(facts).ttfw_p95_s
    if heard is None:
        return None
    timelines = reader.series(Source.RULES, rules.P95)
    said = [number for timeline in timelines for at, number in timeline.samples if at > facts.since and number == number]
    return (
        f"rule p95 {max(said):.2f} s, callers heard {heard:.2f} s" if said else f"the rule shows nothing, callers heard p95 {heard:.2f} s"
    )


def evidence(judgement: Judgement, facts: Facts, reader: Reader, sources: tuple[Source, ...]) -> Iterator[str]:
    """Where to hear it, for a failed claim about speech; then the requests that show it again."""
    quantity = judgement.step.claim.partition("/")[0]
    if judgement.difference is not None and quantity in ("turns", "tools", "ttfw"):
        yield from _sound(judgement, facts)
    for source in sources:
        if quantity == "alerts":
            requests = [f"observations/{source}.jsonl"] if reader.is_read(source) else []
        elif source is Source.ROWS:
            requests = [poll.request for poll in reader.polls.get(source, ()) if f"/{_TABLES[quantity]}?" in (poll.ours or poll.request)]
            requests += [row.request for row in reader.rows.get(_TABLES[quantity], ())]
        elif source in (Source.SFU_API, Source.REALTIME, Source.AGENT_RULER, Source.PANELS, Source.TOOL_ENDPOINT):
            requests = [poll.request for poll in reader.polls.get(source, ())]
        elif source is Source.SFU_REPORTS:
            requests = ["events"]
        else:
            name = rules.P95 if source is Source.RULES else _METRICS.get(quantity, "up")
            requests = [timeline.request for timeline in reader.series(source, name)]
            requests += [poll.request for poll in reader.polls.get(source, ())]
        yield from requests[:1]


def _sound(judgement: Judgement, facts: Facts) -> Iterator[str]:
    """The turn to listen to: the one that the difference names; else one with a tool, and of those the slowest."""
    assert judgement.difference is not None
    key = judgement.difference.key
    candidates: list[tuple[tuple[bool, bool, float], str]] = []
    for record in facts.records:
        if record.audio is None or record.audio_started_at is None:
            continue
        for turn in record.turns:
            is_named = record.plan.call_id in key
            is_place = is_named and key[0] == "row" and key[2:] == ("user", str(turn.index))
            at_s = max((turn.user_speech_ended_at - record.audio_started_at) / 1e9, 0.0)
            rank = (not (is_place or (is_named and key[0] != "row")), turn.tool is None, -_waited_s(turn))
            candidates.append((rank, f"{record.audio}#t={at_s:.2f}"))
    if candidates:
        yield min(candidates)[1]


def _waited_s(turn: TurnRecord) -> float:
    latency_s = turn.response_latency_s
    return 0.0 if latency_s is None else latency_s
