"""Caller processes against real livekit-servers: every way a call can go, all at once, judged by what they wrote."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import wave
from collections.abc import Mapping
from pathlib import Path

import pytest
from livekit import api
from livekit.protocol import room as room_protocol

from harness import codec
from harness.caller import aiortc_adapter
from harness.caller.clip import Clip, clip
from harness.caller.engine import Engine
from harness.caller.network import Network
from harness.caller.prompts import load_prompts
from harness.caller.records import call_records
from harness.caller.signaling import PeerMode
from harness.clock import Clock
from harness.model import CallEvent, CallOutcome, CallRecord, GeneratorHealth, TurnRecord, value
from harness.stack import livekit, ports
from harness.stack.home import home_dir
from harness.stack.provision import obtain
from harness.stack.supervise import Supervisor
from tests.caller.plans import plan
from tests.caller.responder import Responder

pytestmark = pytest.mark.stack

KEY, SECRET = "key", "a-secret-of-at-least-thirty-two-bytes"
REPLY_DELAY_S = 0.3
MORTAL_S = 6.0
"""When the media server of one call is killed, after the calls were placed."""
CALLS = 10


@value
class Placed:
    """A call and what became of it."""

    record: CallRecord
    events: tuple[CallEvent, ...]
    said: Mapping[str, object]
    """The line on the process's stdout."""
    exit_code: int
    run_dir: Path
    responder: Responder | None
    ghosts: tuple[str, ...]
    """Callers that the server still counts half a second after the end."""

    @property
    def lasted_s(self) -> float:
        return (self.events[-1].at - self.events[0].at) / 1e9

    def event(self, kind: str) -> CallEvent:
        (only,) = (event for event in self.events if event.kind == kind)
        return only


class Bench:
    """Three livekit-servers, one of them without any media address that leads to it; caller processes; responders."""

    def __init__(self, directory: Path, exits: contextlib.ExitStack) -> None:
        self._directory = directory
        self._exits = exits
        self._clock = Clock.start()
        self.engine = Engine(self._clock)
        self.clips: Mapping[str, Clip] = {
            prompt.name: clip(prompt.name, prompt.pcm, (prompt.first_speech_sample, prompt.last_speech_sample))
            for prompt in load_prompts().values()
        }
        self.url, _ = self._start("good", {})
        self.mortal_url, self._mortal = self._start("mortal", {})
        self.blocked_url, _ = self._start("blocked", {"ips": {"includes": ["127.0.0.77/32"]}})
        self._all_ready = asyncio.Barrier(CALLS)
        exits.callback(self.engine.stop)

    def _start(self, name: str, rtc: Mapping[str, object]) -> tuple[str, Supervisor]:
        names = ("signal", "udp", "metrics")
        port = ports.free(names)
        settings = livekit.config(port=port["signal"], udp_port=port["udp"], metrics_port=port["metrics"], api_key=KEY, api_secret=SECRET)
        settings["rtc"] |= rtc
        binary = obtain("livekit-server", home=home_dir(), progress=lambda _line: None).path
        servers = self._exits.enter_context(Supervisor(logs=self._directory / name, clock=self._clock))
        livekit.start(servers, binary, settings)
        return f"ws://127.0.0.1:{port['signal']}", servers

    def _kill_mortal(self) -> None:
        self._mortal.end("livekit", number=signal.SIGKILL)

    def responder(self, *, url: str | None = None, greeting: str | None = "goodbye", reply: str | None = "goodbye") -> Responder:
        """An agent that answers ``REPLY_DELAY_S`` after it has heard a pause."""
        network = Network(url=url or self.url, api_key=KEY, api_secret=SECRET)
        first, later = (None if name is None else self.clips[name] for name in (greeting, reply))
        return Responder(network, self._clock, self.engine, greeting=first, reply=later, delay_s=REPLY_DELAY_S)

    async def place(
        self,
        name: str,
        *prompts: str,
        responder: Responder | None = None,
        url: str | None = None,
        mode: PeerMode = PeerMode.SINGLE,
        answer_timeout_s: float = 5.0,
        secret: str = SECRET,
        stay_s: float = 60.0,
        signal_after_s: float | None = None,
    ) -> Placed:
        """Places one call in a process of its own. stay_s: when the responder leaves. signal_after_s: when the process gets SIGTERM."""
        run_dir = self._directory / name
        call = dataclasses.replace(plan(*prompts, answer_timeout_s=answer_timeout_s), room=name)
        env = os.environ | {"LIVEKIT_URL": url or self.url, "LIVEKIT_API_KEY": KEY, "LIVEKIT_API_SECRET": secret}
        argv = (sys.executable, "-m", "harness.caller", "--run-dir", str(run_dir), "--name", "caller-1", "--peers", mode)
        process = await asyncio.create_subprocess_exec(*argv, env=env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert json.loads(await process.stdout.readline()) == {"ready": True}
            # The starts would disturb each other's calls, and would inherit our own engine's priority.
            if await self._all_ready.wait() == 0:
                self.engine.start()
                asyncio.get_running_loop().call_later(MORTAL_S, self._kill_mortal)
            async with contextlib.AsyncExitStack() as room:
                if responder is not None:
                    await room.enter_async_context(responder.in_room(call.room))
                process.stdin.write(codec.line(call).encode())
                if signal_after_s is None:
                    process.stdin.close()
                else:
                    asyncio.get_running_loop().call_later(signal_after_s, process.send_signal, signal.SIGTERM)
                ending = asyncio.create_task(process.stdout.readline())
                await asyncio.wait([ending], timeout=stay_s)
            process.stdin.close()
            said = json.loads(await ending)
            exit_code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        ghosts = await self._callers_in(call.room) if url is None and secret == SECRET else ()
        events = tuple(codec.read_lines(run_dir / "events" / "caller-1.jsonl", CallEvent))
        (record,) = call_records([call], events)
        return Placed(record=record, events=events, said=said, exit_code=exit_code, run_dir=run_dir, responder=responder, ghosts=ghosts)

    async def _callers_in(self, room: str) -> tuple[str, ...]:
        await asyncio.sleep(0.5)
        async with api.LiveKitAPI(self.url.replace("ws", "http", 1), KEY, SECRET) as server:
            try:
                listed = await server.room.list_participants(room_protocol.ListParticipantsRequest(room=room))
            except api.TwirpError as exc:
                if exc.code == api.TwirpErrorCode.NOT_FOUND:
                    return ()
                raise
        return tuple(participant.identity for participant in listed.participants if participant.identity.startswith("caller"))


async def every_call(bench: Bench) -> Mapping[str, Placed]:
    """All of them at once."""
    aiortc_adapter.offer_loopback()
    calls = {
        "single": bench.place("single", "weather", "goodbye", responder=bench.responder()),
        "dual": bench.place("dual", "weather", "goodbye", responder=bench.responder(), mode=PeerMode.DUAL),
        "no-agent": bench.place("no-agent", "goodbye", answer_timeout_s=3.0),
        "silent": bench.place("silent", "goodbye", "goodbye", responder=bench.responder(greeting=None, reply=None), answer_timeout_s=2.0),
        "agent-left": bench.place("agent-left", "goodbye", responder=bench.responder(reply=None), stay_s=4.0),
        "refused": bench.place("refused", "goodbye", secret="another-secret-of-thirty-two-bytes"),
        "unreachable": bench.place("unreachable", "goodbye", url="ws://127.0.0.1:9"),
        "udp-blocked": bench.place("udp-blocked", "goodbye", url=bench.blocked_url),
        "sfu-died": bench.place("sfu-died", "weather", url=bench.mortal_url, responder=bench.responder(url=bench.mortal_url)),
        "told-to-stop": bench.place("told-to-stop", "weather", responder=bench.responder(), signal_after_s=4.0),
    }
    async with asyncio.TaskGroup() as tasks:
        placed = {name: tasks.create_task(call) for name, call in calls.items()}
    return {name: task.result() for name, task in placed.items()}


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Placed]:
    """The calls, each placed once for all tests."""
    with contextlib.ExitStack() as exits:
        return asyncio.run(every_call(Bench(tmp_path_factory.mktemp("calls"), exits)))


