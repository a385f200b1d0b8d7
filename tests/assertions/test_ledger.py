"""The kernel: who is blamed, what is admitted, what stays open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assertions.ledger import Defect, Difference, Kind, Memory, Range, Reading, Seen, Step, Thing, Tree, differs, exactly, judge
from harness.measure.series import Reader
from harness.model import Gap, Row, Source, Status, UnixNs

NOTHING = Reader(timelines={}, polls={}, rows={}, gaps={})
ROW = Row(source=Source.ROWS, table="calls", columns={}, at=UnixNs(0), request="")
GAP = Gap(source=Source.ROWS, at=UnixNs(0), reason="answered 500", request="")


def reading(number: float | None = None, **parts: Thing) -> Reading:
    """One number, or parts by name."""
    found: dict[tuple[str, ...], Thing] = {} if number is None else {("n",): exactly(number)}
    return Reading(parts={**found, **{(name,): thing for name, thing in parts.items()}})


def step(claim: str, source: str, seen: Seen, *, wider: float = 0.0, defects: Mapping[str, Defect] | None = None) -> Step:
    """A hop that must repeat its source, give or take ``wider``; a lie of it is an empty copy of everything, read as one more."""

    def admits(given: Reading, _: Reader) -> Reading:
        number = given.number("n")
        assert number is not None
        return replace(given, parts={("n",): Range(lo=number.lo - wider, hi=number.hi + wider)})

    def read(reader: Reader) -> Seen:
        if "lie" not in reader.rows or isinstance(seen, Gap):
            return seen
        number = seen.number("n")
        assert number is not None
        return reading(number.lo + 1)

    return Step(
        claim=claim,
        source=source,
        title=claim,
        admits=admits,
        read=read,
        defects={"one more": lambda reader: replace(reader, rows={"lie": ()})} if defects is None else defects,
        show=str,
        explain=lambda difference: str(difference.key),
        would_catch=lambda admitted, said: "1",
    )


def judged(*steps: Step, truth: float = 9) -> list[tuple[str, Status, bool, str]]:
    """Claim, status, acquitted, last hop that was read."""
    tree = Tree(root="truth", truth=reading(truth), steps=steps, reads=frozenset())
    return [(each.step.claim, each.status, each.is_faithful, each.since) for each in judge(tree, NOTHING, Memory())]


def test_honest_hops_pass() -> None:
    """Each given what the one before it said."""
    assert judged(step("a", "truth", reading(9)), step("b", "a", reading(9))) == [
        ("a", Status.PASS, False, "truth"),
        ("b", Status.PASS, False, "a"),
    ]


def test_a_lie_is_blamed_once_and_hops_behind_it_are_faithful() -> None:
    """They passed a false input on correctly."""
    assert judged(step("a", "truth", reading(6)), step("b", "a", reading(6)), step("c", "b", reading(6))) == [
        ("a", Status.FAIL, False, "truth"),
        ("b", Status.PASS, True, "a"),
        ("c", Status.PASS, True, "b"),
    ]


def test_two_liars_are_blamed_each_for_its_own() -> None:
    """The second one did not pass on what it was told."""
    assert [status for _, status, _, _ in judged(step("a", "truth", reading(6)), step("b", "a", reading(5)))] == [Status.FAIL, Status.FAIL]


def test_a_hop_that_was_not_read_passes_its_set_on() -> None:
    """A later lie is blamed on the span, from the last hop that was read."""
    assert judged(step("a", "truth", GAP), step("b", "a", reading(6))) == [
        ("a", Status.INCONCLUSIVE, False, "truth"),
        ("b", Status.FAIL, False, "truth"),
    ]


def test_behind_an_unread_hop_the_truth_is_admitted() -> None:
    """The set goes through the hole, widened by the hop that was not read."""
    assert [status for _, status, _, _ in judged(step("a", "truth", GAP, wider=0.5), step("b", "a", reading(9.5)))] == [
        Status.INCONCLUSIVE,
        Status.PASS,
    ]


def test_a_step_that_would_admit_its_defect_is_open() -> None:
    """It promised to catch one more, and its set is wider than that."""
    assert [status for _, status, _, _ in judged(step("a", "truth", reading(9), wider=2))] == [Status.INCONCLUSIVE]


def test_a_step_with_nothing_to_lie_about_is_open() -> None:
    """Nothing checked is not green."""
    assert [status for _, status, _, _ in judged(step("a", "truth", reading(9), defects={"none": lambda _: None}))] == [Status.INCONCLUSIVE]


def test_a_faithful_hop_is_acquitted_of_what_it_could_hide() -> None:
    """What else it may get wrong is for an honest run to show."""
    assert judged(step("a", "truth", reading(5)), step("b", "a", reading(5), wider=2))[1] == ("b", Status.PASS, True, "a")


@pytest.mark.parametrize(
    ("admitted", "said", "kind"),
    [
        (reading(a=exactly(1)), reading(), Kind.LACKS),
        (reading(), reading(a=exactly(1)), Kind.EXTRA),
        (reading(a=exactly(1)), reading(a=exactly(2)), Kind.OTHER),
        (reading(a=frozenset({"completed"})), reading(a=frozenset({"active"})), Kind.OTHER),
        (reading(a=frozenset({"1"})), reading(a=exactly(1)), Kind.OTHER),
    ],
)
def test_a_difference_says_its_kind(admitted: Reading, said: Reading, kind: Kind) -> None:
    """Missing, invented or altered."""
    found = differs(admitted, said)

    assert found is not None
    assert (found.key, found.kind) == (("a",), kind)


def test_what_may_lack_and_what_may_come_on_top() -> None:
    """Absence and extras are honest where the set contains them."""
    admitted = replace(reading(a=exactly(1)), may_lack=frozenset({("a",)}), may_add=frozenset({"b"}))

    assert differs(admitted, reading(b=exactly(7))) is None
    assert differs(admitted, reading(c=exactly(7))) == Difference(key=("c",), kind=Kind.EXTRA, admitted=None, said=exactly(7))


def test_a_range_holds_something() -> None:
    """Not a number is no bound either."""
    for low, high in ((2.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="holds nothing"):
            Range(lo=low, hi=high)


names = st.sampled_from(["a", "b", "c"])
ranges = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: Range(lo=min(pair), hi=max(pair)))
words = st.frozensets(st.sampled_from(["x", "y", "z"]), min_size=1)
readings = st.builds(
    Reading,
    parts=st.dictionaries(names.map(lambda name: (name,)), st.one_of(ranges, words), max_size=3),
    may_lack=st.frozensets(names.map(lambda name: (name,))),
    may_add=st.frozensets(names),
)


@given(readings)
def test_every_reading_admits_itself(said: Reading) -> None:
    """An honest hop that repeats its source exactly."""
    assert differs(said, said) is None


@given(readings, readings, st.integers(0, 5), st.frozensets(names))
def test_wider_sets_admit_no_less(admitted: Reading, said: Reading, by: int, free: frozenset[str]) -> None:
    """Judging is monotone: more uncertainty never turns a hop red."""
    wider = Reading(
        parts={
            key: Range(lo=thing.lo - by, hi=thing.hi + by) if isinstance(thing, Range) else thing | {"x"}
            for key, thing in admitted.parts.items()
        },
        may_lack=admitted.may_lack | {(name,) for name in free},
        may_add=admitted.may_add | free,
    )

    if differs(admitted, said) is None:
        assert differs(wider, said) is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 9))
def test_at_most_the_hops_that_changed_something_are_blamed(said: list[int], truth: int) -> None:
    """One blame for each change along a chain."""
    steps = [step(str(place), "truth" if not place else str(place - 1), reading(number)) for place, number in enumerate(said)]
    changes = [before != after for before, after in zip([truth, *said], said, strict=False)]

    assert [status is Status.FAIL for _, status, _, _ in judged(*steps, truth=truth)] == changes


def watching(asked: list[str], table: str) -> Step:
    """A hop that says how many rows there are of a table, and notes that it was asked."""

    def read(reader: Reader) -> Seen:
        asked.append(table)
        return reading(len(reader.rows.get(table, ())))

    return replace(step(table, "truth", reading(0)), admits=lambda given, _: given, read=read, defects={})


def test_a_hop_is_not_asked_again_of_what_a_copy_leaves_as_it_was() -> None:
    """It gives the same answer."""
    asked: list[str] = []
    calls, memory = watching(asked, "calls"), Memory()
    run = replace(NOTHING, rows={"calls": (), "turns": ()})

    assert memory.seen(calls, run) is memory.seen(calls, run.with_rows("turns", [ROW]))
    assert asked == ["calls"]


def test_a_hop_is_asked_again_of_what_a_copy_says_otherwise() -> None:
    """Of a table that came, and of one that went."""
    asked: list[str] = []
    calls, memory = watching(asked, "calls"), Memory()

    assert [memory.seen(calls, replace(NOTHING, rows=rows)) for rows in ({}, {"calls": (ROW,)}, {})] == [reading(0), reading(1), reading(0)]
    assert asked == ["calls", "calls"]


@given(readings, readings, readings, readings)
def test_what_is_known_of_an_honest_run_changes_no_difference(one: Reading, other: Reading, admitted: Reading, said: Reading) -> None:
    """The same claim, held against another pair: it differs if it differs by itself."""
    memory, hop = Memory(), step("a", "truth", one)

    assert (memory.difference(hop, one, other) is None) == (differs(one, other) is None)
    assert (memory.difference(hop, admitted, said) is None) == (differs(admitted, said) is None)
    assert (memory.difference(hop, one, said) is None) == (differs(one, said) is None)
