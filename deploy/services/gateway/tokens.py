"""Supabase's tokens: keys of the project and tokens of its users, all HS256 with one secret."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt


class TokenError(Exception):
    """A token that is missing, expired, forged or of another project. ``code`` is the error code of PostgREST."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a checked token says."""

    role: str
    """Of PostgreSQL; whether it may be taken is PostgreSQL's to say."""
    user_id: str | None
    session_id: str | None
    expires_at: int | None
    """Unix seconds. None: never."""
    as_json: str
    """All claims, for PostgreSQL's ``request.jwt.claims``."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Makes and checks tokens."""

    secret: str

    def decode(self, token: str) -> Claims:
        """The claims of ``token``. Raises TokenError for everything but a live HS256 token of this project."""
        try:
            found = jwt.decode(token, self.secret, algorithms=["HS256"], options={"verify_aud": False, "require": ["role"]})
        except jwt.ExpiredSignatureError as exc:
            raise TokenError("PGRST303", "JWT expired") from exc
        except jwt.PyJWTError as exc:
            raise TokenError("PGRST301", f"JWT refused: {exc}") from exc
        return Claims(
            role=str(found["role"]),
            user_id=found.get("sub"),
            session_id=found.get("session_id"),
            expires_at=found.get("exp"),
            as_json=json.dumps(found, sort_keys=True, separators=(",", ":")),
        )

    def bearer(self, headers: Mapping[str, str]) -> Claims:
        """The claims of a request's bearer token."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenError("PGRST302", "This endpoint requires a valid Bearer token")
        return self.decode(token)

    def of_user(self, user: Mapping[str, Any], session_id: str, lifetime_s: int) -> tuple[str, int]:
        """An access token for a signed-in user, and its expiry in Unix seconds."""
        now = int(time.time())
        claims = {
            "aud": "authenticated",
            "role": "authenticated",
            "sub": str(user["id"]),
            "email": user["email"],
            "app_metadata": user["app_metadata"],
            "user_metadata": user["user_metadata"],
            "session_id": session_id,
            "iat": now,
            "exp": now + lifetime_s,
            # Two tokens of one second differ.
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, self.secret, algorithm="HS256"), now + lifetime_s
