"""Since when a claim is red: the same sentence in every face of a report, and none where there is no history."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reports import html, junit, markdown, terminal
from tests.fakes.evidence import lying

SINCE = {"ttfw/exporter": "red for the first time; last green in n4; changed since: agents 1.8.9 to 1.9.0"}
FACES: dict[str, Callable[[dict[str, str] | None], str]] = {
    "terminal": lambda since: terminal.table(*lying(), since=since, width=200),
    "markdown": lambda since: markdown.summary(*lying(), since=since),
    "junit": lambda since: junit.xml(*lying(), since=since),
    "html": lambda since: html.page(*lying(), since=since),
}


@pytest.mark.parametrize("face", FACES)
def test_a_red_claim_says_since_when_and_what_changed(face: str) -> None:
    """Once, at the claim."""
    assert FACES[face](SINCE).count("changed since: agents 1.8.9 to 1.9.0") == 1
    assert "changed since" not in FACES[face](None)
