"""Participants made of the official Python SDK, for comparison: speak and hear 50 packets a second each, in pairs.

Run by the agent's own Python, which has the SDK; voxproof itself does not. Standard input: one token a line. Prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import wave

import numpy as np
from livekit import rtc  # type: ignore[attr-defined] # the agent's environment has it


async def participate(url: str, token: str, pcm: np.ndarray, is_over: asyncio.Event) -> None:
    """Joins, publishes ``pcm`` again and again, and takes what it hears."""
    room, tasks = rtc.Room(), set()

    async def hear(track: rtc.Track) -> None:
        async for _ in rtc.AudioStream(track):
            pass

    room.on("track_subscribed", lambda track, *_: tasks.add(asyncio.ensure_future(hear(track))))
    await room.connect(url, token)
    source = rtc.AudioSource(48_000, 1)
    await room.local_participant.publish_track(rtc.LocalAudioTrack.create_audio_track("voice", source))
    at = 0
    while not is_over.is_set():
        piece = pcm[at : at + 960]
        await source.capture_frame(rtc.AudioFrame(piece.tobytes(), 48_000, 1, 960))
        at = (at + 960) % (len(pcm) - 960)
    for task in tasks:
        task.cancel()
    await room.disconnect()


async def main(url: str, prompt: str, seconds: float) -> None:
    """CPU of this process for ``seconds`` in the middle, by participant."""
    tokens = [line.strip() for line in sys.stdin]
    with wave.open(prompt) as recording:
        pcm = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
    is_over = asyncio.Event()
    began = time.process_time()
    tasks = [asyncio.create_task(participate(url, token, pcm, is_over)) for token in tokens]
    await asyncio.sleep(6.0)
    joined = time.process_time() - began
    cpu_s, started = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    spent = (time.process_time() - cpu_s) / ((time.monotonic() - started) * len(tokens))
    is_over.set()
    await asyncio.wait(tasks, timeout=10)
    print(json.dumps({"cpu_ms_per_caller_s": round(spent * 1e3, 3), "first_6_s_cpu_ms": round(joined / len(tokens) * 1e3, 1)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
