"""The sets of panels and rules against the real engine: no honest trial falls outside, every defect does. Backfilled blocks, instant queries.

A trial is one process with its own scrapes (phase, jitter, misses), traffic (none, rare, dense, bursts, from now on, restarted) and latencies. The
rule looks up to one evaluation before the panel is asked, and the newest scrape may not have been stored when it does. ``make prove``: 10,000.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from assertions.facts import Facts
from assertions.meaning import meaning
from assertions.rules import digits, roundings
from harness.measure.series import Reader, Timeline
from harness.model import Source, UnixNs, value
from harness.rules.evaluate import Evaluator, Series, series
from harness.rules.panelfile import Computes, Kind
from tests.fakes import stack as fake
from tests.stack.blocks import Scraped, asked, prometheus

END_MS = 1_700_000_000_000
SCRAPE_MS, WINDOW_MS = 15_000, 300_000
BOUNDS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.2, 3.3, 5.0, 10.0, math.inf)
FAMILIES = {"c_total": "c counter", "h_bucket": "h histogram", "h_sum": "h histogram", "h_count": "h histogram"}
PROOF = Path(__file__).parents[2] / "reports" / "proof"


def facts() -> Facts:
    """Of a stack that is scraped and evaluated every 15 s."""
    evidence = fake.run()
    settings = {**evidence.info.settings, "scrape_interval_s": 15.0, "evaluation_interval_s": 15.0, "time_scale": 1.0}
    return Facts.of(dataclasses.replace(evidence, info=dataclasses.replace(evidence.info, settings=settings)))


@value
class Trial:
    """One process, and when its panel is asked."""

    place: str
    late_ms: int
    """How long before it the rule looked."""
    scraped: tuple[Scraped, ...]
    """All that was stored in the end."""
    hidden_ms: int | None
    """From which sample on nothing was stored when the rule looked. None: all was."""


QUERIES = {
    "mean": ("sum by (i) (rate(h_sum[5m])) / sum by (i) (rate(h_count[5m]))", Kind.MEAN, "h", None),
    "p95": ("histogram_quantile(0.95, sum by (i, le) (rate(h_bucket[5m])))", Kind.QUANTILE, "h", 0.95),
    "p50": ("histogram_quantile(0.5, sum by (i, le) (rate(h_bucket[5m])))", Kind.QUANTILE, "h", 0.5),
    "per minute": ("sum by (i) (rate(c_total[5m])) * 60", Kind.GROWTH, "c_total", None),
}
LIES = {
    "mean": ("sum by (i) (h_sum) / sum by (i) (h_count)", "1000 * (sum by (i) (rate(h_sum[5m])) / sum by (i) (rate(h_count[5m])))"),
    "p95": ("histogram_quantile(0.95, sum by (i, le) (h_bucket))", "histogram_quantile(0.9, sum by (i, le) (rate(h_bucket[5m])))"),
    "p50": ("histogram_quantile(0.5, sum by (i, le) (h_bucket))", "1000 * histogram_quantile(0.5, sum by (i, le) (rate(h_bucket[5m])))"),
    "per minute": ("sum by (i) (c_total)", "sum by (i) (rate(c_total[5m]))"),
}


def trial(place: int, dice: random.Random) -> Trial:
    """One honest process."""
    phase, missed = dice.randrange(SCRAPE_MS), dice.choice((0.0, 0.0, 0.1))
    every = range(END_MS - WINDOW_MS - 8 * SCRAPE_MS + phase, END_MS + 3 * SCRAPE_MS, SCRAPE_MS)
    scrapes = [at + dice.choice((0, 0, dice.randrange(5))) for at in every if dice.random() >= missed]
    born = dice.choice(scrapes[:-6]) if place % 6 == 4 else scrapes[0]
    restarted = dice.choice(scrapes[3:-3]) if place % 6 == 5 else None
    per_scrape = dice.choice((0.0, 0.2, 2.0, 12.0))
    old = dice.choice((0, 0, 500)) if born == scrapes[0] else 0
    likely = dice.choice((0.12, 0.6, 0.95, 4.0))
    counts, total, events = [0.0] * len(BOUNDS), 0.0, float(old)
    for _ in range(old):
        total = _seen(dice, likely, counts, total)
    samples: dict[str, list[tuple[int, float]]] = {}
    for at in scrapes:
        if at == restarted:
            counts, total, events = [0.0] * len(BOUNDS), 0.0, 0.0
        burst = 5 if dice.random() < 0.1 else 1
        for _ in range(min(round(dice.expovariate(1 / (per_scrape * burst))), 60) if per_scrape and at > born else 0):
            total, events = _seen(dice, likely, counts, total), events + 1
        if at >= born:
            for name, labels, number in _told(place, counts, total, events):
                samples.setdefault(f"{name} {labels}", []).append((at, number))
    scraped = tuple(Scraped(name=key.split()[0], labels=key.split()[1], samples=tuple(found)) for key, found in samples.items())
    newest = max((at for at in scrapes if at <= END_MS), default=None)
    is_hidden = newest is not None and END_MS - newest < SCRAPE_MS and dice.random() < 0.3
    return Trial(place=str(place), late_ms=dice.randrange(SCRAPE_MS), scraped=scraped, hidden_ms=newest if is_hidden else None)


def _seen(dice: random.Random, likely: float, counts: list[float], total: float) -> float:
    latency = dice.choice((likely, dice.lognormvariate(math.log(likely), 0.4), dice.choice(BOUNDS[:-1])))
    for index, bound in enumerate(BOUNDS):
        counts[index] += latency <= bound
    return total + latency


def _told(place: int, counts: list[float], total: float, events: float) -> Iterator[tuple[str, str, float]]:
    owner = f'i="{place}"'
    yield "c_total", owner, events
    for bound, count in zip(BOUNDS, counts, strict=True):
        yield "h_bucket", f'{owner},le="{"+Inf" if math.isinf(bound) else bound}"', count
    yield "h_sum", owner, total
    yield "h_count", owner, counts[-1]


def reader(one: Trial) -> Reader:
    """What is read of the trial when all is over."""
    found: dict[str, list[Timeline]] = {}
    for each in one.scraped:
        labels = dict(pair.replace('"', "").split("=") for pair in each.labels.split(",")) | {"job": "j", "instance": one.place}
        samples = tuple((UnixNs(at * 1_000_000), number) for at, number in each.samples)
        found.setdefault(each.name, []).append(Timeline(name=each.name, labels=labels, samples=samples, request=""))
    timelines = {Source.PROMETHEUS: {name: tuple(each) for name, each in found.items()}}
    return Reader(timelines=timelines, polls={}, rows={}, gaps={})


def stored(one: Trial) -> Iterator[Scraped]:
    """What the engine held of it when the rule looked."""
    for each in one.scraped:
        kept = tuple((at, number) for at, number in each.samples if at <= END_MS and (one.hidden_ms is None or at < one.hidden_ms))
        if kept:
            yield dataclasses.replace(each, samples=kept)


def database(one: Trial) -> dict[str, list[Series]]:
    """The same for our evaluator."""
    found: dict[str, list[Series]] = {}
    for each in stored(one):
        labels = dict(pair.replace('"', "").split("=") for pair in each.labels.split(","))
        found.setdefault(each.name, []).append(series(each.name, [(at / 1000, number) for at, number in each.samples], **labels))
    return found


def held(count: int, seed: int, place: Path) -> dict[str, int]:
    """Figures of so many trials, each held against the real engine."""
    dice = random.Random(seed)
    trials = [trial(index, dice) for index in range(count)]
    figures = dict.fromkeys(
        (
            "numbers",
            "outside the meaning",
            "not our arithmetic",
            "lies",
            "lies that were the truth",
            "lies admitted",
            "lies outside the meaning",
        ),
        0,
    )
    with prometheus([each for one in trials for each in stored(one)], FAMILIES, place) as engine:
        said = {name: asked(engine, query, END_MS) for name, (query, *_) in QUERIES.items()}
        lied = {name: [asked(engine, query, END_MS) for query in queries] for name, queries in LIES.items()}
    of = facts()
    for one in trials:
        seen, ours = reader(one), Evaluator(database(one))
        for name, (query, kind, metric, share) in QUERIES.items():
            per_s = 60.0 if kind is Kind.GROWTH else None
            computes = Computes(kind=kind, of=(metric,), q=share, over_s=WINDOW_MS / 1000, per_s=per_s, where={})
            meant = meaning(computes, seen, UnixNs((END_MS + one.late_ms) * 1_000_000), of)
            span = meant.numbers.get(())
            exact = {dict(labels)["i"]: number for labels, number in ours.vector(query, END_MS / 1000).items()}
            number = said[name].get(one.place)
            if number is None or not math.isfinite(number):
                figures["numbers"] += 1
                figures["outside the meaning"] += span is not None and () not in meant.may_lack
                figures["not our arithmetic"] += digits(exact.get(one.place, math.nan)) != digits(math.nan if number is None else number)
                continue
            figures["numbers"] += 1
            figures["outside the meaning"] += span is None or not span.lo <= number <= span.hi
            may = roundings(exact[one.place]) if one.place in exact else frozenset()
            figures["not our arithmetic"] += digits(number) not in may
            for lie in (each.get(one.place) for each in lied[name]):
                if lie is None or math.isnan(lie):
                    continue
                if math.isclose(lie, number, rel_tol=1e-9):
                    figures["lies that were the truth"] += 1
                    continue
                figures["lies"] += 1
                figures["lies admitted"] += digits(lie) in may
                figures["lies outside the meaning"] += span is None or not span.lo <= lie <= span.hi
    return figures


def _hold(figures: dict[str, int]) -> None:
    assert figures["outside the meaning"] == 0
    assert figures["not our arithmetic"] == 0
    assert figures["lies admitted"] == 0
    assert figures["lies"] > figures["numbers"]


@pytest.mark.stack
def test_no_honest_number_falls_outside_and_every_lie_does(tmp_path: Path) -> None:
    """500 processes, four panels of each."""
    _hold(held(500, 11, tmp_path))


@pytest.mark.soak
def test_ten_thousand_processes(tmp_path: Path) -> None:
    """As above; the figures are left in reports/proof."""
    figures = held(10_000, 12, tmp_path)
    PROOF.mkdir(parents=True, exist_ok=True)
    (PROOF / "arithmetic.json").write_text(json.dumps(figures, indent=1))

    _hold(figures)


def test_a_trial_is_repeatable() -> None:
    """The same process for the same seed, with every series that its panels ask for."""
    one, again = trial(4, random.Random(3)), trial(4, random.Random(3))

    assert one == again
    assert {each.name for each in one.scraped} == set(FAMILIES)
