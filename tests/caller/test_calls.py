"""Caller processes against real livekit-servers: every way a call can go, all at once, judged by what they wrote."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
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
from harness.clock import Clock
from harness.model import CallEvent, CallOutcome, CallPlan, CallRecord, GeneratorHealth, PeerMode, TurnRecord, value
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


@value
class Placed:
    """A call and what became of it."""

    record: CallRecord
    events: tuple[CallEvent, ...]
    said: Mapping[str, object]
    """The line on the process's stdout."""
    exit_code: int
    """Of its process."""
    run_dir: Path
    responder: Responder | None
    ghosts: tuple[str, ...]
    """Callers that the server still counts half a second after the end."""

    @property
    def lasted_s(self) -> float:
        """From the first event to the last."""
        return (self.events[-1].at - self.events[0].at) / 1e9


class CallerProcess:
    """One ``python -m harness.caller``."""

    def __init__(self, run_dir: Path, network: Network, calls: float) -> None:
        """calls: how many are to be placed; its stdin ends after the last."""
        self.run_dir = run_dir
        self.network = network
        self._calls = calls
        self.exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._said: dict[str, asyncio.Future[Mapping[str, object]]] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def serve(self, ready: asyncio.Barrier) -> None:
        """Runs until the process has ended."""
        env = os.environ | {
            "LIVEKIT_URL": self.network.url,
            "LIVEKIT_API_KEY": self.network.api_key,
            "LIVEKIT_API_SECRET": self.network.api_secret,
        }
        argv = (sys.executable, "-m", "harness.caller", "--run-dir", str(self.run_dir), "--name", "caller-1")
        self._process = await asyncio.create_subprocess_exec(*argv, env=env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        try:
            assert json.loads(await self._process.stdout.readline()) == {"ready": True}
            await ready.wait()
            async for line in self._process.stdout:
                said = json.loads(line)
                self._said[said["call_id"]].set_result(said)
            self.exit_code.set_result(await self._process.wait())
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def place(self, call: CallPlan) -> Mapping[str, object]:
        """What the process says when the call has ended."""
        self._said[call.call_id] = asyncio.get_running_loop().create_future()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(codec.line(call).encode())
        if len(self._said) == self._calls:
            self._process.stdin.close()
        return await self._said[call.call_id]

    def stop(self) -> None:
        """What a run that ends early does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)


class Bench:
    """Three livekit-servers, one of them without any media address that leads to it; caller processes; responders."""

    def __init__(self, directory: Path, exits: contextlib.ExitStack) -> None:
        self._directory = directory
        self._exits = exits
        self._clock = Clock.start()
        self._engine = Engine(self._clock)
        exits.callback(self._engine.stop)
        self._clips: Mapping[str, Clip] = {
            prompt.name: clip(prompt.name, prompt.pcm, (prompt.first_speech_sample, prompt.last_speech_sample))
            for prompt in load_prompts().values()
        }
        self.good, _ = self._start("good", {})
        self.mortal, self._mortal_servers = self._start("mortal", {})
        self.blocked, _ = self._start("blocked", {"ips": {"includes": ["127.0.0.77/32"]}})
        self._indices = itertools.count(1)

    def _start(self, name: str, rtc: Mapping[str, object]) -> tuple[Network, Supervisor]:
        port = ports.free(("signal", "udp", "metrics"))
        settings = livekit.config(port=port["signal"], udp_port=port["udp"], metrics_port=port["metrics"], api_key=KEY, api_secret=SECRET)
        settings["rtc"] |= rtc
        binary = obtain("livekit-server", home=home_dir(), progress=lambda _line: None).path
        servers = self._exits.enter_context(Supervisor(logs=self._directory / name, clock=self._clock))
        livekit.start(servers, binary, settings)
        return Network(url=f"ws://127.0.0.1:{port['signal']}", api_key=KEY, api_secret=SECRET), servers

    def process(self, name: str, network: Network) -> CallerProcess:
        """A caller process with a run directory of its own."""
        return CallerProcess(self._directory / f"run-{name}", network, {"good": 4, "stopped": float("inf")}.get(name, 1))

    def begin(self) -> None:
        """Once every process is ready: their starts would disturb the calls, and would inherit our own engine's priority."""
        aiortc_adapter.offer_loopback()
        self._engine.start()
        asyncio.get_running_loop().call_later(MORTAL_S, self._kill_mortal)

    def _kill_mortal(self) -> None:
        self._mortal_servers.end("livekit", number=signal.SIGKILL)

    async def place(
        self,
        process: CallerProcess,
        *prompts: str,
        answers: tuple[str | None, str | None] | None = None,
        answer_timeout_s: float = 5.0,
        stay_s: float = 60.0,
    ) -> Placed:
        """One call. answers: greeting and reply of an agent in the room, which leaves after ``stay_s``; None: there is no agent."""
        call = dataclasses.replace(plan(*prompts, answer_timeout_s=answer_timeout_s, index=next(self._indices)), peers=process.network.mode)
        responder = None
        async with contextlib.AsyncExitStack() as room:
            if answers is not None:
                responder = self._responder(process.network, *answers)
                await room.enter_async_context(responder.in_room(call.room))
            ending = asyncio.create_task(process.place(call))
            await asyncio.wait([ending], timeout=stay_s)
        said = await ending
        ghosts = await self._callers_in(call.room) if process.network.url == self.good.url else ()
        exit_code = await process.exit_code
        events = tuple(codec.read_lines(process.run_dir / "events" / "caller-1.jsonl", CallEvent))
        (record,) = call_records([call], events)
        own = tuple(event for event in events if event.call_id == call.call_id)
        return Placed(
            record=record, events=own, said=said, exit_code=exit_code, run_dir=process.run_dir, responder=responder, ghosts=ghosts
        )

    def _responder(self, network: Network, greeting: str | None, reply: str | None) -> Responder:
        first, later = (None if name is None else self._clips[name] for name in (greeting, reply))
        network = dataclasses.replace(network, mode=PeerMode.SINGLE, api_secret=SECRET)
        return Responder(network, self._clock, self._engine, greeting=first, reply=later, delay_s=REPLY_DELAY_S)

    async def _callers_in(self, room: str) -> tuple[str, ...]:
        await asyncio.sleep(0.5)
        async with api.LiveKitAPI(self.good.http_url, KEY, SECRET) as server:
            try:
                listed = await server.room.list_participants(room_protocol.ListParticipantsRequest(room=room))
            except api.TwirpError as exc:
                if exc.code == api.TwirpErrorCode.NOT_FOUND:
                    return ()
                raise
        return tuple(participant.identity for participant in listed.participants if participant.identity.startswith("caller"))


async def every_call(bench: Bench) -> Mapping[str, Placed]:
    """All of them at once."""
    good = bench.good
    nowhere = dataclasses.replace(good, url="ws://127.0.0.1:9")
    networks = {
        "good": good,
        "dual": dataclasses.replace(good, mode=PeerMode.DUAL),
        "stopped": good,
        "refused": dataclasses.replace(good, api_secret="another-secret-of-thirty-two-bytes"),
        "nowhere": nowhere,
        "blocked": bench.blocked,
        "mortal": bench.mortal,
    }
    process = {name: bench.process(name, network) for name, network in networks.items()}
    ready = asyncio.Barrier(len(process) + 1)
    both = ("goodbye", "goodbye")
    async with asyncio.TaskGroup() as tasks:
        for one in process.values():
            tasks.create_task(one.serve(ready))
        await ready.wait()
        bench.begin()
        asyncio.get_running_loop().call_later(4.0, process["stopped"].stop)
        placed = {
            "single": tasks.create_task(bench.place(process["good"], "weather", "goodbye", answers=both)),
            "dual": tasks.create_task(bench.place(process["dual"], "weather", "goodbye", answers=both)),
            "no-agent": tasks.create_task(bench.place(process["good"], "goodbye", answer_timeout_s=3.0)),
            "silent": tasks.create_task(bench.place(process["good"], "goodbye", "goodbye", answers=(None, None), answer_timeout_s=2.0)),
            "agent-left": tasks.create_task(bench.place(process["good"], "goodbye", answers=("goodbye", None), stay_s=4.0)),
            "refused": tasks.create_task(bench.place(process["refused"], "goodbye")),
            "unreachable": tasks.create_task(bench.place(process["nowhere"], "goodbye")),
            "udp-blocked": tasks.create_task(bench.place(process["blocked"], "goodbye")),
            "sfu-died": tasks.create_task(bench.place(process["mortal"], "weather", answers=both)),
            "told-to-stop": tasks.create_task(bench.place(process["stopped"], "weather", answers=both)),
        }
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

    assert placed.said == {"call_id": placed.record.plan.call_id, "outcome": "completed", "ttfw_s": heard(placed.record.turns)}


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

    assert (last.process, last.callers) == ("caller-1", 4)
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
