"""Realtime is asked for our own calls, by the target's names."""

from __future__ import annotations

from harness.clock import Clock
from harness.collect.naming import Translator
from harness.collect.realtime import Access, Listener
from harness.model import Names, Naming, TableNaming

THEIRS = Translator(Names(tables={"calls": TableNaming(name="call_log", columns={"call_id": Naming(name="conversation")})}))


def asked(table: str, count: int, names: Translator = THEIRS) -> str | None:
    """The filter on a table of theirs, for so many calls of ours."""
    access = Access(url="http://127.0.0.1:1", key="k", call_ids=tuple(f"vp-{number}" for number in range(count)), names=names)
    return Listener(access, lambda told: None, clock=Clock.start())._filter(table)


def test_only_our_calls_are_heard() -> None:
    """Nobody else's row is pushed to us."""
    assert asked("call_log", 2) == "conversation=in.(vp-0,vp-1)"


def test_other_tables_and_large_runs_are_heard_whole() -> None:
    """Alerts have no call; a server takes a hundred ids."""
    assert (asked("alerts_history", 2), asked("call_log", 0), asked("call_log", 101)) == (None, None, None)
