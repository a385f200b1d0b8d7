"""The embedded stack's Realtime under load: a burst, many subscribers, a slot killed in mid-run, memory over many changes.

``python -m benchmarks.realtime --json``. Of the gateway on this machine only: none of these figures is one of Supabase's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psycopg
import websockets

from harness.clock import Clock
from harness.collect.realtime import Access, record
from harness.measure.delivery import Break, Canary, Fate, Heard, Told, Written, deaf, deliveries, lag_quantile_s
from harness.stack import processes
from harness.stack.backend import Backend, up_database
from harness.stack.home import home_dir

BURST = 500
SUBSCRIBERS = 50
CHANGES = 100_000
BLOCK = 1_000
READY_S = 30.0
CALL = {"phone_number": "+15550100", "direction": "inbound", "status": "active"}


def main(argv: list[str] | None = None) -> int:
    """Figures with their conditions."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realtime", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--changes", type=int, default=CHANGES, metavar="N", help="changes of the memory figure (default %(default)s)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as logs, up_database(home=home_dir(), logs=Path(logs), progress=_tell) as backend:
        figures: dict[str, Any] = {"conditions": conditions()}
        for name, measure in measurements(backend, options.changes).items():
            _tell(name)
            figures[name] = measure()
    print(json.dumps(figures, indent=1) if options.json else "\n".join(f"{name}: {found}" for name, found in figures.items()))
    return 0


