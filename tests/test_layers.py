"""Imports point inward: nouns, arithmetic, the pure rooms, edges, the path, the faces."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (0, ("harness.model", "harness.clock", "harness.errors", "harness.codec")),
    (1, ("harness.measure", "harness.rules", "harness.document")),
    (
        2,
        (
            *("assertions", "reports", "harness.load.schedule"),
            *("harness.caller.signaling", "harness.caller.dialogue", "harness.caller.records", "harness.caller.impairment"),
        ),
    ),
    (3, ("harness.scenario", "harness.target", "harness.rundir", "harness.profiles", "harness.sound")),
    (3, ("harness.door", "harness.vocabulary", "harness.survey", "harness.coverage", "harness.cleanup")),
    (3, ("harness.caller", "harness.load", "harness.collect", "harness.stack")),
    (4, ("harness.check", "harness.run", "harness.drill", "harness.calibrate", "harness.history", "harness.watch")),
    (5, ("harness.cli", "harness.verbs", "harness.pytest_plugin", "harness.load.locustfile")),
)
"""Layer of a module by the longest of these names that it starts with."""
NOUNS, ARITHMETIC, PURE, EDGES, PATH, FACES, HOMELESS = range(7)
ROOMS = ("caller", "load", "collect", "stack")
"""Edges that do not import each other: values are passed in."""
EDGE_VALUES = (
    *("harness.document", "harness.profiles", "harness.scenario", "harness.target", "harness.rundir", "harness.sound"),
    *("harness.survey", "harness.coverage", "harness.cleanup"),
    *("harness.door", "harness.vocabulary", "harness.collect.series", "harness.collect.naming"),
)
"""Files that an edge reads or writes, doors and names that edges share; each stands alone."""
CLIENTS = {
    NOUNS: frozenset[str](),
    ARITHMETIC: frozenset({"numpy", "promql_parser", "yaml"}),
    PURE: frozenset({"jinja2", "markupsafe", "livekit.protocol"}),
}
"""What a layer may import beside the standard library and what those below it may; edges import the client of their own system."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the product, by its dotted name."""
    for package in ("harness", "assertions", "reports"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "runs" in path.parts:
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a module's syntax tree."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Dotted names that a module imports, wherever in it; for ``from a import b`` both ``a`` and ``a.b`` if ``b`` is a module."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in nodes(path):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                inner = [f"{module}.{alias.name}" for alias in names if is_module(f"{module}.{alias.name}")]
                yield from inner or [module]


def is_module(name: str) -> bool:
    """A module or package of the product."""
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place.is_dir() and name.split(".")[0] in ("harness", "assertions", "reports"))


def layer(module: str) -> int:
    """How far out a module lives; farther than everything if no room was found for it."""
    if module == "harness":
        return NOUNS
    found = [(len(name), number) for number, names in LAYERS for name in names if f"{module}.".startswith(f"{name}.")]
    return max(found)[1] if found else HOMELESS


MODULES = dict(modules())


def test_every_module_has_a_layer() -> None:
    """A new one is given its room in LAYERS."""
    assert [name for name in MODULES if layer(name) == HOMELESS] == []


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_outward(module: str) -> None:
    """Every import stays in its layer or goes further in."""
    ours = [name for name in imports(MODULES[module]) if name.split(".")[0] in ("harness", "assertions", "reports")]

    assert [name for name in ours if layer(name) > layer(module)] == []


@pytest.mark.parametrize("module", [name for name in MODULES if layer(name) == EDGES])
def test_no_edge_imports_another(module: str) -> None:
    """Each edge talks to one system; what it needs of another is passed in as a value."""
    room = _room(module)
    others = [name for name in imports(MODULES[module]) if name.startswith("harness") and layer(name) == EDGES]

    assert [name for name in others if _room(name) not in (room, None)] == []


@pytest.mark.parametrize("module", [name for name in MODULES if layer(name) <= PURE])
def test_inner_layers_import_few_packages(module: str) -> None:
    """The standard library, and what they calculate, parse and draw with."""
    allowed = frozenset().union(*(CLIENTS[number] for number in range(layer(module) + 1)))
    known = sys.stdlib_module_names | {"harness", "assertions", "reports"}
    foreign = {name for name in imports(MODULES[module]) if name.split(".")[0] not in known}

    assert {name for name in foreign if not any(f"{name}.".startswith(f"{package}.") for package in allowed)} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("assertions")])
def test_assertions_know_nouns_and_arithmetic_only(module: str) -> None:
    """A claim can be read without a socket, a file or a page in sight."""
    ours = {name for name in imports(MODULES[module]) if name.split(".")[0] in ("harness", "reports")}

    assert {name for name in ours if layer(name) > ARITHMETIC} == set()


def test_locust_is_imported_in_one_place() -> None:
    """Importing it monkey-patches the process."""
    importers = {module for module, path in MODULES.items() if any(name.split(".")[0] == "locust" for name in imports(path))}

    assert importers <= {"harness.load.locustfile"}


def test_the_wall_clock_is_read_in_one_place() -> None:
    """Every instant comes from harness.clock."""
    readers = {
        module
        for module, path in MODULES.items()
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and node.attr in ("time", "time_ns")
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    }

    assert readers == {"harness.clock"}


def _room(module: str) -> str | None:
    """The edge a module belongs to. None: a file that edges share."""
    if module.startswith(EDGE_VALUES):
        return None
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None
