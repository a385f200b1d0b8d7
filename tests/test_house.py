"""What may not be in the repository, and what every module must have."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("harness", "assertions", "reports", "benchmarks", "telemetry", "deploy", "fixtures", "tests")
NO_HOME = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "handler"}
MACHINE_PATHS = re.compile(r"(?<![\w.*])/(?:work|root|home/[a-z]\w*|Users/\w+)/")
REGISTRIES = re.compile(
    r"\b(?:files\.pythonhosted|pypi|registry\.npmjs|proxy\.golang|sum\.golang|deb\.debian|repo\.maven\.apache)\.(?:org|com)\b"
)
BINARY = {".wav", ".ogg", ".opus", ".png", ".gz", ".bin", ".pcap", ".woff2"}
KEYS = re.compile(r"\beyJ[\w-]{20,}\.[\w-]{20,}\.[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----")
JUDGES = {"tests/test_house.py"}
"""This file spells what it forbids."""


@cache
def tracked() -> tuple[str, ...]:
    """Every file that git holds and the working tree has."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return tuple(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def texts() -> list[str]:
    """The tracked files that are text."""
    return [name for name in tracked() if Path(name).suffix not in BINARY and name not in JUDGES]


def found(pattern: re.Pattern[str], names: list[str]) -> list[str]:
    """``file:line`` of every match."""
    places = []
    for name in names:
        if pattern.search(text := read(name)):  # a file is read line by line only to say where
            places += [f"{name}:{number}" for number, line in enumerate(text.splitlines(), start=1) if pattern.search(line)]
    return places


@cache
def read(name: str) -> str:
    """The text of a file."""
    return (ROOT / name).read_text(errors="replace")


def python_files() -> list[str]:
    """Our own modules."""
    return [name for name in tracked() if name.endswith(".py") and name.split("/")[0] in PACKAGES]


def test_no_file_names_a_machine() -> None:
    """Recorded runs and logs included: a path of the machine that made it says nothing on another."""
    assert found(MACHINE_PATHS, texts()) == []


def test_no_file_names_a_registry_host() -> None:
    """Whoever installs has their own."""
    assert found(REGISTRIES, texts()) == []


def test_no_file_holds_a_credential() -> None:
    """No signed token, no private key; recorded runs included."""
    assert found(KEYS, texts()) == []


def test_the_lock_is_the_hashed_requirements_file() -> None:
    """uv.lock writes registry addresses down."""
    assert [name for name in tracked() if Path(name).name == "uv.lock"] == []


def test_npm_locks_hold_no_addresses() -> None:
    """``resolved`` would pin the registry of the machine that made the lock."""
    for name in tracked():
        if Path(name).name == "package-lock.json":
            packages = json.loads((ROOT / name).read_text())["packages"]
            assert [key for key, package in packages.items() if "resolved" in package and not package.get("link")] == [], name


@pytest.mark.parametrize("name", python_files())
def test_every_module_says_what_it_is_for(name: str) -> None:
    """In the first sentence of its docstring."""
    text = read(name)
    if Path(name).name == "__init__.py" and not text.strip():
        return

    assert ast.get_docstring(ast.parse(text)), f"{name} has no docstring"


def test_no_module_is_named_after_nothing() -> None:
    """If it has no name, it has no home yet."""
    assert [name for name in python_files() if Path(name).stem in NO_HOME] == []


def test_every_test_states_its_fact() -> None:
    """In a docstring: what must be so."""
    silent = [
        f"{name}::{node.name}"
        for name in python_files()
        if name.startswith("tests/")
        for node in ast.walk(ast.parse(read(name)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert silent == []


def test_steps_look_at_series_where_it_is_noted() -> None:
    """By `Reader.series` and its like: a lie about what was looked at otherwise would be judged by what was made before it."""
    looking = [name for name in python_files() if name.startswith("assertions/")]

    assert found(re.compile(r"\.timelines\b"), looking) == []
