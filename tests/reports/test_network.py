"""How calls were measured, and what their network did to them, in words."""

from __future__ import annotations

import dataclasses

from harness.model import Evidence, Grade, Impaired, Impairment, UnixNs
from reports import network
from reports.terminal import table
from tests.fakes.evidence import evidence, healthy


def window(direction: str, lost: int = 0, delay_s: float = 0.0) -> Impaired:
    return Impaired(
        direction=direction, since=UnixNs(0), until=UnixNs(1), packets=250, lost=lost, lost_sequences=(), duplicated=0, reordered=0,
        delay_min_s=0.0, delay_mean_s=delay_s / 2, delay_max_s=delay_s,
    )  # fmt: skip


def light(ran: Evidence) -> Evidence:
    """The first call in the light grade, on a bad network."""
    first, *others = ran.records
    plan = dataclasses.replace(first.plan, grade=Grade.LIGHT)
    windows = (window("up", lost=5), window("up", lost=7), window("down", delay_s=0.03))
    scenario = dataclasses.replace(ran.info.scenario, impairment="4g", impairments=(Impairment(direction="up"),))
    return dataclasses.replace(
        ran,
        info=dataclasses.replace(ran.info, scenario=scenario),
        records=(dataclasses.replace(first, plan=plan, impaired=windows), *others),
    )


def test_ordinary_calls_need_no_words() -> None:
    """Decoded whole, on an untouched network."""
    assert network.measured(evidence()) == ()


def test_the_report_says_which_call_was_measured_how() -> None:
    """How many of each grade, the network's name, what it did."""
    others = len(evidence().records) - 1

    assert network.measured(light(evidence())) == (
        "1 call in light grade: headers only, decoded around expected onsets",
        f"{others} calls in full grade",
        "network 4g",
        "impaired, caller to SFU: 12 of 500 packets lost",
        "impaired, SFU to caller: 0 of 250 packets lost, delay 15 ms, at most 30",
    )


def test_each_call_says_it_of_itself() -> None:
    """In the page, above its wire figures."""
    ran = light(evidence())

    assert network.of_call(ran.records[0])[0] == "light grade: headers only, decoded around expected onsets"
    assert network.of_call(ran.records[1]) == ()


def test_the_table_has_a_line_for_it() -> None:
    """Below the stack."""
    ran, found = healthy()

    assert "calls  1 call in light grade" in table(light(ran), found)
