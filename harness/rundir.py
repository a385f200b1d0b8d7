"""The run directory: where every stage reads and writes, so that each can be repeated alone, offline, years later."""

from __future__ import annotations

import contextlib
import gc
import json
import secrets
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness import codec
from harness.caller.records import call_records
from harness.errors import UsageError
from harness.measure.delivery import Break, Canary, Heard, ServerClock, observed
from harness.model import (
    Calibration,
    CallEvent,
    CallPlan,
    CallRecord,
    Evidence,
    Findings,
    Gap,
    GeneratorHealth,
    Observation,
    Poll,
    Row,
    RunInfo,
    Sample,
    Source,
)

RUNS = Path("reports/runs")
"""Below the working directory."""
_TOLD = (Heard, Canary, Break, ServerClock)
STOP = "stop"
"""A file of this name in the run directory ends the placing of calls."""
_LETTERS = "abcdefghjkmnpqrstuvwxyz"
_DIGITS = "23456789"


class RunDir:
    """One run on disk. Appending is safe from several threads; every line is on disk when the call returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    @staticmethod
    def create(runs: Path = RUNS) -> RunDir:
        """A new directory with a new run id, such as ``k3f9``.

        Raises UsageError if ``runs`` cannot be written.
        """
        for _ in range(100):
            path = runs / "".join(secrets.choice(alphabet) for alphabet in (_LETTERS, _DIGITS, _LETTERS, _DIGITS))
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as exc:
                msg = f"{runs}: no run directory can be made there: {exc.strerror}"
                raise UsageError(msg) from exc
            run = RunDir(path)
            for directory in (run.events, run.observations, run.logs, run.audio):
                directory.mkdir()
            return run
        msg = f"{runs}: a hundred run ids were all taken; delete old runs"
        raise UsageError(msg)

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def events(self) -> Path:
        return self.path / "events"

    @property
    def observations(self) -> Path:
        return self.path / "observations"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def audio(self) -> Path:
        return self.path / "audio"

    def stop_placing(self) -> None:
        """Whoever places calls places no more; those in progress go on."""
        (self.path / STOP).touch()

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def write_info(self, info: RunInfo) -> None:
        self.write_json("run.json", info)

    def write_plans(self, plans: Iterable[CallPlan]) -> None:
        codec.write_lines(self.path / "plans.jsonl", plans)

    def write_calibration(self, calibration: Calibration) -> None:
        """A copy: a later calibration of the machine judges no old run."""
        self.write_json("calibration.json", calibration)

    def write_findings(self, findings: Findings) -> None:
        self.write_json("verdicts.json", findings)

    def write_text(self, name: str, text: str) -> None:
        """Replaces the file unless it holds just that; a reader never sees half of it."""
        if (self.path / name).is_file() and (self.path / name).read_text() == text:
            return
        partial = self.path / f"{name}.partial"
        partial.write_text(text)
        partial.replace(self.path / name)

    def write_json(self, name: str, item: Any) -> None:
        self.write_text(name, json.dumps({"schema": codec.SCHEMA, **codec.to_json(item)}, indent=1) + "\n")

    def observe(self, source: Source, observations: Iterable[Observation | Gap]) -> None:
        """Appends what ``source`` said, and what it did not say."""
        said: dict[Path, list[str]] = {self.observations / f"{source}.jsonl": [], self.path / "gaps.jsonl": []}
        said_file, gaps_file = said
        for item in observations:
            said[gaps_file if isinstance(item, Gap) else said_file].append(codec.line(item))
        with self._lock:
            for path, lines in said.items():
                if lines:
                    with path.open("a") as out:
                        out.write("".join(lines))


class EventTail:
    """The events of a run while they are written: each is told once."""

    def __init__(self, path: Path) -> None:
        self._events = path / "events"
        self._read: dict[Path, int] = {}

    def new(self) -> tuple[CallEvent, ...]:
        """What was written since the last call; of one process in order. A line that is not whole yet is told next time."""
        return tuple(event for file in sorted(self._events.glob("*.jsonl")) for event in self._new_in(file))

    def _new_in(self, file: Path) -> Iterator[CallEvent]:
        with file.open("rb") as lines:
            lines.seek(self._read.get(file, 0))
            said = lines.read()
        whole = said[: said.rfind(b"\n") + 1]
        self._read[file] = self._read.get(file, 0) + len(whole)
        for line in whole.splitlines():
            data = json.loads(line)
            yield CallEvent(at=data["at"], call_id=data["call_id"], kind=data["kind"], fields=data["fields"])


def find(name: str, runs: Path = RUNS) -> Path:
    """The directory of a run, by path, by id, or ``latest``.

    Raises UsageError, naming the next step, if there is none.
    """
    for path in (Path(name), runs / name):
        if (path / "run.json").is_file():
            return path
    made = sorted(runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if name == "latest" and made:
        return made[-1].parent
    said = f"the latest below {runs} is {made[-1].parent.name}" if made else f"there is none below {runs}; make one: voxproof run smoke"
    msg = f"no run '{name}': neither a directory with a run.json nor a run id; {said}"
    raise UsageError(msg)


def read_info(path: Path) -> RunInfo:
    """``run.json``. Raises UsageError if it is missing, broken or newer than this harness."""
    info: RunInfo = _read_json(path / "run.json", RunInfo)
    return info


def read_records(path: Path, plans: tuple[CallPlan, ...], health: tuple[GeneratorHealth, ...] = ()) -> tuple[CallRecord, ...]:
    """What happened to the planned calls, as far as the callers have written it down."""
    events = (event for file in sorted((path / "events").glob("*.jsonl")) for event in _lines(file, CallEvent))
    return call_records(plans, events, health)


def read_plans(path: Path) -> tuple[CallPlan, ...]:
    return tuple(_lines(path / "plans.jsonl", CallPlan))


def read_health(path: Path) -> tuple[GeneratorHealth, ...]:
    """What each caller process last said of its punctuality."""
    return tuple({line.process: line for line in _lines(path / "generator.jsonl", GeneratorHealth)}.values())


def read_evidence(path: Path) -> Evidence:
    """Everything that check judges. A run that was cut short lacks files: what is there is read.

    Raises UsageError for a directory without run.json, a broken record or a newer schema.
    """
    with without_collector():
        return _evidence(path)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """The cyclic garbage collector rests: a run holds no cycles, and to look through it again and again takes longer than to read and to judge it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _evidence(path: Path) -> Evidence:
    info = read_info(path)
    plans = read_plans(path)
    if info.stopped_after_s is not None:
        plans = tuple(plan for plan in plans if plan.due_s <= info.stopped_after_s)
    health = read_health(path)
    calibration = path / "calibration.json"
    return Evidence(
        info=info,
        plans=plans,
        records=read_records(path, plans, health),
        health=health,
        observations=tuple(_observations(path)),
        gaps=tuple(_lines(path / "gaps.jsonl", Gap)),
        calibration=_read_json(calibration, Calibration) if calibration.is_file() else None,
    )


