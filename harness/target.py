"""``target.yaml``: where a monitored stack is, what opens it, what it calls things, what it can never show, and whether it answers."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from livekit.api import ListRoomsRequest, LiveKitAPI, ServerError

from harness import door, vocabulary
from harness.collect.naming import Translator
from harness.document import Document, Either, Entries, Free, Key, Number, Table, Text, Yes, parse
from harness.errors import UsageError
from harness.model import Door, Lack, Prices, Source, Target

_TIMEOUT_S = 5.0
EMBEDDED = "embedded"
_ENV = "name of the environment variable that holds"
_DOOR = {
    "headers": Key(
        shape=Entries(of=Either(text=Text(), table=Table(keys={"env": Key(shape=Text(), says=f"{_ENV} it", is_required=True)}))),
        says="headers of every request, such as a tenant's; a value, or {env: NAME}",
    ),
    "bearer_env": Key(shape=Text(), says=f"{_ENV} a bearer token"),
    "basic_env": Key(shape=Text(), says=f"{_ENV} user:password"),
    "ca_file": Key(shape=Text(), says="authority that signed its certificate; the system's if absent"),
    "cert_file": Key(shape=Text(), says="our own certificate, where it wants one"),
    "key_file": Key(shape=Text(), says="the key of cert_file"),
}
SHAPE = Table(
    keys={
        "name": Key(shape=Text(), says="what reports call this stack; the file's name if absent"),
        "exclusive": Key(shape=Yes(), says="true: nobody else calls this agent while a run lasts"),
        "livekit": Key(
            shape=Table(
                keys={
                    "url": Key(shape=Text(), says="ws:// or wss:// address of the media server", is_required=True),
                    "api_key_env": Key(shape=Text(), says=f"{_ENV} the API key; LIVEKIT_API_KEY if absent"),
                    "api_secret_env": Key(shape=Text(), says=f"{_ENV} the API secret; LIVEKIT_API_SECRET if absent"),
                    "metrics_url": Key(shape=Text(), says="address of the media server's exposition"),
                    **_DOOR,
                }
            ),
            says="the media server; what opens a door is for metrics_url",
            is_required=True,
        ),
        "agent": Key(
            shape=Table(keys={"metrics_url": Key(shape=Text(), says="address of the agent's exposition", is_required=True), **_DOOR}),
            says="the agent",
        ),
        "prometheus": Key(
            shape=Table(
                keys={
                    "url": Key(shape=Text(), says="address of its API, with its path prefix if it has one", is_required=True),
                    "match": Key(shape=Entries(of=Text()), says="labels of all our series, where it holds others' as well"),
                    **_DOOR,
                }
            ),
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
                    **_DOOR,
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
        **vocabulary.KEYS,
        "absent": Key(shape=Free(), says=f"sources that do not exist there, each with the reason; of {', '.join(Source)}"),
        "forbidden": Key(shape=Free(), says="sources that exist and that we may not read, each with the reason"),
        "blind": Key(shape=Free(), says="sources that can never be read, each with the reason"),
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
    return read(text, file=str(path), environ=environ)


def read(text: str, *, file: str, environ: Mapping[str, str]) -> Target:
    """The target that ``text`` describes; see ``load``. Files that it names are looked for from the directory of ``file``."""
    document = parse(text, file=file, shape=SHAPE)
    data = document.data
    supabase = data.get("supabase")
    lacks = dict(_lacks(document))
    target = Target(
        name=data.get("name", Path(file).stem),
        livekit_url=_url(document, "livekit", "url", schemes=("ws", "wss", "http", "https")),
        livekit_api_key=_credential(document, environ, "livekit", "api_key_env", "LIVEKIT_API_KEY"),
        livekit_api_secret=_credential(document, environ, "livekit", "api_secret_env", "LIVEKIT_API_SECRET"),
        prometheus_url=_url(document, "prometheus", "url"),
        agent_metrics_url=_url(document, "agent", "metrics_url"),
        sfu_metrics_url=_url(document, "livekit", "metrics_url"),
        supabase_url=_url(document, "supabase", "url"),
        supabase_key=_credential(document, environ, "supabase", "key_env", "SUPABASE_SERVICE_KEY") if supabase else None,
        supabase_token=_credential(document, environ, "supabase", "token_env", "") if supabase and supabase.get("token_env") else None,
        blind={source: reason for source, (_, reason) in lacks.items()},
        lacks={source: lack for source, (lack, _) in lacks.items()},
        prices=_prices(document),
        doors=_doors(document, environ),
        names=vocabulary.names(document),
        is_exclusive=data.get("exclusive", False),
    )
    if target.name == EMBEDDED:
        msg = f"{document.where('name')}: name: '{EMBEDDED}' is what our own stack is called; say another"
        raise UsageError(msg)
    for source, where in _unseen(target).items():
        if source not in target.blind:
            msg = (
                f"{file}: {where} is missing: give the address, or say under 'absent', 'forbidden' or 'blind' "
                f"why '{source}' can never be read"
            )
            raise UsageError(msg)
    return target


def reach(target: Target) -> None:
    """Asks every source of the target once, before the first call.

    Raises UsageError, naming the URL and the next step, for the first one that does not answer or refuses us.
    """
    asyncio.run(_reach_sfu(target))
    names = Translator(target.names)
    ready = target.prometheus_url and f"{target.prometheus_url.rstrip('/')}/api/v1/query?query=vector(1)"
    calls = (
        target.supabase_url
        and f"{target.supabase_url.rstrip('/')}/rest/v1/{names.table('calls')}?select={names.column('calls', 'call_id')}&limit=0"
    )
    key = {"apikey": str(target.supabase_key), "Authorization": f"Bearer {target.supabase_token or target.supabase_key}"}
    for source, url, headers, next_step in (
        (Source.PROMETHEUS, ready, {}, "prometheus.url"),
        (Source.AGENT_EXPORTER, target.agent_metrics_url, {}, "agent.metrics_url"),
        (Source.SFU_EXPORTER, target.sfu_metrics_url, {}, "livekit.metrics_url"),
        (Source.ROWS, calls if target.supabase_key and "calls" not in target.names.lacking else None, key, "supabase.url or its key"),
    ):
        if url and source not in target.blind:
            _reach_http(target, source, url, headers, next_step)


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
    return _variable(document, environ, document.data[table].get(key, default), table, key)


def _variable(document: Document, environ: Mapping[str, str], name: str, *where: str) -> str:
    if not environ.get(name):
        said = ".".join(where)
        msg = f"{document.where(*where)}: {said}: the environment variable {name} is not set; export it, or name another"
        raise UsageError(msg)
    return environ[name]


def _doors(document: Document, environ: Mapping[str, str]) -> dict[str, Door]:
    tables = {
        "livekit": (Source.SFU_EXPORTER,),
        "agent": (Source.AGENT_EXPORTER,),
        "prometheus": (Source.PROMETHEUS,),
        "supabase": (Source.ROWS,),
    }
    found = {}
    for table, sources in tables.items():
        if document.data.get(table):
            opened = _door(document, environ, table)
            found.update({str(source): opened for source in sources if opened != Door()})
    return found


def _door(document: Document, environ: Mapping[str, str], table: str) -> Door:
    given = document.data[table]
    headers = {
        name: said if isinstance(said, str) else _variable(document, environ, said["env"], table, "headers", name)
        for name, said in given.get("headers", {}).items()
    }
    if "bearer_env" in given:
        headers["Authorization"] = "Bearer " + _variable(document, environ, given["bearer_env"], table, "bearer_env")
    if "basic_env" in given:
        secret = _variable(document, environ, given["basic_env"], table, "basic_env")
        headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
    if ("cert_file" in given) != ("key_file" in given):
        there, missing = ("cert_file", "key_file") if "cert_file" in given else ("key_file", "cert_file")
        raise UsageError(f"{document.where(table, there)}: {table}.{there} needs {missing} beside it")
    files = {key: _file(document, table, key) for key in ("ca_file", "cert_file", "key_file")}
    return Door(headers=headers, ca=files["ca_file"], certificate=files["cert_file"], key=files["key_file"])


def _file(document: Document, table: str, key: str) -> str | None:
    name = document.data[table].get(key)
    if name is None:
        return None
    path = Path(document.file).parent / name
    if not path.is_file():
        raise UsageError(f"{document.where(table, key)}: {table}.{key}: there is no file {path}")
    return str(path)


def _prices(document: Document) -> Prices | None:
    given = document.data.get("prices")
    if given is None:
        return None
    return Prices(
        per_call=float(given.get("per_call", 0)), per_agent_minute=float(given.get("per_agent_minute", 0)), currency=given["currency"]
    )


def _lacks(document: Document) -> Iterator[tuple[str, tuple[Lack, str]]]:
    """Sources that are not shown, of which kind, and why."""
    seen: dict[str, Lack] = {}
    for lack in Lack:
        for source, reason in document.data.get(lack, {}).items():
            where = document.where(lack)
            if source not in tuple(Source):
                raise UsageError(f"{where}: {lack}: no source is called '{source}'; there are {', '.join(Source)}")
            if not isinstance(reason, str) or not reason:
                raise UsageError(f"{where}: {lack}: '{source}' needs a reason in words, got {reason!r}")
            if source in seen:
                raise UsageError(f"{where}: {lack}: '{source}' is {seen[source]} already; it is one of them")
            seen[source] = lack
            yield source, (lack, reason if lack is Lack.BLIND else f"{lack}: {reason}")


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


def _reach_http(target: Target, source: Source, url: str, headers: Mapping[str, str], next_step: str) -> None:
    try:
        # A proxy of the environment is no way to our own loopback.
        with door.client(target.doors.get(source, Door()), trust_env=not target.is_embedded, timeout_s=_TIMEOUT_S) as client:
            response = client.get(url, headers=dict(headers))
        response.raise_for_status()
    except httpx.HTTPStatusError as exc:
        raise _refused(target, url, f"answered {exc.response.status_code}", next_step) from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise _refused(target, url, _words(exc), next_step) from exc
    except (OSError, ssl.SSLError) as exc:
        raise _refused(target, url, f"was not asked: a certificate or key of ours cannot be used: {exc}", next_step) from exc


def _refused(target: Target, url: str, how: str, what: str) -> UsageError:
    step = "voxproof stack logs" if target.is_embedded else f"check {what} in the target file, or declare the source blind with a reason"
    return UsageError(f"target '{target.name}': {url} {how}; no call was placed. Next: {step}")


def _words(exc: Exception) -> str:
    return "did not answer: " + (str(exc) or type(exc).__name__)
