"""What happened to each planned call, derived purely from the events of the caller processes.

kind            fields                                          when
placed          process, room, identity                         the plan reached a caller
admitted        sid, room_sid, server_version                   the server let us in
published       sid                                             our track has its name on the server
joined          -                                               the media path was up
agent-joined    identity, sid                                   a participant of kind AGENT
agent-track     identity, sid, source                           it publishes audio
greeted         first_word_at                                   first voiced sample of the agent before our first prompt
greeting-ended  ended_at                                        its last voiced sample
speech          index, prompt, started_at, ended_at             our prompt, first and last voiced sample on the wire
reply           index, first_word_at                            first voiced sample of the reply
reply-ended     index, ended_at                                 its last voiced sample
missed          index                                           no reply within the answer timeout; index 0: no greeting
overtalk        started_at, ended_at                            the agent spoke, and it answers nothing
talked-over     index, started_at, ended_at                     what the agent still said of this turn's reply when we barged in
doubt           index, reason                                   our own evidence voids this turn's latency
refused-request request, reason                                 the server refused something small (a subscription)
agent-left      identity, reason, remaining                     it left, or was lost
left            -                                               our leave was sent
impaired        every field of Impaired                         what an impairment did in five seconds, by direction
uplink          every field of Uplink                           an impaired uplink, as the server's reports saw it
reports         every field of Reports                          receiver reports, for each RTP direction of which we have any
wire            every field of WireStats                        one event for each RTP direction
wire-window     every field of WireWindow                       every five seconds, for each RTP direction
recorded        path, started_at                                the recording is on disk
ended           outcome, error                                  nothing follows

Instants in fields are UnixNs on the wire at our network card. A call without ``placed`` was dropped; one without ``ended`` was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness import codec
from harness.measure.void import with_voids
from harness.model import (
    AgentStay,
    CallEvent,
    CallOutcome,
    CallPlan,
    CallRecord,
    GeneratorHealth,
    Impaired,
    Reports,
    TurnRecord,
    UnixNs,
    Uplink,
    WireStats,
    WireWindow,
)


def call_records(plans: Iterable[CallPlan], events: Iterable[CallEvent], health: Sequence[GeneratorHealth] = ()) -> tuple[CallRecord, ...]:
    """One record a plan, in the order of the plans.

    health: what the caller processes said of their punctuality; turns that it forbids using are marked void.
    """
    by_call: dict[str, list[CallEvent]] = {}
    for event in events:
        by_call.setdefault(event.call_id, []).append(event)
    # An event is not needed any more once its call's record is made.
    return tuple(_record(plan, by_call.pop(plan.call_id, ()), health) for plan in plans)


def _record(plan: CallPlan, events: Sequence[CallEvent], health: Sequence[GeneratorHealth]) -> CallRecord:
    first = {event.kind: event for event in reversed(events)}
    if "placed" not in first:
        return CallRecord(plan=plan, outcome=CallOutcome.DROPPED, error="no caller was free when the call was due")
    ended = first["ended"].fields if "ended" in first else {"outcome": CallOutcome.CUT, "error": "its caller process died"}
    recorded = first["recorded"].fields if "recorded" in first else {}
    process = first["placed"].fields.get("process")
    record = CallRecord(
        plan=plan,
        outcome=CallOutcome(ended["outcome"]),
        placed_at=first["placed"].at,
        joined_at=_at(first, "joined"),
        agent_joined_at=_at(first, "agent-joined"),
        agents=tuple(_agents(events)),
        greeted_at=first["greeted"].fields["first_word_at"] if "greeted" in first else None,
        left_at=_at(first, "left"),
        turns=_turns(plan, events),
        wire=tuple(codec.from_json(WireStats, event.fields) for event in events if event.kind == "wire"),
        windows=tuple(codec.from_json(WireWindow, event.fields) for event in events if event.kind == "wire-window"),
        impaired=tuple(codec.from_json(Impaired, event.fields) for event in events if event.kind == "impaired"),
        uplink=codec.from_json(Uplink, first["uplink"].fields) if "uplink" in first else None,
        reports=tuple(codec.from_json(Reports, event.fields) for event in events if event.kind == "reports"),
        agent_source=first["agent-track"].fields.get("source") if "agent-track" in first else None,
        audio=recorded.get("path"),
        audio_started_at=recorded.get("started_at"),
        error=ended["error"],
        talked_over=tuple(_talked_over(events)),
    )
    return with_voids(record, (line for line in health if line.process == process))


def _agents(events: Sequence[CallEvent]) -> Iterator[AgentStay]:
    """Each identity once: one that leaves and comes again was moved or has reconnected."""
    left = {event.fields["identity"]: event.at for event in events if event.kind == "agent-left"}
    joined = {event.fields["identity"]: event.at for event in reversed(events) if event.kind == "agent-joined"}
    for identity, joined_at in sorted(joined.items(), key=lambda each: each[1]):
        yield AgentStay(identity=identity, joined_at=joined_at, left_at=left.get(identity))


def _talked_over(events: Sequence[CallEvent]) -> Iterator[int]:
    """Turns of which the agent was still speaking when our next prompt began."""
    starts = {event.fields["index"]: event.fields["started_at"] for event in events if event.kind == "speech"}
    ends = {event.fields["index"]: event.fields["ended_at"] for event in events if event.kind == "talked-over"}
    for index, ended_at in ends.items():
        if index + 1 in starts and ended_at > starts[index + 1]:
            yield index


def _turns(plan: CallPlan, events: Sequence[CallEvent]) -> tuple[TurnRecord, ...]:
    said = {(event.kind, event.fields["index"]): event.fields for event in events if "index" in event.fields}
    return tuple(_turn(plan, index, said) for index in range(1, len(plan.turns) + 1) if ("speech", index) in said)


def _turn(plan: CallPlan, index: int, said: Mapping[tuple[str, int], Mapping[str, Any]]) -> TurnRecord:
    turn = plan.turns[index - 1]
    speech = said["speech", index]
    return TurnRecord(
        index=index,
        prompt=turn.prompt,
        text=turn.text,
        tool=turn.tool,
        user_speech_started_at=speech["started_at"],
        user_speech_ended_at=speech["ended_at"],
        first_word_at=said.get(("reply", index), {}).get("first_word_at"),
        agent_speech_ended_at=(said.get(("reply-ended", index)) or said.get(("talked-over", index), {})).get("ended_at"),
        void=said.get(("doubt", index), {}).get("reason"),
        grade=plan.grade,
    )


def _at(first: Mapping[str, CallEvent], kind: str) -> UnixNs | None:
    return first[kind].at if kind in first else None
