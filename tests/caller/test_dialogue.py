"""Turn taking in virtual time: a script of happenings in, what the caller did out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from harness.caller.dialogue import (
    JOIN_TIMEOUT_S,
    MEDIA_TIMEOUT_S,
    Dialogue,
    HangUp,
    Happening,
    MediaDown,
    MediaUp,
    Note,
    Rejected,
    Said,
    Say,
    SignalLost,
    SpeechBegan,
    SpeechEnded,
    Stopped,
)
from harness.caller.signaling import AgentJoined, AgentLeft, AgentTrack, Joined, ServerLeft
from harness.model import CallPlan, UnixNs
from tests.caller.plans import plan

EPOCH = 1_795_000_000_000_000_000
ADMITTED = Joined(sid="PA_caller", room_sid="RM_1", server_version="1.13.5")
AGENT = AgentJoined(identity="agent-1", sid="PA_agent")
TRACK = AgentTrack(identity="agent-1", track_sid="TR_1", source="MICROPHONE")
GONE = AgentLeft(identity="agent-1", reason="STATE_MISMATCH", remaining=0)
PROMPT_S = 2.0


def at(seconds: float) -> UnixNs:
    """The instant ``seconds`` after the call was placed."""
    return UnixNs(EPOCH + round(seconds * 1e9))


def began(seconds: float) -> tuple[float, Happening]:
    """The agent's onset, told when it happens."""
    return seconds, SpeechBegan(started_at=at(seconds))


def ended(start: float, end: float) -> tuple[float, Happening]:
    """The agent's last voiced sample, told 0.4 s later."""
    return end + 0.4, SpeechEnded(started_at=at(start), ended_at=at(end))


def speech(start: float, end: float) -> tuple[tuple[float, Happening], ...]:
    """One utterance of the agent, as it is told."""
    return began(start), ended(start, end)


ANSWERED: tuple[tuple[float, Happening], ...] = ((0.01, ADMITTED), (0.05, MediaUp()), (0.5, AGENT), (0.6, TRACK))
"""A call up to the agent's audio track."""
GREETED = (*ANSWERED, *speech(1.0, 2.0))
"""... and to the end of its greeting: the caller speaks at 3.0."""


def play(call: CallPlan, happenings: Iterable[tuple[float, Happening]], *, prompt_s: float = PROMPT_S) -> list[tuple[float, str]]:
    """What the caller does, with the second of each act. Every prompt takes ``prompt_s``; the time runs on until the caller hangs up."""
    talk = Dialogue(call, at(0))
    waiting = sorted(happenings, key=lambda entry: entry[0])
    acts: list[tuple[float, str]] = []
    while not talk.is_over:
        due_s = (talk.due_at - EPOCH) / 1e9 if talk.due_at is not None else float("inf")
        if waiting and waiting[0][0] <= due_s:
            now_s, happening = waiting.pop(0)
            actions = talk.take(at(now_s), happening)
        else:
            now_s = due_s
            actions = talk.tick(at(now_s))
        for action in actions:
            acts.append((round(now_s, 3), _words(action)))
            if isinstance(action, Say):
                left_at = now_s + prompt_s
                waiting.append((left_at, Said(started_at=at(now_s), ended_at=at(left_at))))
                waiting.sort(key=lambda entry: entry[0])
    return acts


def _words(action: Say | Note | HangUp) -> str:
    match action:
        case Say():
            return f"say {action.prompt}"
        case HangUp():
            return f"hang up {action.outcome}"
        case Note():
            return " ".join((action.kind, *(str(_plain(name, value)) for name, value in action.fields.items())))


def _plain(name: str, value: Any) -> Any:
    return round((value - EPOCH) / 1e9, 3) if name.endswith("_at") else value


def outcome(acts: list[tuple[float, str]]) -> tuple[float, str]:
    """When and how the caller hung up."""
    return acts[-1]


def notes(acts: list[tuple[float, str]], *kinds: str) -> list[str]:
    """The events of these kinds, in order."""
    return [words for _, words in acts if words.split()[0] in kinds]


