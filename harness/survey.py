"""A look at every source of a target: what answers, what refuses, which series, tables and rules are there. It reads names, never a row."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any

import aiohttp
import httpx
from livekit.api import ListRoomsRequest, LiveKitAPI, ServerError
from prometheus_client.parser import text_string_to_metric_families

from harness import door
from harness.collect.naming import Translator
from harness.collect.series import base
from harness.measure import flavour
from harness.model import Door, Lack, Source, Target, value

_TIMEOUT_S = 5.0
_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


@value
class Look:
    """What one look at one source showed."""

    source: Source
    request: str
    """What was asked, without credentials. Empty: there was no address to ask."""
    lack: Lack | None
    """None: it answered."""
    reason: str | None
    """Why it shows nothing. None: it does."""
    things: Mapping[str, tuple[str, ...]]
    """Metrics with their types, tables with their columns, rules with their expressions; by their own names."""
    engine: Mapping[str, str] = field(default_factory=dict)
    """Of a server that calculates: ``prometheus_flavour`` and ``prometheus_version``, see ``harness.measure.flavour``."""


Probe = Callable[[], Mapping[str, tuple[str, ...]]]


def look(target: Target) -> tuple[Look, ...]:
    """One look at each source, in the order of the hops."""
    names = Translator(target.names)
    agent, sfu = target.agent_metrics_url, target.sfu_metrics_url
    prometheus = target.prometheus_url and target.prometheus_url.rstrip("/")
    rows = target.supabase_url and target.supabase_url.rstrip("/")
    with (
        _client(target, Source.AGENT_EXPORTER) as to_agent,
        _client(target, Source.SFU_EXPORTER) as to_sfu,
        _client(target, Source.PROMETHEUS) as to_prometheus,
        _client(target, Source.ROWS) as to_rows,
    ):
        return (
            _look(target, Source.SFU_API, target.livekit_url, lambda: asyncio.run(_rooms(target))),
            _look(target, Source.AGENT_EXPORTER, agent, lambda: _exposition(to_agent, str(agent))),
            _look(target, Source.SFU_EXPORTER, sfu, lambda: _exposition(to_sfu, str(sfu))),
            _with_engine(_look(target, Source.PROMETHEUS, prometheus, lambda: _series(to_prometheus, str(prometheus))), to_prometheus),
            _look(target, Source.RULES, prometheus and f"{prometheus}/api/v1/rules", lambda: _rules(to_prometheus, str(prometheus))),
            _look(target, Source.ROWS, rows and f"{rows}/rest/v1/", lambda: _tables(to_rows, str(rows), _keys(target), names)),
        )


def _client(target: Target, source: Source) -> httpx.Client:
    return door.client(target.doors.get(source, Door()), trust_env=not target.is_embedded, timeout_s=_TIMEOUT_S)


def _look(target: Target, source: Source, request: str | None, probe: Probe) -> Look:
    if source in target.blind:
        lack = target.lacks.get(source, Lack.BLIND)
        return Look(source=source, request="", lack=lack, reason=target.blind[source].removeprefix(f"{lack}: "), things={})
    if not request:
        return Look(source=source, request="", lack=Lack.ABSENT, reason="no address was given", things={})
    try:
        return Look(source=source, request=request, lack=None, reason=None, things=probe())
    except httpx.HTTPStatusError as exc:
        status = exc.response.status_code
        lack = Lack.FORBIDDEN if status in _REFUSED else Lack.ABSENT
        return Look(source=source, request=request, lack=lack, reason=f"{exc.request.url.path} answered {status}", things={})
    except ServerError as exc:
        return Look(source=source, request=request, lack=Lack.FORBIDDEN, reason=f"answered {exc.status} {exc.message}".rstrip(), things={})
    except ValueError as exc:
        return Look(source=source, request=request, lack=Lack.ABSENT, reason=f"did not answer as expected: {exc}", things={})
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as exc:
        return Look(source=source, request=request, lack=Lack.ABSENT, reason=f"did not answer: {str(exc) or type(exc).__name__}", things={})


def _with_engine(found: Look, client: httpx.Client) -> Look:
    """The look, with what the server is, if it answered."""
    if found.lack is not None:
        return found
    build, flags = (_tolerated(client, f"{found.request}/api/v1/status/{what}") for what in ("buildinfo", "flags"))
    try:
        metrics = client.get(f"{found.request}/metrics").raise_for_status().text
    except httpx.HTTPError:
        metrics = ""
    engine = {"prometheus_flavour": flavour.detected(build, flags, metrics), "prometheus_version": str(build.get("version", "unknown"))}
    return dataclasses.replace(found, engine=engine)


async def _rooms(target: Target) -> dict[str, tuple[str, ...]]:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    credentials = (target.livekit_url, target.livekit_api_key, target.livekit_api_secret)
    async with LiveKitAPI(*credentials, timeout=timeout, failover=False) as api:
        await api.room.list_rooms(ListRoomsRequest(names=["voxproof-probe"]))
    return {}


def _exposition(client: httpx.Client, url: str) -> dict[str, tuple[str, ...]]:
    text = client.get(url).raise_for_status().text
    return _by_name((base(line.name), family.type) for family in text_string_to_metric_families(text) for line in family.samples)


def _series(client: httpx.Client, url: str) -> dict[str, tuple[str, ...]]:
    """Names of all series, with their types as far as the server knows them."""
    names = _data(client, f"{url}/api/v1/label/__name__/values")
    kinds = {name: str(found[0].get("type", "")) for name, found in _tolerated(client, f"{url}/api/v1/metadata").items() if found}
    return _by_name((base(str(name)), kinds.get(base(str(name)), kinds.get(str(name), ""))) for name in names)


def _rules(client: httpx.Client, url: str) -> dict[str, tuple[str, ...]]:
    groups = _data(client, f"{url}/api/v1/rules").get("groups") or ()
    rules = (rule for group in groups for rule in group.get("rules") or () if rule.get("type") == "recording")
    return _by_name((str(rule["name"]), str(rule["query"])) for rule in rules)


def _tables(client: httpx.Client, url: str, keys: Mapping[str, str], names: Translator) -> dict[str, tuple[str, ...]]:
    """Tables and columns by PostgREST's own description; of one that does not describe itself, those of our tables that answer."""
    described = client.get(f"{url}/rest/v1/", headers=dict(keys))
    if described.status_code not in _REFUSED:
        definitions = described.raise_for_status().json().get("definitions", {})
        if definitions:
            return {table: tuple(shape.get("properties", {})) for table, shape in definitions.items()}
    found: dict[str, tuple[str, ...]] = {}
    for table in ("calls", "transcripts", "tool_executions"):
        theirs = names.table(table)
        answer = client.get(f"{url}/rest/v1/{theirs}?select={names.column(table, 'call_id')}&limit=0", headers=dict(keys))
        if answer.status_code != httpx.codes.NOT_FOUND:
            answer.raise_for_status()
            found[theirs] = (names.column(table, "call_id"),)
    return found


def _keys(target: Target) -> dict[str, str]:
    return {"apikey": str(target.supabase_key), "Authorization": f"Bearer {target.supabase_token or target.supabase_key}"}


def _data(client: httpx.Client, url: str) -> Any:
    answer = client.get(url).raise_for_status().json()
    if not isinstance(answer, dict) or "data" not in answer:
        raise ValueError(f"{url} is no API of Prometheus")
    return answer["data"]


def _tolerated(client: httpx.Client, url: str) -> Mapping[str, Any]:
    """The data of an answer that not every server gives; nothing of one that does not."""
    try:
        found = _data(client, url)
    except (httpx.HTTPError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, said in pairs:
        if said not in found.setdefault(name, ()):
            found[name] = (*found[name], said)
    return found
