"""PostgREST and the gateway before it: what the embedded stack has in place of a Supabase project."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
import jwt

from harness.model import value
from harness.stack.database import AUTH_ADMIN, AUTHENTICATOR, REPLICATION_ADMIN, Database
from harness.stack.livekit import answers
from harness.stack.ports import LOOPBACK
from harness.stack.supervise import Child, Command, Supervisor

MAX_ROWS = 1000
"""Supabase's default: more rows need paging."""
_READY_S = 20.0
# Keys of the embedded stack live as long as it does; this is only a date beyond that.
_EXPIRES = 4_102_444_800


@value
class Keys:
    """The project's secret and the two keys signed with it."""

    secret: str
    anon: str
    service: str

    @staticmethod
    def signed(secret: str) -> Keys:
        """Keys as Supabase signs them: HS256 tokens whose role is all they say."""

        return Keys(secret=secret, anon=_signed("anon", secret), service=_signed("service_role", secret))

    def token(self, role: str) -> str:
        """A token of any role."""
        return _signed(role, self.secret)


def _signed(role: str, secret: str) -> str:
    return jwt.encode({"iss": "supabase", "role": role, "exp": _EXPIRES}, secret, algorithm="HS256")


def start_postgrest(supervisor: Supervisor, binary: Path, *, port: int, database: Database, keys: Keys) -> Child:
    """Starts PostgREST and waits until it has read the schema."""
    child = supervisor.start(
        Command(
            name="postgrest",
            argv=(str(binary),),
            env={
                "PGRST_DB_URI": database.dsn(AUTHENTICATOR),
                "PGRST_DB_SCHEMAS": "public",
                "PGRST_DB_ANON_ROLE": "anon",
                "PGRST_DB_MAX_ROWS": str(MAX_ROWS),
                "PGRST_DB_USE_LEGACY_GUCS": "false",
                "PGRST_JWT_SECRET": keys.secret,
                "PGRST_SERVER_HOST": LOOPBACK,
                "PGRST_SERVER_PORT": str(port),
                "PGRST_LOG_LEVEL": "warn",
            },
            cwd=supervisor.scratch,
        )
    )
    with httpx.Client(timeout=1.0, trust_env=False) as client:
        supervisor.wait_ready(child, lambda: answers(client, f"http://{LOOPBACK}:{port}/"), timeout_s=_READY_S, port=port)
    return child


def start_gateway(
    supervisor: Supervisor, services: Path, *, port: int, postgrest_port: int, database: Database, keys: Keys, reuse_s: float = 10.0
) -> Child:
    """Starts the gateway (``services``: ``deploy/services``). reuse_s: how long a used refresh token may come back unpunished."""
    child = supervisor.start(
        Command(
            name="gateway",
            argv=(
                *(sys.executable, "-m", "uvicorn", "gateway.app:application", "--factory", "--app-dir", str(services)),
                *("--host", LOOPBACK, "--port", str(port), "--log-level", "warning", "--no-access-log"),
                *("--ws", "websockets-sansio", "--ws-max-size", "1048576", "--ws-per-message-deflate", "false"),
                *("--timeout-graceful-shutdown", "1"),
            ),
            env={
                "PATH": os.environ.get("PATH", ""),
                "POSTGREST_URL": f"http://{LOOPBACK}:{postgrest_port}",
                "SUPABASE_ANON_KEY": keys.anon,
                "SUPABASE_SERVICE_KEY": keys.service,
                "JWT_SECRET": keys.secret,
                "REFRESH_REUSE_S": str(reuse_s),
                "AUTHENTICATOR_DATABASE_URL": database.dsn(AUTHENTICATOR),
                "AUTH_DATABASE_URL": database.dsn(AUTH_ADMIN),
                "REPLICATION_DATABASE_URL": database.dsn(REPLICATION_ADMIN),
            },
            cwd=supervisor.scratch,
        )
    )
    with httpx.Client(timeout=1.0, trust_env=False) as client:
        supervisor.wait_ready(child, lambda: answers(client, f"http://{LOOPBACK}:{port}/health"), timeout_s=_READY_S, port=port)
    return child