def error(call: CallPlan, happenings: Mapping[float, Happening]) -> str | None:
    """The sentence with which the call ended."""
    talk = Dialogue(call, at(0))
    for now_s, happening in happenings.items():
        for action in talk.take(at(now_s), happening):
            if isinstance(action, HangUp):
                return action.error
    return None


def test_a_call_takes_its_turns_and_hangs_up() -> None:
    """Greeting, two prompts, two replies, each heard to its end; then the caller leaves."""
    acts = play(plan("weather", "goodbye"), (*GREETED, *speech(6.0, 7.0), *speech(11.0, 12.0)))

    assert acts == [
        (0.01, "admitted PA_caller RM_1 1.13.5"),
        (0.05, "joined"),
        (0.5, "agent-joined agent-1 PA_agent"),
        (0.6, "agent-track agent-1 TR_1 MICROPHONE"),
        (1.0, "greeted 1.0"),
        (3.0, "greeting-ended 2.0"),
        (3.0, "say weather"),
        (5.0, "speech 1 weather 3.0 5.0"),
        (6.0, "reply 1 6.0"),
        (8.0, "reply-ended 1 7.0"),
        (8.0, "say goodbye"),
        (10.0, "speech 2 goodbye 8.0 10.0"),
        (11.0, "reply 2 11.0"),
        (13.0, "reply-ended 2 12.0"),
        (13.0, "hang up completed"),
    ]


def test_a_reply_of_two_sentences_is_heard_to_the_end_of_the_second() -> None:
    """A pause of 0.6 s between two sentences of one reply does not make the caller speak."""
    acts = play(plan("weather"), (*GREETED, *speech(6.0, 7.0), *speech(7.6, 8.5)))

    assert notes(acts, "reply", "reply-ended", "overtalk") == ["reply 1 6.0", "reply-ended 1 8.5"]


def test_a_greeting_that_never_comes_does_not_stop_the_caller() -> None:
    """The caller speaks after the answer timeout, as a person would; the call ends as silent all the same."""
    acts = play(plan("weather"), (*ANSWERED, *speech(14.0, 15.0)))

    assert notes(acts, "missed", "reply") == ["missed 0", "reply 1 14.0"]
    assert outcome(acts)[1] == "hang up silent"


def test_two_misses_in_a_row_end_the_call() -> None:
    """Greeting and first reply unheard: two answer timeouts after the agent joined, and the prompt between them."""
    acts = play(plan("weather", "goodbye"), ANSWERED)

    assert notes(acts, "missed") == ["missed 0", "missed 1"]
    assert outcome(acts) == (22.5, "hang up silent")


def test_one_missed_turn_leaves_the_others_their_chance() -> None:
    """After a missed reply the next prompt is spoken, and the call ends as silent."""
    acts = play(plan("weather", "goodbye"), (*GREETED, *speech(18.0, 19.0)))

    assert notes(acts, "missed", "reply", "speech") == [
        "speech 1 weather 3.0 5.0",
        "missed 1",
        "speech 2 goodbye 15.0 17.0",
        "reply 2 18.0",
    ]
    assert outcome(acts) == (20.0, "hang up silent")


def test_a_call_without_an_expected_greeting_starts_after_a_moment() -> None:
    """No greeting expected: one second after the agent's track, the caller speaks."""
    acts = play(plan("weather", greeting=None), (*ANSWERED, *speech(4.0, 5.0)))

    assert (1.6, "say weather") in acts
    assert outcome(acts)[1] == "hang up completed"


def test_an_unexpected_greeting_is_heard_out() -> None:
    """A greeting that begins within that second is waited for."""
    acts = play(plan("weather", greeting=None), (*ANSWERED, *speech(1.2, 3.0), *speech(7.0, 8.0)))

    assert (4.0, "say weather") in acts


def test_a_reply_before_the_prompts_end_is_a_negative_latency() -> None:
    """The agent talks over the end of the prompt: its first word stays what it was, before the end of the user's speech."""
    acts = play(plan("weather"), (*GREETED, *speech(4.8, 6.0)))

    assert notes(acts, "speech", "reply", "overtalk") == ["speech 1 weather 3.0 5.0", "reply 1 4.8"]


