"""Records the signalling frames beside it from a real livekit-server: ``python -m tests.caller.frames.record`` with LIVEKIT_URL,
LIVEKIT_API_KEY and LIVEKIT_API_SECRET in the environment.

What is secret is left out: tokens are dropped, the room's TURN password is blanked. Everything else is as it passed the websocket.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
from livekit import api
from livekit.protocol import room as room_protocol
from livekit.protocol import rtc

from harness.caller import aiortc_adapter
from harness.caller.clip import clip
from harness.caller.engine import Engine
from harness.caller.network import Network
from harness.caller.session import Kit, Session
from harness.clock import Clock
from harness.model import PeerMode
from tests.caller.plans import plan
from tests.caller.responder import Responder

DIRECTORY = Path(__file__).parent


class Recorder:
    """Writes what a session taps."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tap(self, way: str, frame: bytes) -> None:
        """One frame, blanked where it is secret."""
        message = (rtc.SignalResponse if way == "in" else rtc.SignalRequest).FromString(frame)
        kind = message.WhichOneof("message")
        if kind == "refresh_token":
            return
        if kind in ("join", "room_update"):
            getattr(message, kind).room.turn_password = ""
        encoded = base64.b64encode(message.SerializeToString()).decode()
        self.lines.append(json.dumps({"way": way, "kind": kind, "frame": encoded}))


async def record(name: str, mode: PeerMode, *, stay_s: float, is_deleted: bool = False) -> None:
    """One call: the agent joins after half a second and stays ``stay_s``; then it leaves, or the room is deleted."""
    network = Network(
        url=os.environ["LIVEKIT_URL"], api_key=os.environ["LIVEKIT_API_KEY"], api_secret=os.environ["LIVEKIT_API_SECRET"], mode=mode
    )
    tone = clip("weather", (8000 * np.sin(np.arange(48_000) / 20)).astype(np.int16))
    clock, recorder = Clock.start(), Recorder()
    engine = Engine(clock)
    engine.start()
    call = dataclasses.replace(plan("weather", answer_timeout_s=5.0), room=f"frames-{name}")
    kit = Kit(
        process="recorder",
        network=network,
        clock=clock,
        engine=engine,
        clips={"weather": tone},
        run_dir=DIRECTORY,
        record=lambda _event: None,
        tap=recorder.tap,
    )
    (DIRECTORY / "audio").mkdir(exist_ok=True)
    responder = Responder(network, clock, engine, greeting=tone, reply=tone, delay_s=0.3)
    session = asyncio.create_task(Session(call, kit).run())
    await asyncio.sleep(0.5)
    async with responder.in_room(call.room):
        await asyncio.wait([session], timeout=stay_s)
        if is_deleted:
            async with api.LiveKitAPI(network.http_url, network.api_key, network.api_secret) as server:
                await server.room.delete_room(room_protocol.DeleteRoomRequest(room=call.room))
    ended = await session
    engine.stop()
    (DIRECTORY / "audio" / "call-1.wav").unlink(missing_ok=True)
    (DIRECTORY / "audio").rmdir()
    (DIRECTORY / f"{name}.jsonl").write_text("\n".join(recorder.lines) + "\n")
    assert ended.outcome, name


async def main() -> None:
    """Every recording."""
    aiortc_adapter.offer_loopback()
    await record("single", PeerMode.SINGLE, stay_s=30)
    await record("dual", PeerMode.DUAL, stay_s=30)
    await record("agent-leaves", PeerMode.SINGLE, stay_s=3)
    await record("room-deleted", PeerMode.SINGLE, stay_s=3, is_deleted=True)


if __name__ == "__main__":
    asyncio.run(main())
