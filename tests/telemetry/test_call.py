"""Events of a session and a room become series and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from voxproof_telemetry.call import Call
from voxproof_telemetry.dispatch import Dispatch, fictional_number
from voxproof_telemetry.rows import RowWriter, iso

from tests.fakes.livekit_agents import Event, Job, Room, Session, participant
from tests.fakes.rest import Rest, Row


class Told:
    """What series and tables hold after one call; series as increments over what they held before."""

    def __init__(self) -> None:
        self._before = self._series()
        self.rest = Rest()

    def __getitem__(self, sample: str) -> float:
        now = self._series()
        return now[sample] - self._before.get(sample, 0.0)

    def __contains__(self, sample: str) -> bool:
        return sample in self._series()

    @property
    def call(self) -> Row:
        (row,) = self.rest.tables["calls"]
        return row

    @property
    def tool(self) -> Row:
        (row,) = self.rest.tables["tool_executions"]
        return row

    @property
    def transcripts(self) -> list[tuple[str, str]]:
        return [(row["role"], row["content"]) for row in self.rest.tables["transcripts"]]

    @staticmethod
    def _series() -> dict[str, float]:
        found = {}
        for family in REGISTRY.collect():
            for sample in family.samples:
                labels = ",".join(f"{name}={said}" for name, said in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found


class Talk:
    """One call: its session, room and job, and the clock they share."""

    def __init__(self, metadata: Any = "", *, room: Room | None = None, **session: Any) -> None:
        self.told = Told()
        self.session, self.job, self.now = Session(**session), Job(room or Room(), metadata), 100.0

    def run(self, happens: Callable[[Talk], None] | None = None, *, reason: str = "") -> Told:
        """After all that happens and the end of the job."""

        async def main() -> None:
            dispatch = Dispatch.parsed(self.job.job.metadata)
            rows = RowWriter(
                url="http://supabase.test",
                key="service",
                call_id=dispatch.call_id,
                on_error=lambda _: None,
                on_lost=lambda _: None,
                transport=self.told.rest.transport,
            )
            Call(self.session, self.job, dispatch=dispatch, agent_version="1.4", rows=rows, clock=lambda: self.now).begin()
            if happens:
                happens(self)
            await self.job.shut_down(reason)

        asyncio.run(main())
        return self.told


TTFW_COUNT, TTFW_SUM = "voice_agent_ttfw_seconds_count", "voice_agent_ttfw_seconds_sum"


def test_ttfw_is_from_the_end_of_speech_to_the_agents_first_word() -> None:
    """Observed when the agent starts to speak, not when its reply has ended."""

    def happens(talk: Talk) -> None:
        talk.session.says("user", "weather", stopped_speaking_at=10.0)
        talk.session.state("thinking", at=10.5)
        talk.session.state("speaking", at=11.25)
        assert talk.told[TTFW_COUNT] == 1

    told = Talk().run(happens)
    assert told[TTFW_SUM] == 1.25


def test_a_greeting_is_an_assistant_turn_without_ttfw() -> None:
    """Nobody had spoken before it."""

    def happens(talk: Talk) -> None:
        talk.session.state("speaking", at=1.0)
        talk.session.says("assistant", "Hello", started_speaking_at=1.0)

    told = Talk().run(happens)
    assert (told[TTFW_COUNT], told["voice_agent_turns_total{role=assistant}"]) == (0, 1)


def test_a_reply_that_goes_on_after_a_pause_is_not_observed_twice() -> None:
    """Once per user turn: a false interruption makes the agent start to speak again."""

    def happens(talk: Talk) -> None:
        talk.session.says("user", "weather", stopped_speaking_at=10.0)
        for state, at in (("speaking", 11.0), ("listening", 12.0), ("speaking", 13.0)):
            talk.session.state(state, at=at)

    told = Talk().run(happens)
    assert (told[TTFW_COUNT], told[TTFW_SUM]) == (1, 1.0)


def test_a_turn_without_an_end_of_speech_leaves_no_ttfw() -> None:
    """Typed text has no anchor; the one of an older turn must not serve."""

    def happens(talk: Talk) -> None:
        talk.session.says("user", "spoken, never answered", stopped_speaking_at=10.0)
        talk.session.says("user", "typed")
        talk.session.state("speaking", at=70.0)

    told = Talk().run(happens)
    assert (told[TTFW_COUNT], told["voice_agent_turns_total{role=user}"]) == (0, 2)


def test_an_interrupted_reply_is_a_turn_with_the_words_spoken_so_far() -> None:
    """livekit-agents gives the item that text; a row with it is what the caller heard."""
    told = Talk().run(lambda talk: talk.session.says("assistant", "The weather is"))
    assert (told["voice_agent_turns_total{role=assistant}"], told.transcripts) == (1, [("assistant", "The weather is")])


def test_what_is_no_message_is_no_turn() -> None:
    """A handoff has no role; instructions are not spoken."""

    def happens(talk: Talk) -> None:
        talk.session.emit("conversation_item_added", Event(item=Event(type="agent_handoff")))
        talk.session.says("system", "be kind")

    told = Talk().run(happens)
    assert (told.transcripts, told["voice_agent_telemetry_errors_total"]) == ([], 0)


def test_a_transcript_is_dated_when_it_began_to_be_spoken() -> None:
    """An assistant's item comes when its playout has ended, seconds later."""
    told = Talk().run(lambda talk: talk.session.says("assistant", "Hello", started_speaking_at=42.0))
    assert told.rest.tables["transcripts"][0]["timestamp"] == iso(42.0)


