"""Tokens of synthetic callers, by livekit-api: who may join which room, and which agent that room calls in.

The dispatch travels in the token (``RoomConfiguration``), not through the dispatch API. The server applies it when the join creates the
room, and every call has a room of its own, so room, dispatch and participant are born by one request: no race between creating,
dispatching and joining (the 0-40 % join rates of livekit-cli pull request 549), no second round trip to fail, and the token needs no
``roomAdmin``. On a server with ``room.auto_create`` off the join is refused by name instead.
"""

from __future__ import annotations

import datetime
import json

from livekit import api

from harness.model import CallPlan

LIFETIME = datetime.timedelta(hours=6)
"""How long a token admits. Only the join is checked against it."""


def caller_token(plan: CallPlan, *, api_key: str, api_secret: str) -> str:
    """Admits the caller of ``plan`` to its room, and lets that room dispatch the agent with the call's id and number as metadata."""
    metadata = json.dumps({"call_id": plan.call_id, "phone_number": plan.phone_number})
    dispatch = api.RoomAgentDispatch(agent_name=plan.agent_name, metadata=metadata)
    token = _token(plan.room, plan.identity, api_key, api_secret)
    return token.with_room_config(api.RoomConfiguration(agents=[dispatch])).to_jwt()


def agent_token(*, room: str, identity: str, api_key: str, api_secret: str) -> str:
    """Admits a participant of kind AGENT: the other party of our own tests, where no agent worker runs."""
    return _token(room, identity, api_key, api_secret).with_kind("agent").to_jwt()


def plain_token(*, room: str, identity: str, api_key: str, api_secret: str) -> str:
    """Admits a participant for whom no agent is called."""
    return _token(room, identity, api_key, api_secret).to_jwt()


def _token(room: str, identity: str, api_key: str, api_secret: str) -> api.AccessToken:
    grants = api.VideoGrants(room_join=True, room=room, can_publish=True, can_subscribe=True)
    return api.AccessToken(api_key, api_secret).with_identity(identity).with_ttl(LIFETIME).with_grants(grants)
