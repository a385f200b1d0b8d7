"""One caller's conduct as a sans-IO machine: happenings and the time in, actions out. It keeps no clock and opens nothing.

    calling -> connecting -> waiting -> greeting -> speaking -> listening -> hearing <-> pausing -> speaking ... -> over
    (join)     (media path)  (agent)    (its word)  (a prompt)  (for a reply)           (is it done?)  (next turn)

A reply that never comes is *missed*: like a person, the caller goes on with its next sentence, and hangs up after two misses in a row. A turn whose
plan says so begins while the agent still speaks: the caller *barges in*, and what it talks over ends when the agent falls silent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any

from harness.caller.signaling import AgentJoined, AgentLeft, AgentTrack, Joined, ServerLeft
from harness.model import CallOutcome, CallPlan, UnixNs, value

JOIN_TIMEOUT_S = 10.0
"""Longest wait for the server to let us in."""
MEDIA_TIMEOUT_S = 12.0
"""Longest wait for the media path once signalling works. With the join it stays below the 15 s in which a blocked UDP must be named."""
SETTLE_S = 1.0
"""How long a caller that expects no greeting listens before its first sentence: an unexpected greeting is not talked down."""
REPLY_GAP_S = 0.9
"""Silence after which a reply is over: longer than a synthesiser pauses between two sentences of one reply (end of the first to onset of
the second), which takes up to about 0.6 s where the second is synthesised only when the first has been played."""
TELLING_S = 0.1
"""Longest delay between a sound's arrival and our being told of it."""
SPEECH_LIMIT_S = 60.0
"""An agent that speaks this long without a pause is spoken to all the same."""
SPOKEN_SLACK_S = 30.0
"""Longest a prompt may take to leave. Beyond it our own media engine is dead."""
MISSES = 2
"""Unheard replies in a row after which a caller hangs up."""


@value
class MediaUp:
    """ICE and DTLS are connected; packets flow."""


@value
class MediaDown:
    """The media path failed, before or after it was up."""

    reason: str


@value
class SignalLost:
    """The websocket closed or fell silent."""

    reason: str


@value
class Rejected:
    """The server did not let us in."""

    reason: str


@value
class Stopped:
    """Our own process is told to stop."""

    reason: str


@value
class Said:
    """A prompt has left. Instants of its first and last voiced sample on the wire."""

    started_at: UnixNs
    ended_at: UnixNs


@value
class SpeechBegan:
    """The agent is heard. Instant of its first voiced sample."""

    started_at: UnixNs


@value
class SpeechEnded:
    """The agent has paused, perhaps between two sentences. Told ``harness.measure.voice.PAUSE_S`` after its last voiced sample."""

    started_at: UnixNs
    ended_at: UnixNs


Happening = (
    Joined
    | MediaUp
    | MediaDown
    | SignalLost
    | ServerLeft
    | Rejected
    | Stopped
    | AgentJoined
    | AgentTrack
    | AgentLeft
    | Said
    | SpeechBegan
    | SpeechEnded
)


@value
class Say:
    """Action: speak this prompt."""

    prompt: str


@value
class Note:
    """Action: write this event; kinds and fields are listed in ``harness.caller.records``."""

    kind: str
    fields: Mapping[str, Any]


@value
class HangUp:
    """Action: send leave and close. Nothing follows it."""

    outcome: CallOutcome
    error: str | None


Action = Say | Note | HangUp


class _Phase(enum.Enum):
    CALLING = enum.auto()
    CONNECTING = enum.auto()
    WAITING = enum.auto()
    GREETING = enum.auto()
    SPEAKING = enum.auto()
    LISTENING = enum.auto()
    HEARING = enum.auto()
    PAUSING = enum.auto()
    OVER = enum.auto()


