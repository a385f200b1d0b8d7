"""What a counter means between two instants."""

from __future__ import annotations

from assertions.meaning import _Growing
from harness.measure.series import Timeline
from harness.model import UnixNs


def test_a_series_without_samples_grows_by_nothing() -> None:
    """A run that was cut short has such: it is judged all the same."""
    empty = _Growing(Timeline(name="a", labels={}, samples=(), request=""))

    assert (empty.at(UnixNs(1)), empty.between(UnixNs(0), UnixNs(2))) == (0.0, 0.0)
