"""Who calls: what the dispatch says of a call, and what stands in for what it does not say."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DIRECTIONS = ("inbound", "outbound")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """The dispatch metadata of a job, ``{"call_id": ..., "phone_number": ..., "direction": ...}``, each of them optional."""

    call_id: str
    """Made here if the caller made none."""
    phone_number: str | None
    direction: str

    @classmethod
    def parsed(cls, metadata: str | None) -> Dispatch:
        """From a job's metadata; text that is no JSON object belongs to somebody else and says nothing."""
        said = json_object(metadata)
        direction, number = said.get("direction"), said.get("phone_number")
        return cls(
            call_id=str(said.get("call_id") or uuid.uuid4()),
            phone_number=str(number) if number else None,
            direction=direction if direction in _DIRECTIONS else _DIRECTIONS[0],
        )


def fictional_number(identity: str) -> str:
    """A number of the range reserved for fiction (+1 555 0100 to 0199), the same for the same identity."""
    return f"+15550{100 + zlib.crc32(identity.encode()) % 100}"


def json_object(text: str | None) -> Mapping[str, Any]:
    """The JSON object in ``text``; empty for anything else."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
