"""One line in the entrypoint of a livekit-agents worker: metrics and rows of the call that begins.

    voxproof_telemetry.attach(session, ctx, agent_version="1.4.2")

Said before ``session.start``. Nothing here imports livekit-agents: session and context are what the entrypoint already has.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Mapping
from typing import Any

from voxproof_telemetry import metrics
from voxproof_telemetry.errors import TelemetryError
from voxproof_telemetry.rows import RowWriter

log = logging.getLogger("voxproof.telemetry")

MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"
PHONE_ATTRIBUTE = "sip.phoneNumber"


def check_executor(proc: Any) -> None:
    """Raises TelemetryError if this job process would keep its metrics to itself. For ``setup_fnc``: the worker then fails when it starts.

    proc: livekit-agents' JobProcess.
    """
    if getattr(proc.executor_type, "name", "") == "PROCESS" and not os.environ.get(MULTIPROC):
        raise TelemetryError(
            f"this worker runs each job in its own process and {MULTIPROC} is not set: the worker's /metrics would answer without a single"
            f" voice_agent_* series. Set {MULTIPROC} to an empty directory in the environment of the worker, before Python starts,"
            " or use AgentServer(job_executor_type=JobExecutorType.THREAD)."
        )


def attach(session: Any, ctx: Any, *, agent_version: str = "", supabase_url: str | None = None, supabase_key: str | None = None) -> None:
    """Observes one call from now to its end.

    session: AgentSession, not yet started. ctx: JobContext. Rows go to ``SUPABASE_URL`` with ``SUPABASE_SERVICE_KEY`` unless given here; with
    neither, metrics only, said in the log. Raises TelemetryError as `check_executor` does.
    """
    check_executor(ctx.proc)
    url = supabase_url or os.environ.get("SUPABASE_URL")
    key = supabase_key or os.environ.get("SUPABASE_SERVICE_KEY")
    call = _Call(session, ctx, agent_version)
    if url and key:
        call.rows = RowWriter(
            url=url.rstrip("/"), key=key, call_id=call.call_id, on_error=lambda table: metrics.ROW_ERRORS.labels(table).inc()
        )
    else:
        log.warning("SUPABASE_URL or SUPABASE_SERVICE_KEY is not set: metrics only, no call history")
    call.begin()


class _Call:
    """The state of one call between two events of its session."""

    def __init__(self, session: Any, ctx: Any, agent_version: str) -> None:
        self._session, self._ctx, self._agent_version = session, ctx, agent_version
        asked = _metadata(getattr(ctx.job, "metadata", ""))
        self.call_id = str(asked.get("call_id") or uuid.uuid4())
        self._phone_number = asked.get("phone_number")
        self._direction = str(asked.get("direction") or "inbound")
        self.rows: RowWriter | None = None
        self._started_at = time.time()
        self._left_at: float | None = None
        self._user_stopped_at: float | None = None
        self._tool_started_at: dict[str, float] = {}
        self._tool_took_s: dict[str, float] = {}
        self._is_announced = self._is_over = False

    def begin(self) -> None:
        metrics.ACTIVE_CALLS.inc()
        room, session = self._ctx.room, self._session
        room.on("participant_connected", self._on_participant)
        room.on("participant_disconnected", self._on_participant_left)
        session.on("agent_state_changed", self._on_agent_state)
        session.on("conversation_item_added", self._on_item)
        session.on("metrics_collected", self._on_metrics)
        session.on("tool_execution_updated", self._on_tool_progress)
        session.on("function_tools_executed", self._on_tools)
        session.on("close", self._on_close)
        self._ctx.add_shutdown_callback(self._on_shutdown)
        if self._phone_number:
            self._write_start(str(self._phone_number))
        for participant in room.remote_participants.values():
            self._on_participant(participant)

    def _write_start(self, phone_number: str) -> None:
        if self.rows:
            self.rows.start(
                phone_number=phone_number,
                direction=self._direction,
                room_name=self._ctx.job.room.name,
                agent_version=self._agent_version,
                at=self._started_at,
            )

    def _on_participant(self, participant: Any) -> None:
        self._write_start(participant.attributes.get(PHONE_ATTRIBUTE) or fictional_number(participant.identity))

    def _on_participant_left(self, _: Any) -> None:
        self._left_at = time.time()

    def _on_agent_state(self, event: Any) -> None:
        if not self._is_announced:
            self._is_announced = True
            metrics.announce_tools(_tool_names(self._session))
        if event.new_state == "speaking" and self._user_stopped_at is not None:
            metrics.TTFW.observe(time.time() - self._user_stopped_at)
            self._user_stopped_at = None

    def _on_item(self, event: Any) -> None:
        item = event.item
        if item.type != "message" or item.role not in metrics.ROLES:
            return
        metrics.TURNS.labels(item.role).inc()
        said = getattr(item, "metrics", None) or {}
        if item.role == "user":
            self._user_stopped_at = said.get("stopped_speaking_at")
        if self.rows:
            self._write_start(fictional_number(self.call_id))
            self.rows.transcript(item.role, item.text_content or "", said.get("started_speaking_at") or time.time())

    def _on_metrics(self, event: Any) -> None:
        found = event.metrics
        if found.type == "stt_metrics" and not found.streamed:
            metrics.STT_LATENCY.observe(found.duration)
        elif found.type == "eou_metrics" and self._is_streaming_stt() and found.transcription_delay > 0:
            metrics.STT_LATENCY.observe(found.transcription_delay)
        elif found.type == "llm_metrics" and found.ttft >= 0:
            metrics.LLM_LATENCY.observe(found.ttft)
        elif found.type == "tts_metrics" and found.ttfb >= 0:
            metrics.TTS_LATENCY.observe(found.ttfb)

    def _is_streaming_stt(self) -> bool:
        """A streaming recogniser reports no duration (livekit/agents #5063): the delay of its final transcript stands in."""
        capabilities = getattr(getattr(self._session, "stt", None), "capabilities", None)
        return bool(getattr(capabilities, "streaming", False))

    def _on_tool_progress(self, event: Any) -> None:
        update = event.update
        if update.type == "tool_call_started":
            self._tool_started_at[update.function_call.call_id] = event.created_at
        elif update.type == "tool_call_ended" and update.call_id in self._tool_started_at:
            self._tool_took_s[update.call_id] = event.created_at - self._tool_started_at[update.call_id]

    def _on_tools(self, event: Any) -> None:
        for call, output in event.zipped():
            is_success = output is not None and not output.is_error
            metrics.announce_tools([call.name])
            metrics.TOOL_CALLS.labels(call.name, "true" if is_success else "false").inc()
            if self.rows:
                self.rows.tool_execution(
                    call.name,
                    _metadata(call.arguments),
                    {"output": None if output is None else output.output},
                    success=is_success,
                    latency_s=self._tool_took_s.get(call.call_id),
                    at=self._tool_started_at.get(call.call_id, time.time()),
                )

    def _on_close(self, event: Any) -> None:
        self._end("failed" if str(getattr(event.reason, "value", event.reason)) == "error" else "completed")

    async def _on_shutdown(self, *_: Any) -> None:
        self._end("completed")
        if self.rows:
            await self.rows.close()

    def _end(self, status: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        metrics.ACTIVE_CALLS.dec()
        if self.rows:
            self._write_start(str(self._phone_number or fictional_number(self.call_id)))
            self.rows.end(status, started_at=self._started_at, ended_at=self._left_at or time.time())


def _tool_names(session: Any) -> list[str]:
    """Names of the tools of the session and of its current agent."""
    owners = (session, getattr(session, "current_agent", None))
    tools = [tool for owner in owners for tool in getattr(owner, "tools", None) or ()]
    return [str(tool.info.name) for tool in tools if getattr(tool, "info", None)]


def fictional_number(identity: str) -> str:
    """A number of the range reserved for fiction (+1 555 0100 to 0199), the same for the same identity."""
    return f"+15550{100 + zlib.crc32(identity.encode()) % 100}"


def _metadata(text: str | None) -> Mapping[str, Any]:
    """The JSON object in ``text``; anything else is none of ours."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