def truth(placed: Placed) -> list[float]:
    """Seconds from the end of each prompt to the reply's first voiced sample, by the responder's own send stamps."""
    assert placed.responder is not None
    replies = placed.responder.said()[1:]
    return [(said.started_at - turn.user_speech_ended_at) / 1e9 for said, turn in zip(replies, placed.record.turns, strict=True)]


def heard(turns: tuple[TurnRecord, ...]) -> list[float | None]:
    """What the caller measured."""
    return [turn.response_latency_s for turn in turns]


@pytest.mark.parametrize("name", ["single", "dual"])
def test_a_whole_call_is_completed(calls: Mapping[str, Placed], name: str) -> None:
    """Both ways to connect: greeted, both turns answered, left, exit code 0."""
    placed = calls[name]

    assert (placed.record.outcome, placed.record.error, placed.exit_code) == (CallOutcome.COMPLETED, None, 0)
    assert placed.record.is_answered
    assert [turn.first_word_at is not None and turn.agent_speech_ended_at is not None for turn in placed.record.turns] == [True, True]
    assert placed.record.left_at is not None


@pytest.mark.parametrize("name", ["single", "dual"])
def test_the_latency_heard_is_the_latency_sent(calls: Mapping[str, Placed], name: str) -> None:
    """The other party's own send stamps give the true latency; ours differs by the server's transit and the onset's softness, below 10 ms."""
    assert heard(calls[name].record.turns) == pytest.approx(truth(calls[name]), abs=0.010)


def test_the_process_tells_what_it_wrote(calls: Mapping[str, Placed]) -> None:
    """The line on stdout repeats outcome and latencies of the events."""
    placed = calls["single"]

    assert placed.said == {"call_id": "call-id-1", "outcome": "completed", "ttfw_s": heard(placed.record.turns)}


