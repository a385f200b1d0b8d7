"""Builders of planned calls for the caller's tests."""

from __future__ import annotations

from harness.model import CallPlan, TurnPlan


def plan(*prompts: str, greeting: str | None = "Hello, how can I help?", answer_timeout_s: float = 10.0, index: int = 1) -> CallPlan:
    """A call that says ``prompts``, by default two."""
    return CallPlan(
        call_id=f"call-id-{index}",
        index=index,
        room=f"room-{index}",
        identity=f"caller-{index}",
        phone_number=f"+1555010{index:04d}",
        agent_name="ref-agent",
        due_s=0.0,
        turns=tuple(TurnPlan(prompt=name, text=name.replace("-", " ")) for name in prompts or ("weather", "goodbye")),
        seed=7,
        greeting=greeting,
        answer_timeout_s=answer_timeout_s,
    )
