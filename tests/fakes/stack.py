"""An honest stack in virtual time: what exporter, Prometheus, rules, tables and media server say of calls that happened as they did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from assertions import panels, rules
from assertions.facts import Facts
from assertions.recomputed import Engine
from harness.measure.delivery import Canary, Heard, ServerClock, Told, observed
from harness.measure.series import Reader
from harness.model import CallRecord, Evidence, Observation, Poll, Row, Sample, Source, UnixNs
from harness.rules.evaluate import NotAnalysed, Vector
from harness.rules.panelfile import ASKED, FILE, REFUSED, SHARE, Line
from tests.fakes.evidence import BOUNDS, EXPORTER, PROMETHEUS, RULE, after, calibration, health, info, plan, record
from tests.fakes.evidence import LATENCIES_S as HEARD_S
from tests.fakes.wire import counted, with_wire

GAP_S = 0.16
"""What an honest agent reports less than callers hear: the middle of the fake calibration."""
SECONDS = 70
SCRAPES = "http://127.0.0.1:9090/api/v1/query?query={__name__=~%22up|scrape_samples_scraped%22}[71s]"
REST = "http://127.0.0.1:54321/rest/v1"
OWNER = {"instance": "127.0.0.1:9102", "job": "voice-agent"}
RECORDING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring" / "rules" / "recording.yml"
SHIPPED = RECORDING.parents[1] / "panels.yml"
PHONES = {"instance": "127.0.0.1:6790", "job": "livekit-sip"}
SERVER = {"instance": "127.0.0.1:6789", "job": "livekit"}
SFU = "http://127.0.0.1:6789/metrics"
SOCKET = "http://127.0.0.1:54321/realtime/v1/websocket"
API = "ws://127.0.0.1:7880/twirp/livekit.RoomService/ListRooms"

Counts = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and labels."""


def run(heard_s: Sequence[Sequence[float | None]] = HEARD_S, *, gap_s: float = GAP_S, **changes: Any) -> Evidence:
    """A run of one call for each row of latencies, of which the stack tells the truth. The one that most tests ask for is made once."""
    if heard_s is HEARD_S and gap_s == GAP_S and not changes:
        return _honest()
    calls = tuple(record(plan(index), latencies) for index, latencies in enumerate(heard_s, start=1))
    return of(calls, gap_s=gap_s, **changes)


@cache
def _honest() -> Evidence:
    return of(tuple(record(plan(index), latencies) for index, latencies in enumerate(HEARD_S, start=1)))


def of(calls: Sequence[CallRecord], *, gap_s: float = GAP_S, **changes: Any) -> Evidence:
    """A run of these calls, of which the stack tells the truth."""
    calls = tuple(map(with_wire, calls))
    base = Evidence(
        info=info(),
        plans=tuple(call.plan for call in calls),
        records=tuple(calls),
        health=(health(),),
        observations=(
            *_metrics(calls, gap_s),
            *_rows(calls),
            *_realtime(calls),
            *_stages(calls),
            *_media(calls),
        ),
        gaps=(),
        calibration=calibration(),
    )
    return _with_panels(_with_rules(replace(base, **changes)))


def _metrics(calls: Sequence[CallRecord], gap_s: float) -> list[Observation]:
    """The agent's counters, polled on the second, scraped 0.4 s later."""
    found: list[Observation] = []
    for second in range(SECONDS):
        at = after(second)
        polled = _samples(Source.AGENT_EXPORTER, _counts(calls, at, gap_s), {}, at, EXPORTER)
        found += [Poll(source=Source.AGENT_EXPORTER, at=at, took_s=0.004, count=len(polled), request=EXPORTER), *polled]
        scraped_at = UnixNs(at + 400_000_000)
        found += _samples(Source.PROMETHEUS, _counts(calls, scraped_at, gap_s), OWNER, scraped_at, PROMETHEUS)
        found += _samples(Source.PROMETHEUS, counted(calls, scraped_at), SERVER, scraped_at, PROMETHEUS)
        found += _samples(Source.PROMETHEUS, _phones(scraped_at), PHONES, scraped_at, PROMETHEUS)
        for target in (OWNER, SERVER, PHONES):
            found.append(Sample(source=Source.PROMETHEUS, name="up", labels=target, value=1.0, at=scraped_at, request=PROMETHEUS))
    found += [*_itself(), Poll(source=Source.PROMETHEUS, at=after(70.5), took_s=0.05, count=1, request=PROMETHEUS)]
    return found


