"""A run of many calls, made of a recorded one: each of its calls takes place many times at once, and what counts them grows by as much."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import codec
from harness.model import CallPlan
from harness.rundir import read_info, read_plans

_RATIOS = ("voice_agent:ttfw_seconds", "livekit_packet_loss_ratio", "livekit_jitter_ms", "livekit_rtt_mean_ms", "up")
"""What does not grow when everything happens several times at once."""
_OWN = ("id", "call_id", "room_name", "room", "identity")
"""What each copy of a call has for itself."""


def crowd(recorded: Path, directory: Path, *, times: int) -> int:
    """Writes the run directory. Returns how many calls it holds."""
    info, plans = read_info(recorded), read_plans(recorded)
    directory.mkdir(parents=True)
    whole = dataclasses.replace(info, scenario=dataclasses.replace(info.scenario, calls=len(plans) * times))
    (directory / "run.json").write_text(json.dumps({"schema": codec.SCHEMA, **codec.to_json(whole)}))
    for name in ("generator.jsonl", "calibration.json"):
        if (recorded / name).is_file():
            (directory / name).write_text((recorded / name).read_text())
    codec.write_lines(directory / "plans.jsonl", (_plan(plan, copy, len(plans)) for copy in range(times) for plan in plans))
    for file in sorted((*(recorded / "events").glob("*.jsonl"), *(recorded / "observations").glob("*.jsonl"))):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        path = directory / file.relative_to(recorded)
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as out:
            out.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in _grown(lines, times))
    return len(plans) * times


def _plan(plan: CallPlan, copy: int, each: int) -> CallPlan:
    return dataclasses.replace(
        plan,
        index=plan.index + copy * each,
        call_id=f"{plan.call_id}-{copy}",
        room=f"{plan.room}-{copy}",
        identity=f"{plan.identity}-{copy}",
    )


def _grown(lines: list[dict[str, Any]], times: int) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        match line["type"]:
            case "Sample" if not line["name"].startswith(_RATIOS):
                yield {**line, "value": line["value"] * times}
            case "Row":
                yield from ({**line, "columns": _owned(line["columns"], copy)} for copy in range(times))
            case "CallEvent":
                yield from ({**_owned(line, copy), "fields": _owned(line["fields"], copy)} for copy in range(times))
            case _:
                yield line


def _owned(entries: Mapping[str, Any], copy: int) -> dict[str, Any]:
    return {name: f"{entry}-{copy}" if name in _OWN else entry for name, entry in entries.items()}
