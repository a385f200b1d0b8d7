"""One call from the first byte to leave: the shell around signalling, dialogue, peer connections and the media engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from harness import codec
from harness.caller import dialogue, signaling, tokens
from harness.caller.clip import Clip
from harness.caller.dialogue import Dialogue, HangUp, Happening, Note, Said, Say
from harness.caller.engine import Engine
from harness.caller.leg import Leg
from harness.caller.network import Network
from harness.caller.peers import Peers
from harness.caller.signaling import PeerMode, Signaling
from harness.clock import Clock
from harness.measure.voice import Utterance
from harness.model import CallEvent, CallOutcome, CallPlan, UnixNs, value

_SPOKEN_POLL_S = 0.02
"""How often a playing prompt is looked at. Its instants are exact whatever this is."""
_SIGNAL_SILENCE_S = 15.0
"""Pings unanswered this long: the signalling connection is dead, whatever TCP believes. The server's own ``ping_timeout``."""
_FAREWELL_S = 2.0
"""Longest wait for each thing that is only polite: sending leave, closing handshakes."""


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
        self._network = kit.network
        self._happenings: asyncio.Queue[Happening] = asyncio.Queue()
        self._peers = Peers(
            kit.network.mode,
            up=lambda: self._happenings.put_nowait(dialogue.MediaUp()),
            down=lambda reason: self._happenings.put_nowait(dialogue.MediaDown(reason=reason)),
        )
        self._signaling = Signaling(mode=kit.network.mode, track_id=self._peers.track_id)
        self._websocket: ClientConnection | None = None
        self._ponged_at = kit.clock.now()
        self._leg: Leg | None = None
        self._is_speaking = False
        self._said: tuple[Said, ...] = ()
        self._ttfw_s: list[float] = []

    def stop(self, reason: str) -> None:
        """Hangs up as soon as the loop turns: the call ends as cut, with leave sent and its end written."""
        self._happenings.put_nowait(dialogue.Stopped(reason=reason))

    async def run(self) -> Ended:
        """Places the call and returns when it has ended. Sends leave and writes the end whatever happens, cancellation included."""
        self._record("placed", process=self._kit.process, room=self._plan.room, identity=self._plan.identity)
        end = HangUp(outcome=CallOutcome.CUT, error="the call was cancelled")
        try:
            async with asyncio.TaskGroup() as tasks:
                line = tasks.create_task(self._hold_line())
                end = await self._converse()
                line.cancel()
        except Exception as exc:
            end = HangUp(outcome=CallOutcome.CUT, error=f"the caller itself failed: {exc!r}")
            raise
        finally:
            await asyncio.shield(self._take_leave(end))
        return Ended(call_id=self._plan.call_id, outcome=end.outcome, ttfw_s=tuple(self._ttfw_s))

    async def _converse(self) -> HangUp:
        talk = Dialogue(self._plan, self._kit.clock.now())
        while True:
            happening = await self._next_happening(talk.due_at)
            if isinstance(happening, dialogue.MediaUp):
                self._plug_in()
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

    async def _next_happening(self, due_at: UnixNs | None) -> Happening | None:
        """The next happening, or None when the dialogue's time has come."""
        while self._happenings.empty():
            now = self._kit.clock.now()
            if due_at is not None and now >= due_at:
                return None
            wait_s = None if due_at is None else (due_at - now) / 1e9
            if self._is_speaking and self._leg is not None:
                if spoken := self._leg.spoken()[len(self._said) :]:
                    self._is_speaking = False
                    said = Said(started_at=spoken[0].started_at, ended_at=spoken[0].ended_at)
                    self._said += (said,)
                    return said
                wait_s = _SPOKEN_POLL_S
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._happenings.get(), wait_s)
        return self._happenings.get_nowait()

    def _plug_in(self) -> None:
        self._leg = Leg(self._kit.clock, *self._peers.wires())
        self._leg.listen(self._hear)
        self._kit.engine.add(self._leg)

    def _hear(self, utterance: Utterance) -> None:
        if utterance.ended_at is None:
            self._happenings.put_nowait(dialogue.SpeechBegan(started_at=utterance.started_at))
        else:
            self._happenings.put_nowait(dialogue.SpeechEnded(started_at=utterance.started_at, ended_at=utterance.ended_at))

    def _say(self, action: Say) -> None:
        assert self._leg is not None, "the dialogue speaks only once the media path is up"
        self._leg.play(self._kit.clips[action.prompt])
        self._is_speaking = True

    def _note(self, note: Note) -> None:
        self._record(note.kind, **note.fields)
        if note.kind != "reply":
            return
        said, first_word_at = self._said[-1], note.fields["first_word_at"]
        self._ttfw_s.append((first_word_at - said.ended_at) / 1e9)
        if reason := self._kit.engine.doubt(said.started_at, max(said.ended_at, first_word_at)):
            self._record("doubt", index=note.fields["index"], reason=reason)

    async def _hold_line(self) -> None:
        """Connects, obeys the server's frames and pings, until it is cancelled or the line is dead."""
        offer = await self._peers.offer() if self._network.mode is PeerMode.SINGLE else None
        path = self._signaling.join_path(offer)
        token = tokens.caller_token(self._plan, api_key=self._network.api_key, api_secret=self._network.api_secret)
        headers = {"Authorization": f"Bearer {token}"}
        try:
            self._websocket = await connect(
                self._network.websocket_url + path,
                additional_headers=headers,
                compression=None,
                ping_interval=None,
                open_timeout=dialogue.JOIN_TIMEOUT_S,
                close_timeout=_FAREWELL_S,
                proxy=None if self._network.is_loopback else True,
            )
        except (OSError, InvalidHandshake, InvalidURI) as exc:
            self._happenings.put_nowait(dialogue.Rejected(reason=await self._refusal(path, headers, exc)))
            return
        self._ponged_at = self._kit.clock.now()
        async with asyncio.TaskGroup() as tasks:
            pings = tasks.create_task(self._ping())
            reason = await self._read(self._websocket)
            pings.cancel()
        self._happenings.put_nowait(dialogue.SignalLost(reason=reason))

    async def _read(self, websocket: ClientConnection) -> str:
        """Why the connection ended."""
        try:
            async for frame in websocket:
                if isinstance(frame, str):
                    continue
                self._tap("in", frame)
                for effect in self._signaling.receive(frame):
                    await self._obey(effect)
        except ConnectionClosed as exc:
            return f"the signalling connection broke: {exc}"
        return "the media server closed the signalling connection"

    async def _obey(self, effect: signaling.Command | signaling.Event) -> None:
        match effect:
            case signaling.Send():
                await self._send(effect.frame)
            case signaling.MakeOffer():
                await self._send(self._signaling.offered(await self._peers.offer(effect.free_sections)))
            case signaling.AcceptAnswer():
                await self._peers.accept_answer(effect.sdp)
            case signaling.AcceptOffer():
                if answer := await self._peers.accept_offer(effect.sdp):
                    await self._send(self._signaling.answered(answer, effect.offer_id))
            case signaling.AddCandidate():
                await self._peers.add_candidate(effect)
            case signaling.Refused():
                self._record("refused-request", request=effect.request, reason=effect.reason)
            case signaling.Pong():
                self._ponged_at = self._kit.clock.now()
            case signaling.Published():
                self._record("published", sid=effect.track_sid)
            case _:
                self._happenings.put_nowait(effect)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(signaling.PING_S)
            now = self._kit.clock.now()
            if now - self._ponged_at > _SIGNAL_SILENCE_S * 1e9:
                reason = f"the media server answered no ping for {_SIGNAL_SILENCE_S:g} s"
                self._happenings.put_nowait(dialogue.SignalLost(reason=reason))
                return
            await self._send(self._signaling.ping(now // 1_000_000))

    async def _send(self, frame: bytes) -> None:
        """Sends a frame; a connection that is gone is told of by its reader."""
        self._tap("out", frame)
        if self._websocket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._websocket.send(frame)

    async def _refusal(self, path: str, headers: Mapping[str, str], cause: Exception) -> str:
        """The server's own words, which a failed websocket upgrade keeps to itself: ``/rtc/validate`` says them."""
        if not isinstance(cause, InvalidHandshake):
            return f"livekit at {self._network.url} cannot be reached ({cause}); is the server up?"
        route, _, query = path.partition("?")
        url = f"{self._network.http_url}{route}/validate?{query}"
        try:
            async with httpx.AsyncClient(timeout=_FAREWELL_S, trust_env=not self._network.is_loopback) as client:
                response = await client.get(url, headers=dict(headers))
        except httpx.HTTPError:
            return f"livekit at {self._network.url} refused the join: {cause}"
        if response.is_success:
            return f"livekit at {self._network.url} finds the join valid and refused it all the same: {cause}"
        return f"livekit at {self._network.url} refused the join: {response.status_code} {response.text.strip()}"

    async def _take_leave(self, end: HangUp) -> None:
        """Leave first, so that the server counts us out whatever fails afterwards; the event ``ended`` last."""
        try:
            await self._send_leave()
            await self._unplug()
        finally:
            self._record("ended", outcome=end.outcome, error=end.error)

    async def _send_leave(self) -> None:
        if self._websocket is None:
            return
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(_FAREWELL_S):
                frame = self._signaling.leave()
                self._tap("out", frame)
                await self._websocket.send(frame)
                self._record("left")

    async def _unplug(self) -> None:
        if self._leg is not None:
            for stats in self._leg.wire_stats():
                self._record("wire", **codec.to_json(stats))
            await self._kit.engine.remove(self._leg)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._peers.close()
                if self._websocket is not None:
                    await self._websocket.close()
        if self._leg is not None:
            path = Path("audio") / f"call-{self._plan.index}.wav"
            started_at = await asyncio.to_thread(self._leg.write_recording, self._kit.run_dir / path)
            if started_at is not None:
                self._record("recorded", path=str(path), started_at=started_at)

    def _tap(self, way: str, frame: bytes) -> None:
        if self._kit.tap is not None:
            self._kit.tap(way, frame)

    def _record(self, kind: str, **fields: Any) -> None:
        self._kit.record(CallEvent(at=self._kit.clock.now(), call_id=self._plan.call_id, kind=kind, fields=fields))
