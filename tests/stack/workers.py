"""Workers of the reference agent on a stack that was started without one, and a database before them that fails in three ways."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from harness.clock import Clock
from harness.model import Target, value
from harness.stack import agent, ports
from harness.stack.home import home_dir
from harness.stack.ports import LOOPBACK
from harness.stack.provision import obtain
from harness.stack.proxy import Answer, Forward, Request
from harness.stack.supervise import Supervisor
from harness.stack.wiring import REPOSITORY

Series = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""An exporter's samples by name and sorted labels."""


class Worker:
    """One worker under a name of its own, so that each call reaches the one that it is meant for."""

    def __init__(
        self, name: str, target: Target, directory: Path, exits: ExitStack, *, supabase_url: str | None = None, **extra: str
    ) -> None:
        self.name = name
        self.supervisor = exits.enter_context(Supervisor(logs=directory / name, clock=Clock.start()))
        self.log = directory / name / "agent.log"
        self._metrics_port = ports.free(("metrics",))["metrics"]
        assert target.supabase_url is not None
        assert target.supabase_key is not None
        self._env = agent.environment(
            repository=REPOSITORY,
            livekit=(target.livekit_url, target.livekit_api_key, target.livekit_api_secret),
            supabase=(supabase_url or target.supabase_url, target.supabase_key),
            health_port=ports.free(("health",))["health"],
            metrics_port=self._metrics_port,
            extra={"AGENT_NAME": name, **extra},
        )

    def start(self) -> None:
        """Returns when it is registered. Raises StackError if it gave up."""
        python = obtain("agent-python", home=home_dir(), progress=lambda _line: None).path
        agent.start(self.supervisor, python, repository=REPOSITORY, env=self._env)

    def job_pid(self, room: str) -> int:
        """Process of the job that is in that room, under the PROCESS executor."""
        (pid,) = {
            said["pid"]
            for said in map(json.loads, self.log.read_text().splitlines())
            if said["message"] == "RoomIO linked to participant" and said["room"] == room
        }
        return int(pid)

    def series(self) -> Series:
        """What its exporter says now."""
        text = httpx.get(f"http://{LOOPBACK}:{self._metrics_port}/metrics", timeout=5, trust_env=False).text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def end(self, *, number: int | None = None) -> float:
        """Seconds until it was gone."""
        began = time.monotonic()
        self.supervisor.end("agent", number=number)
        return time.monotonic() - began


@value
class Rows:
    """What the database holds of one call, in the order in which it arrived."""

    calls: tuple[Mapping[str, Any], ...]
    transcripts: tuple[Mapping[str, Any], ...]
    tool_executions: tuple[Mapping[str, Any], ...]

    @property
    def call(self) -> Mapping[str, Any]:
        (only,) = self.calls
        return only

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(row["role"], row["content"]) for row in self.transcripts]


class Database:
    """Read and asked past the proxy."""

    def __init__(self, target: Target, exits: ExitStack) -> None:
        assert target.supabase_url is not None
        assert target.supabase_key is not None
        headers = {"apikey": target.supabase_key, "authorization": f"Bearer {target.supabase_key}"}
        client = httpx.Client(base_url=f"{target.supabase_url}/rest/v1", headers=headers, timeout=5, trust_env=False)
        self._client = exits.enter_context(client)

    def rows(self, call_id: str) -> Rows:
        def table(name: str) -> tuple[Mapping[str, Any], ...]:
            return tuple(
                self._client.get(f"/{name}", params={"call_id": f"eq.{call_id}", "order": "recorded_at"}).raise_for_status().json()
            )

        return Rows(calls=table("calls"), transcripts=table("transcripts"), tool_executions=table("tool_executions"))

    def rows_when(self, call_id: str, are_enough: Callable[[Rows], bool], *, timeout_s: float = 15) -> Rows:
        """The rows as soon as they are enough, or as they are when the patience ends."""
        until = time.monotonic() + timeout_s
        while not are_enough(found := self.rows(call_id)) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def end_dead_calls(self, max_silence: str) -> list[str]:
        """Ids of the calls that it ended."""
        return list(self._client.post("/rpc/end_dead_calls", json={"max_silence": max_silence}).raise_for_status().json())


class Faults:
    """A rule of `Proxy`: what becomes of a write depends on the call that it belongs to."""

    def __init__(self, *, shaky: str, late: str, gone: str) -> None:
        self._shaky, self._late, self._gone = shaky, late, gone
        self._attempts: Counter[tuple[str, str, bytes]] = Counter()
        self.is_back = threading.Event()
        """From then on the late call's writes pass."""

    def __call__(self, request: Request, forward: Forward) -> Answer | None:
        call_id = _call_id(request)
        self._attempts[request.method, request.path, request.body] += 1
        attempt = self._attempts[request.method, request.path, request.body]
        if call_id == self._gone or (call_id == self._shaky and attempt == 1):
            return Answer(status=500, headers={}, body=b"")
        if call_id == self._late and not self.is_back.is_set():
            raise ConnectionAbortedError
        answer = forward(request)
        if call_id == self._shaky and attempt == 2:
            # Written, and nobody learns of it.
            raise ConnectionAbortedError
        return answer


def _call_id(request: Request) -> str:
    if request.method == "POST":
        return str(json.loads(request.body)["call_id"])
    return urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)["call_id"][0].removeprefix("eq.")
