"""Earlier runs of a scenario, as far as they lie beside this one: what was judged of each claim then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from assertions.nights import Night
from harness import rundir
from harness.errors import UsageError
from harness.model import RunInfo, Status

_MOST = 60
"""Two months of nights."""


def nights(path: Path) -> tuple[Night, ...]:
    """The runs before the one in ``path``, oldest first: of the same scenario against the same target, judged, with nothing seeded on purpose.

    A run that cannot be read is passed over: somebody else's directory is no reason not to report this one. A seeded run has no history.
    """
    now = rundir.read_info(path)
    if now.defect is not None:
        return ()
    found = [night for night in _runs(path.resolve().parent) if _is_before(night.info, now)]
    return tuple(sorted(found, key=lambda night: night.info.started_at)[-_MOST:])


def _runs(directory: Path) -> Iterator[Night]:
    for file in directory.glob("*/verdicts.json"):
        try:
            info = rundir.read_info(file.parent)
            verdicts = json.loads(file.read_text())["verdicts"]
            yield Night(info=info, statuses={each["claim"]: Status(each["status"]) for each in verdicts if each["blind"] is None})
        except (UsageError, OSError, ValueError, KeyError, TypeError):
            continue


def _is_before(info: RunInfo, now: RunInfo) -> bool:
    same = (info.scenario.name, info.target) == (now.scenario.name, now.target)
    return same and info.defect is None and info.started_at < now.started_at
