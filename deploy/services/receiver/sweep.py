"""Rows that nobody will ever close: Alertmanager tells no end of an alert of which it has forgotten that it told the beginning."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from receiver.episodes import MILLISECONDS, Active, instant

LOOKS = 3
"""In a row, without a word of Prometheus: longer than any notification on its way takes, if a look is no shorter than a group's interval."""


class Sweep:
    """What was missing at the last looks."""

    def __init__(self) -> None:
        self._missing: dict[tuple[str, str], list[dt.datetime]] = {}

    def look(self, open_rows: Sequence[Mapping[str, Any]], active: Active, *, at: dt.datetime) -> list[dict[str, Any]]:
        """Rows to close now, as ``record_alerts`` takes them. They ended when they were first missed, at the latest."""
        missing: dict[tuple[str, str], list[dt.datetime]] = {}
        gone = []
        for row in open_rows:
            since = active.get(frozenset((row["labels"] or {}).items()))
            # An alert that became active after this row's beginning is a later episode; this one's own has been firing since before.
            if since is not None and since[0] <= instant(row["starts_at"]) + MILLISECONDS:
                continue
            if since is not None and since[1] == "pending":
                continue  # restarted: what it says next supersedes this row
            key = (row["fingerprint"], row["starts_at"])
            seen = [*self._missing.get(key, ()), at]
            if len(seen) < LOOKS:
                missing[key] = seen
            else:
                gone.append({**row, "ends_at": seen[0].isoformat(), "resolution": "swept", "is_firing_now": False})
        self._missing = missing
        return gone
