"""The contract by supabase-js in node: what the dashboard's client makes of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from harness.stack import node
from harness.stack.home import home_dir
from harness.stack.workshop import Workshop
from tests.contract.project import Project

pytestmark = pytest.mark.stack
SCRIPT = Path(__file__).with_name("client.mjs")
CHECKS = tuple(re.findall(r'^  "([^"]+)": async', SCRIPT.read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def results(project: Project) -> dict[str, str | None]:
    """What was wrong with each check. None: nothing."""
    shop = Workshop(home=home_dir(), environ=os.environ, progress=lambda _line: None, stop=threading.Event())
    executable, modules = node.supabase_js(shop)
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "SUPABASE_JS": str(modules),
        "URL": project.url,
        "ANON_KEY": project.anon_key,
        "SERVICE_KEY": project.service_key,
        "EMAIL": project.email,
        "PASSWORD": project.password,
    }
    ran = subprocess.run([executable, SCRIPT], env=env, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    return {each["name"]: each["error"] for each in said}


@pytest.mark.parametrize("check", CHECKS)
def test_by_supabase_js(results: dict[str, str | None], check: str) -> None:
    """Each check of ``client.mjs``."""
    assert results[check] is None
