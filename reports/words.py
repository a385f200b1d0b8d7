"""How reports say things: verdict words, durations, instants, names of quantities."""

from __future__ import annotations

from datetime import UTC, datetime

from harness.model import Status, UnixNs, Verdict

QUANTITIES = {
    "calls": "calls",
    "active": "active",
    "turns": "turns",
    "barge-ins": "barge-ins",
    "tools": "tool calls",
    "ttfw": "TTFW",
    "stt": "STT",
    "llm": "LLM",
    "tts": "TTS",
    "rtt": "RTT",
    "sfu": "SFU",
    "sip": "SIP",
    "targets": "services",
    "history": "alert log",
    "slo": "limits",
    "availability": "targets",
}
"""Title of a quantity by the first part of its claims; one that is not here is its own title."""


def quantity(claim: str) -> str:
    """Title of the quantity that a claim is about."""
    first = claim.split("/", 1)[0]
    return QUANTITIES.get(first, first)


def word(verdict: Verdict) -> str:
    """One word for a verdict: ok, FAIL, faithful, undecided or blind."""
    if verdict.blind is not None:
        return "blind"
    match verdict.status:
        case Status.FAIL:
            return "FAIL"
        case Status.INCONCLUSIVE:
            return "undecided"
        case Status.PASS:
            return "faithful" if verdict.is_faithful else "ok"


def seconds(value: float | None, missing: str = "-") -> str:
    """A duration in seconds to 10 ms; ``missing`` for None."""
    return missing if value is None else f"{value:.2f} s"


def milliseconds(value_s: float) -> str:
    """A signed duration in whole milliseconds."""
    return f"{value_s * 1000:+.0f} ms"


def offset(value_s: float) -> str:
    """A place in a recording: ``00:07.31``."""
    minutes, rest = divmod(max(value_s, 0.0), 60)
    return f"{int(minutes):02d}:{rest:05.2f}"


def since(start: UnixNs, at: UnixNs) -> float:
    """Seconds from ``start`` to ``at``; negative if ``at`` was earlier."""
    return (at - start) / 1e9


def instant(at: UnixNs) -> str:
    """An instant for people, to the second, in UTC."""
    return datetime.fromtimestamp(at / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plural(count: int, noun: str, plural_noun: str | None = None) -> str:
    """``1 call``, ``2 calls``."""
    return f"{count} {noun if count == 1 else plural_noun or noun + 's'}"
