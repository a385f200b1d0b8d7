"""The endpoint that the reference agent's tools call."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from harness.stack.tool_endpoint import LOG, ToolEndpoint


def asked(tmp_path: Path, content: bytes) -> tuple[httpx.Response, list[dict[str, object]]]:
    """What one request was answered, and what was written down of it."""
    endpoint = ToolEndpoint(tmp_path / LOG, delay_s=0.0)
    try:
        answer = httpx.post(f"{endpoint.url}/lookup_weather", content=content, trust_env=False)
    finally:
        endpoint.close()
    return answer, [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]


def test_a_tool_that_ran_is_written_down_before_it_is_answered(tmp_path: Path) -> None:
    """Its name, its arguments, whose call it was, and how long it took."""
    answer, (line,) = asked(tmp_path, json.dumps({"room": "room-1", "arguments": {"city": "London"}}).encode())

    assert answer.json() == {"output": "sunny in London"}
    assert (line["tool_name"], line["room"], line["arguments"], line["status"]) == ("lookup_weather", "room-1", {"city": "London"}, 200)
    assert isinstance(line["took_s"], float)


def test_what_is_no_call_of_a_tool_is_refused(tmp_path: Path) -> None:
    """Nothing ran, and nothing is written down."""
    answer, lines = asked(tmp_path, b"[]")

    assert (answer.status_code, lines) == (400, [])
