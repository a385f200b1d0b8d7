"""The compiled media core behind the face of the Python one: ports are handed to a thread in C, and read from here."""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from typing import Any

from harness.caller import aiortc_adapter, port
from harness.caller.clip import Clip
from harness.caller.ears import NEVER, FullEar, LightEar
from harness.caller.leg import Leg
from harness.caller.native.build import Library
from harness.caller.opus import FRAME_SAMPLES
from harness.caller.outgoing import Outgoing
from harness.caller.pacing import SLOTS
from harness.caller.port import Port
from harness.clock import Clock
from harness.errors import HarnessError
from harness.measure import rtcp
from harness.measure.pacing import Lateness
from harness.measure.rfc3550 import FIRST_CYCLE, Reception
from harness.model import UnixNs

_SLOTS, _PORTS, _CLIPS, _RING, _OTHERS, _LATE = 5, 256, 16, 64, 16, 1024
"""As core.h has them."""
_SAFE = _RING - 4
"""Packets read back from the ring: the core may be writing the next ones meanwhile."""
_ROLL_OVER = 1 << 13
_KEPT = struct.Struct("=qqIHH")
"""A core_packet before its data: at, number, timestamp, length, stream. Read at once: field by field costs as much as decrypting."""


class CompiledThread:
    """As MediaThread; a thread that Python neither schedules nor can hold up."""

    failure: BaseException | None = None

    def __init__(self, clock: Clock, library: Library) -> None:
        self._clock = clock
        self._library = library
        self.core = library.ffi.new("media_core *")
        """The memory shared with the thread; for tests."""
        self.core.anchor_ns = clock.anchor_ns
        protect, protect_rtcp = aiortc_adapter.protect_functions()
        self.core.protect = library.ffi.cast("void *", protect)
        self.core.protect_rtcp = library.ffi.cast("void *", protect_rtcp)
        self._late: list[tuple[UnixNs, UnixNs]] = []
        self._late_read = 0
        self._lock = threading.Lock()
        self._places: dict[Port, tuple[int, int, NativePort]] = {}
        self._is_running = False
        self._asked: tuple[Leg, ...] = ()
        self._light: tuple[Leg, ...] = ()
        """Whose ports the core is asked about, in the order of the question."""
        self._close: tuple[Leg, ...] = ()
        """Those that it is not asked about: they are listened to all the time."""
        self._ask(())

    def start(self) -> None:
        """The thread inherits the caller's priority."""
        if self._library.functions.core_start(self.core):
            msg = "the compiled media core cannot start its thread"
            raise HarnessError(msg)
        self._is_running = True

    def stop(self) -> None:
        """Joins the thread. Ports keep their sockets."""
        if self._is_running:
            self._is_running = False
            self._library.functions.core_stop(self.core)

    @property
    def lateness(self) -> Lateness:
        """Of every tick with something to send."""
        return Lateness(self._library.ffi.unpack(self.core.bins, 4001), self.core.max_ns)

    @property
    def late(self) -> list[tuple[UnixNs, UnixNs]]:
        """From when a tick was due until it was done, for those over ``pacing.LATE_NS``; disjoint."""
        with self._lock:
            count = self.core.late_count
            for index in range(max(self._late_read, count - _LATE), count):
                due, done = self.core.late[index % _LATE]
                began, ended = self._clock.at_monotonic(due), self._clock.at_monotonic(done)
                if self._late and self._late[-1][1] >= began:
                    began = self._late.pop()[0]
                self._late.append((began, ended))
            self._late_read = count
            return list(self._late)

    def add(self, given: Port) -> None:
        """Served from the next tick on."""
        native = NativePort(self._library, given, self._clock)
        with self._lock:
            taken = {(slot, index) for slot, index, _ in self._places.values()}
            load = [sum(slot == place for place, _ in taken) for slot in range(SLOTS)]
            slot = load.index(min(load))
            free = next((index for index in range(_PORTS) if (slot, index) not in taken), None)
            if free is None:
                msg = f"a caller process carries at most {_PORTS * SLOTS} connections"
                raise HarnessError(msg)
            self._places[given] = (slot, free, native)
            given.hand_over(native)
            self.core.ports[slot][free] = native.memory

    def remove(self, given: Port) -> Parting:
        """Its ``wait`` returns when the thread no longer touches the port."""
        with self._lock:
            slot, index, _ = self._places.pop(given)
            self.core.ports[slot][index] = self._library.ffi.NULL
        # The tick under way may have read the pointer.
        return Parting(self.core, self.core.ticks + 2)

    def due(self, legs: tuple[Leg, ...], now: UnixNs) -> list[Leg]:
        """Those of ``legs`` that have to be listened to: light ones for which something came, and all others."""
        if legs is not self._asked:
            self._ask(legs)
        pointers, wanted, count = self._question
        self._library.functions.core_attention(pointers, count, now, wanted)
        told = self._library.ffi.buffer(wanted, count)[:]
        awake, index = set(self._close), told.find(1)
        while index >= 0:
            awake.add(self._light[index])
            index = told.find(1, index + 1)
        return [leg for leg in legs if leg in awake]

    def _ask(self, legs: tuple[Leg, ...]) -> None:
        with self._lock:
            asked = [(leg, self._places[port][2].memory) for leg in legs if leg.is_light for port in leg.ports if port in self._places]
        ffi = self._library.ffi
        pointers = ffi.new("core_port *[]", [memory for _, memory in asked])
        self._question: tuple[Any, Any, int] = (pointers, ffi.new("uint8_t[]", len(asked)), len(asked))
        self._light = tuple(leg for leg, _ in asked)
        self._close = tuple(leg for leg in legs if leg not in set(self._light))
        self._asked = legs

    def memory(self, given: Port) -> Any:
        """A port's memory shared with the thread; for tests."""
        return self._places[given][2].memory


