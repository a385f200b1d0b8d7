"""The summary for the page of a CI job."""

from __future__ import annotations

from harness.model import Status
from reports.markdown import summary
from tests.fakes.evidence import evidence, findings, healthy, lying, undecided, verdict


def test_both_lights_open_the_summary() -> None:
    """What is wrong is read before anything is unfolded."""
    text = summary(*lying())

    assert "| 🟢 **agent** | answered every call |" in text
    assert "| 🔴 **monitoring** | does not tell the truth |" in text


def test_a_failed_claim_tells_how_to_repeat_it() -> None:
    """With the run as its reader names it."""
    assert "- repeat: `voxproof explain fixtures/runs/lying-agent ttfw/exporter`" in summary(*lying(), run="fixtures/runs/lying-agent")


def test_the_exit_code_is_said() -> None:
    """0, 1 and 3."""
    codes = [text.splitlines()[-1].split(".")[0] for text in (summary(*healthy()), summary(*lying()), summary(*undecided()))]

    assert codes == ["Exit code 0", "Exit code 1", "Exit code 3"]


def test_what_a_source_said_stays_in_its_cell() -> None:
    """Pipes, tags and emphasis are text."""
    text = summary(evidence(), findings([verdict("turns/rows", Status.FAIL, says="a|b <b>*c*")]))

    assert "| a\\|b \\<b\\>\\*c\\* |" in text