def test_words_inside_the_prompt_are_no_reply() -> None:
    """What begins and ends while the caller speaks answers something older; the reply is what comes after the prompt."""
    acts = play(plan("weather"), (*GREETED, *speech(3.4, 4.0), *speech(6.0, 7.0)))

    assert notes(acts, "reply", "overtalk") == ["overtalk 3.4 4.0", "reply 1 6.0"]


def test_words_that_die_with_the_prompt_are_no_reply() -> None:
    """The agent is interrupted by the prompt, told so only after the prompt's end: the reply is still to come."""
    acts = play(plan("weather"), (*GREETED, *speech(3.4, 4.9), *speech(6.0, 7.0)))

    assert notes(acts, "reply", "overtalk") == ["overtalk 3.4 4.9", "reply 1 6.0"]


def test_an_endless_speech_is_spoken_to() -> None:
    """An agent that speaks for a minute without a pause does not hold the caller for ever."""
    acts = play(plan("weather"), (*ANSWERED, began(1.0)))

    assert (61.0, "say weather") in acts


def test_no_agent_within_the_answer_timeout() -> None:
    """Nobody joins: ten seconds after the media path was up."""
    assert outcome(play(plan(), ANSWERED[:2])) == (10.05, "hang up no-agent")


def test_the_answer_timeout_is_the_plans() -> None:
    """A plan that waits three seconds waits three seconds."""
    assert outcome(play(plan(answer_timeout_s=3.0), ANSWERED[:2])) == (3.05, "hang up no-agent")


def test_the_agent_leaves() -> None:
    """The last agent left while the caller waited for a reply."""
    assert outcome(play(plan(), (*GREETED, (6.0, GONE)))) == (6.0, "hang up agent-left")


def test_one_of_two_agents_may_leave() -> None:
    """A second agent in the room keeps the call going."""
    acts = play(plan("weather"), (*GREETED, (4.0, AgentLeft(identity="agent-2", reason="JOB", remaining=1)), *speech(6.0, 7.0)))

    assert outcome(acts)[1] == "hang up completed"


def test_an_agent_that_leaves_after_its_reply_keeps_the_replys_end() -> None:
    """It goes 0.5 s after its last word, before the caller was sure: the end of the reply is known all the same."""
    acts = play(plan("goodbye"), (*GREETED, *speech(6.0, 7.0), (7.5, GONE)))

    assert notes(acts, "reply-ended") == ["reply-ended 1 7.0"]


def test_a_blocked_network_is_named_within_fifteen_seconds() -> None:
    """The server lets the caller in and no media path comes up: the outcome says so before 15 s have passed."""
    ended_s, words = outcome(play(plan(), ANSWERED[:1]))

    assert (ended_s, words) == (0.01 + MEDIA_TIMEOUT_S, "hang up udp-blocked")
    assert ended_s < 15


def test_failed_checks_are_a_blocked_network_too() -> None:
    """ICE that gives up before the timeout names it at once."""
    said = error(plan(), {0.01: ADMITTED, 5.0: MediaDown(reason="publisher connection: ICE failed")})

    assert said == (
        "signalling works but no media path was found (publisher connection: ICE failed): UDP between here and the media server is blocked"
    )


def test_media_lost_later_is_a_lost_connection() -> None:
    """The same failure in the middle of a call is no blocked network."""
    assert outcome(play(plan(), (*GREETED, (4.0, MediaDown(reason="ICE failed"))))) == (4.0, "hang up disconnected")


def test_a_dead_server_is_a_lost_connection() -> None:
    """The websocket breaks when the server dies."""
    assert outcome(play(plan(), (*GREETED, (4.0, SignalLost(reason="1006"))))) == (4.0, "hang up disconnected")


def test_a_server_that_says_leave_ends_the_call() -> None:
    """A deleted room ends the call from the server's side."""
    said = ServerLeft(reason="ROOM_DELETED", action="DISCONNECT")

    assert outcome(play(plan(), (*GREETED, (4.0, said)))) == (4.0, "hang up disconnected")


def test_a_refusal_is_told_in_the_servers_words() -> None:
    """The reason of a refusal becomes the call's error."""
    assert error(plan(), {0.1: Rejected(reason="401 invalid API key")}) == "401 invalid API key"


