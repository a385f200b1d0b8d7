"""The steps of a search for the knee, in every report."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from harness.model import AgentFigures, Evidence, Findings, Knee, LoadStep
from reports import html, junit, markdown, terminal
from tests.fakes.evidence import evidence, findings, healthy, verdict


def step(number: int, p95_s: float, *broken: str, bent: str | None = None) -> LoadStep:
    return LoadStep(
        number=number,
        per_s=number / 10,
        at_once=2 * number,
        figures=AgentFigures(calls=3, answered=3, turns=9, missed=0, ttfw_p50_s=1.02, ttfw_p95_s=p95_s),
        void=0,
        broken=broken,
        bent=bent,
    )


def searched() -> tuple[Evidence, Findings]:
    """Two steps; the second one broke."""
    at = Knee(
        steps=(step(1, 1.5), step(2, 2.5, "TTFW p95 2.50 s, limit 2 s", bent="1 call <found> no free caller")),
        held_per_s=0.1,
        broke_per_s=0.2,
    )
    return evidence(), findings([verdict("load/knee", says="between 0.1 and 0.2 calls/s")], knee=at)


def test_the_terminal_shows_each_step() -> None:
    """With its rate, what callers heard, and what broke."""
    said = terminal.table(*searched(), width=140)

    assert "1     0.1      2        3/3       1.02 s    1.50 s  0/9   held" in said
    assert "TTFW p95 2.50 s, limit 2 s (our own load bent: 1 call <found> no free caller)" in said
    assert "between 0.1 and 0.2 calls/s" in said


def test_the_page_and_the_summary_show_the_same_rows() -> None:
    """Escaped as each of them needs it."""
    page, summary = html.page(*searched()), markdown.summary(*searched())

    assert "Load, step by step" in page
    assert "1 call &lt;found&gt; no free caller" in page
    assert "| 2 | 0.2 | 4 | 3/3 | 1.02 s | 2.50 s | 0/9 | TTFW p95 2.50 s, limit 2 s" in summary


def test_a_step_that_broke_is_no_failure_in_junit() -> None:
    """It is what was looked for; the claim load/knee has the verdict."""
    root = ET.fromstring(junit.xml(*searched()))
    found = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase") if str(case.get("name")).startswith("load/")}

    assert found == {
        "load/knee": ["system-out"],
        "load/step 1: 0.1 calls/s": ["system-out"],
        "load/step 2: 0.2 calls/s": ["system-out"],
    }


def test_a_run_without_search_has_no_steps() -> None:
    """Anywhere."""
    assert "Load, step by step" not in html.page(*healthy())
    assert "at once" not in terminal.table(*healthy())
