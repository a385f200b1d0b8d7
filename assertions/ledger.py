"""The kernel of the ledger: what each hop may say given what its source really said, and which hop made a false one.

A step maps the set of things its source may have said to the set of things an honest hop may say. A hop that was read narrows the set to what it
said, so a defect is blamed once, and the hops behind it are faithful; one that could not be read passes its set on, and blame falls on the span.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from harness.measure.series import Looked, Reader
from harness.model import Gap, Light, Status, value

Key = tuple[str, ...]
"""One thing that a hop says: ``("le", "1")``, ``("sum",)``, ``("row", call, "user", "2")``. The first word is its kind."""


@value
class Range:
    """One number in the quantity's unit; lo == hi: exact."""

    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not self.lo <= self.hi:
            msg = f"a range from {self.lo} to {self.hi} holds nothing"
            raise ValueError(msg)


Thing = Range | frozenset[str]


def exactly(number: float) -> Range:
    """The range that holds one number."""
    return Range(lo=number, hi=number)


@value
class Reading:
    """What a hop says as far as we know: observed and admitted are one type."""

    parts: Mapping[Key, Thing]
    may_lack: frozenset[Key] = frozenset()
    """Keys whose absence is honest here."""
    may_add: frozenset[str] = frozenset()
    """Kinds of which keys that are not listed are honest here."""
    because: tuple[str, ...] = ()
    """Why the sets are as wide as they are."""
    alpha: float = 0.0
    """Probability that an honest hop falls outside; 0: a bound."""

    def number(self, *key: str) -> Range | None:
        """The number at a key. None: nothing is said of it."""
        found = self.parts.get(key)
        return found if isinstance(found, Range) else None


Seen = Reading | Gap
Defect = Callable[[Reader], Reader | None]
"""A lie told by a hop: a copy of what all sources said in which the hop, and the hops that pass its word on, say it. None: nothing to lie about."""


class Kind(enum.StrEnum):
    """How two readings differ at a key."""

    LACKS = "lacks"
    EXTRA = "extra"
    OTHER = "other"


@value
class Difference:
    """The first key that proves that two readings cannot both be."""

    key: Key
    kind: Kind
    admitted: Thing | None
    said: Thing | None


@value
class Step:
    """One arrow of a tree: from a source hop to a claim's hop."""

    claim: str
    source: str
    """Claim of the source hop, or the name of the root."""
    title: str
    """The hop in words."""
    admits: Callable[[Reading, Reader], Reading]
    """Monotone in the reading: more possible sources admit no less. Of the reader it uses instants only, and samples that its source said."""
    read: Callable[[Reader], Seen]
    """What the hop says."""
    defects: Mapping[str, Defect]
    """What the step promises to catch. One that would be admitted leaves it undecided."""
    show: Callable[[Reading], str]
    """A reading in a few words, for the table."""
    explain: Callable[[Difference], str]
    """A difference as a sentence."""
    would_catch: Callable[[Reading, Reading], str]
    """The smallest lie that would be caught, given what is admitted and what was said."""
    needs: str = ""
    """What would decide a run that would not have shown one of the defects."""
    reads: frozenset[str] = frozenset()
    """Names of the series and tables without which it is blind, where those are not all that its tree reads."""
    light: Light = Light.MONITORING
    """Whose fault a difference is: of the agent where a step looks at what it did, not at what is told of it."""


@value
class Tree:
    """One quantity: its truth and its steps, sources before targets."""

    root: str
    truth: Reading
    steps: Sequence[Step]
    reads: frozenset[str]
    """Names of the series and tables that any of its steps reads: a lie about others leaves it as it was."""


@value
class Judgement:
    """One step, judged."""

    step: Step
    status: Status
    since: str
    """The last hop before it that was really read: together they are the span to blame."""
    admitted: Reading
    said: Reading | None
    difference: Difference | None = None
    is_faithful: bool = False
    """It passed on, correctly, what an earlier hop got wrong."""
    gap: Gap | None = None
    admitted_defects: tuple[str, ...] = ()
    """Defects of the step that this evidence would not have shown."""
    defects: tuple[str, ...] = ()
    """Defects of the step that this evidence gives something to lie about."""


