"""``target.yaml``: where a monitored stack is, which of its sources can never be read, and whether it answers before the first call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from livekit.api import ListRoomsRequest, LiveKitAPI, ServerError

from harness.document import Document, Free, Key, Number, Table, Text, parse
from harness.errors import UsageError
from harness.model import Prices, Source, Target

_TIMEOUT_S = 5.0
_ENV = "name of the environment variable that holds"

SHAPE = Table(
    keys={
        "name": Key(shape=Text(), says="what reports call this stack; the file's name if absent"),
        "livekit": Key(
            shape=Table(
                keys={
                    "url": Key(shape=Text(), says="ws:// or wss:// address of the media server", is_required=True),
                    "api_key_env": Key(shape=Text(), says=f"{_ENV} the API key; LIVEKIT_API_KEY if absent"),
                    "api_secret_env": Key(shape=Text(), says=f"{_ENV} the API secret; LIVEKIT_API_SECRET if absent"),
                    "metrics_url": Key(shape=Text(), says="address of the media server's exposition"),
                }
            ),
            says="the media server",
            is_required=True,
        ),
        "agent": Key(
            shape=Table(keys={"metrics_url": Key(shape=Text(), says="address of the agent's exposition", is_required=True)}),
            says="the agent",
        ),
        "prometheus": Key(
            shape=Table(keys={"url": Key(shape=Text(), says="address of its API", is_required=True)}),
            says="the Prometheus that scrapes both",
        ),
        "supabase": Key(
            shape=Table(
                keys={
                    "url": Key(shape=Text(), says="address of the project", is_required=True),
                    "key_env": Key(shape=Text(), says=f"{_ENV} a key of the project; SUPABASE_SERVICE_KEY if absent"),
                    "token_env": Key(
                        shape=Text(), says=f"{_ENV} a token that may only read the tables; without it the key's own role reads"
                    ),
                }
            ),
            says="the call history",
        ),
        "prices": Key(
            shape=Table(
                keys={
                    "per_call": Key(shape=Number(at_least=0), says="price of a call; 0 if absent"),
                    "per_agent_minute": Key(
                        shape=Number(at_least=0), says="price of a minute of the agent: models, speech, media; 0 if absent"
                    ),
                    "currency": Key(shape=Text(), says="such as EUR", is_required=True),
                }
            ),
            says="what calls cost here, for the estimate that is printed before the first one",
        ),
        "blind": Key(shape=Free(), says=f"sources that can never be read, each with the reason; of {', '.join(Source)}"),
    }
)


def load(path: Path, environ: Mapping[str, str]) -> Target:
    """The target in ``path``, its credentials taken from ``environ``.

    Raises UsageError with file and line; a source that has neither an address nor a reason for its absence is such an error.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{path}: cannot be read: {exc}"
        raise UsageError(msg) from exc
    document = parse(text, file=str(path), shape=SHAPE)
    data = document.data
    supabase = data.get("supabase")
    target = Target(
        name=data.get("name", path.stem),
        livekit_url=_url(document, "livekit", "url", schemes=("ws", "wss", "http", "https")),
        livekit_api_key=_credential(document, environ, "livekit", "api_key_env", "LIVEKIT_API_KEY"),
        livekit_api_secret=_credential(document, environ, "livekit", "api_secret_env", "LIVEKIT_API_SECRET"),
        prometheus_url=_url(document, "prometheus", "url"),
        agent_metrics_url=_url(document, "agent", "metrics_url"),
        sfu_metrics_url=_url(document, "livekit", "metrics_url"),
        supabase_url=_url(document, "supabase", "url"),
        supabase_key=_credential(document, environ, "supabase", "key_env", "SUPABASE_SERVICE_KEY") if supabase else None,
        supabase_token=_credential(document, environ, "supabase", "token_env", "") if supabase and supabase.get("token_env") else None,
        blind=_blind(document),
        prices=_prices(document),
    )
    for source, where in _unseen(target).items():
        if source not in target.blind:
            msg = f"{path}: {where} is missing: give the address, or say under 'blind' why '{source}' can never be read"
            raise UsageError(msg)
    return target


