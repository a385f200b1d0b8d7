"""Exposition text changed as a faulty exporter would."""

from __future__ import annotations

from harness.stack.exposition import multiplied, total

TEXT = """# HELP ttfw_seconds Time to first word
# TYPE ttfw_seconds histogram
ttfw_seconds_bucket{le="0.5"} 1.0
ttfw_seconds_bucket{le="1.0"} 3.0
ttfw_seconds_bucket{le="2.0"} 3.0
ttfw_seconds_bucket{le="+Inf"} 4.0
ttfw_seconds_count 4.0
ttfw_seconds_sum 6.5
turns_total{role="user",agent="a"} 4.0
turns_total{role="assistant",agent="a"} 5.0
turns_created 1.7e+09
"""


def test_seconds_to_milliseconds() -> None:
    """Every observation ends over the last bound, the sum is a thousand times as large, all else is untouched."""

    assert (
        multiplied(TEXT, "ttfw_seconds", 1000)
        == """# HELP ttfw_seconds Time to first word
# TYPE ttfw_seconds histogram
ttfw_seconds_bucket{le="0.5"} 0.0
ttfw_seconds_bucket{le="1.0"} 0.0
ttfw_seconds_bucket{le="2.0"} 0.0
ttfw_seconds_bucket{le="+Inf"} 4.0
ttfw_seconds_count 4.0
ttfw_seconds_sum 6500.0
turns_total{role="user",agent="a"} 4.0
turns_total{role="assistant",agent="a"} 5.0
turns_created 1.7e+09
"""
    )


def test_doubled() -> None:
    """Counts move to the bucket that holds the double of their bound."""
    lines = multiplied(TEXT, "ttfw_seconds", 2).splitlines()

    assert [line.rpartition(" ")[2] for line in lines if "_bucket" in line] == ["0.0", "1.0", "3.0", "4.0"]


def test_a_plain_metric_is_multiplied() -> None:
    """A gauge that is added up twice."""
    assert multiplied("rooms 3.0\nrooms_other 1.0\n", "rooms", 2) == "rooms 6.0\nrooms_other 1.0\n"


def test_by_one_changes_no_number() -> None:
    """An honest factor is no defect."""

    assert multiplied(TEXT, "ttfw_seconds", 1) == TEXT


def test_each_label_set_is_a_histogram_of_its_own() -> None:
    """Buckets of one tool do not leak into another's."""
    text = "".join(
        f'h_bucket{{tool="{tool}",le="{bound}"}} {count}\n'
        for tool, counts in (("a", (7.0, 7.0)), ("b", (1.0, 2.0)))
        for bound, count in zip(("1.0", "+Inf"), counts, strict=True)
    )

    assert multiplied(text, "h", 1) == text


def test_a_total_is_the_sum_over_matching_series() -> None:
    """Labels given narrow it; a name that is only a prefix does not count."""

    assert total(TEXT, "turns_total", {}) == 9
    assert total(TEXT, "turns_total", {"role": "user"}) == 4
    assert total(TEXT, "turns", {}) == 0
