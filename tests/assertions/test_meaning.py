"""What a counter means between two instants."""

from __future__ import annotations

import pytest

from assertions.facts import Facts
from assertions.meaning import _Growing, meaning
from harness.measure.series import Reader, Timeline
from harness.model import Source, UnixNs
from harness.rules.panelfile import Computes, Kind
from tests.fakes.evidence import after, evidence


def test_a_series_without_samples_grows_by_nothing() -> None:
    """A run that was cut short has such: it is judged all the same."""
    empty = _Growing(Timeline(name="a", labels={}, samples=(), request=""))

    assert (empty.at(UnixNs(1)), empty.between(UnixNs(0), UnixNs(2))) == (0.0, 0.0)


def ups(until_s: int) -> Timeline:
    """A target that was scraped with success every second up to then."""
    samples = tuple((after(second), 1.0) for second in range(until_s + 1))
    return Timeline(name="up", labels={"job": "node", "instance": "a"}, samples=samples, request="")


@pytest.mark.parametrize(("last_s", "may_lack"), [(40, False), (30, True)])
def test_a_target_that_is_not_scraped_any_more_may_be_gone_or_still_shown(last_s: int, may_lack: bool) -> None:
    """Prometheus marks what left its discovery as stale; a sample alone does not tell."""
    computes = Computes(kind=Kind.STATE, of=("up",), by=("job", "instance"), where={})
    reader = Reader(timelines={Source.PROMETHEUS: {"up": (ups(last_s),)}}, polls={}, rows={}, gaps={})
    group = (("instance", "a"), ("job", "node"))

    found = meaning(computes, reader, after(40.5), Facts.of(evidence()))

    assert group in found.numbers
    assert (group in found.may_lack) is may_lack
