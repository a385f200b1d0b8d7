"""``scenarios/*.yaml``: what a run does and what it must decide, read with file and line for every mistake."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness import profiles
from harness.document import Document, Either, Free, Key, Listing, Number, Table, Text, json_schema, parse
from harness.errors import UsageError
from harness.load import schedule
from harness.model import Drill, Grade, KneeSearch, PeerMode, Scenario, Slo, TurnPlan

SCENARIOS = Path(__file__).parents[1] / "scenarios"
"""Where the repository keeps its own."""

DRILLED = "responder"
"""The agent of a drill: nobody calls it, but it is scraped."""
_RATE = Number(at_least=0.001, at_most=1000)
_SECONDS = Number(at_least=0.1, at_most=86400)

SHAPE = Table(
    keys={
        "summary": Key(shape=Text(), says="one sentence: what this run is for", is_required=True),
        "seed": Key(shape=Number(is_whole=True, at_least=0), says="makes everything random in the run repeatable; 0 if absent"),
        "agent": Key(shape=Text(), says="name under which the agent takes dispatches"),
        "greeting": Key(shape=Text(), says="the words a scripted agent greets with; absent: no greeting is expected"),
        "calls": Key(shape=Number(is_whole=True, at_least=1), says="how many calls are placed"),
        "arrival": Key(
            shape=Either(
                text=Text(choices=("at-once",)),
                table=Table(
                    keys={
                        "model": Key(shape=Text(choices=tuple(schedule.KEYS)), says="how calls arrive", is_required=True),
                        "calls_per_s": Key(shape=_RATE, says="arrival rate: steady, mean (poisson), final (ramp), first (step, spike)"),
                        "from_per_s": Key(shape=Number(at_least=0, at_most=1000), says="ramp: arrival rate at the start"),
                        "over_s": Key(shape=_SECONDS, says="ramp: how long the rate grows; soak: seconds over which the calls are spread"),
                        "add_per_s": Key(shape=_RATE, says="step: what each step adds to the rate"),
                        "every_s": Key(shape=_SECONDS, says="step: how long each step lasts"),
                        "peak_per_s": Key(shape=_RATE, says="spike: arrival rate during the spike"),
                        "at_s": Key(shape=_SECONDS, says="spike: when it begins"),
                        "for_s": Key(shape=_SECONDS, says="spike: how long it lasts"),
                        "file": Key(
                            shape=Text(),
                            says="recorded: text file beside the scenario, one time in seconds a line; the earliest is the start",
                        ),
                    }
                ),
            ),
            says="how calls arrive, planned before the run; at-once if absent",
        ),
        "answer_timeout_s": Key(
            shape=Number(at_least=1, at_most=120), says="longest wait for the agent to join, and for each reply; 10 if absent"
        ),
        "impairment": Key(
            shape=Either(text=Text(), table=profiles.SHAPE),
            says="what the network does to every caller's packets: the name of a profile (fixtures/impairment/profiles.yaml), or written out",
        ),
        "grade": Key(
            shape=Text(choices=tuple(Grade)),
            says="full: both sides are decoded and kept; light: headers only, decoded around an expected onset; full if absent",
        ),
        "panels": Key(
            shape=Text(),
            says="a panel file beside the scenario, shown and judged instead of deploy/monitoring/panels.yml (docs/claims/panels.md)",
        ),
        "peers": Key(
            shape=Text(choices=tuple(PeerMode)),
            says="peer connections of each caller: single, or dual as most SDKs open them (twice the sockets and handshakes); single if absent",
        ),
        "turns": Key(
            shape=Listing(
                of=Table(
                    keys={
                        "prompt": Key(shape=Text(), says="name of a recorded prompt in fixtures/audio", is_required=True),
                        "reply": Key(shape=Text(), says="the words a scripted agent answers with; absent: any reply will do"),
                        "barge_in_after_s": Key(
                            shape=Number(at_least=0.2, at_most=60),
                            says="begin so long after the first word of what the agent says before, and talk it down; absent: wait for its end",
                        ),
                        "tool": Key(
                            shape=Table(
                                keys={
                                    "name": Key(shape=Text(), says="name of the tool", is_required=True),
                                    "arguments": Key(shape=Free(), says="arguments a scripted agent passes to it"),
                                }
                            ),
                            says="the tool that the turn must provoke",
                        ),
                    }
                )
            ),
            says="what the caller of each call says, in order",
        ),
        "drill": Key(
            shape=Table(
                keys={
                    "cycles": Key(
                        shape=Number(is_whole=True, at_least=1, at_most=100), says="how often each alert is made to fire", is_required=True
                    ),
                    "near_misses": Key(
                        shape=Text(choices=("yes", "no")), says="before that, levels just below and short breaches; yes if absent"
                    ),
                    "calls": Key(
                        shape=Text(choices=("yes", "no")),
                        says="callers that lose packets, and a slow agent, at a time scale of 15; no if absent",
                    ),
                    "time_scale": Key(
                        shape=Number(at_least=1, at_most=15), says="production seconds in one second of the drill; 15 if absent"
                    ),
                }
            ),
            says="faults instead of agent, calls and turns, on the embedded stack: every alert must fire, be silent and end when it must",
        ),
        "rounds": Key(
            shape=Number(is_whole=True, at_least=1, at_most=1000),
            says="how often the caller of each call says them all, one round after the other",
        ),
        "hang_up": Key(
            shape=Table(
                keys={
                    "every": Key(shape=Number(is_whole=True, at_least=1), says="every n-th call hangs up early", is_required=True),
                    "after_s": Key(shape=_SECONDS, says="so long after its media path was up, whatever is being said", is_required=True),
                }
            ),
            says="callers that do not stay to the end; absent: all do",
        ),
        "word_error_ratio": Key(
            shape=Number(at_least=0, at_most=1),
            says="share of the words of a sentence that a recogniser may get wrong in transcripts; absent: none, as for a scripted agent",
        ),
        "requires": Key(
            shape=Listing(of=Text()), says="claims that must be decided: calls/rows, ttfw/* (voxproof list claims)", is_required=True
        ),
        "slo": Key(
            shape=Table(
                keys={
                    "answered_ratio": Key(shape=Number(at_least=0, at_most=1), says="at least this share of the calls is answered"),
                    "ttfw_p50_s": Key(shape=Number(at_least=0), says="median time to first word, as callers heard it, in seconds"),
                    "ttfw_p95_s": Key(shape=Number(at_least=0), says="95th percentile of the same"),
                    "missed_turns": Key(shape=Number(is_whole=True, at_least=0), says="at most this many turns without a reply"),
                    "agent_join_s": Key(
                        shape=Number(at_least=0), says="every agent is in its room so many seconds after the call was placed"
                    ),
                    "missing_agents": Key(shape=Number(is_whole=True, at_least=0), says="at most this many calls that no agent joins"),
                    "doubled_agents": Key(
                        shape=Number(is_whole=True, at_least=0), says="at most this many calls with two agents at a time"
                    ),
                }
            ),
            says="limits on the agent, judged on what callers heard; absent: none",
        ),
        "knee": Key(
            shape=Table(
                keys={
                    "at_least_per_s": Key(
                        shape=_RATE, says="the limits must hold up to this arrival rate; absent: whatever is found will do"
                    ),
                    "on_breach": Key(
                        shape=Text(choices=("abort", "continue")),
                        says="abort: no call is placed any more once a step has broken a limit; continue if absent",
                    ),
                }
            ),
            says="look for the arrival rate (model step) at which the slo first breaks; absent: limits are judged over the whole run",
        ),
    }
)


def find(name: str) -> Path:
    """The file of ``name``: a path, or the name of one of our own scenarios.

    Raises UsageError, listing what there is, if neither exists.
    """
    for path in (Path(name), SCENARIOS / f"{name}.yaml"):
        if path.is_file():
            return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    msg = f"no scenario '{name}': there is no such file, and our own are {', '.join(own()) or 'none'}"
    raise UsageError(msg)


def own() -> tuple[str, ...]:
    """Names of the scenarios that ship with the harness."""
    return tuple(sorted(path.stem for path in SCENARIOS.glob("*.yaml")))


def load(
    path: Path, *, prompts: Mapping[str, str], claims: tuple[str, ...], seed: int | None = None, agent_name: str | None = None
) -> Scenario:
    """The scenario in ``path``.

    prompts: the words of every recorded prompt, by name. claims: every claim there is; patterns in ``requires`` are expanded to them.
    seed, agent_name: override the file's.
    Raises UsageError with file and line.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{path}: cannot be read: {exc}"
        raise UsageError(msg) from exc
    scenario = _scenario(parse(text, file=str(path), shape=SHAPE), name=path.stem, prompts=prompts, claims=claims)
    return dataclasses.replace(
        scenario, seed=scenario.seed if seed is None else seed, agent_name=scenario.agent_name if agent_name is None else agent_name
    )


