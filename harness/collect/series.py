"""Which series we judge: what is kept of an exporter's text and asked of Prometheus."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

AGENT = (
    "voice_agent_ttfw_seconds_(bucket|sum|count)",
    "voice_agent_(stt|llm|tts)_latency_seconds_(bucket|sum|count)",
    "voice_agent_turns_total",
    "voice_agent_tool_calls_total",
    "voice_agent_active_calls",
)
"""Names of spec section 3, as anchored regular expressions."""
SFU = (
    "livekit_room_total",
    "livekit_participant_total",
    "livekit_participant_join_total",
    "livekit_session_start_time_ms_count",
    "livekit_packet_loss_total",
    "livekit_(rtt_ms|jitter_us|packet_loss_percent)_(sum|count)",
    "livekit_sip_calls_(active|terminated)",
)
RULES = ("voice_agent:.+", "livekit_packet_loss_ratio", "livekit_jitter_ms", "livekit_rtt_mean_ms")
"""Names that recording rules write."""
REFUSALS = (
    "prometheus_http_requests_total",
    "prometheus_tsdb_(out_of_order|too_old|out_of_bound)_samples_total",
)
"""What Prometheus counts of itself of samples that were pushed to it and that it did not take."""
SCRAPES = ("up", "scrape_samples_scraped", "probe_success", "prometheus_rule_group_(iterations_total|interval_seconds)")
"""What Prometheus says of itself: the instants of its scrapes, and how often it evaluated its rules; and what probes of a target came to."""

HISTOGRAM = ("_bucket", "_sum", "_count")
"""What a histogram's name ends with in its series."""

_JUDGED = re.compile("|".join((*AGENT, *SFU)))
_CHOICE = re.compile(r"\(([^()]*)\)")


def is_judged(name: str) -> bool:
    """The series of this name travels through a claim."""
    return _JUDGED.fullmatch(name) is not None


def metrics() -> tuple[str, ...]:
    """Names of the metrics that we judge, a histogram's without its endings; those that rules write are left out where any name will do."""
    names = (name for pattern in (*AGENT, *SFU, *RULES) if "+" not in pattern for name in _spelled(pattern))
    return tuple(dict.fromkeys(base(name) for name in names))


def is_metric(name: str) -> bool:
    """A target may call it otherwise: one of ``metrics()``, or what a rule of ours writes."""
    return name in metrics() or is_recorded(name)


def is_recorded(name: str) -> bool:
    """A recording rule that we judge writes it."""
    return re.fullmatch("|".join(RULES), name) is not None


def base(name: str) -> str:
    """The metric of a series: a histogram's name without its ending."""
    return next((name.removesuffix(ending) for ending in HISTOGRAM if name.endswith(ending)), name)


def _spelled(pattern: str) -> Iterator[str]:
    """Every name that a pattern with alternatives in brackets matches."""
    parts = _CHOICE.split(pattern)
    choices = [part.split("|") if place % 2 else [part] for place, part in enumerate(parts)]
    yield from ("".join(words) for words in itertools.product(*choices))