def test_a_server_that_never_answers_the_join_refused_it() -> None:
    """No join response within the timeout."""
    assert outcome(play(plan(), ())) == (JOIN_TIMEOUT_S, "hang up refused")


def test_a_stopped_process_cuts_its_calls() -> None:
    """A signal to our own process ends the call as cut, at once."""
    assert outcome(play(plan(), (*GREETED, (4.0, Stopped(reason="SIGTERM"))))) == (4.0, "hang up cut")


def test_a_prompt_that_never_leaves_ends_the_call() -> None:
    """Our own media engine is dead: the call is cut, and the agent is not blamed."""
    assert outcome(play(plan(), GREETED, prompt_s=1e6))[1] == "hang up cut"


def test_audio_may_overtake_the_announcement_of_the_agent() -> None:
    """The first word is heard before the agent's arrival is told: it is the greeting all the same."""
    acts = play(plan("weather"), (*ANSWERED[:2], began(0.4), (0.5, AGENT), ended(0.4, 2.0), *speech(6.0, 7.0)))

    assert notes(acts, "greeted", "greeting-ended", "reply") == ["greeted 0.4", "greeting-ended 2.0", "reply 1 6.0"]


def test_an_agent_that_was_there_first_is_waited_for() -> None:
    """The join itself announces the agent, before the media path is up: its greeting is awaited from then on, and missed."""
    acts = play(plan("weather"), ((0.01, ADMITTED), (0.01, AGENT), (0.01, TRACK), (0.05, MediaUp())))

    assert notes(acts, "missed") == ["missed 0", "missed 1"]


def test_an_agent_that_was_there_first_and_does_not_greet() -> None:
    """Where no greeting is expected, the caller speaks one second after the media path is up."""
    acts = play(plan("weather", greeting=None), ((0.01, ADMITTED), (0.01, AGENT), (0.01, TRACK), (0.05, MediaUp()), *speech(4.0, 5.0)))

    assert (1.05, "say weather") in acts


def test_nothing_follows_a_hang_up() -> None:
    """A happening after the end changes nothing."""
    talk = Dialogue(plan(), at(0))
    talk.take(at(1), Rejected(reason="401"))

    assert talk.take(at(2), MediaUp()) == ()
    assert talk.due_at is None


def impatient(after_s: float) -> CallPlan:
    """A call whose second prompt begins so long after the first word of the first reply."""
    call = plan()
    return dataclasses.replace(call, turns=(call.turns[0], dataclasses.replace(call.turns[1], barge_in_after_s=after_s)))


def test_a_caller_barges_into_a_reply() -> None:
    """It speaks 1 s after the reply's first word; what it talks over ends when the agent falls silent, and is no reply to it."""
    acts = play(impatient(1.0), (*GREETED, *speech(6.0, 7.5), *speech(10.0, 11.0)))

    assert (7.0, "say goodbye") in acts
    assert notes(acts, "reply", "talked-over", "reply-ended") == [
        "reply 1 6.0",
        "talked-over 1 6.0 7.5",
        "reply 2 10.0",
        "reply-ended 2 11.0",
    ]
    assert outcome(acts)[1] == "hang up completed"


def test_a_reply_that_is_over_before_is_not_talked_down() -> None:
    """The caller waits for its end as ever."""
    acts = play(impatient(5.0), (*GREETED, *speech(6.0, 7.0), *speech(10.5, 11.0)))

    assert (8.0, "say goodbye") in acts
    assert notes(acts, "talked-over") == []


def test_an_agent_that_cannot_be_talked_down_is_waited_for() -> None:
    """It goes on until after the prompt; only then its answer counts."""
    acts = play(impatient(1.0), (*GREETED, *speech(6.0, 9.6), *speech(10.5, 11.0)))

    assert notes(acts, "talked-over", "reply") == ["reply 1 6.0", "talked-over 1 6.0 9.6", "reply 2 10.5"]


def test_a_caller_that_has_had_enough_hangs_up() -> None:
    """So long after its media path was up, in the middle of its own sentence."""
    acts = play(dataclasses.replace(plan(), hangs_up_after_s=4.0), (*GREETED, *speech(6.0, 7.0)))

    assert outcome(acts) == (4.05, "hang up hung-up")
    assert notes(acts, "speech") == []
