"""What collecting put on each source, in words."""

from __future__ import annotations

from harness.model import Cost, Evidence, Source
from reports.words import plural

_ITEMS = {
    Source.ROWS: "row",
    Source.AGENT_EXPORTER: "sample",
    Source.SFU_EXPORTER: "sample",
    Source.PROMETHEUS: "sample",
    Source.PANELS: "number",
}


def costs(evidence: Evidence) -> tuple[str, ...]:
    """One item a source that was asked; its own requests alone, those of our probes not. Empty for a run that did not count them."""
    return tuple(_of(cost) for cost in evidence.info.cost if cost.requests)


def _of(cost: Cost) -> str:
    told = [plural(cost.requests, "request")]
    if cost.items and (noun := _ITEMS.get(cost.source)):
        told.append(f"{cost.items:,} {noun}s")
    if cost.size_bytes:
        told.append(_size(cost.size_bytes))
    return f"{cost.source}: {', '.join(told)}, {cost.took_s:.2f} s"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"