class Parting:
    """What ``remove`` returns: the waiting half of an event."""

    def __init__(self, core: Any, ticks: int) -> None:
        self._core = core
        self._ticks = ticks

    def wait(self, timeout: float | None = None) -> bool:
        """False if it did not come in ``timeout`` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._core.ticks < self._ticks and not self._core.is_over and self._core.thread:
            if until is not None and time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True


class NativePort:
    """A port's memory in the core, and what Python does with what is in it, on the listening thread."""

    def __init__(self, library: Library, given: Port, clock: Clock) -> None:
        self._ffi = library.ffi
        self._clock = clock
        self.memory = self._ffi.new("core_port *")
        self._streams: list[CompiledStream] = []
        self._ring = memoryview(self._ffi.buffer(self.memory.ring))
        self._kept_bytes = self._ffi.sizeof("core_packet")
        self._taken = self._others = 0
        memory, wire, outgoing = self.memory, given.wire, given.outgoing
        memory.fd = wire.socket.fileno()
        memory.context = self._ffi.cast("void *", aiortc_adapter.context_address(wire.outbound))
        memory.tag_bytes = wire.tag_bytes
        memory.ssrc = given.ssrc
        memory.report_every_ns = port.REPORT_NS
        memory.next_report_ns = given.next_report_ns
        self.speech = None
        if outgoing is not None:
            memory.is_sending = memory.is_marked = 1
            memory.payload_type, memory.sequence, memory.timestamp = outgoing.beginning()
            self.speech = NativeSpeech(self._ffi, memory, outgoing, clock)
            outgoing.speak_through(self.speech)

    def collect(self, given: Port) -> None:
        """Takes what came since the last time, but for packets: those are taken when they are wanted."""
        memory = self.memory
        if self.speech is not None and self.speech.is_speaking:
            self.speech.collect()
        given.send_errors = memory.send_errors
        while len(self._streams) < memory.stream_count:
            index = len(self._streams)
            ssrc = memory.streams[index].ssrc
            self._streams.append(CompiledStream(self, index, given.ear()))
            given.incoming[ssrc] = self._streams[-1]
        memory.streams_seen = len(self._streams)
        others = memory.others_seen = memory.others
        if others == self._others:
            return
        for index in range(max(self._others, others - _OTHERS), others):
            kept = memory.other[index % _OTHERS]
            given.take(UnixNs(kept.at), bytes(self._ffi.buffer(kept.data, kept.length)))
        self._others = others

    def take_packets(self, newest: int) -> None:
        """Gives the ``newest`` packets in the ring to their streams' ears, each once."""
        memory, ring = self.memory, self._ring
        arrived = memory.arrived
        first = max(self._taken, arrived - min(newest, _SAFE))
        for index in range(first, arrived):
            place = index % _RING * self._kept_bytes
            at, number, timestamp, length, stream = _KEPT.unpack_from(ring, place)
            packet = bytes(ring[place + _KEPT.size : place + _KEPT.size + length])
            if memory.arrived - index < _RING:
                self._streams[stream].ear.heard(UnixNs(at), number, timestamp, packet)
        self._taken = arrived