def _scenario(document: Document, *, name: str, prompts: Mapping[str, str], claims: tuple[str, ...]) -> Scenario:
    data = document.data
    _check_what_it_is(document)
    drill = data.get("drill")
    return Scenario(
        name=name,
        summary=data["summary"],
        path=document.file,
        seed=data.get("seed", 0),
        calls=data.get("calls", 0),
        arrival=_arrival(document),
        agent_name=data.get("agent", DRILLED),
        greeting=data.get("greeting"),
        turns=tuple(_turn(document, index, prompts) for index in range(len(data.get("turns", ())))) * data.get("rounds", 1),
        requires=_requires(document, claims),
        asked=tuple(document.data["requires"]),
        slo=Slo(**data.get("slo", {})),
        answer_timeout_s=float(data.get("answer_timeout_s", 10.0)),
        impairment=profiles.named(document),
        impairments=profiles.impairments(document),
        grade=Grade(data.get("grade", Grade.FULL)),
        hang_up=data.get("hang_up"),
        word_error_ratio=data.get("word_error_ratio"),
        drill=None if drill is None else _drill(document),
        knee=_knee(document),
        panels=str(Path(document.file).parent / data["panels"]) if "panels" in data else None,
        peers=PeerMode(data.get("peers", PeerMode.SINGLE)),
    )


