"""Which series we judge: what is kept of an exporter's text and asked of Prometheus."""

from __future__ import annotations

import re

AGENT = (
    "voice_agent_ttfw_seconds_(bucket|sum|count)",
    "voice_agent_(stt|llm|tts)_latency_seconds_(sum|count)",
    "voice_agent_turns_total",
    "voice_agent_tool_calls_total",
    "voice_agent_active_calls",
)
"""Names of spec section 3, as anchored regular expressions."""
SFU = (
    "livekit_room_total",
    "livekit_participant_total",
    "livekit_participant_join_total",
    "livekit_packet_loss_total",
    "livekit_(rtt_ms|jitter_us)_(sum|count)",
)
RULES = ("voice_agent:.+", "livekit_packet_loss_ratio", "livekit_jitter_ms", "livekit_rtt_mean_ms")
"""Names that recording rules write."""
SCRAPES = ("up", "scrape_samples_scraped")
"""What Prometheus says of its own scrapes: their instants."""

_JUDGED = re.compile("|".join((*AGENT, *SFU)))


def is_judged(name: str) -> bool:
    """The series of this name travels through a claim."""
    return _JUDGED.fullmatch(name) is not None