@pytest.mark.parametrize("name", ["single", "dual"])
def test_both_sides_are_kept(calls: Mapping[str, Placed], name: str) -> None:
    """A stereo recording at 24 kHz, as long as the call's audio, begun at a known instant."""
    placed = calls[name]
    assert placed.record.audio is not None
    assert placed.record.audio_started_at is not None
    with wave.open(str(placed.run_dir / placed.record.audio)) as recording:
        shape = (recording.getnchannels(), recording.getsampwidth(), recording.getframerate())
        lasts_s = recording.getnframes() / recording.getframerate()

    assert shape == (2, 2, 24_000)
    assert placed.record.left_at is not None
    assert lasts_s == pytest.approx((placed.record.left_at - placed.record.audio_started_at) / 1e9, abs=1.5)


def test_both_directions_of_the_wire_are_told(calls: Mapping[str, Placed]) -> None:
    """Nothing is lost on loopback; the server's receiver reports give round trips."""
    up, down = calls["single"].record.wire

    assert (up.direction, up.lost, down.direction, down.lost) == ("up", 0, "down", 0)
    assert up.packets > 300
    assert down.packets == down.expected
    assert up.rtt_s
    assert max(up.rtt_s) < 0.1


def test_the_process_says_how_punctual_it_was(calls: Mapping[str, Placed]) -> None:
    """Its last line of health counts the ticks of the whole call."""
    *_, last = codec.read_lines(calls["single"].run_dir / "generator.jsonl", GeneratorHealth)

    assert (last.process, last.callers) == ("caller-1", 1)
    assert last.ticks > 300


def test_no_agent(calls: Mapping[str, Placed]) -> None:
    """Nobody answers: named after the plan's timeout, and the caller leaves."""
    placed = calls["no-agent"]

    assert placed.record.outcome is CallOutcome.NO_AGENT
    assert 3 < placed.lasted_s < 5
    assert placed.record.left_at is not None


def test_a_silent_agent(calls: Mapping[str, Placed]) -> None:
    """It joins and never speaks: greeting and first reply are missed, then the caller hangs up."""
    placed = calls["silent"]

    assert placed.record.outcome is CallOutcome.SILENT
    assert [event.fields["index"] for event in placed.events if event.kind == "missed"] == [0, 1]
    assert not placed.record.is_answered


def test_an_agent_that_leaves(calls: Mapping[str, Placed]) -> None:
    """It greets and goes: the participant update ends the call."""
    placed = calls["agent-left"]

    assert (placed.record.outcome, placed.record.error) == (CallOutcome.AGENT_LEFT, "the agent left the room: CLIENT_INITIATED")
    assert placed.record.greeted_at is not None


def test_a_refusal_in_the_servers_own_words(calls: Mapping[str, Placed]) -> None:
    """A token signed with another secret: status and body, which the websocket alone would hide."""
    placed = calls["refused"]

    assert placed.record.outcome is CallOutcome.REFUSED
    assert placed.record.error is not None
    assert "refused the join: 401 " in placed.record.error
    assert placed.record.error.rstrip()[-3:] != "401"
    assert placed.exit_code == 0


def test_a_server_that_is_not_there(calls: Mapping[str, Placed]) -> None:
    """Nothing listens at the address: said so, with the next step."""
    placed = calls["unreachable"]

    assert placed.record.outcome is CallOutcome.REFUSED
    assert placed.record.error is not None
    assert placed.record.error.endswith("is the server up?")


def test_a_blocked_network_is_named_within_fifteen_seconds(calls: Mapping[str, Placed]) -> None:
    """Signalling works, the media address answers nothing."""
    placed = calls["udp-blocked"]

    assert placed.record.outcome is CallOutcome.UDP_BLOCKED
    assert placed.lasted_s < 15
    assert placed.record.error is not None
    assert placed.record.error.startswith("signalling works but no media path was found")


def test_a_media_server_that_dies(calls: Mapping[str, Placed]) -> None:
    """Killed in the middle of the call: the caller knows within a second or two and writes its end."""
    placed = calls["sfu-died"]

    assert placed.record.outcome is CallOutcome.DISCONNECTED
    assert placed.record.greeted_at is not None
    assert placed.exit_code == 0


def test_a_process_told_to_stop_leaves_its_calls(calls: Mapping[str, Placed]) -> None:
    """SIGTERM in the middle of a call: leave is sent, the end and the recording are written, and the process ends well."""
    placed = calls["told-to-stop"]

    assert (placed.record.outcome, placed.exit_code) == (CallOutcome.CUT, 0)
    assert placed.record.error == "the caller process was told to stop (SIGTERM)"
    assert placed.record.left_at is not None
    assert placed.record.audio is not None


@pytest.mark.parametrize("name", ["single", "dual", "no-agent", "silent", "agent-left", "told-to-stop"])
def test_the_server_is_told_of_every_leave(calls: Mapping[str, Placed], name: str) -> None:
    """A caller that goes without leave would stay as a ghost in the server's gauges."""
    assert calls[name].ghosts == ()
