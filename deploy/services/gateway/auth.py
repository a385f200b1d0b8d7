"""``/auth/v1``: the part of Supabase Auth that its clients use for password sign-in, on tables of our own.

Refresh tokens rotate; one that comes back after its successor was taken into use ends the whole session, as GoTrue does. bcrypt, as GoTrue.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import bcrypt
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.tokens import Claims, TokenError, Tokens

TOKEN_LIFETIME_S = 3600
ATTEMPTS, ATTEMPTS_PER_S = 30, 0.5
"""Token requests an address may make at once, and how fast they come back: GoTrue's limit of its token endpoint."""
REUSE_S = 10.0
"""How long a used refresh token may come back unpunished (two tabs, a lost answer): GoTrue's reuse interval."""
PASSWORD_MIN = 6
PASSWORD_MAX_BYTES = 72
"""bcrypt reads no further; GoTrue refuses longer ones."""
API_VERSION = {"x-supabase-api-version": "2024-01-01"}
_ROUNDS = 10

Row = Mapping[str, Any]
Endpoint = Callable[[Request], Awaitable[Response]]


class Refusal(Exception):
    """An answer in GoTrue's form: HTTP status, error code, sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.response = JSONResponse({"code": status, "error_code": code, "msg": message}, status, API_VERSION)


class Auth:
    """The routes of ``/auth/v1``. ``pool`` signs in as the owner of the schema ``auth``."""

    def __init__(
        self,
        *,
        pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]],
        tokens: Tokens,
        attempts: int = ATTEMPTS,
        reuse_s: float = REUSE_S,
    ) -> None:
        self._pool, self._tokens, self._reuse_s = pool, tokens, reuse_s
        self._buckets = Buckets(attempts, ATTEMPTS_PER_S)

    def routes(self) -> list[BaseRoute]:
        """For the application; the API key was checked before."""
        paths: tuple[tuple[str, Endpoint, tuple[str, ...]], ...] = (
            ("health", self._health, ("GET",)),
            ("token", self._token, ("POST",)),
            ("user", self._user, ("GET", "PUT")),
            ("logout", self._logout, ("POST",)),
            ("signup", self._signup, ("POST",)),
            ("admin/users", self._admin_users, ("GET", "POST")),
            ("admin/users/{id}", self._admin_user, ("GET", "PUT", "DELETE")),
        )
        return [Route(f"/auth/v1/{path}", _answered(endpoint), methods=list(methods)) for path, endpoint, methods in paths]

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"name": "voxproof gateway", "description": "password sign-in for the embedded stack, not Supabase Auth"})

    async def _token(self, request: Request) -> Response:
        if not self._buckets.take(request.client.host if request.client else "", time.monotonic()):
            raise Refusal(429, "over_request_rate_limit", "Request rate limit reached")
        body = await _body(request)
        match request.query_params.get("grant_type"):
            case "password":
                return await self._sign_in(body)
            case "refresh_token":
                return await self._refresh(body)
            case other:
                raise Refusal(400, "validation_failed", f"unsupported_grant_type: {other}")

    async def _sign_in(self, body: Row) -> Response:
        email, password = str(body.get("email", "")).lower(), str(body.get("password", "")).encode()
        user = await self._one("select * from auth.users where email = %s", (email,))
        hashed = user["encrypted_password"] if user else _NOBODY
        is_right = len(password) <= PASSWORD_MAX_BYTES and await asyncio.to_thread(bcrypt.checkpw, password, hashed.encode())
        if user is None or not is_right:
            raise Refusal(400, "invalid_credentials", "Invalid login credentials")
        session_id = str(uuid.uuid4())
        async with self._pool.connection() as connection:
            await connection.execute("insert into auth.sessions (id, user_id) values (%s, %s)", (session_id, user["id"]))
            await connection.execute("update auth.users set last_sign_in_at = now() where id = %s", (user["id"],))
            return await self._issue(connection, user, session_id)

    async def _refresh(self, body: Row) -> Response:
        token = str(body.get("refresh_token", ""))
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(
                "select r.used_at, extract(epoch from clock_timestamp() - r.used_at)::float8 as used_ago_s, s.id as session_id, u.*"
                " from auth.refresh_tokens r join auth.sessions s on s.id = r.session_id join auth.users u on u.id = s.user_id"
                " where r.token = %s for update of r",
                (token,),
            )
            found = await cursor.fetchone()
            if found is None:
                raise Refusal(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
            if found["used_at"] is not None and found["used_ago_s"] > self._reuse_s:
                await connection.execute("delete from auth.sessions where id = %s", (found["session_id"],))
                await connection.commit()
                raise Refusal(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
            session_id = str(found["session_id"])
            if found["used_at"] is None:
                await connection.execute("update auth.refresh_tokens set used_at = clock_timestamp() where token = %s", (token,))
                return await self._issue(connection, found, session_id)
            # Its successor again, not a second one: both tabs go on with the same token.
            await cursor.execute("select token from auth.refresh_tokens where session_id = %s and used_at is null", (session_id,))
            live = await cursor.fetchone()
            return self._answer(found, session_id, live["token"]) if live else await self._issue(connection, found, session_id)

    async def _issue(self, connection: psycopg.AsyncConnection[Any], user: Row, session_id: str) -> Response:
        refresh = secrets.token_urlsafe(16)
        await connection.execute("insert into auth.refresh_tokens (token, session_id) values (%s, %s)", (refresh, session_id))
        return self._answer(user, session_id, refresh)

    def _answer(self, user: Row, session_id: str, refresh: str) -> Response:
        access, expires_at = self._tokens.of_user(user, session_id, TOKEN_LIFETIME_S)
        answer = {
            "access_token": access,
            "token_type": "bearer",
            "expires_in": TOKEN_LIFETIME_S,
            "expires_at": expires_at,
            "refresh_token": refresh,
            "user": _user(user),
        }
        return JSONResponse(answer, headers=API_VERSION)

    async def _session(self, request: Request) -> tuple[Claims, Row]:
        """The signed-in user of a request. A session that was ended is refused although its token has not expired."""
        try:
            claims = self._tokens.bearer(request.headers)
        except TokenError as exc:
            status, code = (401, "no_authorization") if exc.code == "PGRST302" else (403, "bad_jwt")
            raise Refusal(status, code, f"invalid JWT: {exc}") from exc
        if claims.user_id is None or claims.session_id is None:
            raise Refusal(403, "bad_jwt", "invalid claim: missing sub claim")
        query = "select u.* from auth.users u join auth.sessions s on s.user_id = u.id where u.id = %s and s.id = %s"
        user = await self._one(query, (claims.user_id, claims.session_id))
        if user is None:
            raise Refusal(403, "session_not_found", "Session from session_id claim in JWT does not exist")
        return claims, user

    async def _user(self, request: Request) -> Response:
        _, user = await self._session(request)
        if request.method == "PUT":
            body = await _body(request)
            user = await self._changed(user, {"password": body.get("password"), "user_metadata": body.get("data")})
        return JSONResponse(_user(user))

    async def _changed(self, user: Row, wishes: Row) -> Row:
        password = wishes.get("password")
        hashed = user["encrypted_password"] if password is None else await _hashed(str(password))
        changed = await self._one(
            "update auth.users set encrypted_password = %s, user_metadata = user_metadata || %s, app_metadata = app_metadata || %s"
            " where id = %s returning *",
            (hashed, Jsonb(wishes.get("user_metadata") or {}), Jsonb(wishes.get("app_metadata") or {}), user["id"]),
        )
        if changed is None:
            raise Refusal(404, "user_not_found", "User not found")
        return changed

    async def _logout(self, request: Request) -> Response:
        claims, _ = await self._session(request)
        match request.query_params.get("scope", "global"):
            case "local":
                condition = "id = %(session)s"
            case "others":
                condition = "user_id = %(user)s and id <> %(session)s"
            case "global":
                condition = "user_id = %(user)s"
            case other:
                raise Refusal(400, "validation_failed", f"Unsupported logout scope {other!r}")
        async with self._pool.connection() as connection:
            whom = {"session": claims.session_id, "user": claims.user_id}
            await connection.execute(f"delete from auth.sessions where {condition}".encode(), whom)
        return Response(status_code=204, headers=API_VERSION)

    async def _signup(self, _: Request) -> Response:
        """Off: whoever signs in may read every transcript."""
        raise Refusal(422, "signup_disabled", "Signups not allowed for this instance")

    def _admin(self, request: Request) -> None:
        try:
            role = self._tokens.bearer(request.headers).role
        except TokenError as exc:
            raise Refusal(401, "bad_jwt", f"invalid JWT: {exc}") from exc
        if role != "service_role":
            raise Refusal(403, "not_admin", "User not allowed")

    async def _admin_users(self, request: Request) -> Response:
        self._admin(request)
        if request.method == "GET":
            users = await self._all("select * from auth.users order by created_at, id")
            return JSONResponse({"users": [_user(user) for user in users], "aud": "authenticated"})
        body = await _body(request)
        email = str(body.get("email", "")).lower()
        if "@" not in email:
            raise Refusal(400, "validation_failed", "Unable to validate email address: invalid format")
        try:
            user = await self._one(
                "insert into auth.users (email, encrypted_password, user_metadata) values (%s, %s, %s) returning *",
                (email, await _hashed(str(body.get("password", ""))), Jsonb(body.get("user_metadata") or {})),
            )
        except psycopg.errors.UniqueViolation as exc:
            raise Refusal(422, "email_exists", "A user with this email address has already been registered") from exc
        assert user is not None
        return JSONResponse(_user(await self._changed(user, {"app_metadata": body.get("app_metadata")})))

    async def _admin_user(self, request: Request) -> Response:
        self._admin(request)
        try:
            number = uuid.UUID(request.path_params["id"])
        except ValueError as exc:
            raise Refusal(404, "validation_failed", "user_id must be an UUID") from exc
        user = await self._one("select * from auth.users where id = %s", (number,))
        if user is None:
            raise Refusal(404, "user_not_found", "User not found")
        match request.method:
            case "PUT":
                user = await self._changed(user, await _body(request))
            case "DELETE":
                await self._one("delete from auth.users where id = %s returning id", (number,))
        return JSONResponse(_user(user))

    async def _one(self, query: str, values: tuple[Any, ...]) -> Row | None:
        async with self._pool.connection() as connection:
            return await (await connection.cursor(row_factory=dict_row).execute(query.encode(), values)).fetchone()

    async def _all(self, query: str) -> list[dict[str, Any]]:
        async with self._pool.connection() as connection:
            return await (await connection.cursor(row_factory=dict_row).execute(query.encode())).fetchall()


class Buckets:
    """A token bucket for each address. Pure but for its own memory; instants in seconds of any clock."""

    def __init__(self, size: int, per_s: float) -> None:
        self._size, self._per_s = size, per_s
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, address: str, now: float) -> bool:
        """Whether ``address`` may do one more thing now."""
        left, at = self._left.get(address, (float(self._size), now))
        left = min(self._size, left + (now - at) * self._per_s)
        if left < 1:
            return False
        if len(self._left) > 10_000:  # addresses that have their whole bucket back
            self._left = {name: kept for name, kept in self._left.items() if kept[0] + (now - kept[1]) * self._per_s < self._size}
        self._left[address] = (left - 1, now)
        return True


_NOBODY = bcrypt.hashpw(b"", bcrypt.gensalt(_ROUNDS)).decode()
"""Compared for unknown addresses, so that the answer takes as long as for known ones."""


def _answered(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return refusal.response

    return answer


async def _hashed(password: str) -> str:
    if len(password) < PASSWORD_MIN:
        raise Refusal(422, "weak_password", f"Password should be at least {PASSWORD_MIN} characters.")
    if len(password.encode()) > PASSWORD_MAX_BYTES:
        raise Refusal(422, "validation_failed", f"Password cannot be longer than {PASSWORD_MAX_BYTES} characters")
    return (await asyncio.to_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt(_ROUNDS))).decode()


async def _body(request: Request) -> Row:
    try:
        found = json.loads(await request.body() or b"{}")
    except ValueError as exc:
        raise Refusal(400, "bad_json", "Could not parse request body as JSON") from exc
    if not isinstance(found, dict):
        raise Refusal(400, "bad_json", "Could not parse request body as JSON")
    return found


def _user(row: Row) -> dict[str, Any]:
    signed_in = row["last_sign_in_at"]
    created_at = row["created_at"].isoformat()
    return {
        "id": str(row["id"]),
        "aud": "authenticated",
        "role": "authenticated",
        "email": row["email"],
        "phone": "",
        "app_metadata": row["app_metadata"],
        "user_metadata": row["user_metadata"],
        "identities": [],
        "email_confirmed_at": created_at,
        "created_at": created_at,
        "updated_at": created_at,
        "last_sign_in_at": signed_in.isoformat() if signed_in else None,
        "is_anonymous": False,
    }
