"""One claim over many runs of one scenario: since when it is red, and what changed between the last run that was green and the first that was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from assertions.changes import changes
from assertions.words import plural
from harness.model import RunInfo, Status, value

_MOST_CHANGES = 4


@value
class Night:
    """What is kept of an earlier run."""

    info: RunInfo
    statuses: Mapping[str, Status]
    """By claim."""


def since_when(claim: str, now: RunInfo, nights: Sequence[Night]) -> str | None:
    """The sentence for a claim that is red in the run ``now``. None: no earlier run judged it.

    nights: earlier runs of the same scenario against the same target, oldest first. Runs that could not decide the claim are passed over.
    """
    told = [night for night in nights if night.statuses.get(claim) in (Status.PASS, Status.FAIL)]
    if not told:
        return None
    green = max((number for number, night in enumerate(told) if night.statuses[claim] is Status.PASS), default=None)
    if green is None:
        return f"red in every one of the {plural(len(told), 'run')} before it, since {_named(told[0].info)}"
    reds = told[green + 1 :]
    first = reds[0].info if reds else now
    began = f"red since {_named(first)}, {plural(len(reds) + 1, 'run')} by now" if reds else "red for the first time"
    return f"{began}; last green in {_named(told[green].info)}; {_changed(told[green].info, first)}"


def _changed(before: RunInfo, after: RunInfo) -> str:
    found = [change.words for change in changes(before, after)]
    if not found:
        return "nothing that is recorded changed between them: same versions, rules, settings"
    more = f" and {len(found) - _MOST_CHANGES} more: voxproof compare {before.run_id} {after.run_id}" if len(found) > _MOST_CHANGES else ""
    return f"changed since: {', '.join(found[:_MOST_CHANGES])}{more}"


def _named(info: RunInfo) -> str:
    return f"{info.run_id} ({datetime.fromtimestamp(info.started_at / 1e9, tz=UTC):%Y-%m-%d %H:%M} UTC)"
