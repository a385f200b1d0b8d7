"""Our arithmetic of VictoriaMetrics against the binary of the distribution, on the series that Prometheus' is held against."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from harness.measure.counters import unextrapolated_increase, unextrapolated_rate
from harness.stack import ports
from harness.stack.home import home_dir
from harness.stack.provision import obtain
from tests.stack.blocks import Scraped, asked, started
from tests.stack.test_arithmetic import WINDOW_MS, instants, recorded

pytestmark = pytest.mark.stack
__all__ = ["recorded"]


@pytest.fixture(scope="module")
def victoria(recorded: tuple[Scraped, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A real VictoriaMetrics that holds the recorded series."""
    place, port = tmp_path_factory.mktemp("victoria"), ports.free(("victoria",))["victoria"]
    binary = obtain("victoria-metrics", home=home_dir(), progress=lambda _: None).path
    command = (
        binary,
        f"-storageDataPath={place}/data",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-search.disableCache",
    )
    with started(command, port=port, ready="/health", log=place / "log") as client:
        lines = [f"{each.name}{{{each.labels}}} {number} {at}" for each in recorded for at, number in each.samples]
        client.post("/api/v1/import/prometheus", content="\n".join(lines)).raise_for_status()
        client.get("/internal/force_flush").raise_for_status()
        yield client


def known(series: Scraped, end_ms: int) -> tuple[list[tuple[int, float]], int]:
    """All samples up to the window's end, and the index of the first one inside."""
    found = [(at, number) for at, number in series.samples if at <= end_ms]
    return found, sum(at <= end_ms - WINDOW_MS for at, _ in found)


def test_increase_and_rate_are_victorias(victoria: httpx.Client, recorded: tuple[Scraped, ...]) -> None:
    """Steady, still, bursty, young and restarted counters: from the last sample before the window to the last one inside."""
    counters = [series for series in recorded if series.name == "c_total"]
    for at in instants():
        windows = {series.labels[3:-1]: known(series, at) for series in counters}
        after = {series.labels[3:-1]: next((number for moment, number in series.samples if moment > at), None) for series in counters}
        grown = {place: unextrapolated_increase(found, first, at - WINDOW_MS, after[place]) for place, (found, first) in windows.items()}
        rates = {place: unextrapolated_rate(found, first, at - WINDOW_MS) for place, (found, first) in windows.items()}

        for query, ours in (("increase(c_total[5m])", grown), ("rate(c_total[5m])", rates)):
            wanted = {place: number for place, number in ours.items() if number is not None}
            assert asked(victoria, query, at) == pytest.approx(wanted, rel=1e-9)
