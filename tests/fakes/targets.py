"""A target of which nothing is known but its addresses."""

from __future__ import annotations

from typing import Any

from harness.model import Target


def target(**parts: Any) -> Target:
    """parts: what is not its media server, or is another one."""
    nothing: dict[str, Any] = {
        "name": "theirs",
        "livekit_url": "ws://theirs.example",
        "livekit_api_key": "key",
        "livekit_api_secret": "secret",
        "prometheus_url": None,
        "agent_metrics_url": None,
        "sfu_metrics_url": None,
        "supabase_url": None,
        "supabase_key": None,
        "blind": {},
    }
    return Target(**(nothing | parts))
