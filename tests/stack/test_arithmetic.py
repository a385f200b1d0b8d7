"""Our arithmetic against the real engine: backfilled blocks, instant queries, the same to the last bit."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import httpx
import pytest

from harness.measure.counters import increase, rate
from harness.measure.histogram import quantile
from tests.stack.blocks import Scraped, asked, prometheus

pytestmark = pytest.mark.stack

END_MS = 1_700_000_000_000
"""Long ago: blocks of the past are read only."""
SCRAPE_MS, WINDOW_MS = 15_000, 300_000
BOUNDS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, math.inf)
SERIES, INSTANTS = 120, 25


def scrapes(dice: random.Random) -> list[int]:
    """Instants of twenty minutes of scrapes: a phase, jitter, now and then one missed."""
    phase, missed = dice.randrange(SCRAPE_MS), dice.choice((0.0, 0.0, 0.15))
    instants = range(END_MS - 4 * WINDOW_MS + phase, END_MS + 60_000, SCRAPE_MS)
    return [at + dice.choice((0, 0, dice.randrange(5))) for at in instants if dice.random() >= missed]


def counter(place: int, dice: random.Random) -> Scraped:
    """A counter that is steady, still, bursty, young, or restarted."""
    kind = place % 5
    per_scrape = dice.choice((0.0, 0.3, 3.0, 40.0))
    total = dice.choice((0.0, 1000.0))
    samples = []
    instants = scrapes(dice)
    born = dice.choice(instants) if kind == 3 else instants[0]
    restarted = dice.choice(instants[len(instants) // 2 :]) if kind == 4 else None
    for at in instants:
        total = 0.0 if at == restarted else total + round(dice.expovariate(1 / per_scrape) if per_scrape else 0)
        if at >= born:
            samples.append((at, total))
    return Scraped(name="c_total", labels=f'i="{place}"', samples=tuple(samples))


def histogram(place: int, dice: random.Random) -> Iterator[Scraped]:
    """A histogram of few or many observations, its buckets scraped together."""
    instants = scrapes(dice)
    likely = dice.choice((0.02, 0.3, 3.0))
    cumulative = dict.fromkeys(BOUNDS, 0.0)
    samples: dict[float, list[tuple[int, float]]] = {bound: [] for bound in BOUNDS}
    for at in instants:
        for _ in range(round(dice.expovariate(1 / likely))):
            seen = dice.choice((0.26, 0.74, dice.lognormvariate(0, 0.5), 12.0))
            for bound in BOUNDS:
                cumulative[bound] += seen <= bound
        for bound in BOUNDS:
            samples[bound].append((at, cumulative[bound]))
    for bound, found in samples.items():
        yield Scraped(name="h_bucket", labels=f'i="{place}",le="{"+Inf" if math.isinf(bound) else bound}"', samples=tuple(found))


@pytest.fixture(scope="module")
def recorded() -> tuple[Scraped, ...]:
    """What was scraped."""
    dice = random.Random(3)
    counters = [counter(place, dice) for place in range(SERIES)]
    return (*counters, *(series for place in range(SERIES) for series in histogram(place, dice)))


@pytest.fixture(scope="module")
def engine(recorded: tuple[Scraped, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A real Prometheus that holds the recorded series."""
    with prometheus(recorded, {"c_total": "c counter", "h_bucket": "h histogram"}, tmp_path_factory.mktemp("engine")) as client:
        yield client


def instants() -> list[int]:
    """Where windows are asked to end, edges that fall on a sample's own instant included."""
    dice = random.Random(5)
    return [END_MS - dice.randrange(2 * WINDOW_MS) for _ in range(INSTANTS)]


def inside(series: Scraped, end_ms: int) -> list[tuple[int, float]]:
    """Samples of the window, whose start is left out."""
    return [(at, number) for at, number in series.samples if end_ms - WINDOW_MS < at <= end_ms]


def test_increase_and_rate_are_the_engines(engine: httpx.Client, recorded: tuple[Scraped, ...]) -> None:
    """Steady, still, bursty, young and restarted counters, jitter and missed scrapes: not one bit apart."""
    counters = [series for series in recorded if series.name == "c_total"]
    edges = [counters[0].samples[-10][0], counters[1].samples[-20][0] + WINDOW_MS]
    for at in (*instants(), *edges):
        windows = {series.labels[3:-1]: inside(series, at) for series in counters}
        ours = {place: window for place, window in windows.items() if len(window) > 1}

        assert asked(engine, "increase(c_total[5m])", at) == {place: increase(window, at - WINDOW_MS, at) for place, window in ours.items()}
        assert asked(engine, "rate(c_total[5m])", at) == {place: rate(window, at - WINDOW_MS, at) for place, window in ours.items()}


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.95, 0.99])
def test_quantiles_are_the_engines(engine: httpx.Client, recorded: tuple[Scraped, ...], wanted: float) -> None:
    """Of rates, as the recording rules ask for them."""
    for at in instants():
        rates: dict[str, list[tuple[float, float]]] = {}
        for series in recorded:
            window = inside(series, at)
            if series.name == "h_bucket" and len(window) > 1:
                place, bound = series.labels.replace('"', "").split(",")
                rates.setdefault(place[2:], []).append((float(bound[3:]), rate(window, at - WINDOW_MS, at)))
        theirs = asked(engine, f"histogram_quantile({wanted}, sum by (i, le) (rate(h_bucket[5m])))", at)

        assert theirs == pytest.approx({place: quantile(wanted, buckets) for place, buckets in rates.items()}, rel=1e-13, nan_ok=True)
