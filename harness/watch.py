"""Looks at calls and stack while a run lasts: what changed, who died, and when everything has come to rest."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.clock import Clock
from harness.collect.sources import Rest, Sources
from harness.model import RunInfo
from harness.rundir import EventTail, RunDir

if TYPE_CHECKING:
    from harness.stack.supervise import Death

_PATIENCE_S = 25.0
"""A stock media server closes a room 20 s after the last leave."""
_PATIENCE_EMBEDDED_S = 8.0
"""Ours closes it after 2 s."""
_LOOK_EVERY_S = 0.25
_SAID = re.compile(r'"(level|msg|message)":\s*"([^"]*)"')


class Watch:
    """Says on the way how the calls are doing, and keeps what will have to be reported."""

    def __init__(self, run_dir: RunDir, deaths: Callable[[], tuple[Death, ...]], progress: Callable[[str], None]) -> None:
        self.fatal: str | None = None
        """The death that ended the calls themselves. None: no such death."""
        self.note: str | None = None
        """Every part that died, with its last log lines."""
        self._tail = EventTail(run_dir.path)
        self._counts: Counter[str] = Counter()
        self._answered: set[str] = set()
        self._deaths = deaths
        self._progress = progress
        self._said = ""
        self._seen = 0

    def look(self) -> None:
        """Reads what the callers have written since the last look, and asks for deaths."""
        for event in self._tail.new():
            self._counts[event.kind] += 1
            if event.kind in ("greeted", "reply"):
                self._answered.add(event.call_id)
        counts = self._counts
        said = f"calls: {counts['placed']} placed, {len(self._answered)} answered, {counts['left']} ended; {counts['reply']} replies heard"
        if said != self._said:
            self._progress(said)
            self._said = said
        for death in self._deaths()[self._seen :]:
            self._seen += 1
            self._report(death)

    def _report(self, death: Death) -> None:
        how, *_ = death.sentence.split(";")
        sentence = "\n    ".join((f"{how}; its last lines:", *(plain(line) for line in death.last_lines)))
        self._progress(sentence)
        self.note = f"{self.note}\n{sentence}" if self.note else sentence
        if death.name == "livekit":
            self.fatal = "the media server died while calls were in progress"


def drain(sources: Sources, info: RunInfo, *, is_embedded: bool, forget_s: float, clock: Clock, progress: Callable[[str], None]) -> None:
    """Returns when the stack has said its last word about our calls, or has said nothing new for a while.

    forget_s: stays at least this long after the load.
    """
    progress("waiting until counters are quiet and rows are settled")
    patience_s = _PATIENCE_EMBEDDED_S if is_embedded else _PATIENCE_S
    before: Rest | None = None
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        rest = sources.rest()
        if rest.is_reached:
            break
        if rest != before:
            before, until = rest, time.monotonic() + patience_s
        time.sleep(_LOOK_EVERY_S)
    since_load_s = (clock.now() - (info.load_ended_at or clock.now())) / 1e9
    time.sleep(max(0.0, forget_s - since_load_s))
    scrape_s = float(info.settings.get("scrape_interval_s", 15.0))
    if sources.wait_scraped(clock.now(), timeout_s=3 * scrape_s + 1):
        # The rules see that scrape at their next evaluation.
        time.sleep(float(info.settings.get("evaluation_interval_s", scrape_s)) + 0.1)


def plain(line: str) -> str:
    """A log line for people: of JSON, perhaps cut short, only level and message, without the machine's paths."""
    said = dict(_SAID.findall(line)) if line.startswith("{") else {}
    message = said.get("msg") or said.get("message")
    return " ".join(word for word in (said.get("level"), message) if word) if message else line
