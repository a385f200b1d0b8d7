"""A target's names and units into ours, once, where they are read: whoever judges knows ours only. Requests keep what was really asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.collect.series import HISTOGRAM
from harness.model import Names, Naming, TableNaming

_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_ENDINGS = ("", *HISTOGRAM)


class Translator:
    """The names of one target."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._ours: dict[str, list[tuple[str, Naming]]] = {}
        """By the name of their series: ours, and how it differs."""
        for ours, naming in names.metrics.items():
            for ending in _ENDINGS:
                self._ours.setdefault(naming.name + ending, []).append((ours + ending, naming))
            if ours.endswith("_total") and not naming.name.endswith("_total"):
                # What reads an exposition gives a counter the ending that OpenMetrics wants.
                self._ours.setdefault(f"{naming.name}_total", []).append((ours, naming))
        self._taken = frozenset(ours + ending for ours in names.metrics for ending in _ENDINGS)
        """Our names of what they call otherwise: who uses them there means something else."""

    def selector(self, patterns: Sequence[str]) -> str:
        """A selector of all series that match one of our ``patterns``, by the names that the target gives them."""
        known = re.compile("|".join(patterns))
        theirs = (name for name, found in self._ours.items() if any(known.fullmatch(ours) for ours, _ in found))
        names = "|".join((*patterns, *(name.replace(".", "[.]") for name in dict.fromkeys(theirs) if not known.fullmatch(name))))
        matchers = "".join(f',{label}="{text}"' for label, text in self._names.match.items())
        return f'{{__name__=~"{names}"{matchers}}}'

    def series(self, name: str, labels: Mapping[str, str], number: float) -> tuple[str, Mapping[str, str], float] | None:
        """Name, labels and value of a sample of theirs in our words. None: it is none of ours, whatever it is called."""
        found = self._ours.get(name)
        if found is None:
            return None if name in self._taken else (name, labels, number)
        for ours, naming in found:
            if naming.where.items() <= labels.items():
                return ours, _labels(labels, naming, ours), number if ours.endswith(("_bucket", "_count")) else number * naming.scale
        return None

    def expression(self, theirs: str) -> str:
        """A PromQL expression of theirs with our names of series and labels; it says the same where all its series have one unit."""
        words = {name: found[0][0] for name, found in self._ours.items() if len(found) == 1}
        words |= {label: ours for naming in self._names.metrics.values() for ours, label in naming.labels.items()}
        return _WORD.sub(lambda found: words.get(found[0], found[0]), theirs)

    def unlike(self, theirs: str) -> str | None:
        """Why an expression of theirs, in our words, does not say the same of our series. None: it does."""
        for name, found in self._read_by(theirs):
            ours, naming = found[0]
            if len(found) > 1 or naming.where:
                return f"{name} holds other series, too"
            if naming.scale != 1.0 and not ours.endswith("_count"):
                return f"{name} has another unit than ours"
            for label in naming.values:
                if re.search(rf"\b{naming.labels.get(label, label)}\s*[=!]", theirs):
                    return f"the values of {naming.labels.get(label, label)} are called otherwise"
        return None

    def answered(self, theirs: str, labels: Mapping[str, str]) -> Mapping[str, str]:
        """Labels of an answer to an expression of theirs, with their values, in our words."""
        for _, found in self._read_by(theirs):
            for ours, naming in found:
                labels = {
                    **_labels(labels, naming, ours.removesuffix("_bucket")),
                    **{name: labels[name] for name in naming.where if name in labels},
                }
        return labels

    def computed(self, of: Sequence[str], where: Mapping[str, str]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """Metrics of theirs, and labels of them with their values, in our words."""
        namings = [found for name in of for _, found in self._ours.get(name, ())]
        told = [self._ours[name][0][0] if len(self._ours.get(name, ())) == 1 else name for name in of]
        for naming in namings:
            where = _labels(where, naming, "")
        return tuple(told), where

    def _read_by(self, theirs: str) -> Iterator[tuple[str, list[tuple[str, Naming]]]]:
        for word in dict.fromkeys(_WORD.findall(theirs)):
            if found := self._ours.get(word):
                yield word, found

    def table(self, ours: str) -> str:
        """What they call a table of ours."""
        return self._table(ours).name

    def column(self, table: str, ours: str) -> str:
        """What they call a column of ours."""
        naming = self._table(table).columns.get(ours)
        return naming.name if naming else ours

    def row(self, table: str, columns: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row of theirs with our columns. Columns that we do not know stay as they are."""
        named = self._table(table).columns
        theirs = {naming.name for naming in named.values()}
        kept = {name: said for name, said in columns.items() if name not in theirs and name not in named}
        return {**kept, **{ours: _cell(columns[naming.name], naming) for ours, naming in named.items() if naming.name in columns}}

    def ours(self, table: str) -> str:
        """Our name of a table of theirs."""
        return next((ours for ours, naming in self._names.tables.items() if naming.name == table), table)

    def _table(self, ours: str) -> TableNaming:
        return self._names.tables.get(ours) or TableNaming(name=ours)


def _labels(labels: Mapping[str, str], naming: Naming, ours: str) -> Mapping[str, str]:
    words = {theirs: label for label, theirs in naming.labels.items()}
    told = {words.get(label, label): text for label, text in labels.items() if label not in naming.where}
    for label, values in naming.values.items():
        spoken = {theirs: word for word, theirs in values.items()}
        if label in told:
            told[label] = spoken.get(told[label], told[label])
    if ours.endswith("_bucket") and naming.scale != 1.0 and "le" in told:
        told["le"] = f"{float(told['le']) * naming.scale:.12g}".replace("inf", "+Inf")
    return told


def _cell(said: Any, naming: Naming) -> Any:
    spoken = {theirs: word for word, theirs in naming.values.get("", {}).items()}
    if isinstance(said, str):
        word = spoken.get(said, said)
        return {"true": True, "false": False}.get(word, word) if said in spoken else word
    if isinstance(said, int | float) and not isinstance(said, bool) and naming.scale != 1.0:
        return said * naming.scale
    return said


OURS = Translator(Names())
"""Of a target that calls everything as we do."""
