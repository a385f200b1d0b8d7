"""What the tokens grant."""

from __future__ import annotations

import json
from typing import Any

import jwt

from harness.caller.tokens import agent_token, caller_token
from tests.caller.plans import plan

KEY, SECRET = "key", "a secret of at least thirty-two bytes"


def claims(token: str) -> dict[str, Any]:
    """The token's claims, its signature checked."""
    decoded: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"])
    return decoded


def test_a_caller_brings_the_dispatch_of_its_agent() -> None:
    """The room that the join creates dispatches the named agent, with the call's id and number as metadata."""
    (agent,) = claims(caller_token(plan(), api_key=KEY, api_secret=SECRET))["roomConfig"]["agents"]

    assert agent["agentName"] == "ref-agent"
    assert json.loads(agent["metadata"]) == {"call_id": "call-id-1", "phone_number": "+15550100001"}


def test_a_caller_may_join_its_room_and_nothing_else() -> None:
    """No administration right travels with a caller."""
    granted = claims(caller_token(plan(), api_key=KEY, api_secret=SECRET))

    assert granted["sub"] == "caller-1"
    assert granted["video"] == {"roomJoin": True, "room": "room-1", "canPublish": True, "canSubscribe": True, "canPublishData": True}


def test_the_other_party_of_our_tests_is_of_kind_agent() -> None:
    """The server announces it as the callers expect an agent to be announced."""
    assert claims(agent_token(room="room-1", identity="agent-1", api_key=KEY, api_secret=SECRET))["kind"] == "agent"
