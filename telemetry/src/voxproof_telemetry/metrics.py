"""The Prometheus series of a voice agent; names, labels and units are a contract (README, "Series").

They live in prometheus_client's default registry, which ``AgentServer(prometheus_port=...)`` serves. Under the PROCESS executor they reach the
worker's endpoint only through ``PROMETHEUS_MULTIPROC_DIR``, set before prometheus_client is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"

# From 0.05 s to 10 s in steps of at most 1.25x: a client library's default bounds jump from 1.0 to 2.5, where replies lie.
BOUNDS_S = (
    0.05, 0.06, 0.075, 0.09, 0.11, 0.135, 0.165, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.85,
    1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 4.0, 5.0, 6.0, 7.5, 9.0, 10.0,
)  # fmt: skip

ROLES = ("user", "assistant")
TABLES = ("calls", "transcripts", "tool_executions")
UNKNOWN_TOOL = "unknown"
"""Stands for any name that a model made up: a label must not hold whatever a model says."""

if MULTIPROC in os.environ:
    # The first series opens its file below; the worker would make the directory only when it runs.
    Path(os.environ[MULTIPROC]).mkdir(parents=True, exist_ok=True)

TTFW = Histogram(
    "voice_agent_ttfw_seconds",
    "From the end of the user's speech to the first byte of the agent's audio; once per user turn, when the agent starts to speak",
    buckets=BOUNDS_S,
)
STT_LATENCY = Histogram(
    "voice_agent_stt_latency_seconds",
    "Recognition of one utterance; for a streaming recogniser, its final transcript after the end of speech",
    buckets=BOUNDS_S,
)
LLM_LATENCY = Histogram("voice_agent_llm_latency_seconds", "To the first token of one model call", buckets=BOUNDS_S)
TTS_LATENCY = Histogram("voice_agent_tts_latency_seconds", "To the first audio of one synthesised segment", buckets=BOUNDS_S)
TURNS = Counter("voice_agent_turns_total", "Turns in the conversation, greetings and interrupted replies included", ["role"])
TOOL_CALLS = Counter("voice_agent_tool_calls_total", "Tool calls that ended", ["tool", "success"])
ACTIVE_CALLS = Gauge("voice_agent_active_calls", "Calls in progress", multiprocess_mode="livesum")

ROW_ERRORS = Counter("voice_agent_row_write_errors_total", "Failed attempts to write a row of the call history", ["table"])
ROWS_LOST = Counter("voice_agent_rows_lost_total", "Rows of the call history that were given up", ["table"])
ERRORS = Counter("voice_agent_telemetry_errors_total", "Events of a session that this telemetry failed to take in")

for _role in ROLES:
    TURNS.labels(_role)
for _table in TABLES:
    ROW_ERRORS.labels(_table)
    ROWS_LOST.labels(_table)


def announce_tools(names: Iterable[str]) -> None:
    """Starts the counters of these tools at 0, so that ``increase()`` sees their first call."""
    for name in names:
        for success in ("true", "false"):
            TOOL_CALLS.labels(name, success)
