"""The embedded stack as somebody else's: other names and units at the exporter, in Prometheus, in its rules and in the tables; and a target file."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml

from harness.model import Target
from harness.stack.embedded import RunningStack
from harness.stack.exposition import multiplied
from harness.stack.proxy import Answer, Forward, Proxy, Request

METRICS: dict[str, Any] = {
    "voice_agent_ttfw_seconds": {"name": "my_ttfw_ms", "unit": "ms"},
    "voice_agent_turns_total": {"name": "bot_turns", "labels": {"role": "speaker"}, "values": {"role": {"assistant": "bot"}}},
    "voice_agent_tool_calls_total": "bot_tools",
    "voice_agent_active_calls": "bot_calls_live",
    "voice_agent:ttfw_seconds:p95": {"name": "team:ttfw:p95", "unit": "ms"},
    "voice_agent:ttfw_seconds:p50": {"name": "team:ttfw:p50", "unit": "ms"},
    "voice_agent:ttfw_seconds:mean": {"name": "team:ttfw:mean", "unit": "ms"},
}
TABLES: dict[str, Any] = {
    "calls": {
        "name": "call_log",
        "columns": {
            "call_id": "conversation",
            "duration_seconds": {"name": "length_ms", "unit": "ms"},
            "status": {"name": "state", "values": {"completed": "done"}},
            "end_time": "ended",
        },
    },
    "transcripts": {"name": "utterances", "columns": {"call_id": "conversation", "content": "words", "role": "speaker"}},
    "tool_executions": {"name": "actions", "columns": {"call_id": "conversation", "tool_name": "what"}},
}
NAMED: dict[str, Any] = {
    "exclusive": True,
    "metrics": METRICS,
    "tables": TABLES,
    "absent": {"realtime": "it publishes no changes of views"},
}
"""The sections of a target file that say all of that."""
_VIEWS = """
create view public.call_log with (security_invoker = true) as
  select id, call_id as conversation, duration_seconds * 1000 as length_ms, end_time as ended, start_time, room_name,
    case status when 'completed' then 'done' else status end as state from public.calls;
create view public.utterances with (security_invoker = true) as
  select id, call_id as conversation, content as words, role as speaker, "timestamp" from public.transcripts;
create view public.actions with (security_invoker = true) as
  select id, call_id as conversation, tool_name as what, parameters, success, executed_at from public.tool_executions;
grant select on public.call_log, public.utterances, public.actions to voxproof_judge, service_role;
notify pgrst, 'reload schema';
"""


def exposition(text: str) -> str:
    """The agent's text as this team exports it."""
    return _words(_in_ms(text, "voice_agent_ttfw_seconds"))


def _in_ms(text: str, metric: str) -> str:
    """Bounds and sum of a histogram times 1000."""
    text = re.sub(rf'({metric}_bucket\{{.*?le=")([0-9.e+-]+)"', lambda found: f'{found[1]}{float(found[2]) * 1000:.12g}"', text)
    return re.sub(rf"^({metric}_sum(?:\{{.*?\}})? )(\S+)$", lambda found: f"{found[1]}{float(found[2]) * 1000!r}", text, flags=re.MULTILINE)


def _words(text: str) -> str:
    for ours, said in METRICS.items():
        theirs = said if isinstance(said, str) else str(said["name"])
        text = re.sub(rf"\b{re.escape(ours)}(?=(_bucket|_sum|_count)?\b)", theirs, text)
    return re.sub(r'role="assistant"', 'speaker="bot"', text).replace('role="user"', 'speaker="user"')


class Lie:
    """What the exporter says falsely, from now on."""

    def __init__(self) -> None:
        self.by: float | None = None

    def __call__(self, request: Request, forward: Forward) -> Answer | None:
        answer = forward(request)
        if answer.status != 200:
            return answer
        text = answer.body.decode()
        if self.by is not None:
            text = multiplied(text, "voice_agent_ttfw_seconds", self.by)
        return Answer(status=200, headers=answer.headers, body=exposition(text).encode())


@contextmanager
def renamed(stack: RunningStack) -> Iterator[tuple[str, Lie]]:
    """The address of the agent's exporter under its other names, known to Prometheus; rules and tables are renamed as well."""
    lie = Lie()
    proxy = Proxy(str(stack.target.agent_metrics_url).removesuffix("/metrics"), lie)
    try:
        _rename_in_prometheus(stack, proxy.address)
        with psycopg.connect(stack.database.dsn(), autocommit=True) as connection:
            connection.execute(_VIEWS)
        yield f"http://{proxy.address}/metrics", lie
    finally:
        proxy.close()


def _rename_in_prometheus(stack: RunningStack, address: str) -> None:
    flags = httpx.get(f"{stack.target.prometheus_url}/api/v1/status/flags", trust_env=False).json()["data"]
    directory = Path(flags["config.file"]).parent
    for path in (directory / "rules").glob("*.yml"):
        path.write_text(_words(path.read_text()))
    (directory / "targets" / "voice-agent.yml").write_text(yaml.safe_dump([{"targets": [address]}]))
    os.kill(stack.pids()["prometheus"], signal.SIGHUP)
    until = time.monotonic() + 30
    # The old name is gone, the new one has been scraped, and one more scrape is past: no sample of the old one lies beside the load.
    while _scraped(stack) != {address}:
        assert time.monotonic() < until, f"prometheus scrapes {_scraped(stack)}, wanted {address}"
        time.sleep(0.2)
    time.sleep(1.5)


def _scraped(stack: RunningStack) -> set[str]:
    """Addresses of the agent's exporters that Prometheus has scraped with success."""
    found = httpx.get(f"{stack.target.prometheus_url}/api/v1/targets", trust_env=False).json()["data"]["activeTargets"]
    return {each["labels"]["instance"] for each in found if each["labels"]["job"] == "voice-agent" and each["health"] == "up"}


def target_file(directory: Path, target: Target, **changes: Any) -> tuple[Path, dict[str, str]]:
    """A target file for the stack as it is, and the variables that it names. changes: sections that are otherwise."""
    sections: dict[str, Any] = {
        "name": "theirs",
        "livekit": {"url": target.livekit_url, "metrics_url": target.sfu_metrics_url},
        "agent": {"metrics_url": target.agent_metrics_url},
        "prometheus": {"url": target.prometheus_url},
        "supabase": {"url": target.supabase_url, "token_env": "SUPABASE_JUDGE_TOKEN"},
        **changes,
    }
    path = directory / "target.yaml"
    path.write_text(yaml.safe_dump({name: said for name, said in sections.items() if said is not None}, sort_keys=False))
    return path, environment(target)


def environment(target: Target) -> dict[str, str]:
    """The credentials of the stack, as a person exports them."""
    return {
        "LIVEKIT_API_KEY": target.livekit_api_key,
        "LIVEKIT_API_SECRET": target.livekit_api_secret,
        "SUPABASE_SERVICE_KEY": str(target.supabase_key),
        "SUPABASE_JUDGE_TOKEN": str(target.supabase_token),
    }