def reach(target: Target) -> None:
    """Asks every source of the target once, before the first call.

    Raises UsageError, naming the URL and the next step, for the first one that does not answer or refuses us.
    """
    asyncio.run(_reach_sfu(target))
    for url, next_step in (
        (target.prometheus_url and f"{target.prometheus_url.rstrip('/')}/-/ready", "prometheus.url"),
        (target.agent_metrics_url, "agent.metrics_url"),
        (target.sfu_metrics_url, "livekit.metrics_url"),
    ):
        if url:
            _reach_http(target, url, {}, next_step)
    if target.supabase_url and target.supabase_key:
        headers = {"apikey": target.supabase_key, "Authorization": f"Bearer {target.supabase_token or target.supabase_key}"}
        _reach_http(target, f"{target.supabase_url.rstrip('/')}/rest/v1/calls?select=call_id&limit=0", headers, "supabase.url or its key")


def _url(document: Document, table: str, key: str, *, schemes: tuple[str, ...] = ("http", "https")) -> Any:
    url = document.data.get(table, {}).get(key)
    if url is None:
        return None
    scheme, separator, rest = url.partition("://")
    if scheme not in schemes or not separator or not rest:
        msg = f"{document.where(table, key)}: {table}.{key}: wanted an address that begins with {'://, '.join(schemes)}://, got '{url}'"
        raise UsageError(msg)
    if "@" in rest.partition("/")[0]:
        msg = f"{document.where(table, key)}: {table}.{key}: holds a credential; name it by environment variable instead"
        raise UsageError(msg)
    return url


def _credential(document: Document, environ: Mapping[str, str], table: str, key: str, default: str) -> str:
    name = document.data[table].get(key, default)
    if not environ.get(name):
        msg = f"{document.where(table, key)}: {table}.{key}: the environment variable {name} is not set; export it, or name another"
        raise UsageError(msg)
    return environ[name]


def _prices(document: Document) -> Prices | None:
    given = document.data.get("prices")
    if given is None:
        return None
    return Prices(
        per_call=float(given.get("per_call", 0)), per_agent_minute=float(given.get("per_agent_minute", 0)), currency=given["currency"]
    )


def _blind(document: Document) -> dict[str, str]:
    blind = document.data.get("blind", {})
    for source, reason in blind.items():
        where = document.where("blind")
        if source not in tuple(Source):
            msg = f"{where}: blind: no source is called '{source}'; there are {', '.join(Source)}"
            raise UsageError(msg)
        if not isinstance(reason, str) or not reason:
            msg = f"{where}: blind: '{source}' needs a reason in words, got {reason!r}"
            raise UsageError(msg)
    return dict(blind)


def _unseen(target: Target) -> dict[Source, str]:
    """Sources without an address, with the key that would give it."""
    wanted = (
        (Source.AGENT_EXPORTER, target.agent_metrics_url, "agent.metrics_url"),
        (Source.SFU_EXPORTER, target.sfu_metrics_url, "livekit.metrics_url"),
        (Source.PROMETHEUS, target.prometheus_url, "prometheus.url"),
        (Source.RULES, target.prometheus_url, "prometheus.url"),
        (Source.ROWS, target.supabase_url, "supabase.url"),
    )
    return {source: where for source, url, where in wanted if url is None}


async def _reach_sfu(target: Target) -> None:
    try:
        async with LiveKitAPI(
            target.livekit_url,
            target.livekit_api_key,
            target.livekit_api_secret,
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            failover=False,
        ) as api:
            await api.room.list_rooms(ListRoomsRequest(names=["voxproof-probe"]))
    except ServerError as exc:
        raise _refused(
            target, target.livekit_url, f"answered {exc.status} {exc.message}".rstrip(), "livekit.url and its key and secret"
        ) from exc
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise _refused(target, target.livekit_url, _words(exc), "livekit.url") from exc


def _reach_http(target: Target, url: str, headers: Mapping[str, str], next_step: str) -> None:
    try:
        # A proxy of the environment is no way to our own loopback.
        response = httpx.get(url, headers=dict(headers), timeout=_TIMEOUT_S, trust_env=not target.is_embedded)
        response.raise_for_status()
    except httpx.HTTPStatusError as exc:
        raise _refused(target, url, f"answered {exc.response.status_code}", next_step) from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise _refused(target, url, _words(exc), next_step) from exc


def _refused(target: Target, url: str, how: str, what: str) -> UsageError:
    step = "voxproof stack logs" if target.is_embedded else f"check {what} in the target file, or declare the source blind with a reason"
    return UsageError(f"target '{target.name}': {url} {how}; no call was placed. Next: {step}")


def _words(exc: Exception) -> str:
    return "did not answer: " + (str(exc) or type(exc).__name__)