def test_a_tool_call_is_counted_and_written_when_it_ends() -> None:
    """Its latency is from start to end, and it is dated at its start."""

    def happens(talk: Talk) -> None:
        talk.session.tool_starts("t1", at=5.0)
        talk.session.tool_ends("t1", at=5.05)

    told = Talk().run(happens)
    assert told["voice_agent_tool_calls_total{success=true,tool=lookup_weather}"] == 1
    row = told.tool
    assert (row["parameters"], row["result"], row["latency_ms"]) == ({"city": "London"}, {"output": "sunny in London"}, 50)
    assert row["executed_at"] == iso(5.0)


@pytest.mark.parametrize(("status", "message", "result"), [("error", "no such city", "no such city"), ("cancelled", None, "cancelled")])
def test_a_tool_that_did_not_come_to_its_end_failed(status: str, message: str | None, result: str) -> None:
    """Errors and cancellations."""

    def happens(talk: Talk) -> None:
        talk.session.tool_starts("t1", at=5.0)
        talk.session.tool_ends("t1", at=6.0, status=status, message=message)

    told = Talk().run(happens)
    assert told["voice_agent_tool_calls_total{success=false,tool=lookup_weather}"] == 1
    assert (told.tool["success"], told.tool["result"]) == (False, {"error": result})


def test_a_tool_that_has_nothing_to_say_succeeded() -> None:
    """It returned None, or handed over to another agent."""

    def happens(talk: Talk) -> None:
        talk.session.tool_starts("t1", at=5.0)
        talk.session.tool_ends("t1", at=6.0, message=None)

    assert Talk().run(happens).tool["success"] is True


def test_a_tool_that_the_model_made_up_failed_under_one_label() -> None:
    """The row has its name; a label must not hold whatever a model says."""
    told = Talk().run(lambda talk: talk.session.tool_refused("make_coffee", "unknown function"))
    assert told["voice_agent_tool_calls_total{success=false,tool=unknown}"] == 1
    assert (told.tool["tool_name"], told.tool["latency_ms"]) == ("make_coffee", None)


def test_counters_of_an_agents_tools_stand_at_0_from_its_start() -> None:
    """Otherwise increase() would not see the first call."""

    def happens(talk: Talk) -> None:
        talk.session.start()
        assert talk.told["voice_agent_tool_calls_total{success=false,tool=book_table}"] == 0

    Talk(tools=("book_table",)).run(happens)


def test_latencies_come_from_the_models() -> None:
    """Seconds; a model that gave nothing (-1) is not observed; the session's deprecated event is not asked."""

    def happens(talk: Talk) -> None:
        talk.session.start()
        talk.session.stt.emit("metrics_collected", Event(type="stt_metrics", streamed=False, duration=0.15))
        for ttft in (0.2, -1):
            talk.session.llm.emit("metrics_collected", Event(type="llm_metrics", ttft=ttft))
        for ttfb in (0.12, -1):
            talk.session.tts.emit("metrics_collected", Event(type="tts_metrics", ttfb=ttfb))
        assert talk.session.heard_by("metrics_collected") == 0

    told = Talk().run(happens)
    for stage, latency_s in (("stt", 0.15), ("llm", 0.2), ("tts", 0.12)):
        assert told[f"voice_agent_{stage}_latency_seconds_count"] == 1
        assert told[f"voice_agent_{stage}_latency_seconds_sum"] == pytest.approx(latency_s)


def test_a_streaming_recognisers_latency_is_its_final_transcripts() -> None:
    """Its own metrics hold a duration of 0."""

    def happens(talk: Talk) -> None:
        talk.session.start()
        talk.session.stt.emit("metrics_collected", Event(type="stt_metrics", streamed=True, duration=0.0))
        talk.session.says("user", "weather", transcription_delay=0.4)

    told = Talk(has_streaming_stt=True).run(happens)
    assert told["voice_agent_stt_latency_seconds_sum"] == pytest.approx(0.4)
    assert told["voice_agent_stt_latency_seconds_count"] == 1


def test_a_new_agents_own_models_are_heard_and_no_model_is_after_the_call() -> None:
    """After a handoff the new agent may bring its own; models may be shared by calls that follow."""
    talk, own = Talk(), Session().llm

    def happens(talk: Talk) -> None:
        talk.session.start()
        talk.session.agent = Event(tools=(), llm=own)
        talk.session.state("thinking")
        assert own.heard_by("metrics_collected") == 1

    talk.run(happens)
    assert [model.heard_by("metrics_collected") for model in (own, talk.session.stt, talk.session.llm)] == [0, 0, 0]


