"""A session, a room and a job of livekit-agents, as far as the telemetry looks at them; no test here needs livekit-agents itself."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

Event = SimpleNamespace


class Emitter:
    """on, off, emit, as livekit's EventEmitter: what a handler raises stays with it."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Callable[..., None]]] = {}

    def on(self, event: str, handler: Callable[..., None]) -> None:
        self._handlers.setdefault(event, []).append(handler)

    def off(self, event: str, handler: Callable[..., None]) -> None:
        self._handlers[event].remove(handler)

    def emit(self, event: str, *given: Any) -> None:
        for handler in tuple(self._handlers.get(event, ())):
            handler(*given)

    def heard_by(self, event: str) -> int:
        """How many handlers an event has."""
        return len(self._handlers.get(event, ()))


class Session(Emitter):
    """An AgentSession with a model of each kind, and the words for what happens in it."""

    def __init__(self, *, tools: tuple[str, ...] = ("lookup_weather",), has_streaming_stt: bool = False) -> None:
        super().__init__()
        self.stt, self.llm, self.tts = Emitter(), Emitter(), Emitter()
        self.stt.capabilities = Event(streaming=has_streaming_stt)  # type: ignore[attr-defined]
        self.tools: tuple[Any, ...] = ()
        self.agent: Any = Event(tools=tuple(Event(info=Event(name=name)) for name in tools))
        self.is_started = False

    @property
    def current_agent(self) -> Any:
        if not self.is_started:
            raise RuntimeError("VoiceAgent isn't running")
        return self.agent

    def start(self) -> None:
        self.is_started = True
        self.state("initializing")

    def state(self, new: str, *, at: float = 0.0) -> None:
        self.emit("agent_state_changed", Event(new_state=new, created_at=at))

    def says(self, role: str, text: str, **metrics: float) -> None:
        self.emit("conversation_item_added", Event(item=Event(type="message", role=role, text_content=text, metrics=metrics)))

    def tool_starts(self, call_id: str, *, at: float, name: str = "lookup_weather", arguments: str = '{"city": "London"}') -> None:
        call = Event(call_id=call_id, name=name, arguments=arguments)
        self.emit("tool_execution_updated", Event(update=Event(type="tool_call_started", function_call=call), created_at=at))

    def tool_ends(self, call_id: str, *, at: float, status: str = "done", message: str | None = "sunny in London") -> None:
        update = Event(type="tool_call_ended", call_id=call_id, status=status, message=message)
        self.emit("tool_execution_updated", Event(update=update, created_at=at))

    def tool_refused(self, name: str, why: str) -> None:
        call, output = Event(call_id="never-ran", name=name, arguments="{}"), Event(is_error=True, output=why)
        self.emit("function_tools_executed", Event(zipped=lambda: [(call, output)]))

    def close(self, reason: str = "participant_disconnected") -> None:
        self.emit("close", Event(reason=Event(value=reason)))


class Room(Emitter):
    """A room as the agent sees it; who is in it before the agent is announced by no event."""

    def __init__(self, *already: Any) -> None:
        super().__init__()
        self.remote_participants = {participant.identity: participant for participant in already}

    def joins(self, participant: Any) -> None:
        self.remote_participants[participant.identity] = participant
        self.emit("participant_connected", participant)

    def leaves(self, identity: str, *, reason: int | None = 1) -> None:
        """reason: of LiveKit's protocol; 1 by its own will, None if the room lost sight of it."""
        participant = self.remote_participants.pop(identity)
        participant.disconnect_reason = reason
        self.emit("participant_disconnected", participant)


class Job:
    """A JobContext."""

    def __init__(self, room: Room, metadata: Mapping[str, Any] | str = "", *, executor: str = "THREAD") -> None:
        said = metadata if isinstance(metadata, str) else json.dumps(metadata)
        self.room, self.job = room, Event(metadata=said, room=Event(name="room-1"))
        self.proc = Event(executor_type=Event(name=executor))
        self._callbacks: list[Callable[..., Awaitable[None]]] = []

    def add_shutdown_callback(self, callback: Callable[..., Awaitable[None]]) -> None:
        self._callbacks.append(callback)

    async def shut_down(self, reason: str = "") -> None:
        for callback in self._callbacks:
            await callback(reason)


def participant(identity: str = "caller-1", *, kind: int = 0, **attributes: str) -> Any:
    """kind: of LiveKit's protocol; 0 standard, 3 SIP, 4 agent."""
    return Event(identity=identity, kind=kind, attributes={name.replace("_", "."): said for name, said in attributes.items()})
