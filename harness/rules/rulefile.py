"""A rule file as YAML with its lines: groups and rules as plain data, each where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UsageError
from harness.model import value

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it was built in: ten times as fast."""


@value
class Entry:
    """One rule, with the group that holds it."""

    group: Mapping[str, Any]
    rule: Mapping[str, Any]
    line: int


def entries(path: Path) -> Iterator[Entry]:
    """Every rule of the file, in order. Raises UsageError naming the file for text that is no rule file."""
    try:
        document = yaml.compose(path.read_text(), Loader=_LOADER)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror or exc}") from exc
    except yaml.YAMLError as exc:
        raise UsageError(f"{path}: not YAML: {exc}") from exc
    if document is None:
        raise UsageError(f"{path}: empty; wanted a rule file with groups")
    # Kubernetes' PrometheusRule has the same below spec.
    groups = _entry(document, "groups") or _entry(_entry(document, "spec"), "groups")
    if not isinstance(groups, yaml.SequenceNode):
        raise UsageError(f"{path}: no list 'groups'; wanted a rule file (a dashboard's name ends in .json)")
    for group in groups.value:
        rules = _entry(group, "rules")
        plain = _plain(group)
        for node in rules.value if isinstance(rules, yaml.SequenceNode) else ():
            yield Entry(group=plain, rule=_plain(node), line=node.start_mark.line + 1)


def _entry(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((found for name, found in node.value if name.value == key), None)


def _plain(node: yaml.Node) -> dict[str, Any]:
    found = yaml.constructor.SafeConstructor().construct_document(node)
    return found if isinstance(found, dict) else {}
