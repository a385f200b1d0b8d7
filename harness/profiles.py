"""What a network does to a caller's packets, as scenarios say it: by the name of a profile, or written out."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.document import Document, Free, Key, Listing, Number, Table, Text, parse
from harness.errors import UsageError
from harness.model import Impairment

PROFILES = Path(__file__).parents[1] / "fixtures" / "impairment" / "profiles.yaml"
KEY = "impairment"
_RATIO = Number(at_least=0, at_most=1)
_SECONDS = Number(at_least=0, at_most=60)

STAGE = Table(
    keys={
        "direction": Key(shape=Text(choices=("up", "down", "both")), says="up: caller to SFU; down: SFU to caller; both", is_required=True),
        "from_s": Key(shape=Number(at_least=0), says="when it begins, seconds after the media path was up; 0 if absent"),
        "until_s": Key(shape=Number(at_least=0), says="when it ends; absent: with the call"),
        "loss_ratio": Key(shape=_RATIO, says="share of the packets that is lost; 1 is an outage"),
        "burst_packets": Key(
            shape=Number(at_least=1, at_most=1000), says="mean number of packets lost in a row; absent: each is lost by itself"
        ),
        "lose_every": Key(shape=Number(is_whole=True, at_least=2), says="every n-th RTP packet is lost"),
        "delay_s": Key(shape=_SECONDS, says="delay of every packet, in seconds"),
        "jitter_s": Key(shape=_SECONDS, says="further delay, uniform between 0 and this"),
        "order": Key(shape=Text(choices=("kept", "free")), says="whether a delayed packet waits for those sent before it; kept if absent"),
        "reorder_ratio": Key(shape=_RATIO, says="share of the RTP packets that is held back and overtaken"),
        "reorder_s": Key(shape=Number(at_least=0.001, at_most=60), says="how long it is held back; 0.05 if absent"),
        "duplicate_ratio": Key(shape=_RATIO, says="share of the RTP packets that comes twice"),
        "rate_bps": Key(shape=Number(at_least=1000), says="bits a second that pass, IP and UDP headers included; absent: any"),
        "queue_s": Key(shape=_SECONDS, says="longest wait before that bottleneck; what would wait longer is lost; 0.2 if absent"),
    }
)
STAGES = Key(shape=Listing(of=STAGE), says="impairments, applied in order, each to what the one before it let through")
SHAPE = Table(
    keys={
        "profile": Key(shape=Text(), says="name of a profile that comes first"),
        "stages": STAGES,
    }
)


def named(document: Document) -> str | None:
    """Name of the profile in ``document``. None: there is none."""
    said = document.data.get(KEY)
    return said.get("profile") if isinstance(said, Mapping) else said


def impairments(document: Document) -> tuple[Impairment, ...]:
    """What ``document`` says under ``impairment``; nothing if it says nothing.

    Raises UsageError with file and line for an unknown profile and for stages that contradict themselves.
    """
    said = document.data.get(KEY)
    if said is None:
        return ()
    name = named(document)
    stages = said.get("stages", ()) if isinstance(said, Mapping) else ()
    if name is None and not stages:
        raise UsageError(f"{document.where(KEY)}: {KEY}: names no profile and no stages; delete it, or name one of {', '.join(known())}")
    first = () if name is None else _profile(document, name, (KEY, "profile") if isinstance(said, Mapping) else (KEY,))
    return (*first, *_impairments(document, stages, (KEY, "stages")))


@cache
def known() -> Mapping[str, tuple[Impairment, ...]]:
    """The profiles that ship with the harness, by name. Raises UsageError with file and line if their file is wrong."""
    names = Table(keys={"profiles": Key(shape=Free(), says="by name", is_required=True)})
    text = PROFILES.read_text()
    found = parse(text, file=str(PROFILES), shape=names).data["profiles"]
    entry = Table(keys={"says": Key(shape=Text(), says="one sentence", is_required=True), "stages": STAGES})
    shape = Table(keys={"profiles": Key(shape=Table(keys={name: Key(shape=entry, says=name) for name in found}), says="by name")})
    document = parse(text, file=str(PROFILES), shape=shape)
    return {
        name: tuple(_impairments(document, profile.get("stages", ()), ("profiles", name, "stages")))
        for name, profile in document.data["profiles"].items()
    }


def _profile(document: Document, name: str, path: tuple[str, ...]) -> tuple[Impairment, ...]:
    if name in known():
        return known()[name]
    close = difflib.get_close_matches(name, known(), n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known())}"
    raise UsageError(f"{document.where(*path)}: unknown impairment '{name}'; {hint}")


def _impairments(document: Document, stages: tuple[Mapping[str, Any], ...], path: tuple[str, ...]) -> Iterator[Impairment]:
    for index, stage in enumerate(stages):
        if reason := _contradiction(stage):
            raise UsageError(f"{document.where(*path, index)}: {reason}")
        fields = {key: said for key, said in stage.items() if key not in ("direction", "order")}
        one = Impairment(direction="", keeps_order=stage.get("order", "kept") == "kept", **fields)
        for direction in ("up", "down") if stage["direction"] == "both" else (stage["direction"],):
            yield dataclasses.replace(one, direction=direction)


def _contradiction(stage: Mapping[str, Any]) -> str | None:
    if not stage.keys() - {"direction", "from_s", "until_s", "order", "queue_s", "burst_packets", "reorder_s"}:
        return "this stage does nothing; give it a loss_ratio, lose_every, delay_s, jitter_s, reorder_ratio, duplicate_ratio or rate_bps"
    if stage.get("until_s", float("inf")) <= stage.get("from_s", 0):
        return f"until_s {stage['until_s']:g} is not after from_s {stage.get('from_s', 0):g}"
    loss, burst = stage.get("loss_ratio", 0.0), stage.get("burst_packets")
    if burst is not None and not 0 < loss < 1:
        return "burst_packets needs a loss_ratio between 0 and 1"
    if burst is not None and loss / (1 - loss) > burst:
        return f"loss_ratio {loss:g} cannot come in bursts of {burst:g} packets; they must be at least {loss / (1 - loss):.3g} long"
    return None