def _itself() -> list[Observation]:
    """What Prometheus says of itself: it evaluates its rules every second, and its clock is ours."""
    found: list[Observation] = [Poll(source=Source.PROMETHEUS, at=after(70.4), took_s=0.05, count=1, request=SCRAPES)]
    group = {"instance": "127.0.0.1:9090", "job": "prometheus", "rule_group": "rules/recording.yml;voice_agent"}
    for second in range(SECONDS):
        at = UnixNs(after(second) + 200_000_000)
        said = {"prometheus_rule_group_iterations_total": float(second), "prometheus_rule_group_interval_seconds": 1.0}
        found += [
            Sample(source=Source.PROMETHEUS, name=name, labels=group, value=number, at=at, request=SCRAPES) for name, number in said.items()
        ]
    clock = {"clock_offset_s": 0.0002, "clock_doubt_s": 0.0004}
    found += [
        Sample(source=Source.PROMETHEUS, name=name, labels={}, value=number, at=after(70.6), request=PROMETHEUS)
        for name, number in clock.items()
    ]
    return found


def _counts(calls: Sequence[CallRecord], at: UnixNs, gap_s: float) -> Counts:
    """What an honest agent has counted by ``at``."""
    turns = [(call, turn) for call in calls for turn in call.turns]
    users = sum(turn.user_speech_ended_at + 600_000_000 < at for _, turn in turns if turn.first_word_at)
    greetings = sum(call.greeted_at + 1_800_000_000 < at for call in calls if call.greeted_at)
    replies = sum(turn.agent_speech_ended_at + 50_000_000 < at for _, turn in turns if turn.agent_speech_ended_at)
    tools = sum(turn.first_word_at - 400_000_000 < at for _, turn in turns if turn.tool and turn.first_word_at)
    reported = [
        max((turn.response_latency_s or 0.0) - gap_s, 0.0)
        for _, turn in turns
        if turn.first_word_at and turn.first_word_at - 20_000_000 < at
    ]
    ttfw = "voice_agent_ttfw_seconds"
    active = sum(
        call.agent_joined_at is not None and call.left_at is not None and call.agent_joined_at < at < call.left_at for call in calls
    )
    counts = {
        ("voice_agent_active_calls", ()): float(active),
        ("voice_agent_turns_total", (("role", "user"),)): float(users),
        ("voice_agent_turns_total", (("role", "assistant"),)): float(greetings + replies),
        ("voice_agent_tool_calls_total", (("success", "true"), ("tool", "lookup_weather"))): float(tools),
        ("voice_agent_tool_calls_total", (("success", "false"), ("tool", "lookup_weather"))): 0.0,
        (f"{ttfw}_count", ()): float(len(reported)),
        (f"{ttfw}_sum", ()): sum(reported),
        (f"{ttfw}_bucket", (("le", "+Inf"),)): float(len(reported)),
    }
    buckets = {(f"{ttfw}_bucket", (("le", str(bound)),)): float(sum(one <= bound for one in reported)) for bound in BOUNDS}
    told = [(stage.lower(), took_s) for stage, ended_at, took_s in stages(calls) if ended_at < at]
    latencies: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for stage in ("stt", "llm", "tts"):
        took = [seconds + 0.001 + 0.0001 * place for place, (each, seconds) in enumerate(told) if each == stage]
        name = f"voice_agent_{stage}_latency_seconds"
        latencies |= {(f"{name}_count", ()): float(len(took)), (f"{name}_sum", ()): sum(took)}
    return counts | buckets | latencies