def _check_what_it_is(document: Document) -> None:
    """Calls or a drill, and not both."""
    needed = ("agent", "calls", "turns")
    if "drill" in document.data:
        if extra := [key for key in (*needed, "arrival", "impairment", "slo") if key in document.data]:
            raise UsageError(f"{document.where(extra[0])}: a drill places no calls and takes no {extra[0]}; delete it, or the drill")
    elif lacking := [key for key in needed if key not in document.data]:
        raise UsageError(f"{document.file}:1: key '{lacking[0]}' is missing: {SHAPE.keys[lacking[0]].says}")


def _drill(document: Document) -> Drill:
    drill = document.data["drill"]
    found = Drill(
        cycles=drill["cycles"],
        near_misses=drill.get("near_misses", "yes") == "yes",
        time_scale=float(drill.get("time_scale", 15.0)),
        calls=drill.get("calls", "no") == "yes",
    )
    if found.calls and found.time_scale != 15:
        raise UsageError(f"{document.where('drill', 'calls')}: drill.calls: calls are as long as calls are; they need a time_scale of 15")
    return found


def _arrival(document: Document) -> dict[str, Any]:
    arrival = document.data.get("arrival", "at-once")
    if isinstance(arrival, str):
        return {"model": arrival}
    model, needed = arrival["model"], schedule.KEYS[arrival["model"]]
    if lacking := [key for key in needed if key not in arrival]:
        msg = f"{document.where('arrival')}: arrival: model {model} needs {' and '.join(lacking)}"
        raise UsageError(msg)
    if extra := [key for key in arrival if key not in ("model", *needed)]:
        msg = f"{document.where('arrival', extra[0])}: arrival: model {model} takes no {extra[0]}; delete it, or use another model"
        raise UsageError(msg)
    return {**arrival, "times_s": _recorded(document, arrival["file"])} if "file" in arrival else dict(arrival)


def _knee(document: Document) -> KneeSearch | None:
    if (wanted := document.data.get("knee")) is None:
        return None
    if (model := _arrival(document)["model"]) != "step":
        msg = f"{document.where('knee')}: knee: wanted the arrival model step, which says what load is tried when, got {model}"
        raise UsageError(msg)
    if not document.data.get("slo"):
        msg = f"{document.where('knee')}: knee: slo sets no limit, so none can break; set one"
        raise UsageError(msg)
    return KneeSearch(at_least_per_s=wanted.get("at_least_per_s"), abort_on_breach=wanted.get("on_breach") == "abort")


def _recorded(document: Document, name: str) -> list[float]:
    """The times in a file, kept with the scenario: ``run.json`` needs no other file."""
    path = Path(document.file).parent / name
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{document.where('arrival', 'file')}: arrival.file: {path} cannot be read: {exc}"
        raise UsageError(msg) from exc
    times = [_time(path, number, line) for number, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    if len(times) < document.data["calls"]:
        msg = f"{document.where('calls')}: calls: wanted at most the {len(times)} times in {path}, got {document.data['calls']}"
        raise UsageError(msg)
    return times


def _time(path: Path, number: int, line: str) -> float:
    try:
        time_s = float(line)
    except ValueError:
        time_s = math.nan
    if not math.isfinite(time_s):
        msg = f"{path}:{number}: wanted a time in seconds, got '{line.strip()}'"
        raise UsageError(msg)
    return time_s


def _turn(document: Document, index: int, prompts: Mapping[str, str]) -> TurnPlan:
    turn = document.data["turns"][index]
    if turn["prompt"] not in prompts:
        msg = f"{document.where('turns', index, 'prompt')}: no prompt '{turn['prompt']}' in fixtures/audio; there are {', '.join(prompts)}"
        raise UsageError(msg)
    tool = turn.get("tool")
    return TurnPlan(
        prompt=turn["prompt"],
        text=prompts[turn["prompt"]],
        reply=turn.get("reply"),
        tool=tool["name"] if tool else None,
        tool_arguments=tool.get("arguments") if tool else None,
        barge_in_after_s=turn.get("barge_in_after_s"),
    )


def _requires(document: Document, claims: tuple[str, ...]) -> tuple[str, ...]:
    wanted: dict[str, None] = {}
    for index, pattern in enumerate(document.data["requires"]):
        matches = [claim for claim in claims if fnmatchcase(claim, pattern)]
        if not matches:
            msg = f"{document.where('requires', index)}: requires '{pattern}', which no claim is called; see: voxproof list claims"
            raise UsageError(msg)
        wanted.update(dict.fromkeys(matches))
    if not wanted:
        msg = f"{document.where('requires')}: requires nothing, so the run could decide nothing; name a claim (voxproof list claims)"
        raise UsageError(msg)
    return tuple(wanted)


def schema() -> str:
    """The JSON Schema of a scenario file, as committed in ``scenarios/schema.json``."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "voxproof scenario"}
    return json.dumps(head | json_schema(SHAPE), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
