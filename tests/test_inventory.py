"""Adding a step is its set, its defects, a page and a test: this tells what was forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assertions import pushed
from assertions.rtt import QUANTILE
from harness.check import CLAIMS, check
from tests.fakes import stack

PAGES = Path(__file__).parents[1] / "docs/claims"
STAGES = ("stt", "llm", "tts")
NETWORK = ("loss", "jitter", "rtt")
AGENT = {claim: "agent" for claim in CLAIMS if claim == "calls/answered" or claim.startswith(("slo/", "load/"))}
HOPS = {"rule": "rules", "panel": "panels"}
"""Hops that are judged alike in every quantity have one page."""


def page(claim: str) -> str:
    """The page of a claim's quantity, as one line."""
    quantity, _, hop = claim.partition("/")
    pages = {**AGENT, **dict.fromkeys(pushed.CLAIMS, "pushed"), **dict.fromkeys(STAGES, "stages"), **dict.fromkeys(NETWORK, "network")}
    name = pages.get(claim, HOPS.get(hop, pages.get(quantity, quantity)))
    return " ".join((PAGES / f"{name}.md").read_text().split())


@pytest.mark.parametrize("claim", [*CLAIMS, QUANTILE, *pushed.CLAIMS])
def test_every_claim_has_its_section(claim: str) -> None:
    """What it admits and why, what a failure looks like, what to do."""
    assert f"## `{claim}`" in page(claim)


def test_every_defect_is_documented() -> None:
    """Under the name that planted lies bear."""
    planted = {(lie.claim, lie.defect) for lie in check(stack.run()).planted}

    assert planted
    assert {(claim, defect) for claim, defect in planted if defect not in page(claim)} == set()


def test_every_section_is_of_a_claim() -> None:
    """A page does not outlive its step."""
    sections = {name for path in PAGES.glob("*.md") for name in re.findall(r"^## `([a-z0-9/-]+)`", path.read_text(), re.MULTILINE)}

    assert sections == {*CLAIMS, QUANTILE, *pushed.CLAIMS}
