"""A run of many calls, made of a recorded one: each of its calls takes place many times at once, what counts them grows by as much, and rules and
panels say what follows."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from assertions.chains import Chains
from assertions.facts import Facts
from harness import codec
from harness.measure.delivery import PROOFS
from harness.measure.series import Reader
from harness.model import CallPlan, Poll, Row, Sample, Source
from harness.rundir import read_evidence

_COUNTERS = ("voice_agent_", "livekit_")
_EXPORTED = (Source.AGENT_EXPORTER, Source.SFU_EXPORTER, Source.PROMETHEUS)
_OF_CALLS = (Source.ROWS, Source.REALTIME, Source.AGENT_RULER, Source.TOOL_ENDPOINT)
_OWN = ("id", "call_id", "room_name", "room", "identity", "key")
"""What each copy of a call has for itself."""


def crowd(recorded: Path, directory: Path, *, times: int) -> int:
    """Writes the run directory. Returns how many calls it holds."""
    evidence = read_evidence(recorded)
    info, plans = evidence.info, evidence.plans
    directory.mkdir(parents=True)
    whole = dataclasses.replace(info, scenario=dataclasses.replace(info.scenario, calls=len(plans) * times))
    (directory / "run.json").write_text(json.dumps({"schema": codec.SCHEMA, **codec.to_json(whole)}))
    for name in ("generator.jsonl", "calibration.json", "gaps.jsonl"):
        if (recorded / name).is_file():
            shutil.copy(recorded / name, directory / name)
    codec.write_lines(directory / "plans.jsonl", (_plan(plan, copy, len(plans)) for copy in range(times) for plan in plans))
    for file in sorted((*(recorded / "events").iterdir(), *(recorded / "observations").iterdir())):
        is_packed = file.suffix == codec.PACKED
        path = directory / file.parent.name / (file.stem if is_packed else file.name)
        path.parent.mkdir(exist_ok=True)
        text = gzip.decompress(file.read_bytes()).decode() if is_packed else file.read_text()
        with path.open("w") as out:
            for raw in text.splitlines():
                out.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in _grown(json.loads(raw), times))
    facts, reader = Facts.of(evidence), Reader.of(evidence)
    told = Chains(reader, facts).passed_on(reader, _grown_reader(reader, times))
    for source in (Source.RULES, Source.PANELS):
        polls = (item for item in evidence.observations if isinstance(item, Poll) and item.source is source)
        codec.write_lines(directory / "observations" / f"{source}.jsonl", (*polls, *_lines(told, source)))
    return len(plans) * times


def _plan(plan: CallPlan, copy: int, each: int) -> CallPlan:
    return dataclasses.replace(
        plan,
        index=plan.index + copy * each,
        call_id=f"{plan.call_id}-{copy}",
        room=f"{plan.room}-{copy}",
        identity=f"{plan.identity}-{copy}",
    )


def _grown(line: dict[str, Any], times: int) -> Iterator[Mapping[str, Any]]:
    match line["type"]:
        case "Sample" if _counts(line["name"], line["source"]):
            yield {**line, "value": line["value"] * times}
        case "Row" if _is_of_calls(line["source"], line["table"]):
            yield from ({**line, "columns": _owned(line["columns"], copy)} for copy in range(times))
        case "Poll" if line["source"] == Source.ROWS:
            numbers = {name: line[name] * times for name in ("count", "total", "total_by_key") if line.get(name) is not None}
            yield {**line, **numbers}
        case "CallEvent":
            yield from ({**_owned(line, copy), "fields": _owned(line["fields"], copy)} for copy in range(times))
        case _:
            yield line


def _counts(name: str, source: str) -> bool:
    return source in _EXPORTED and name.startswith(_COUNTERS)


def _is_of_calls(source: str, table: str) -> bool:
    return source in _OF_CALLS and table != PROOFS


def _owned(entries: Mapping[str, Any], copy: int) -> dict[str, Any]:
    return {name: _own(str(entry), copy) if name in _OWN and entry is not None else entry for name, entry in entries.items()}


def _own(text: str, copy: int) -> str:
    """Of a key of Realtime the row's id is its first word."""
    first, space, rest = text.partition(" ")
    return f"{first}-{copy}{space}{rest}"


def _grown_reader(reader: Reader, times: int) -> Reader:
    """What rules and panels are calculated of, grown."""
    for source in _EXPORTED:
        for name in reader.timelines.get(source, {}):
            if _counts(name, source):
                reader = reader.with_series(source, name, lambda each: each.changed(lambda _, number: number * times))
    for table, rows in reader.rows.items():
        if rows and rows[0].source is Source.ROWS:
            copies = [dataclasses.replace(row, columns=_owned(row.columns, copy)) for copy in range(times) for row in rows]
            reader = reader.with_rows(table, copies)
    return reader


def _lines(reader: Reader, source: Source) -> Iterator[Row | Sample]:
    for rows in reader.rows.values():
        yield from (row for row in rows if row.source is source)
    for timelines in reader.timelines.get(source, {}).values():
        for each in timelines:
            for at, number in each.samples:
                yield Sample(source=source, name=each.name, labels=each.labels, value=number, at=at, request=each.request)