def _phones(at: UnixNs) -> Counts:
    """What the SIP service has counted by ``at``: a line that was busy every ten seconds."""
    return {("livekit_sip_calls_terminated", (("reason", "busy"), ("result", "client_error"))): float((at - after(0)) // 10_000_000_000)}


def _samples(source: Source, counts: Counts, more: Mapping[str, str], at: UnixNs, request: str) -> list[Observation]:
    return [
        Sample(source=source, name=name, labels={**dict(labels), **more}, value=number, at=at, request=request)
        for (name, labels), number in counts.items()
    ]


def _with_rules(evidence: Evidence) -> Evidence:
    """The rules that ship, evaluated 0.7 s after the second over the samples that are there."""
    kept = rules.definition("recording.yml", RECORDING.read_text(), after(0))
    evidence = replace(evidence, observations=(*evidence.observations, kept))
    reader, facts = Reader.of(evidence), Facts.of(evidence)
    engine = Engine(facts)
    found: list[Observation] = []
    for second in range(SECONDS):
        at = UnixNs(after(second) + 700_000_000)
        for rule in rules.shipped(reader, facts):
            for labels, number in _known(engine, rule.expression, reader, at).items():
                found.append(Sample(source=Source.RULES, name=rule.record, labels=dict(labels), value=number, at=at, request=RULE))
    found.append(Poll(source=Source.RULES, at=after(70.5), took_s=0.05, count=len(found), request=RULE))
    return replace(evidence, observations=(*evidence.observations, *found))


def _known(engine: Engine, expression: str, reader: Reader, at: UnixNs) -> Vector:
    """What the server says; nothing where its arithmetic is not known."""
    try:
        return engine.vector(expression, reader, at)
    except NotAnalysed:
        return {}


def showing(evidence: Evidence, path: Path) -> Evidence:
    """The same run with other panels."""
    return _with_panels(
        replace(evidence, observations=tuple(item for item in evidence.observations if item.source is not Source.PANELS)), path
    )


def _with_panels(evidence: Evidence, path: Path = SHIPPED) -> Evidence:
    """Panels: empty before the calls, asked of Prometheus at four instants, read again after the calls."""
    kept = Row(source=Source.PANELS, table=FILE, columns={"file": path.name, "text": path.read_text()}, at=after(0), request=path.name)
    evidence = replace(evidence, observations=(*evidence.observations, kept))
    reader, facts = Reader.of(evidence), Facts.of(evidence)
    engine = Engine(facts)
    found: list[Observation] = []
    for each in panels.drawn(reader, facts):
        name = each.line.name
        if each.line.read is not None and any(column.endswith("()") for column in each.line.read.columns):
            told = {"line": name, "status": 400, "error": "Use of aggregate functions is not allowed"}
            found.append(Row(source=Source.PANELS, table=REFUSED, columns=told, at=after(70.5), request=REST))
            continue
        if each.line.query is None:
            found += [
                Row(source=Source.PANELS, table=name, columns={**columns, "#": place}, at=at, request=REST)
                for at, place, columns in _read(each.line, reader)
            ]
            continue
        if each.line.query.endswith("]"):
            told = {"line": name, "status": 400, "error": 'invalid expression type "range vector" for range query'}
            found.append(Row(source=Source.PANELS, table=REFUSED, columns=told, at=after(70.5), request=PROMETHEUS))
            continue
        for second in (20, 35, 50, 68):
            at = UnixNs(after(second) + 900_000_000)
            found.append(Row(source=Source.PANELS, table=ASKED, columns={"line": name, "at": [at]}, at=after(70.5), request=PROMETHEUS))
            recorded = [one for name in engine.asked(each.line.query).names for one in reader.series(Source.RULES, name)]
            if recorded and not any(at - one.samples[-1][0] < 1e9 or one.samples[-1][0] > at for one in recorded):
                continue  # the rule has nothing to say any more, and left a marker
            for labels, number in _known(engine, each.line.query, reader, at).items():
                shown = {label: text for label, text in labels if label != "__name__"}
                found.append(Sample(source=Source.PANELS, name=name, labels=shown, value=number, at=at, request=PROMETHEUS))
    found.append(Poll(source=Source.PANELS, at=after(70.6), took_s=0.1, count=len(found), request=PROMETHEUS))
    return replace(evidence, observations=(*evidence.observations, *found))


def _read(line: Line, reader: Reader) -> Iterator[tuple[UnixNs, int | None, dict[str, Any]]]:
    """What a read of the call history shows before the calls, and after them."""
    assert line.read is not None
    table = line.computes.of[0].partition(".")[0]
    yield after(7), None, {}
    rows = [row.columns for row in reader.rows.get(table, ())]
    match line.name:
        case "overview/calls-24h":
            yield after(70.6), 0, {"calls": len(rows)}
        case "overview/mean-duration":
            lasted = [row["duration_seconds"] for row in rows if isinstance(row["duration_seconds"], int)]
            yield after(70.6), 0, {"mean_duration_seconds": sum(lasted) / len(lasted) if lasted else None}
        case "overview/call-volume" if rows:
            yield after(70.6), 0, {"hour": "2026-11-23T20:00:00+00:00", "calls": len(rows)}
        case "agent-performance/tool-calls" if line.read.among:
            said = len(reader.rows.get(line.read.among, ()))
            yield after(70.6), 0, {SHARE: 100 * len(rows) / said if said else None}
        case "agent-performance/tool-calls":
            users = sum(row.columns["role"] == "user" for row in reader.rows.get("transcripts", ()))
            yield after(70.6), 0, {"tool_calls_per_100_user_turns": 100 * len(rows) / users if users else None}
        case "agent-performance/top-tools" if rows:
            yield after(70.6), 0, {"tool_name": "lookup_weather", "calls": len(rows)}
        case "overview/alerts":
            for place in range(2):
                yield after(70.6), place, {"id": str(place), "triggered_at": _stamp(after(30 - place))}
        case _:
            yield after(70.6), None, {}


def _rows(calls: Sequence[CallRecord]) -> list[Observation]:
    found: list[Observation] = []
    for table, rows in (("calls", _calls(calls)), ("transcripts", _transcripts(calls)), ("tool_executions", _tools(calls))):
        request = f"{REST}/{table}?select=*"
        count = len(rows)
        found.append(Poll(source=Source.ROWS, at=after(70.6), took_s=0.01, count=count, total=count, total_by_key=count, request=request))
        found += [Row(source=Source.ROWS, table=table, columns=columns, at=after(70.6), request=request) for columns in rows]
    return found


def _calls(calls: Sequence[CallRecord]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"row-{call.plan.index}",
            "call_id": call.plan.call_id,
            "status": "completed",
            "start_time": _stamp(call.agent_joined_at),
            "recorded_at": _stamp(call.agent_joined_at),
            "end_time": _stamp(call.left_at),
            "duration_seconds": round((call.left_at - call.placed_at) / 1e9 - 0.3),
        }
        for call in calls
        if call.agent_joined_at is not None and call.left_at is not None and call.placed_at is not None
    ]


def _realtime(calls: Sequence[CallRecord]) -> list[Observation]:
    """Each call's beginning and end, told 60 ms after it, between two canaries."""
    proofs: list[Told] = [
        ServerClock(offset_s=0.0, error_s=0.001),
        Canary(written_at=after(5), heard_at=after(5.1)),
        Canary(written_at=after(69), heard_at=after(69.1)),
    ]
    heard: list[Told] = []
    for call in calls:
        for at, kind, key in ((call.agent_joined_at, "INSERT", ""), (call.left_at, "UPDATE", " completed")):
            if at is not None and call.agent_joined_at is not None:
                told_at, row = UnixNs(at + 60_000_000), f"row-{call.plan.index}"
                heard.append(
                    Heard(table="calls", kind=kind, key=row + key, at=told_at, commit_timestamp=_stamp(at), call_id=call.plan.call_id)
                )
    poll = Poll(source=Source.REALTIME, at=after(70), took_s=65.0, count=len(heard), request=SOCKET)
    return [poll, *(observed(each, SOCKET) for each in (*proofs, *heard))]


def stages(calls: Sequence[CallRecord]) -> list[tuple[str, UnixNs, float]]:
    """What the agent's stages took: name, end, seconds. A turn with a tool asks the model twice."""
    found = [("TTS", call.greeted_at, 0.12) for call in calls if call.greeted_at]
    for call in calls:
        for turn in call.turns:
            if turn.first_word_at is not None:
                models = [("LLM", turn.first_word_at, 0.2)] * (2 if turn.tool else 1)
                found += [("STT", turn.first_word_at, 0.15), *models, ("TTS", turn.first_word_at, 0.12)]
    return found


def _stages(calls: Sequence[CallRecord]) -> list[Observation]:
    """The agent's ruler."""
    found: list[Observation] = []
    for stage, at, took_s in stages(calls):
        measured = {"programmed_s": took_s, "waited_s": 0.0005, "took_s": took_s, "turn_s": 0.005, "is_cut": False}
        columns = {"room": "-", "stage": stage, **measured}
        found.append(Row(source=Source.AGENT_RULER, table="stages", columns=columns, at=at, request="agent-ruler.jsonl"))
    polls = [
        Poll(source=source, at=after(70), took_s=0.001, count=len(found), request=f"{source}.jsonl")
        for source in (Source.AGENT_RULER, Source.TOOL_ENDPOINT)
    ]
    return [*polls, *found, *_tool_requests(calls)]


def _tool_requests(calls: Sequence[CallRecord]) -> list[Observation]:
    """What the tool's endpoint was asked, and what the agent's ruler had of it."""
    found: list[Observation] = []
    for call in calls:
        for turn in call.turns:
            asked = call.plan.turns[turn.index - 1].tool_arguments or {"city": "Rome"}
            if turn.tool and turn.first_word_at:
                columns = {"room": call.plan.room, "tool_name": turn.tool, "arguments": asked, "took_s": 0.05, "status": 200}
                noted = {"room": call.plan.room, "stage": "TOOL", "took_s": 0.052, "turn_s": 0.005, "is_cut": False}
                for source, table, what in ((Source.TOOL_ENDPOINT, "tool-requests", columns), (Source.AGENT_RULER, "stages", noted)):
                    found.append(Row(source=source, table=table, columns=what, at=turn.first_word_at, request=f"{source}.jsonl"))
    return found


def _transcripts(calls: Sequence[CallRecord]) -> list[dict[str, Any]]:
    found = []
    for call in calls:
        said: list[tuple[UnixNs | None, str, str]] = [(call.greeted_at, "assistant", call.plan.greeting or "hello")]
        for turn in call.turns:
            if turn.first_word_at is not None:
                reply = call.plan.turns[turn.index - 1].reply or "as you like"
                said += [(turn.user_speech_started_at, "user", turn.text), (turn.first_word_at, "assistant", reply)]
        found += [
            {
                "call_id": call.plan.call_id,
                "role": role,
                "content": words,
                "timestamp": _stamp(at),
                "recorded_at": _stamp(UnixNs(at + 3_000_000_000)),
            }
            for at, role, words in said
            if at is not None
        ]
    return found


def _tools(calls: Sequence[CallRecord]) -> list[dict[str, Any]]:
    return [
        {"call_id": call.plan.call_id, "tool_name": turn.tool, "parameters": {"city": "London"}, "success": True, "latency_ms": 53}
        for call in calls
        for turn in call.turns
        if turn.tool and turn.first_word_at
    ]


def _stamp(at: UnixNs) -> str:
    seconds = (at - after(0)) / 1e9
    return f"2026-11-23T20:{int(seconds // 60):02d}:{seconds % 60:09.6f}+00:00"


def _media(calls: Sequence[CallRecord]) -> list[Observation]:
    """The media server's gauges, polled on the second, and its API before and after the load."""
    found: list[Observation] = []
    for second in range(SECONDS):
        at = after(second)
        inside = [call for call in calls if call.joined_at and call.left_at and call.joined_at <= at < call.left_at]
        agents = sum(call.agent_joined_at is not None and call.agent_joined_at <= at for call in inside)
        gauges = {"livekit_room_total": len(inside), "livekit_participant_total": len(inside) + agents}
        found.append(Poll(source=Source.SFU_EXPORTER, at=at, took_s=0.003, count=len(gauges), request=SFU))
        found += _samples(Source.SFU_EXPORTER, counted(calls, at), {}, at, SFU)
        found += [
            Sample(source=Source.SFU_EXPORTER, name=name, labels={"node_id": "n"}, value=float(number), at=at, request=SFU)
            for name, number in gauges.items()
        ]
    for at in (after(7.9), after(70.7)):
        found.append(Poll(source=Source.SFU_API, at=at, took_s=0.01, count=2, request=API))
        found += [Sample(source=Source.SFU_API, name=name, labels={}, value=0.0, at=at, request=API) for name in ("rooms", "participants")]
    return found


Change = Callable[[Observation], Observation | None]


def changed(evidence: Evidence, change: Change) -> Evidence:
    """A copy in which every observation is put through ``change``; None leaves it out. Panels show what follows, unless they are changed."""
    told = [(item, change(item)) for item in evidence.observations]
    kept = tuple(now for _, now in told if now is not None)
    has_panels = any(item.source is Source.PANELS for item, _ in told) and any(item.source is Source.RULES for item in kept)
    if has_panels and all(now is item for item, now in told if item.source is Source.PANELS):
        return _with_panels(replace(evidence, observations=tuple(item for item in kept if item.source is not Source.PANELS)))
    return replace(evidence, observations=kept)