def measurements(backend: Backend, changes: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """In the order in which they are made."""
    return {
        "burst, service key": lambda: burst(backend, backend.keys.service),
        "burst, judge under row security": lambda: burst(backend, backend.keys.token("voxproof_judge")),
        "one by one": lambda: one_by_one(backend),
        "slot killed in mid-run": lambda: slot_killed(backend),
        "many subscribers": lambda: asyncio.run(many(backend)),
        "memory": lambda: asyncio.run(memory(backend, changes)),
    }


def conditions() -> dict[str, Any]:
    """The machine, as far as figures depend on it."""
    return {
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "backend": "embedded gateway, not Supabase; slot polled every 50 ms when idle; PostgreSQL with fsync off",
        "clock": "writer and listener on one clock, in one process",
    }


def burst(backend: Backend, token: str) -> dict[str, Any]:
    """Rows inserted as fast as one client can, one request each."""

    def act(clock: Clock) -> list[Written]:
        return inserted(backend, clock, BURST)

    return heard_while(backend, token, act)


def one_by_one(backend: Backend) -> dict[str, Any]:
    """A row every tenth of a second: the lag of an idle gateway."""

    def act(clock: Clock) -> list[Written]:
        return inserted(backend, clock, 100, pause_s=0.1)

    return heard_while(backend, backend.keys.service, act)


def slot_killed(backend: Backend) -> dict[str, Any]:
    """The slot's connection is ended half-way through a run of inserts."""

    def act(clock: Clock) -> list[Written]:
        before = inserted(backend, clock, 200, pause_s=0.01)
        with psycopg.connect(backend.dsn, autocommit=True) as database:
            database.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
        after = inserted(backend, clock, 200, pause_s=0.01)
        time.sleep(5)
        return [*before, *after, *inserted(backend, clock, 100, pause_s=0.01)]

    return heard_while(backend, backend.keys.service, act)


def heard_while(backend: Backend, token: str, act: Callable[[Clock], list[Written]]) -> dict[str, Any]:
    """Fates and lags of what ``act`` wrote."""
    told: list[Told] = []
    clock = Clock.start()
    began_at = clock.now()
    access = Access(url=backend.url, key=backend.keys.anon, token=token, canary_key=backend.keys.service)
    with record(access, told.append, clock=clock, trust_env=False) as listener:
        assert listener.wait_ready(READY_S)
        begun = time.monotonic()
        written = act(clock)
        took_s = time.monotonic() - begun
    breaks = [each for each in told if isinstance(each, Break)]
    gaps = deaf([each for each in told if isinstance(each, Canary)], breaks, began_at=began_at, ended_at=clock.now())
    found = deliveries(written, [each for each in told if isinstance(each, Heard)], gaps, late_after_s=5.0)
    fates = Counter(each.fate for each in found)
    return {
        "written": len(written),
        "took_s": round(took_s, 2),
        **{fate.value: fates[fate] for fate in Fate},
        **{f"lag_p{round(q * 100)}_ms": _ms(lag_quantile_s(found, q)) for q in (0.5, 0.99, 1.0)},
        "said": sorted({each.reason for each in breaks}),
        "deaf_s": [round((each.until - each.since) / 1e9, 2) for each in gaps[1:]],
    }


def inserted(backend: Backend, clock: Clock, count: int, pause_s: float = 0.0) -> list[Written]:
    """So many calls; the instant just before each request."""
    made = []
    key = backend.keys.service
    headers = {"apikey": key, "authorization": f"Bearer {key}", "prefer": "return=representation"}
    with httpx.Client(base_url=f"{backend.url}/rest/v1", headers=headers, trust_env=False) as client:
        for _ in range(count):
            at = clock.now()
            (row,) = client.post("/calls?select=id", json={"call_id": f"vp-{at}", **CALL}).raise_for_status().json()
            made.append(Written(table="calls", kind="INSERT", key=row["id"], at=at))
            time.sleep(pause_s)
    return made


async def many(backend: Backend) -> dict[str, Any]:
    """Signed-in subscribers, each with claims of its own: one question of row security each and batch of changes."""
    sockets = [await joined(backend, backend.keys.token("authenticated")) for _ in range(SUBSCRIBERS)]
    begun = time.monotonic()
    bulk(backend, BURST)
    counts = await asyncio.gather(*(count_changes(socket, BURST) for socket in sockets))
    took_s = time.monotonic() - begun
    for socket in sockets:
        await socket.close()
    return {"subscribers": SUBSCRIBERS, "changes": BURST, "delivered": sum(counts), "all_after_s": round(took_s, 2)}


async def memory(backend: Backend, changes: int) -> dict[str, Any]:
    """Resident size of the gateway while one subscriber hears many changes, in blocks of one transaction each."""
    socket = await joined(backend, backend.keys.service)
    sizes, heard = [], 0
    begun = time.monotonic()
    for _ in range(max(1, changes // BLOCK)):
        bulk(backend, BLOCK)
        heard += await count_changes(socket, BLOCK)
        sizes.append(processes.usage(backend.pids["gateway"])[0])
    took_s = time.monotonic() - begun
    await socket.close()
    tenth = max(1, len(sizes) // 10)
    return {
        "changes": heard,
        "took_s": round(took_s, 1),
        "rss_mib_after_tenths": [_mib(sizes[min(number * tenth, len(sizes)) - 1]) for number in range(1, 11)],
    }


async def joined(backend: Backend, token: str) -> websockets.ClientConnection:
    """A bare socket, subscribed to new calls."""
    query = urlencode({"apikey": backend.keys.anon, "vsn": "1.0.0"})
    url = f"{backend.url.replace('http', 'ws', 1)}/realtime/v1/websocket?{query}"
    socket = await websockets.connect(url, max_size=None, proxy=None)
    wish = {"event": "INSERT", "schema": "public", "table": "calls"}
    payload = {"config": {"postgres_changes": [wish]}, "access_token": token}
    await socket.send(json.dumps({"topic": "realtime:b", "event": "phx_join", "payload": payload, "ref": "1"}))
    async with asyncio.timeout(READY_S):
        while json.loads(await socket.recv())["event"] != "system":
            pass
    return socket


async def count_changes(socket: websockets.ClientConnection, wanted: int) -> int:
    """Changes received until so many have come, or none for a while."""
    count = 0
    try:
        while count < wanted:
            async with asyncio.timeout(READY_S):
                count += '"event":"postgres_changes"' in str(await socket.recv())
    except TimeoutError:
        pass
    return count


def bulk(backend: Backend, count: int) -> None:
    """So many calls in one transaction."""
    with psycopg.connect(backend.dsn, autocommit=True) as database:
        database.execute(
            "insert into calls (call_id, phone_number, direction, status)"
            " select 'vp-' || gen_random_uuid(), '+15550100', 'inbound', 'active' from generate_series(1, %s)",
            (count,),
        )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 1)


def _mib(size: float | None) -> float | None:
    return None if size is None else round(size, 1)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
