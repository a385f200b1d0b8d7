"""What is otherwise in one run than in another: versions, digests of rules and panels, settings. The first thing to look at on a red night."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.model import RunInfo, value

_OWN = ("changes",)
"""Settings that say the same as others, in words."""


@value
class Change:
    """One thing that is otherwise."""

    what: str
    before: str
    """``-``: it was not there."""
    after: str

    @property
    def words(self) -> str:
        """``agent 1.8.9 -> 1.9.0``."""
        return f"{self.what} {self.before} -> {self.after}"


def changes(before: RunInfo, after: RunInfo) -> tuple[Change, ...]:
    """Everything that may explain a difference between two runs of one scenario, the parts of the stack first."""
    return (
        *_differences({part.name: part.version for part in before.parts}, {part.name: part.version for part in after.parts}),
        *_differences(_short(before.digests), _short(after.digests)),
        *_differences({"voxproof": before.harness_version}, {"voxproof": after.harness_version}),
        *_differences({"seeded on purpose": before.defect or "nothing"}, {"seeded on purpose": after.defect or "nothing"}),
        *_differences(_flat(before.settings), _flat(after.settings)),
    )


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Change(what=name, before=before.get(name, "-"), after=after.get(name, "-"))


def _short(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest[:8] for name, digest in digests.items()}


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{setting}" for name, setting in settings.items() if name not in _OWN}
