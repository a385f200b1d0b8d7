"""Looks at calls and stack while a run lasts: what changed, who died, and when everything has come to rest."""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Set
from typing import TYPE_CHECKING

from assertions import knee
from harness import rundir
from harness.clock import Clock
from harness.collect.sources import Rest, Sources
from harness.model import CallPlan, RunInfo, Scenario
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
        self.ended: set[str] = set()
        """Ids of the calls that are over."""
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
            elif event.kind == "ended":
                self.ended.add(event.call_id)
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


class Breach:
    """Judges each step of a search for the knee as soon as all its calls are over, and ends the placing of calls if the scenario asks for that."""

    def __init__(self, run_dir: RunDir, scenario: Scenario, plans: tuple[CallPlan, ...], progress: Callable[[str], None]) -> None:
        """plans: not empty."""
        self.has_stopped = False
        """No call is placed any more."""
        self._run_dir = run_dir
        self._scenario = scenario
        self._plans = plans
        self._progress = progress
        self._open: deque[tuple[CallPlan, ...]] = deque()
        if scenario.knee is not None:
            steps = itertools.groupby(plans, key=lambda plan: knee.step_of(plan, scenario.arrival))
            self._open.extend(tuple(step) for _, step in steps)
        self._over = 0

    def look(self, ended: Set[str]) -> None:
        """ended: ids of the calls that are over."""
        while self._open and all(plan.call_id in ended for plan in self._open[0]):
            self._over += len(self._open.popleft())
            self._judge()

    def _judge(self) -> None:
        path, scenario = self._run_dir.path, self._scenario
        records = rundir.read_records(path, self._plans[: self._over], rundir.read_health(path))
        found = knee.found(scenario.arrival, scenario.slo, records)
        self._progress(knee.told(found.steps[-1]))
        if found.broke_per_s is not None and not self.has_stopped and scenario.knee is not None and scenario.knee.abort_on_breach:
            self._run_dir.stop_placing()
            self.has_stopped = True
            self._progress("a limit is broken: no further call is placed, as the scenario asks")


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
