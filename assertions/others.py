"""Whether anybody else called the agent while we did: a counter without a label for whose call it was holds theirs as well as ours."""

from __future__ import annotations

from assertions.facts import Facts
from assertions.words import plural, whole
from harness.measure.series import Reader
from harness.model import Source, UnixNs

ROOMS, ACTIVE = "livekit_room_total", "voice_agent_active_calls"
SESSIONS = "livekit_session_start_time_ms_count"
"""Sessions by the signalling protocol of who joined: our callers claim one that no SDK does."""
_COUNTERS = ("voice_agent_turns_total", "voice_agent_tool_calls_total", "voice_agent_ttfw_seconds_count")
_SETTLED_S = 15.0
"""An agent has counted what it knows of a call so long after its caller left."""
_ADVICE = "run when nobody else calls; if nobody did, say exclusive: true in the target file"


def why(facts: Facts, reader: Reader) -> str | None:
    """Why counters may hold others' calls, as a sentence. None: they hold ours alone, by what we saw or by the owner's word."""
    if facts.is_alone:
        return None
    if shown := _shown(facts, reader):
        return f"others' calls ran beside ours ({shown}), and this series has no label for whose they are; {_ADVICE}"
    if _is_watched(reader):
        return None
    return f"nothing that was read would have shown others' calls, and this series has no label for whose they are; {_ADVICE}"


def _is_watched(reader: Reader) -> bool:
    return bool(reader.series(Source.SFU_EXPORTER, ROOMS) or reader.series(Source.AGENT_EXPORTER, ACTIVE))


def _shown(facts: Facts, reader: Reader) -> str | None:
    """The first thing that shows them."""
    linger_s = facts.setting("departure_timeout_s", 20.0)
    for source, name, what, after_s in (
        (Source.SFU_EXPORTER, ROOMS, "the media server had {} rooms", linger_s + 5.0),
        (Source.AGENT_EXPORTER, ACTIVE, "the agent was in {} calls", _SETTLED_S),
    ):
        for poll in reader.polls.get(source, ()):
            said = sum(timeline.at(poll.at) or 0.0 for timeline in reader.series(source, name))
            ours = _ours(facts, poll.at, UnixNs(poll.at + round(poll.took_s * 1e9)), after_s)
            if said > ours:
                return f"{what.format(whole(said))} {facts.moment(poll.at)}, at most {ours} of them ours"
    return _sessions(facts, reader) or _out_of_time(facts, reader)


def _sessions(facts: Facts, reader: Reader) -> str | None:
    """Who joined the media server: of each protocol at most one a call of ours, the caller or its agent."""
    protocol = facts.setting("protocol", 0.0)
    placed = sum(record.placed_at is not None for record in facts.records)
    grown = {True: 0.0, False: 0.0}
    for timeline in reader.series(Source.SFU_EXPORTER, SESSIONS):
        is_ours = timeline.labels.get("protocol_version") == whole(protocol)
        grown[is_ours] += reader.grown(timeline, Source.SFU_EXPORTER, facts.since)
    for is_ours, count in grown.items():
        if protocol and count > placed:
            whose = "callers like ours" if is_ours else "others than our callers"
            return f"{whole(count)} sessions of {whose} began on the media server, at most {placed} of them in our calls"
    return None


def _ours(facts: Facts, at: UnixNs, until: UnixNs, after_s: float) -> int:
    """At most so many calls of ours may be seen between ``at`` and ``until``."""
    return sum(
        record.placed_at is not None and record.placed_at <= until and (record.left_at is None or record.left_at + after_s * 1e9 >= at)
        for record in facts.records
    )


def _out_of_time(facts: Facts, reader: Reader) -> str | None:
    """What was counted before our load began, or long after it was over."""
    ended_at = facts.evidence.info.load_ended_at
    for name in _COUNTERS:
        for timeline in reader.series(Source.AGENT_EXPORTER, name):
            before = [number for at, number in timeline.samples if at <= facts.since]
            if before and before[-1] > before[0]:
                return f"{name} grew by {whole(before[-1] - before[0])} before our load began"
            after = [number for at, number in timeline.samples if ended_at is not None and at > ended_at + _SETTLED_S * 1e9]
            settled = None if ended_at is None else timeline.at(UnixNs(round(ended_at + _SETTLED_S * 1e9)))
            if after and settled is not None and after[-1] > settled:
                return f"{name} still grew by {whole(after[-1] - settled)}, {plural(round(_SETTLED_S), 'second')} after our load had ended"
    return None