def _observations(path: Path) -> Iterator[Observation]:
    for source in Source:
        said = _lines(path / "observations" / f"{source}.jsonl", Sample, Row, Poll, *_TOLD)
        yield from map(_observation, said) if source is Source.REALTIME else said


def _observation(item: Any) -> Observation:
    """Runs of the first weeks kept what the listener of Realtime said under its own names."""
    found: Observation = observed(item, "") if isinstance(item, _TOLD) else item
    return found


def _lines(path: Path, *kinds: type[Any]) -> Iterator[Any]:
    """Of the record file, or of what it was packed into to be kept."""
    for file in (path, path.with_name(path.name + codec.PACKED)):
        if file.is_file():
            yield from codec.read_lines(file, *kinds)
            return


def _read_json(path: Path, kind: Any) -> Any:
    try:
        data = json.loads(path.read_text())
        schema = data.pop("schema")
    except FileNotFoundError as exc:
        msg = f"{path.parent}: not a run directory: it has no {path.name}"
        raise UsageError(msg) from exc
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
        msg = f"{path}: not a record: {exc}; wanted a JSON object with a schema number"
        raise UsageError(msg) from exc
    if schema > codec.SCHEMA:
        msg = f"{path}: written by schema {schema}; this harness reads up to {codec.SCHEMA}. Upgrade, or use the harness that wrote it."
        raise UsageError(msg)
    try:
        return codec.from_json(kind, data)
    except ValueError as exc:
        msg = f"{path}: {exc}"
        raise UsageError(msg) from exc
