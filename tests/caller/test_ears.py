"""Light against full on the same packets: what listening less costs in truth."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray

from harness.caller.clip import load
from harness.caller.ears import Ear, FullEar, LightEar
from harness.measure import rtp
from harness.measure.voice import Utterance
from harness.model import UnixNs, value

START = 1_763_933_640_000_000_000
FRAME_NS, ROUND_NS = 20_000_000, 40_000_000
TAG = bytes(16)
PROMPTS = [load(path).pcm for path in sorted((Path(__file__).parents[2] / "fixtures" / "audio").glob("*.wav"))]


@value
class Agent:
    """How an agent sounds and sends."""

    bit_rate: int = 32_000
    options: tuple[tuple[str, str], ...] = ()
    gain: float = 1.0
    noise_dbfs: float | None = None
    is_silent_in_silence: bool = False
    """No packets while nothing is said."""
    jitter_ns: int = 0
    loss_ratio: float = 0.0


@value
class Heard:
    """What one ear told."""

    began: tuple[Utterance, ...]
    ended: tuple[Utterance, ...]


def speech(agent: Agent, dice: np.random.Generator) -> NDArray[np.int16]:
    """Five replies, one of them of two sentences."""
    parts: list[NDArray[Any]] = [np.zeros(48_000)]
    for number in range(5):
        parts += [PROMPTS[number % len(PROMPTS)] * agent.gain, np.zeros(int(48_000 * dice.uniform(0.9, 2.5)))]
    parts[3:3] = [PROMPTS[3] * agent.gain, np.zeros(30_000)]
    pcm: NDArray[np.float64] = np.concatenate(parts)
    if agent.noise_dbfs is not None:
        pcm = pcm + dice.normal(size=len(pcm)) * 32_768 * 10 ** (agent.noise_dbfs / 20)
    return np.clip(pcm, -32_768, 32_767).astype(np.int16)


def packets(agent: Agent) -> list[tuple[UnixNs, int, bytes]]:
    """Arrival, number and SRTP packet, in the order of arrival."""
    dice = np.random.default_rng(3)
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, AudioCodecContext)
    codec.bit_rate, codec.format, codec.layout, codec.sample_rate = agent.bit_rate, "s16", "mono", 48_000
    codec.time_base = Fraction(1, 48_000)
    codec.options = {"application": "voip", "frame_duration": "20", **dict(agent.options)}
    sent = []
    pcm = speech(agent, dice)
    for number in range(len(pcm) // 960):
        piece = pcm[number * 960 : (number + 1) * 960]
        frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, number * 960
        (payload,) = (bytes(packet) for packet in codec.encode(frame))
        if (agent.is_silent_in_silence and len(payload) <= 35) or dice.random() < agent.loss_ratio:
            continue
        header = rtp.Header(payload_type=111, is_marked=False, sequence=number & 0xFFFF, timestamp=number * 960, ssrc=1)
        at = START + number * FRAME_NS + round(dice.uniform(0, agent.jitter_ns))
        sent.append((UnixNs(at), number, rtp.packed(header, payload) + TAG))
    return sorted(sent)


def listen(ear: Ear, arrivals: list[tuple[UnixNs, int, bytes]], is_attentive: bool = True) -> Heard:
    """Rounds of 40 ms until two seconds after the last packet."""
    return listen_until(ear, arrivals, arrivals[-1][0] + 2_000_000_000, is_attentive)


def listen_until(ear: Ear, arrivals: list[tuple[UnixNs, int, bytes]], until: int, is_attentive: bool = True) -> Heard:
    """Rounds of 40 ms."""
    told: list[Utterance] = []
    waiting = list(arrivals)
    for now in range(START, until, ROUND_NS):
        while waiting and waiting[0][0] <= now:
            at, number, packet = waiting.pop(0)
            ear.heard(at, number, number * 960, packet)
        told += ear.sounds(UnixNs(now), is_attentive=is_attentive)
    return Heard(
        began=tuple(each for each in told if each.ended_at is None), ended=tuple(each for each in told if each.ended_at is not None)
    )


def plain(packet: bytes) -> bytes:
    return packet[: -len(TAG)]


AGENTS = {
    "as ours encodes": Agent(),
    "silence weighs three bytes": Agent(bit_rate=64_000),
    "narrow": Agent(bit_rate=12_000),
    "constant bit rate": Agent(options=(("vbr", "off"),)),
    "no packets in silence": Agent(is_silent_in_silence=True),
    "soft": Agent(gain=0.1),
    "noise": Agent(noise_dbfs=-60),
    "jitter": Agent(jitter_ns=30_000_000),
    "loss": Agent(loss_ratio=0.05),
}


@pytest.mark.parametrize("name", AGENTS)
def test_light_hears_what_full_hears(name: str) -> None:
    """Every utterance; its beginning within 3 ms (0 but for noise), its end within 5 frames. TTFW needs the beginning only."""
    arrivals = packets(AGENTS[name])
    full, light = listen(FullEar(plain), arrivals), listen(LightEar(plain, len(TAG)), arrivals)
    pairs = list(zip(full.ended, light.ended, strict=True))

    assert len(full.began) == len(light.began) == len(pairs) == 6
    assert max(abs(b.started_at - a.started_at) for a, b in pairs) <= 3_000_000
    assert max(abs((b.ended_at or 0) - (a.ended_at or 0)) for a, b in pairs) <= 100_000_000


@pytest.mark.parametrize("name", ["as ours encodes", "silence weighs three bytes", "narrow", "no packets in silence", "jitter", "loss"])
def test_light_decodes_a_fraction(name: str) -> None:
    """Less than a third, even in this dense speech."""
    arrivals = packets(AGENTS[name])
    ear = LightEar(plain, len(TAG))
    listen(ear, arrivals)

    assert ear.decoded < len(arrivals) / 3


def test_a_beginning_is_told_soon() -> None:
    """Within 0.1 s of its arrival, as the dialogue believes."""
    arrivals = packets(Agent())
    (first, *_) = listen(LightEar(plain, len(TAG)), arrivals).began
    waiting = [packet for packet in arrivals if packet[0] < first.started_at + 100_000_000 - ROUND_NS]
    in_time = listen_until(LightEar(plain, len(TAG)), waiting, first.started_at + 100_000_000)

    assert in_time.began == (first,)


def test_silence_that_is_no_news_is_not_decoded() -> None:
    """Once its weight is known: nothing but probes, and while we speak ourselves not even those."""
    arrivals = packets(Agent())[:45]
    silence = arrivals[-1][2]
    ear = LightEar(plain, len(TAG))
    listen(ear, arrivals)
    before = ear.decoded
    later = [(UnixNs(START + number * FRAME_NS), number, silence) for number in range(45, 545)]
    listen(ear, later, is_attentive=False)

    assert ear.decoded == before


def test_decryption_never_loses_count_of_roll_overs() -> None:
    """SRTP guesses the roll-over counter from what was decrypted before: in a long silence one packet in 8192 is, for that alone."""
    decrypted: list[int] = []

    def unprotect(packet: bytes) -> bytes:
        decrypted.append(rtp.header(packet).timestamp)
        return plain(packet)

    ear = LightEar(unprotect, len(TAG))
    silence = packets(Agent())[10][2]
    for number in range(40_000):
        ear.heard(UnixNs(START + number * FRAME_NS), number, number * 960, silence)

    assert len(decrypted) == 4
