"""One call of a voice agent: events of its session and room in, series and rows out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from voxproof_telemetry import metrics
from voxproof_telemetry.dispatch import Dispatch, fictional_number, json_object
from voxproof_telemetry.rows import RowWriter

log = logging.getLogger("voxproof.telemetry")

PHONE_ATTRIBUTE = "sip.phoneNumber"

# Numbers of LiveKit's protocol. Kinds of participants that are no callers: ingress, egress, agent.
_NO_CALLERS = frozenset((1, 2, 4))
# Why a room went away under a caller: unknown, server shutdown, state mismatch, join failure, signal close, connection timeout, media failure.
_LOST = frozenset((0, 3, 6, 7, 9, 14, 15))
_CRASHED = "job crashed"
"""What livekit-agents gives as reason to shut down when the entrypoint raised."""


class Call:
    """What is known of a call between two events.

    session: AgentSession. ctx: JobContext. rows: None for metrics only. clock: Unix seconds.
    """

    def __init__(
        self,
        session: Any,
        ctx: Any,
        *,
        dispatch: Dispatch,
        agent_version: str,
        rows: RowWriter | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session, self._ctx, self._dispatch, self._agent_version, self._rows, self._clock = (
            session, ctx, dispatch, agent_version, rows, clock,
        )  # fmt: skip
        self._started_at = clock()
        self._callers: set[str] = set()
        self._left_at: float | None = None
        self._closed_at: float | None = None
        self._is_room_lost = False
        self._status: str | None = None
        self._phone_number = dispatch.phone_number
        self._user_stopped_at: float | None = None
        self._models: list[Any] = []
        self._tools: dict[str, tuple[Any, float]] = {}

    def begin(self) -> None:
        """From now on events are taken in."""
        metrics.ACTIVE_CALLS.inc()
        session, room = self._session, self._ctx.room
        session.on("agent_state_changed", self._taking(self._on_agent_state))
        session.on("conversation_item_added", self._taking(self._on_item))
        session.on("tool_execution_updated", self._taking(self._on_tool_progress))
        session.on("function_tools_executed", self._taking(self._on_tools))
        session.on("close", self._taking(self._on_close))
        room.on("participant_connected", self._taking(self._on_participant))
        room.on("participant_disconnected", self._taking(self._on_participant_left))
        room.on("disconnected", self._taking(self._on_room_gone))
        self._ctx.add_shutdown_callback(self._on_shutdown)
        if self._phone_number:
            self._write_start(self._phone_number)

    def _taking(self, handler: Callable[[Any], None]) -> Callable[..., None]:
        """``handler`` for an emitter that would swallow what it raises: the series says that something is missing in the others."""

        def take(*given: Any) -> None:
            try:
                handler(given[0] if given else None)
            except Exception:
                metrics.ERRORS.inc()
                log.exception("call %s: an event was not taken in", self._dispatch.call_id)

        return take

    # A caller who was in the room before the agent is announced by no event; the session's first states come when the room is connected.
    def _on_agent_state(self, event: Any) -> None:
        self._listen_to_models()
        for participant in tuple(self._ctx.room.remote_participants.values()):
            self._on_participant(participant)
        if event.new_state == "speaking" and self._user_stopped_at is not None:
            metrics.TTFW.observe(event.created_at - self._user_stopped_at)
            self._user_stopped_at = None

    def _on_item(self, event: Any) -> None:
        item = event.item
        if item.type != "message" or item.role not in metrics.ROLES:
            return
        metrics.TURNS.labels(item.role).inc()
        said: Mapping[str, Any] = getattr(item, "metrics", None) or {}
        if item.role == "user":
            self._user_stopped_at = said.get("stopped_speaking_at")
            delay_s = said.get("transcription_delay")
            if delay_s and self._is_stt_streaming():
                metrics.STT_LATENCY.observe(delay_s)
        if self._rows:
            self._write_start(fictional_number(self._dispatch.call_id))
            self._rows.transcript(item.role, item.text_content or "", said.get("started_speaking_at") or self._clock())

    # The session's own "metrics_collected" is deprecated and warns at every call; the models it comes from have it too.
    def _listen_to_models(self) -> None:
        agent = _current_agent(self._session)
        for kind in ("stt", "llm", "tts"):
            model: Any = getattr(agent, kind, None) or getattr(self._session, kind, None)
            if hasattr(model, "on") and not any(model is known for known in self._models):
                model.on("metrics_collected", self._on_metrics)
                self._models.append(model)
        metrics.announce_tools(_tool_names(self._session, agent))

    def _on_metrics(self, found: Any) -> None:
        if found.type == "stt_metrics" and not found.streamed:
            metrics.STT_LATENCY.observe(found.duration)
        elif found.type == "llm_metrics" and found.ttft >= 0:
            metrics.LLM_LATENCY.observe(found.ttft)
        elif found.type == "tts_metrics" and found.ttfb >= 0:
            metrics.TTS_LATENCY.observe(found.ttfb)

    def _is_stt_streaming(self) -> bool:
        """A streaming recogniser reports no duration (livekit/agents #5063): the delay of its final transcript stands in."""
        model = getattr(_current_agent(self._session), "stt", None) or getattr(self._session, "stt", None)
        return bool(getattr(getattr(model, "capabilities", None), "streaming", False))

    def _on_tool_progress(self, event: Any) -> None:
        update = event.update
        if update.type == "tool_call_started":
            self._tools[update.function_call.call_id] = (update.function_call, event.created_at)
        elif update.type == "tool_call_ended" and update.call_id in self._tools:
            call, started_at = self._tools[update.call_id]
            is_success = update.status == "done"
            result = {"output": update.message} if is_success else {"error": update.message or update.status}
            self._tool_ended(call.name, call, result, success=is_success, latency_s=event.created_at - started_at, at=started_at)

    def _on_tools(self, event: Any) -> None:
        """Of calls that never ran, this event alone tells: a tool that does not exist, arguments that do not fit."""
        known = set(_tool_names(self._session, _current_agent(self._session)))
        for call, output in event.zipped():
            if call.call_id not in self._tools and output is not None and output.is_error:
                label = call.name if call.name in known else metrics.UNKNOWN_TOOL
                self._tool_ended(label, call, {"error": output.output}, success=False, latency_s=None, at=self._clock())

    def _tool_ended(self, label: str, call: Any, result: Mapping[str, Any], *, success: bool, latency_s: float | None, at: float) -> None:
        metrics.announce_tools([label])
        metrics.TOOL_CALLS.labels(label, "true" if success else "false").inc()
        if self._rows:
            self._rows.tool_execution(call.name, json_object(call.arguments), result, success=success, latency_s=latency_s, at=at)

    def _on_participant(self, participant: Any) -> None:
        if participant.kind in _NO_CALLERS or participant.identity in self._callers:
            return
        self._callers.add(participant.identity)
        self._left_at = None
        number = participant.attributes.get(PHONE_ATTRIBUTE)
        self._write_start(number or fictional_number(participant.identity))
        if number and number != self._phone_number:
            self._phone_number = number
            if self._rows:
                self._rows.phone_number(number)

    def _on_participant_left(self, participant: Any) -> None:
        if participant.disconnect_reason is None:
            # Nobody said that it left: the room lost sight of it, and is connecting anew.
            return
        self._callers.discard(participant.identity)
        if not self._callers and participant.kind not in _NO_CALLERS:
            self._left_at = self._clock()

    def _on_room_gone(self, reason: Any) -> None:
        self._is_room_lost = bool(self._callers) and reason in _LOST

    def _on_close(self, event: Any) -> None:
        self._closed_at = self._clock()
        self._end("failed" if _text(event.reason) == "error" else "completed")

    async def _on_shutdown(self, reason: str = "") -> None:
        self._end("failed" if reason == _CRASHED else "completed")
        if self._rows:
            await self._rows.close()

    def _end(self, status: str) -> None:
        """The call is over, or was already and the reason turns out to be a worse one."""
        status = "failed" if self._is_room_lost else status
        if self._status in (status, "failed"):
            return
        if self._status is None:
            metrics.ACTIVE_CALLS.dec()
            for model in self._models:
                model.off("metrics_collected", self._on_metrics)
        self._status = status
        if self._rows:
            self._write_start(fictional_number(self._dispatch.call_id))
            self._rows.end(status, started_at=self._started_at, ended_at=self._left_at or self._closed_at or self._clock())

    def _write_start(self, number_if_unknown: str) -> None:
        self._phone_number = self._phone_number or number_if_unknown
        if self._rows:
            self._rows.start(
                phone_number=self._phone_number,
                direction=self._dispatch.direction,
                room_name=self._ctx.job.room.name,
                agent_version=self._agent_version,
                at=self._started_at,
            )


def _current_agent(session: Any) -> Any:
    """None before the session was started, when livekit-agents raises."""
    try:
        return session.current_agent
    except RuntimeError:
        return None


def _tool_names(session: Any, agent: Any) -> Iterator[str]:
    """Names of the tools of the session and of its current agent."""
    for owner in (session, agent):
        for tool in getattr(owner, "tools", None) or ():
            if info := getattr(tool, "info", None):
                yield str(info.name)


def _text(reason: Any) -> str:
    return str(getattr(reason, "value", reason))
