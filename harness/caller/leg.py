"""One call's audio, both ways, as the session sees it: speak, hear, and what the wire did meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.caller.aiortc_adapter import Wire
from harness.caller.clip import Clip
from harness.clock import Clock
from harness.model import UnixNs, WireStats, value


@value
class Spoken:
    """One clip as it left. Instants are on the wire: send time of the sample's packet plus its offset inside the packet."""

    clip: str
    started_at: UnixNs
    """First voiced sample."""
    ended_at: UnixNs
    """Last voiced sample; if the clip was hushed, the end of its last packet."""
    is_whole: bool
    """False: hushed before its last voiced sample."""


@value
class Utterance:
    """One stretch of speech received, without a pause longer than ``harness.measure.voice.PAUSE_S``.

    Instants: kernel arrival of the sample's packet plus its offset inside, less the codec's look-ahead.
    """

    started_at: UnixNs
    ended_at: UnixNs | None
    """Last voiced sample. None: still going on."""


class Leg:
    """The audio of one call. Methods may be called from any thread; none blocks.

    A leg sends 50 packets a second from the moment it is added to the engine: a clip's frames while one plays, Opus silence otherwise.
    """

    def __init__(self, clock: Clock, publisher: Wire, subscriber: Wire | None = None) -> None:
        """publisher: the transport that carries the outgoing stream. subscriber: the second one of a dual-PC caller; None: single-PC."""
        raise NotImplementedError

    def play(self, clip: Clip) -> None:
        """Starts speaking at the next tick, after whatever is still playing."""
        raise NotImplementedError

    def hush(self) -> None:
        """Stops speaking at the next tick and forgets the clips that wait."""
        raise NotImplementedError

    @property
    def is_speaking(self) -> bool:
        """A clip is playing or waits for its tick."""
        raise NotImplementedError

    def spoken(self) -> tuple[Spoken, ...]:
        """The clips that ended, oldest first."""
        raise NotImplementedError

    def utterances(self) -> tuple[Utterance, ...]:
        """What was heard so far, oldest first; at most the last one is still going on."""
        raise NotImplementedError

    def listen(self, told: Callable[[Utterance], None]) -> None:
        """``told`` is called in the asyncio thread when an utterance starts (``ended_at`` None) and again when it has ended.

        The end is told ``PAUSE_S`` after the last voiced sample. Instants are exact whatever the delay of the telling: up to 60 ms for a start.
        """
        raise NotImplementedError

    def wire_stats(self) -> tuple[WireStats, WireStats]:
        """Up and down, over the life of the leg until now."""
        raise NotImplementedError

    def write_recording(self, path: Path) -> UnixNs | None:
        """Writes both sides as WAV, 24 kHz, 16 bit: caller left, agent right. To be called after ``Engine.remove``, in a thread.

        Returns the instant of the first sample. None, and no file, if no packet was ever sent or received.
        """
        raise NotImplementedError