class CompiledStream:
    """As Incoming: statistics from the core, sound from the ear."""

    def __init__(self, native: NativePort, index: int, ear: FullEar | LightEar) -> None:
        self.ear = ear
        self._native = native
        self._memory = native.memory.streams[index]
        self._loud_seen = 0
        self._highest_taken = 0

    @property
    def reception(self) -> Reception:
        """The stream until now."""
        memory = self._memory
        while True:
            version = memory.version
            read = Reception(
                received=memory.received,
                expected=memory.expected_before + memory.highest - memory.base + 1,
                highest_sequence=memory.highest - FIRST_CYCLE,
                duplicates=memory.duplicates,
                reordered=memory.reordered,
                jitter=memory.jitter,
                jitter_max=memory.jitter_max,
            )
            if version % 2 == 0 and memory.version == version:
                return read

    def sounds(self, now: UnixNs, is_final: bool = False, is_attentive: bool = True) -> list[Any]:
        """Each utterance that began or ended; see Ear."""
        memory, ear = self._memory, self.ear
        if isinstance(ear, LightEar) and not is_final:
            loud_at, highest = memory.loud_at, memory.highest
            newest = ear.wants(loud_at if loud_at > self._loud_seen else 0, memory.quiet_at, now, is_attentive)
            if not newest and highest - self._highest_taken < _ROLL_OVER:
                self._arm(ear)
                return []
            self._loud_seen, self._highest_taken = loud_at, highest
            self._native.take_packets(max(1, newest))
        else:
            self._native.take_packets(_SAFE)
        told = list(ear.sounds(now, is_final, is_attentive))
        if isinstance(ear, LightEar):
            memory.silence_bytes = ear.silence_bytes
            self._arm(ear)
        return told

    def _arm(self, ear: LightEar) -> None:
        """Says when this stream is to be looked at again."""
        memory = self._memory
        loud_at, memory.wake_quiet_ns, memory.wake_at = ear.wake(memory.quiet_at)
        memory.wake_loud_at = max(loud_at, self._loud_seen)

    def take_jitter_peak(self) -> float:
        """The highest interarrival jitter since the last call, in timestamp units."""
        peak = float(self._memory.jitter_peak)
        self._memory.jitter_peak = 0.0
        return peak

    def reported(self, report: rtcp.SenderReport, at: UnixNs) -> None:
        """The sender's own report arrived."""
        self._memory.last_report_at = at
        self._memory.last_report = rtcp.middle(report.ntp)


class NativeSpeech:
    """What an Outgoing says through the core. ``push`` and ``hush`` from any thread, ``collect`` from the listening thread."""

    def __init__(self, ffi: Any, memory: Any, outgoing: Outgoing, clock: Clock) -> None:
        self._ffi = ffi
        self._memory = memory
        self._outgoing = outgoing
        self._clock = clock
        self._lock = threading.Lock()
        self._given: deque[_Given] = deque()

    @property
    def is_speaking(self) -> bool:
        """A clip that was given has not left."""
        return bool(self._given)

    def push(self) -> None:
        """Gives the core the clips that wait."""
        with self._lock:
            memory = self._memory
            while memory.clip_tail - memory.clip_head < _CLIPS and (clip := self._outgoing.next_clip()):
                given = _Given(self._ffi, memory.clip_tail, clip)
                self._given.append(given)
                place = memory.clips[given.index % _CLIPS]
                place.payload, place.offsets, place.sent_ns, place.frames = given.payload, given.offsets, given.sent_ns, len(clip.frames)
                memory.clip_tail = given.index + 1
            self._watch()

    def hush(self) -> None:
        """Breaks off what was given."""
        with self._lock:
            self._memory.hushed_to = self._memory.clip_tail

    @property
    def packets(self) -> int:
        """Sent so far."""
        return int(self._memory.packets)

    def take_late_ns(self) -> int:
        """How late the latest packet left since the last call."""
        late_ns = int(self._memory.late_ns)
        self._memory.late_ns = 0
        return late_ns

    def collect(self) -> None:
        """Tells the Outgoing what has left."""
        memory, outgoing = self._memory, self._outgoing
        while self._given:
            given = self._given[0]
            is_over = memory.clip_head > given.index
            left = given.left()
            for frame in range(given.told, left):
                if outgoing.keeps_sound or frame in given.telling or frame == left - 1:
                    outgoing.said(given.clip, frame, self._clock.at_monotonic(given.sent_ns[frame]))
            given.told = left
            if not is_over:
                with self._lock:
                    self._watch()
                return
            if given.told < len(given.clip.frames):
                outgoing.broke_off(given.clip)
            with self._lock:
                self._given.popleft()
            self.push()

    def _watch(self) -> None:
        """Says what has to have left for ``collect`` to tell news: the last voiced frame of the clip under way, then its end."""
        memory = self._memory
        memory.is_watched = bool(self._given)
        if self._given:
            given = self._given[0]
            memory.watched_clip, memory.watched_frame = given.index, given.last_voiced if given.told <= given.last_voiced else NEVER


class _Given:
    """One clip in the core's hands."""

    def __init__(self, ffi: Any, index: int, clip: Clip) -> None:
        self.index = index
        self.clip = clip
        self.told = 0
        self.last_voiced = clip.last_voiced_sample // FRAME_SAMPLES
        self.telling = (clip.first_voiced_sample // FRAME_SAMPLES, self.last_voiced)
        """Frames whose leaving is news even if no sound is kept."""
        offsets = [0]
        for frame in clip.frames:
            offsets.append(offsets[-1] + len(frame))
        self.payload = ffi.new("uint8_t[]", b"".join(clip.frames))
        self.offsets = ffi.new("uint32_t[]", offsets)
        self.sent_ns = ffi.new("int64_t[]", len(clip.frames))

    def left(self) -> int:
        """Frames that have left."""
        frames, left = len(self.clip.frames), self.told
        while left < frames and self.sent_ns[left]:
            left += 1
        return left
