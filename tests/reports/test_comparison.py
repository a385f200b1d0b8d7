"""What ``voxproof compare`` prints."""

from __future__ import annotations

from assertions.changes import Change
from assertions.comparison import ClaimChange, Comparison, FigureChange
from harness.model import Status
from reports.comparison import text

WORSE = Comparison(
    before=("k3f9",),
    after="m2h8",
    claims=(
        ClaimChange(claim="calls/rows", before=Status.FAIL, after=Status.PASS, sentence="3 calls placed, 3 rows"),
        ClaimChange(claim="ttfw/exporter", before=Status.PASS, after=Status.FAIL, sentence="the exporter has TTFW of 6 turns, heard 9"),
    ),
    figures=(
        FigureChange(name="TTFW heard", before="1.0 s", after="1.3 s", status=Status.FAIL, sentence="TTFW heard: longer by +300.0 ms"),
    ),
    changes=(Change(what="agent", before="1.8.9", after="1.9.0"),),
    status=Status.FAIL,
)


def test_what_got_worse_comes_first() -> None:
    """Then what got better, the figures, and what changed."""
    assert text(WORSE).splitlines() == [
        "k3f9 -> m2h8: something got worse",
        "",
        "claims",
        "  ttfw/exporter         ok -> FAIL",
        "    the exporter has TTFW of 6 turns, heard 9",
        "  calls/rows            FAIL -> ok",
        "    3 calls placed, 3 rows",
        "",
        "figures",
        "  TTFW heard  1.0 s  1.3 s  WORSE",
        "    longer by +300.0 ms",
        "",
        "changed",
        "  agent 1.8.9 -> 1.9.0",
    ]
