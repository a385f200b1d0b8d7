"""The Supabase under contract: the one that the environment names, otherwise the embedded stack's."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any

import httpx
import jwt
from supabase import AsyncClient, AsyncClientOptions, Client, ClientOptions, acreate_client, create_client

from harness.model import value
from harness.stack.home import home_dir

_ENV = "VOXPROOF_CONTRACT_"


@value
class Project:
    """Where it is, and what the contract needs to ask it everything."""

    url: str
    anon_key: str = field(repr=False)
    service_key: str = field(repr=False)
    jwt_secret: str | None = field(repr=False)
    """None: tokens of our own cannot be made, and what needs them is skipped."""
    email: str
    password: str = field(repr=False)
    reuse_s: float
    """GoTrue's reuse interval of refresh tokens."""
    dsn: str | None = field(repr=False)
    """None: what needs a hand in the database is skipped."""
    is_ours: bool
    """Nothing of others is in it."""
    opened: list[httpx.Client] = field(default_factory=list, repr=False)
    """Connections of clients: closed after each test."""

    def client(self, key: str | None = None) -> Client:
        """A client of its own, anonymous by default. Clients may not share an HTTP connection pool with another identity."""
        http = httpx.Client(http2=False, timeout=20.0, trust_env=False)
        self.opened.append(http)
        options = ClientOptions(
            httpx_client=http,
            postgrest_client_retry=False,
            auto_refresh_token=False,
            persist_session=False,
        )
        return create_client(self.url, key or self.anon_key, options)

    def close(self) -> None:
        """Ends the connections of every client."""
        while self.opened:
            self.opened.pop().close()

    async def async_client(self, http: httpx.AsyncClient, key: str | None = None, token: str | None = None) -> AsyncClient:
        """The only client that has Realtime. token: of a user."""
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        client = await acreate_client(self.url, key or self.anon_key, options)
        if token is not None:
            await client.realtime.set_auth(token)
        return client

    def service(self) -> Client:
        """A client that may write."""
        return self.client(self.service_key)

    def token(self, role: str, *, lifetime_s: float = 3600, secret: str | None = None, **claims: Any) -> str:
        """A token of our own making."""
        key = secret or self.jwt_secret
        assert key is not None
        said = {"role": role, "exp": int(time.time() + lifetime_s), **claims}  # noqa: TID251 - expiry is wall time
        return jwt.encode(said, key, algorithm="HS256")

    def headers(self, token: str) -> dict[str, str]:
        """As a client with that token would send them."""
        return {"apikey": self.anon_key, "authorization": f"Bearer {token}"}


def call_id() -> str:
    """A new one, of the kind that is the harness's own."""
    return f"vp-contract-{secrets.token_hex(6)}"


@contextmanager
def project(logs: Path) -> Iterator[Project]:
    """With one user who may sign in, deleted at the end."""
    email, password = f"contract-{secrets.token_hex(4)}@example.org", secrets.token_urlsafe(12)
    if url := os.environ.get(f"{_ENV}URL"):
        found = Project(
            url=url.rstrip("/"),
            anon_key=os.environ[f"{_ENV}ANON_KEY"],
            service_key=os.environ[f"{_ENV}SERVICE_KEY"],
            jwt_secret=os.environ.get(f"{_ENV}JWT_SECRET"),
            email=email,
            password=password,
            reuse_s=float(os.environ.get(f"{_ENV}REUSE_S", "10")),
            dsn=os.environ.get(f"{_ENV}DATABASE_URL"),
            is_ours=False,
        )
        with _user(found):
            yield found
        return
    from harness.stack.backend import up_database

    with up_database(home=home_dir(), logs=logs, progress=lambda _line: None, reuse_s=1.0) as backend:
        found = Project(
            url=backend.url,
            anon_key=backend.keys.anon,
            service_key=backend.keys.service,
            jwt_secret=backend.keys.secret,
            email=email,
            password=password,
            reuse_s=1.0,
            dsn=backend.dsn,
            is_ours=True,
        )
        with _user(found):
            yield found


@contextmanager
def _user(project: Project) -> Iterator[None]:
    admin = project.service().auth.admin
    user = admin.create_user({"email": project.email, "password": project.password, "email_confirm": True}).user
    project.close()
    try:
        yield
    finally:
        _sweep(project)
        project.service().auth.admin.delete_user(user.id)
        project.close()


def _sweep(project: Project) -> None:
    """Whatever rows the contract left."""
    client = project.service()
    client.table("calls").delete().like("call_id", "vp-contract-%").execute()
    client.table("alerts_history").delete().eq("service", "vp-contract").execute()