class Memory:
    """What the steps of a run made of what they looked at: of a copy that shows all of that as it was, they make the same."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], list[tuple[Looked, Reading | None, Seen]]] = {}
        self._honest: dict[str, tuple[Reading, Reading]] = {}
        """By claim what was admitted and said without a difference, first."""

    def admitted(self, step: Step, given: Reading, reader: Reader) -> Reading:
        """As ``step.admits``."""
        found = self._once((step.claim, "admits"), given, reader, lambda watched: step.admits(given, watched))
        assert isinstance(found, Reading)
        return found

    def seen(self, step: Step, reader: Reader) -> Seen:
        """As ``step.read``."""
        return self._once((step.claim, "read"), None, reader, step.read)

    def difference(self, step: Step, admitted: Reading, said: Reading) -> Difference | None:
        """As `differs`: what is as it was when nothing differed is not looked at again."""
        known = self._honest.get(step.claim)
        if known is not None and admitted.may_add == known[0].may_add:
            return next(_differences(admitted, said, _changed(known, (admitted, said))), None)
        difference = differs(admitted, said)
        if difference is None:
            self._honest.setdefault(step.claim, (admitted, said))
        return difference

    def forget(self) -> None:
        """All but what was made first: of the run as it is."""
        for made in self._made.values():
            del made[1:]

    def _once(self, key: tuple[str, str], given: Reading | None, reader: Reader, make: Callable[[Reader], Seen]) -> Seen:
        made = self._made.setdefault(key, [])
        for looked, of, found in made:
            if of is given and reader.shows(looked):
                return found
        watched, looked = reader.watched()
        found = make(watched)
        made.append((looked, given, found))
        return found


def differs(admitted: Reading, said: Reading) -> Difference | None:
    """The first key at which ``said`` cannot be an honest saying of ``admitted``. None: it may be honest."""
    return next(differences(admitted, said), None)


def differences(admitted: Reading, said: Reading) -> Iterator[Difference]:
    """Every such key."""
    yield from _differences(admitted, said, admitted.parts)
    yield from _differences(admitted, said, (key for key in said.parts if key not in admitted.parts))


def _differences(admitted: Reading, said: Reading, keys: Iterable[Key]) -> Iterator[Difference]:
    for key in keys:
        thing, found = admitted.parts.get(key), said.parts.get(key)
        if found is None:
            if thing is not None and key not in admitted.may_lack and key not in said.may_lack:
                yield Difference(key=key, kind=Kind.LACKS, admitted=thing, said=None)
        elif thing is None:
            if key not in said.may_lack and key[0] not in admitted.may_add:
                yield Difference(key=key, kind=Kind.EXTRA, admitted=None, said=found)
        elif not _meets(thing, found):
            yield Difference(key=key, kind=Kind.OTHER, admitted=thing, said=found)


def _changed(known: tuple[Reading, Reading], now: tuple[Reading, Reading]) -> dict[Key, None]:
    """Keys of which anything is otherwise now."""
    found: dict[Key, None] = {}
    for before, after in zip(known, now, strict=True):
        if before is after:
            continue
        was = before.parts
        found.update((key, None) for key, thing in after.parts.items() if was.get(key) is not thing)
        if len(was) != len(after.parts) or found:
            found.update((key, None) for key in was.keys() - after.parts.keys())
        if before.may_lack != after.may_lack:
            found.update((key, None) for key in before.may_lack ^ after.may_lack)
    return found


def judge(tree: Tree, reader: Reader, memory: Memory, *, with_defects: bool = True) -> Iterator[Judgement]:
    """Every step of the tree, each hop given what its source said.

    memory: of this run's steps. with_defects: a step that would admit one of its defects, or that has nothing to lie about, is undecided.
    """
    at: dict[str, tuple[str, Reading]] = {tree.root: (tree.root, tree.truth)}
    false_hops: set[str] = set()
    for step in tree.steps:
        since, given = at[step.source]
        admitted = memory.admitted(step, given, reader)
        seen = memory.seen(step, reader)
        if isinstance(seen, Gap):
            at[step.claim] = (since, admitted)
            if step.source in false_hops:
                false_hops.add(step.claim)
            yield Judgement(step=step, status=Status.INCONCLUSIVE, since=since, admitted=admitted, said=None, gap=seen)
            continue
        at[step.claim] = (step.claim, seen)
        difference = memory.difference(step, admitted, seen)
        if difference is not None:
            false_hops.add(step.claim)
            yield Judgement(step=step, status=Status.FAIL, since=since, admitted=admitted, said=seen, difference=difference)
            continue
        is_faithful = step.source in false_hops
        if is_faithful:
            false_hops.add(step.claim)
        told = dict(_told(step, admitted, reader)) if with_defects else {}
        # All of them if the run gives none of them anything to lie about.
        unseen = tuple(name for name, is_seen in told.items() if not is_seen) if told or not with_defects else tuple(step.defects)
        yield Judgement(
            step=step,
            # A hop that passed a false input on correctly is acquitted; what else it might have hidden is for an honest run to show.
            status=Status.INCONCLUSIVE if unseen and not is_faithful else Status.PASS,
            since=since,
            admitted=admitted,
            said=seen,
            is_faithful=is_faithful,
            admitted_defects=unseen,
            defects=tuple(told),
        )


def _told(step: Step, admitted: Reading, reader: Reader) -> Iterator[tuple[str, bool]]:
    """Each defect that this run gives something to lie about, and whether it would be seen."""
    for name, defect in step.defects.items():
        so_far = len(reader.known)
        if (lie := defect(reader)) is not None:
            seen = step.read(lie)
            yield name, not isinstance(seen, Gap) and differs(admitted, seen) is not None
        reader.forget(so_far)


def _meets(admitted: Thing, said: Thing) -> bool:
    if isinstance(admitted, Range) and isinstance(said, Range):
        return admitted.lo <= said.hi and said.lo <= admitted.hi
    if isinstance(admitted, frozenset) and isinstance(said, frozenset):
        return bool(admitted & said)
    return False