def test_a_call_is_active_until_its_session_closes() -> None:
    """Once, whatever else ends after it."""

    def happens(talk: Talk) -> None:
        assert talk.told["voice_agent_active_calls"] == 1
        talk.session.close()
        assert talk.told["voice_agent_active_calls"] == 0

    assert Talk().run(happens)["voice_agent_active_calls"] == 0


def test_ids_come_from_the_dispatch() -> None:
    """call_id, phone_number and direction are the caller's to give."""
    told = Talk({"call_id": "c-7", "phone_number": "+15550123", "direction": "outbound"}).run()
    assert (told.call["call_id"], told.call["phone_number"], told.call["direction"]) == ("c-7", "+15550123", "outbound")


def test_a_sip_callers_number_is_the_calls() -> None:
    """Although it was in the room before the agent, which no event announces."""
    talk = Talk(room=Room(participant(kind=3, sip_phoneNumber="+442079460000")))
    assert talk.run(lambda talk: talk.session.start()).call["phone_number"] == "+442079460000"


def test_a_sip_number_corrects_the_dispatchs() -> None:
    """The row was begun with what the dispatch said."""
    told = Talk({"phone_number": "+15550123"}).run(lambda talk: talk.job.room.joins(participant(kind=3, sip_phoneNumber="+442079460000")))
    assert told.call["phone_number"] == "+442079460000"


def test_a_caller_without_a_number_has_one_of_the_range_for_fiction() -> None:
    """The same for the same identity."""
    told = Talk().run(lambda talk: talk.job.room.joins(participant("anna")))
    assert told.call["phone_number"] == fictional_number("anna")
    assert told.call["phone_number"].startswith("+155501")


def test_a_call_ends_when_its_caller_left() -> None:
    """Not when the session has closed, two seconds later."""

    def happens(talk: Talk) -> None:
        talk.job.room.joins(participant())
        talk.now = 120.0
        talk.job.room.leaves("caller-1")
        talk.now = 122.0
        talk.session.close()

    row = Talk().run(happens).call
    assert (row["status"], row["duration_seconds"], row["end_time"]) == ("completed", 20, iso(120.0))


def test_who_watches_or_records_is_no_caller() -> None:
    """Their coming and going neither names nor ends the call."""

    def happens(talk: Talk) -> None:
        talk.job.room.joins(participant("recorder", kind=2, sip_phoneNumber="+442079460000"))
        talk.job.room.joins(participant("caller-1"))
        talk.now = 105.0
        talk.job.room.leaves("recorder")
        talk.now = 120.0
        talk.session.close("user_initiated")

    row = Talk().run(happens).call
    assert (row["phone_number"], row["duration_seconds"]) == (fictional_number("caller-1"), 20)


def test_a_caller_who_came_back_had_not_left() -> None:
    """A connection that was lost and made again."""

    def happens(talk: Talk) -> None:
        talk.job.room.joins(participant())
        talk.now = 110.0
        talk.job.room.leaves("caller-1")
        talk.job.room.joins(participant())
        talk.now = 120.0
        talk.session.close("user_initiated")

    assert Talk().run(happens).call["duration_seconds"] == 20


def crash(talk: Talk) -> None:
    talk.session.close("user_initiated")


def break_down(talk: Talk) -> None:
    talk.session.close("error")


def lose_the_room(talk: Talk) -> None:
    talk.job.room.joins(participant())
    talk.job.room.leaves("caller-1", reason=None)
    talk.job.room.emit("disconnected", 9)
    talk.session.close("user_initiated")


@pytest.mark.parametrize(
    ("happens", "reason"), [(crash, "job crashed"), (break_down, ""), (lose_the_room, "room disconnected")], ids=lambda each: str(each)[:20]
)
def test_a_call_that_broke_is_failed(happens: Callable[[Talk], None], reason: str) -> None:
    """The entrypoint raised, the models failed for good, or the media server went away under the caller."""
    assert Talk().run(happens, reason=reason).call["status"] == "failed"


def test_a_room_that_was_deleted_after_the_caller_left_is_no_failure() -> None:
    """livekit closes an empty room."""

    def happens(talk: Talk) -> None:
        talk.job.room.joins(participant())
        talk.job.room.leaves("caller-1")
        talk.job.room.emit("disconnected", 0)

    assert Talk().run(happens, reason="room disconnected").call["status"] == "completed"


def test_a_job_that_ends_without_a_session_ends_its_call() -> None:
    """No row stays active."""
    assert Talk().run().call["status"] == "completed"


def test_an_event_that_cannot_be_taken_in_is_counted() -> None:
    """livekit's emitter would only log it, and a series would lack samples for no visible reason."""
    told = Talk().run(lambda talk: talk.session.emit("conversation_item_added", Event(item=None)))
    assert told["voice_agent_telemetry_errors_total"] == 1
