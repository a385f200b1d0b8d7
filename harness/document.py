"""YAML files held against a declared shape: plain data and its lines out, or one sentence with file and line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from harness.errors import UsageError
from harness.model import value

Path = tuple[str | int, ...]
"""Where something stands in a document: ``("turns", 0, "prompt")``."""


@value
class Text:
    """A string."""

    choices: tuple[str, ...] = ()
    """What it may be. Empty: anything but the empty string."""


@value
class Number:
    """A number; whole or not."""

    is_whole: bool = False
    at_least: float | None = None
    at_most: float | None = None


@value
class Yes:
    """true or false."""


@value
class Listing:
    """A list of one shape."""

    of: Shape


@value
class Free:
    """A mapping whose keys are the user's."""


@value
class Entries:
    """A mapping whose keys are the user's and whose values have one shape."""

    of: Shape


@value
class Key:
    """One key of a table."""

    shape: Shape
    says: str
    """What it means, for the JSON Schema."""
    is_required: bool = False


@value
class Table:
    """A mapping with known keys."""

    keys: Mapping[str, Key]


@value
class Either:
    """A text, or a table that says more."""

    text: Text
    table: Table


Shape = Text | Number | Yes | Listing | Free | Entries | Table | Either


@value
class Document:
    """A file that fits its shape."""

    file: str
    data: Mapping[str, Any]
    lines: Mapping[Path, int]

    def where(self, *path: str | int) -> str:
        """``scenarios/burst.yaml:14``: the line of what stands at ``path``, or of its nearest parent."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.file}:{self.lines.get(path, 1)}"


def parse(text: str, *, file: str, shape: Table) -> Document:
    """The document in ``text``.

    Raises UsageError with file and line: not YAML, an unknown key and the nearest known one, a missing key, a wrong type.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        msg = f"{file}:{line}: not YAML: {exc.problem}"
        raise UsageError(msg) from exc
    except yaml.YAMLError as exc:
        msg = f"{file}:1: not YAML: {str(exc).splitlines()[0]}"
        raise UsageError(msg) from exc
    if root is None:
        msg = f"{file}:1: the file is empty; wanted the keys {_names(shape)}"
        raise UsageError(msg)
    reader = _Reader(file)
    data = reader.read(root, shape, ())
    return Document(file=file, data=data, lines=reader.lines)


def json_schema(shape: Shape) -> dict[str, Any]:
    """The JSON Schema of ``shape``, for editors."""
    match shape:
        case Text(choices=()):
            return {"type": "string", "minLength": 1}
        case Text(choices=choices):
            return {"enum": list(choices)}
        case Number():
            limits = {"minimum": shape.at_least, "maximum": shape.at_most}
            return {"type": "integer" if shape.is_whole else "number"} | {
                name: limit for name, limit in limits.items() if limit is not None
            }
        case Yes():
            return {"type": "boolean"}
        case Listing():
            return {"type": "array", "items": json_schema(shape.of)}
        case Free():
            return {"type": "object"}
        case Entries():
            return {"type": "object", "additionalProperties": json_schema(shape.of)}
        case Either():
            return {"oneOf": [json_schema(shape.text), json_schema(shape.table)]}
        case Table():
            return {
                "type": "object",
                "additionalProperties": False,
                "required": [name for name, key in shape.keys.items() if key.is_required],
                "properties": {name: {"description": key.says} | json_schema(key.shape) for name, key in shape.keys.items()},
            }


class _Reader:
    """One walk over the nodes of one file."""

    def __init__(self, file: str) -> None:
        self.lines: dict[Path, int] = {}
        self._file = file

    def read(self, node: yaml.Node, shape: Shape, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        match shape:
            case Table():
                return self._table(node, shape, path)
            case Either():
                return self.read(node, shape.text if isinstance(node, yaml.ScalarNode) else shape.table, path)
            case Listing():
                if not isinstance(node, yaml.SequenceNode):
                    raise self._wrong(node, path, "a list")
                return tuple(self.read(item, shape.of, (*path, index)) for index, item in enumerate(node.value))
            case Free():
                if not isinstance(node, yaml.MappingNode):
                    raise self._wrong(node, path, "a mapping")
                return _plain(node)
            case Entries():
                return self._entries(node, shape, path)
            case Text():
                return self._text(node, shape, path)
            case Number():
                return self._number(node, shape, path)
            case Yes():
                found = _plain(node) if isinstance(node, yaml.ScalarNode) else None
                if not isinstance(found, bool):
                    raise self._wrong(node, path, "true or false")
                return found

    def _table(self, node: yaml.Node, shape: Table, path: Path) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, path, f"a mapping with the keys {_names(shape)}")
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            name = str(key_node.value)
            line = key_node.start_mark.line + 1
            if name not in shape.keys:
                raise UsageError(f"{self._file}:{line}: unknown key '{name}'; {nearest(name, shape.keys)}")
            if name in found:
                raise UsageError(f"{self._file}:{line}: key '{name}' stands here twice; delete one")
            self.lines[(*path, name)] = line
            found[name] = self.read(value_node, shape.keys[name].shape, (*path, name))
        for name, key in shape.keys.items():
            if key.is_required and name not in found:
                line = node.start_mark.line + 1
                raise UsageError(f"{self._file}:{line}: {_inside(path)}key '{name}' is missing: {key.says}")
        return found

    def _entries(self, node: yaml.Node, shape: Entries, path: Path) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, path, "a mapping")
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            name = str(key_node.value)
            line = key_node.start_mark.line + 1
            if name in found:
                raise UsageError(f"{self._file}:{line}: key '{name}' stands here twice; delete one")
            self.lines[(*path, name)] = line
            found[name] = self.read(value_node, shape.of, (*path, name))
        return found

    def _text(self, node: yaml.Node, shape: Text, path: Path) -> str:
        wanted = "one of " + ", ".join(shape.choices) if shape.choices else "a text"
        text = _plain(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(text, str) or not text or (shape.choices and text not in shape.choices):
            raise self._wrong(node, path, wanted)
        return text

    def _number(self, node: yaml.Node, shape: Number, path: Path) -> float:
        number = _plain(node) if isinstance(node, yaml.ScalarNode) else None
        if (
            not isinstance(number, int | float)
            or isinstance(number, bool)
            or (shape.is_whole and isinstance(number, float))
            or (shape.at_least is not None and not number >= shape.at_least)
            or (shape.at_most is not None and not number <= shape.at_most)
        ):
            raise self._wrong(node, path, _wanted_number(shape))
        return number

    def _wrong(self, node: yaml.Node, path: Path, wanted: str) -> UsageError:
        got = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
        return UsageError(f"{self._file}:{node.start_mark.line + 1}: {_inside(path)}wanted {wanted}, got {got}")


def _plain(node: yaml.Node) -> Any:
    return yaml.constructor.SafeConstructor().construct_document(node)


def _wanted_number(shape: Number) -> str:
    limits = [
        *((f"at least {shape.at_least:g}",) if shape.at_least is not None else ()),
        *((f"at most {shape.at_most:g}",) if shape.at_most is not None else ()),
    ]
    return ("a whole number" if shape.is_whole else "a number") + (" of " if limits else "") + " and ".join(limits)


def _inside(path: Path) -> str:
    """``turns[0].prompt: ``; nothing at the top."""
    said = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
    return f"{said}: " if said else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """What may have been meant, or what there is."""
    words = tuple(known)
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(words)}"


def _names(shape: Table) -> str:
    return ", ".join(shape.keys)
