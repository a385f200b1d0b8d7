"""One call from the first byte to leave: the shell around the dialogue, its line to the server and its leg of the media engine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness import codec
from harness.caller import tokens
from harness.caller.clip import Clip
from harness.caller.dialogue import Dialogue, HangUp, Happening, MediaUp, Note, Said, Say, SpeechBegan, SpeechEnded, Stopped
from harness.caller.engine import Engine
from harness.caller.impairment import DOWN, RATE_HZ, UP, WINDOW_NS, Impairer
from harness.caller.leg import Leg
from harness.caller.line import Line, News
from harness.caller.network import Network
from harness.caller.signaling import Pong, Published, Refused
from harness.caller.windows import Windows
from harness.clock import Clock
from harness.measure.voice import Utterance
from harness.model import CallEvent, CallOutcome, CallPlan, UnixNs, Uplink, value

_SPOKEN_POLL_S = 0.02
"""How often a playing prompt is looked at near its end. Its instants are exact whatever this is."""


@value
class Kit:
    """What all calls of one caller process share."""

    process: str
    network: Network
    clock: Clock
    engine: Engine
    clips: Mapping[str, Clip]
    run_dir: Path
    record: Callable[[CallEvent], None]
    """Writes one event, at once."""
    tap: Callable[[str, bytes], None] | None = None
    """Sees each signalling frame and its way, ``in`` or ``out``: how the frames of the tests were recorded."""


@value
class Ended:
    """How a call ended, for the one who placed it. The truth is in the events."""

    call_id: str
    outcome: CallOutcome
    ttfw_s: tuple[float, ...]


class Session:
    """One call. ``run`` it once; ``stop`` it, from the same loop, at any time."""

    def __init__(self, plan: CallPlan, kit: Kit) -> None:
        self._plan = plan
        self._kit = kit
        self._news: asyncio.Queue[Happening | News] = asyncio.Queue()
        network = dataclasses.replace(kit.network, mode=plan.peers)
        token = tokens.caller_token(plan, api_key=network.api_key, api_secret=network.api_secret)
        self._line = Line(network, token, kit.clock, self._news.put_nowait, kit.tap)
        self._leg: Leg | None = None
        self._impairers: Mapping[str, Impairer] = {}
        self._windows: Windows | None = None
        self._is_speaking = False
        self._spoken_from = UnixNs(0)
        """When a prompt that is playing may have been said at the earliest."""
        self._said: tuple[Said, ...] = ()
        self._ttfw_s: list[float] = []

    def stop(self, reason: str) -> None:
        """Hangs up as soon as the loop turns: the call ends as cut, with leave sent and its end written."""
        self._news.put_nowait(Stopped(reason=reason))

    async def run(self) -> Ended:
        """Places the call and returns when it has ended. Sends leave and writes the end whatever happens, cancellation included."""
        self._record("placed", process=self._kit.process, room=self._plan.room, identity=self._plan.identity)
        end = HangUp(outcome=CallOutcome.CUT, error="the call was cancelled")
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = (tasks.create_task(self._line.hold()), tasks.create_task(self._tell_of_the_wire()))
                end = await self._converse()
                for task in beside:
                    task.cancel()
        except Exception as exc:
            end = HangUp(outcome=CallOutcome.CUT, error=f"the caller itself failed: {exc!r}")
            raise
        finally:
            await asyncio.shield(self._take_leave(end))
        return Ended(call_id=self._plan.call_id, outcome=end.outcome, ttfw_s=tuple(self._ttfw_s))

    async def _converse(self) -> HangUp:
        talk = Dialogue(self._plan, self._kit.clock.now())
        while True:
            happening = await self._next(talk.due_at)
            now = self._kit.clock.now()
            told = () if happening is None else talk.take(now, happening)
            for action in (*told, *talk.tick(now)):
                match action:
                    case HangUp():
                        return action
                    case Say():
                        self._say(action)
                    case Note():
                        self._note(action)

    async def _next(self, due_at: UnixNs | None) -> Happening | None:
        """The next thing that concerns the dialogue, or None when its time has come."""
        while True:
            if said := self._newly_said():
                return said
            wait_s = None if due_at is None else max(0.0, (due_at - self._kit.clock.now()) / 1e9)
            if self._is_speaking:
                poll_s = max(_SPOKEN_POLL_S, (self._spoken_from - self._kit.clock.now()) / 1e9)
                wait_s = poll_s if wait_s is None else min(poll_s, wait_s)
            try:
                news = await asyncio.wait_for(self._news.get(), wait_s)
            except TimeoutError:
                if due_at is not None and self._kit.clock.now() >= due_at:
                    return None
                continue
            match news:
                case Published():
                    self._record("published", sid=news.track_sid)
                case Refused():
                    self._record("refused-request", request=news.request, reason=news.reason)
                case Pong():
                    continue
                case MediaUp():
                    self._plug_in()
                    return news
                case _:
                    return news

    def _newly_said(self) -> Said | None:
        if not self._is_speaking or self._leg is None or len(self._leg.spoken()) == len(self._said):
            return None
        self._is_speaking = False
        spoken = self._leg.spoken()[len(self._said)]
        self._said += (Said(started_at=spoken.started_at, ended_at=spoken.ended_at),)
        return self._said[-1]

    def _plug_in(self) -> None:
        self._leg = Leg(self._kit.clock, *self._line.wires(), grade=self._plan.grade)
        self._leg.listen(self._hear)
        self._impair(self._leg)
        self._kit.engine.add(self._leg)
        self._windows = Windows(self._leg, self._kit.clock.now())

    def _impair(self, leg: Leg) -> None:
        """What the plan's network does to packets from now on; nothing stands in the way of a direction without impairments."""
        now = self._kit.clock.now()
        self._impairers = {
            direction: Impairer(self._plan.impairments, direction=direction, seed=self._plan.seed, since=now)
            for direction in (UP, DOWN)
            if any(impairment.direction == direction for impairment in self._plan.impairments)
        }
        up = self._impairers.get(UP)
        leg.impair(up, self._impairers.get(DOWN), None if up is None else up.left)

    async def _tell_of_the_wire(self) -> None:
        """Records what it did, and what impairments did to it, while it goes on: a process that dies loses one window."""
        while True:
            await asyncio.sleep(WINDOW_NS / 1e9)
            self._record_impaired()
            self._record_window()

    def _record_window(self) -> None:
        if self._windows is not None:
            for window in self._windows.take(self._kit.clock.now()):
                self._record("wire-window", **codec.to_json(window))

    def _record_uplink(self, leg: Leg) -> None:
        """What the server's reports said of an impaired uplink, beside what it really was at the packet that each report names."""
        up = self._impairers.get(UP)
        if up is None:
            return
        # livekit-server names the number after the highest that came (rtpstats_receiver.go, GetRtcpReceptionReport).
        found = [(block, truth) for block in leg.reports() if (truth := up.truth_after(block.highest_sequence - 1)) is not None]
        uplink = Uplink(
            reported_jitter_s=tuple(block.jitter / RATE_HZ for block, _ in found),
            true_jitter_s=tuple(jitter_s for _, (jitter_s, _) in found),
            reported_lost=tuple(block.lost for block, _ in found),
            true_lost=tuple(lost for _, (_, lost) in found),
        )
        self._record("uplink", **codec.to_json(uplink))

    def _record_impaired(self, *, is_final: bool = False) -> None:
        for impairer in self._impairers.values():
            for window in impairer.windows(is_final=is_final):
                self._record("impaired", **codec.to_json(window))

    def _hear(self, utterance: Utterance) -> None:
        if utterance.ended_at is None:
            self._news.put_nowait(SpeechBegan(started_at=utterance.started_at))
        else:
            self._news.put_nowait(SpeechEnded(started_at=utterance.started_at, ended_at=utterance.ended_at))

    def _say(self, action: Say) -> None:
        assert self._leg is not None, "the dialogue speaks only once the media path is up"
        clip = self._kit.clips[action.prompt]
        self._leg.play(clip)
        self._is_speaking = True
        self._spoken_from = UnixNs(self._kit.clock.now() + clip.last_voiced_sample * 1_000_000_000 // RATE_HZ)

    def _note(self, note: Note) -> None:
        self._record(note.kind, **note.fields)
        if note.kind != "reply":
            return
        said, first_word_at = self._said[-1], note.fields["first_word_at"]
        self._ttfw_s.append((first_word_at - said.ended_at) / 1e9)
        if reason := self._kit.engine.doubt(said.started_at, max(said.ended_at, first_word_at)):
            self._record("doubt", index=note.fields["index"], reason=reason)

    async def _take_leave(self, end: HangUp) -> None:
        """Leave first, so that the server counts us out whatever fails afterwards; the event ``ended`` last."""
        try:
            if await self._line.leave():
                self._record("left")
            await self._hang_up()
        finally:
            self._record("ended", outcome=end.outcome, error=end.error)

    async def _hang_up(self) -> None:
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._line.close)
            if self._leg is None:
                return
            await self._kit.engine.remove(self._leg)
            self._record_impaired(is_final=True)
            self._record_uplink(self._leg)
            self._record_window()
            for reports in self._leg.receiver_reports():
                self._record("reports", **codec.to_json(reports))
            for stats in self._leg.wire_stats():
                self._record("wire", **codec.to_json(stats))
        path = Path("audio") / f"call-{self._plan.index}.wav"
        started_at = await asyncio.to_thread(self._leg.write_recording, self._kit.run_dir / path)
        if started_at is not None:
            self._record("recorded", path=str(path), started_at=started_at)

    def _record(self, kind: str, **fields: Any) -> None:
        self._kit.record(CallEvent(at=self._kit.clock.now(), call_id=self._plan.call_id, kind=kind, fields=fields))