class Dialogue:
    """The conduct of one call. Give it every happening by ``take``, and the time by ``tick`` at ``due_at`` or later."""

    def __init__(self, plan: CallPlan, placed_at: UnixNs) -> None:
        self._plan = plan
        self._phase = _Phase.CALLING
        self._turn = 0
        """The turn under way, from 1; 0 while the greeting is."""
        self._has_agent = False
        self._has_track = False
        self._said: Said | None = None
        """The prompt of the turn, once it has left."""
        self._speaking: SpeechBegan | None = None
        """What the agent is saying now."""
        self._last_word_at: UnixNs | None = None
        """Last voiced sample of the greeting or reply that may be over."""
        self._first_word_at: UnixNs | None = None
        """First word of the greeting or reply that is heard."""
        self._talked_over: int | None = None
        """The turn whose reply the caller has barged into, until the next one is heard."""
        self._is_reply_noted = False
        self._misses = 0
        self._has_missed = False
        self._hangs_up_at: UnixNs | None = None
        """When the caller has had enough. None: it stays to the end, or its media path is not up yet."""
        self.due_at: UnixNs | None = _after(placed_at, JOIN_TIMEOUT_S)
        """When ``tick`` is wanted. None: never again."""

    @property
    def is_over(self) -> bool:
        """The caller has hung up."""
        return self._phase is _Phase.OVER

    def take(self, now: UnixNs, happening: Happening) -> tuple[Action, ...]:
        """What the caller does about ``happening``."""
        if self.is_over:
            return ()
        return tuple(self._react(now, happening))

    def tick(self, now: UnixNs) -> tuple[Action, ...]:
        """What the caller does because time has passed."""
        if self.is_over or self.due_at is None or now < self.due_at:
            return ()
        return tuple(self._time_out(now))

    def _react(self, now: UnixNs, happening: Happening) -> Iterator[Action]:
        match happening:
            case Joined():
                yield _note("admitted", sid=happening.sid, room_sid=happening.room_sid, server_version=happening.server_version)
                if self._phase is _Phase.CALLING:
                    self._enter(_Phase.CONNECTING, now, MEDIA_TIMEOUT_S)
            case MediaUp():
                yield _note("joined")
                if self._phase in (_Phase.CALLING, _Phase.CONNECTING):
                    if self._plan.hangs_up_after_s is not None:
                        self._hangs_up_at = _after(now, self._plan.hangs_up_after_s)
                    self._enter(_Phase.WAITING, now, self._plan.answer_timeout_s)
                    self._await_greeting(now)
            case AgentJoined():
                yield _note("agent-joined", identity=happening.identity, sid=happening.sid)
                self._has_agent = True
                self._await_greeting(now)
            case AgentTrack():
                yield _note("agent-track", identity=happening.identity, sid=happening.track_sid, source=happening.source)
                self._has_track = True
                self._await_greeting(now)
            case SpeechBegan():
                yield from self._on_word(now, happening)
            case SpeechEnded():
                yield from self._on_silence(now, happening.started_at, happening.ended_at)
            case Said():
                yield from self._on_said(now, happening)
            case AgentLeft():
                yield _note("agent-left", identity=happening.identity, reason=happening.reason, remaining=happening.remaining)
                if happening.remaining == 0:
                    if self._phase is _Phase.PAUSING:
                        yield from self._note_end()
                    yield from self._hang_up(CallOutcome.AGENT_LEFT, f"the agent left the room: {happening.reason}")
            case MediaDown():
                yield from self._on_media_down(happening.reason)
            case SignalLost():
                yield from self._hang_up(CallOutcome.DISCONNECTED, happening.reason)
            case ServerLeft():
                yield from self._hang_up(CallOutcome.DISCONNECTED, f"the media server ended the call: {happening.reason}")
            case Rejected():
                yield from self._hang_up(CallOutcome.REFUSED, happening.reason)
            case Stopped():
                yield from self._hang_up(CallOutcome.CUT, happening.reason)

    def _time_out(self, now: UnixNs) -> Iterator[Action]:
        wait_s = self._plan.answer_timeout_s
        if self._hangs_up_at is not None and now >= self._hangs_up_at:
            yield from self._hang_up(CallOutcome.HUNG_UP, None)
            return
        match self._phase:
            case _Phase.CALLING:
                yield from self._hang_up(CallOutcome.REFUSED, f"the media server answered no join within {JOIN_TIMEOUT_S:g} s")
            case _Phase.CONNECTING:
                yield from self._on_media_down(f"no connection within {MEDIA_TIMEOUT_S:g} s")
            case _Phase.WAITING:
                yield from self._hang_up(
                    CallOutcome.NO_AGENT, f"no agent joined within {wait_s:g} s; is a worker registered for this name?"
                )
            case _Phase.GREETING if self._plan.greeting is None:
                yield from self._next_turn(now)
            case _Phase.GREETING | _Phase.LISTENING:
                yield from self._miss(now)
            case _Phase.SPEAKING:
                yield from self._hang_up(CallOutcome.CUT, "our media engine never finished a prompt")
            case _Phase.PAUSING:
                yield from self._note_end()
                yield from self._next_turn(now)
            case _Phase.HEARING:
                talked_over = self._turn if self._barge_in_at() is not None else None
                yield from self._next_turn(now)
                self._talked_over = talked_over
            case _Phase.OVER:
                return

    def _on_word(self, now: UnixNs, heard: SpeechBegan) -> Iterator[Action]:
        self._speaking = heard
        if self._phase in (_Phase.WAITING, _Phase.GREETING):  # waiting: its audio overtook the announcement that it came
            yield _note("greeted", first_word_at=heard.started_at)
            self._first_word_at = heard.started_at
            self._hear(now)
        elif self._phase is _Phase.LISTENING:
            yield from self._note_reply(heard.started_at)
            self._hear(now)
        elif self._phase is _Phase.PAUSING:
            self._hear(now)

    def _on_said(self, now: UnixNs, said: Said) -> Iterator[Action]:
        if self._phase is not _Phase.SPEAKING:
            return
        self._said = said
        turn = self._plan.turns[self._turn - 1]
        yield _note("speech", index=self._turn, prompt=turn.prompt, started_at=said.started_at, ended_at=said.ended_at)
        self._enter(_Phase.LISTENING, now, self._plan.answer_timeout_s)
        if self._speaking is None or self._speaking.started_at < said.started_at:
            return
        # The agent began during the prompt. Whether it answers, or only finishes something older, its last word tells: see _on_silence.
        if self._speaking.started_at >= said.ended_at:
            yield from self._note_reply(self._speaking.started_at)
        self._hear(now)

    def _on_silence(self, now: UnixNs, started_at: UnixNs, ended_at: UnixNs) -> Iterator[Action]:
        self._speaking = None
        if self._talked_over is not None and self._phase in (_Phase.SPEAKING, _Phase.LISTENING):
            yield _note("talked-over", index=self._talked_over, started_at=started_at, ended_at=ended_at)
            return
        is_older = self._said is not None and ended_at <= self._said.ended_at
        if self._phase is not _Phase.HEARING or is_older:
            yield _note("overtalk", started_at=started_at, ended_at=ended_at)
            if self._phase is _Phase.HEARING:
                self._enter(_Phase.LISTENING, now, self._plan.answer_timeout_s)
            return
        if self._turn > 0 and not self._is_reply_noted:
            yield from self._note_reply(started_at)
        self._last_word_at = ended_at
        self._enter(_Phase.PAUSING, ended_at, REPLY_GAP_S + TELLING_S)

    def _note_end(self) -> Iterator[Action]:
        self._misses = 0
        if self._turn == 0:
            yield _note("greeting-ended", ended_at=self._last_word_at)
        else:
            yield _note("reply-ended", index=self._turn, ended_at=self._last_word_at)

    def _note_reply(self, first_word_at: UnixNs) -> Iterator[Action]:
        self._is_reply_noted = True
        self._talked_over = None
        self._first_word_at = first_word_at
        yield _note("reply", index=self._turn, first_word_at=first_word_at)

    def _miss(self, now: UnixNs) -> Iterator[Action]:
        yield _note("missed", index=self._turn)
        self._misses += 1
        self._has_missed = True
        if self._misses >= MISSES:
            yield from self._hang_up(CallOutcome.SILENT, f"the agent left {self._misses} sentences in a row unanswered")
            return
        yield from self._next_turn(now)

    def _next_turn(self, now: UnixNs) -> Iterator[Action]:
        if self._turn == len(self._plan.turns):
            if self._has_missed:
                yield from self._hang_up(CallOutcome.SILENT, "the agent left at least one sentence unanswered")
            else:
                yield from self._hang_up(CallOutcome.COMPLETED, None)
            return
        self._turn += 1
        self._said = None
        self._first_word_at = None
        self._talked_over = None
        self._is_reply_noted = False
        self._enter(_Phase.SPEAKING, now, SPOKEN_SLACK_S)
        yield Say(prompt=self._plan.turns[self._turn - 1].prompt)

    def _on_media_down(self, reason: str) -> Iterator[Action]:
        if self._phase in (_Phase.CALLING, _Phase.CONNECTING):
            sentence = f"signalling works but no media path was found ({reason}): UDP between here and the media server is blocked"
            yield from self._hang_up(CallOutcome.UDP_BLOCKED, sentence)
        else:
            yield from self._hang_up(CallOutcome.DISCONNECTED, f"the media path was lost: {reason}")

    def _hang_up(self, outcome: CallOutcome, error: str | None) -> Iterator[Action]:
        self._phase = _Phase.OVER
        self.due_at = None
        yield HangUp(outcome=outcome, error=error)

    def _await_greeting(self, now: UnixNs) -> None:
        """Once the media path is up and the agent is there, in whatever order that came."""
        if self._phase is _Phase.WAITING and self._has_agent:
            self._enter(_Phase.GREETING, now, self._plan.answer_timeout_s)
        if self._phase is _Phase.GREETING and self._has_track and self._plan.greeting is None:
            self._enter(_Phase.GREETING, now, SETTLE_S)

    def _hear(self, now: UnixNs) -> None:
        self._enter(_Phase.HEARING, now, SPEECH_LIMIT_S)
        barge_in_at = self._barge_in_at()
        if barge_in_at is not None and self.due_at is not None:
            self.due_at = min(self.due_at, barge_in_at)

    def _barge_in_at(self) -> UnixNs | None:
        """When the caller talks down what it hears. None: it waits for its end."""
        after_s = self._plan.turns[self._turn].barge_in_after_s if self._turn < len(self._plan.turns) else None
        return None if after_s is None or self._first_word_at is None else _after(self._first_word_at, after_s)

    def _enter(self, phase: _Phase, now: UnixNs, limit_s: float) -> None:
        self._phase = phase
        self.due_at = _after(now, limit_s)
        if self._hangs_up_at is not None:
            self.due_at = min(self.due_at, self._hangs_up_at)


def _after(at: UnixNs, seconds: float) -> UnixNs:
    return UnixNs(at + round(seconds * 1e9))


def _note(kind: str, **fields: Any) -> Note:
    return Note(kind=kind, fields=fields)
