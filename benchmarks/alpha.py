"""How often an honest thing falls outside a set that carries a probability, and how often a lie: ``python -m benchmarks.alpha --trials 2000 --json``.

Seeded trials. The sets are judged at a larger alpha than runs use, so that enough fall outside to be counted; the arithmetic is the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from random import Random

from assertions.jitter import away_s
from harness.measure.calibration import REFERENCE, Exchange, calibrate, load, mean_of
from harness.measure.rfc3550 import Receiver
from harness.measure.shift import at_least, shift
from harness.model import UnixNs, value
from harness.rules.margins import share_edges

BY_CHANCE = 1e-6
"""Probability of more than `most_by_chance` outside, although each is with probability ``alpha``."""
ALPHA = 0.02
_PACKET_S = 0.02
_RATE_HZ = 48_000
_DRAWS: tuple[Callable[[Random], float], ...] = (
    lambda chance: chance.gauss(1, 0.1),
    lambda chance: chance.expovariate(4),
    lambda chance: chance.choice((0.8, 0.9, 1.0)),
)
_DELAYS: tuple[Callable[[Random, float], float], ...] = (
    lambda chance, mean_s: chance.expovariate(1 / mean_s),
    lambda chance, mean_s: chance.uniform(0, 2 * mean_s),
)
_TTFW_LIE_S = 0.3
"""The listed defect of ``ttfw/exporter``."""


@value
class Trials:
    """Of one set."""

    trials: int
    outside: int
    """Honest, and rejected."""
    caught: int
    """Of as many lies."""
    alpha: float = ALPHA

    @property
    def most(self) -> int:
        return most_by_chance(self.trials, self.alpha)


def main() -> None:
    """One row a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, metavar="N")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = {name: {**dataclasses.asdict(found), "most": found.most} for name, found in all_sets(options.trials)}
    print(json.dumps(rows) if options.json else "\n".join(f"{name:<40}{row}" for name, row in rows.items()))


def all_sets(trials: int) -> list[tuple[str, Trials]]:
    """Every set of ours that carries a probability."""
    return [(name, SETS[name](Random(name), trials)) for name in SETS]


def most_by_chance(trials: int, alpha: float) -> int:
    """The smallest number that a binomial exceeds with a probability of at most `BY_CHANCE`."""
    beyond, count = 0.0, trials
    while count and beyond + (more := _binomial(trials, count, alpha)) <= BY_CHANCE:
        beyond, count = beyond + more, count - 1
    return count


def _binomial(trials: int, count: int, share: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return math.exp(ways + count * math.log(share) + (trials - count) * math.log1p(-share))


def _mean_of_a_run(chance: Random, trials: int) -> Trials:
    """A calibration of runs that scatter as the reference agent's did, and one more run of the same agent; few runs or many, few turns or many."""
    like = load(REFERENCE)
    outside = caught = 0
    for _ in range(trials):
        turns, later = chance.choice((6, 9, 20)), chance.choice((3, 9, 60))
        found = calibrate(
            [_run(chance, turns, like.run_sd_s, like.turn_sd_s) for _ in range(chance.choice((6, 12, 25)))], made_at="", method=""
        )
        within = mean_of(found, later, ALPHA)
        assert within is not None
        mean_s = statistics.fmean(each.distance_s for each in _run(chance, later, like.run_sd_s, like.turn_sd_s))
        outside += not within[0] <= mean_s <= within[1]
        # Reported is less by as much as the lie is more.
        caught += not within[0] <= mean_s - _TTFW_LIE_S <= within[1]
    return Trials(trials=trials, outside=outside, caught=caught)


def _run(chance: Random, turns: int, run_sd_s: float, turn_sd_s: float) -> Sequence[Exchange]:
    mean_s = chance.gauss(0.5, run_sd_s)
    return [_exchange(chance.gauss(mean_s, turn_sd_s)) for _ in range(turns)]


def _exchange(distance_s: float) -> Exchange:
    anchor = UnixNs(round(1e9 * distance_s))
    pushed = UnixNs(anchor + 900_000_000)
    return Exchange(
        speech_ended_at=UnixNs(0),
        anchor_at=anchor,
        asked_at=UnixNs(anchor + 500_000_000),
        endpointing_s=0.5,
        handed_over_at=pushed,
        pushed_at=pushed,
        heard_at=pushed,
    )


def _levels(spread: float) -> Callable[[Random, int], Trials]:
    """Two groups of turns by prompt, of one distribution; spread: of what moves each group as a whole. The lie: half a second more."""

    def trial(chance: Random, trials: int) -> Trials:
        outside = caught = 0
        for _ in range(trials):
            sizes = chance.choice(((3, 3, 3), (9, 9, 9), (20, 60)))
            draw = chance.choice(_DRAWS)
            moves = [chance.gauss(0, spread) for _ in range(2)]
            groups = {str(place): tuple([draw(chance) + move for _ in range(size)] for move in moves) for place, size in enumerate(sizes)}
            strata = {name: (before, after) for name, (before, after) in groups.items()}
            later = {name: (before, [number + 2.0 for number in after]) for name, (before, after) in strata.items()}
            found, lie = (shift(each, alpha=ALPHA, spread=spread) for each in (strata, later))
            outside += found is not None and found.is_decided
            caught += lie is not None and lie.is_decided
        return Trials(trials=trials, outside=outside, caught=caught)

    return trial


def _failures(chance: Random, trials: int) -> Trials:
    """Two groups of calls that fail as often; the lie: all of the second fail."""
    outside = caught = 0
    for _ in range(trials):
        sizes, share = [chance.choice((9, 30, 100)) for _ in range(2)], chance.choice((0.01, 0.1, 0.3))
        before, after = ((sum(chance.random() < share for _ in range(size)), size) for size in sizes)
        outside += at_least(before, after) <= ALPHA
        caught += at_least(before, (after[1], after[1])) <= ALPHA
    return Trials(trials=trials, outside=outside, caught=caught)


def _shares(chance: Random, trials: int) -> Trials:
    """Independent losses held at a level below which the rule never fires, except with probability ``alpha``; the lie: held where it always does."""
    outside = caught = 0
    for _ in range(trials):
        threshold, events = chance.choice((0.02, 0.1, 0.5)), chance.choice((500, 2000))
        edges = share_edges(threshold, events, alpha=ALPHA)
        assert edges.never is not None
        assert edges.always is not None
        never, always = edges.never, edges.always
        outside += sum(chance.random() < never for _ in range(events)) >= threshold * events
        caught += sum(chance.random() < always for _ in range(events)) > threshold * events
    return Trials(trials=trials, outside=outside, caught=caught)


def _jitter(chance: Random, trials: int) -> Trials:
    """What a receiver reports of packets that were sent evenly, over a way whose delays scatter; the lie: 50 ms more.

    Its set is told at the alpha of runs, 1e-4, and never at another.
    """
    outside = caught = 0
    for _ in range(trials):
        mean_s = chance.choice((0.0002, 0.001, 0.005))
        delay_s = chance.choice(_DELAYS)
        reports, trips = [], []
        for _ in range(3):
            receiver = Receiver(_RATE_HZ)
            for place in range(500):
                receiver.arrived(round(1e9 * (place * _PACKET_S + delay_s(chance, mean_s))), place, round(place * _PACKET_S * _RATE_HZ))
                if place % 50 == 49:
                    heard = receiver.reception()
                    assert heard is not None
                    reports.append(heard.jitter / _RATE_HZ)
                    trips.append(delay_s(chance, mean_s) + delay_s(chance, mean_s))
        most_s, said_s = away_s(trips), statistics.fmean(reports)
        outside += said_s > most_s
        caught += said_s + 0.05 > most_s
    return Trials(trials=trials, outside=outside, caught=caught, alpha=1e-4)


SETS: Mapping[str, Callable[[Random, int], Trials]] = {
    "ttfw/exporter: mean of a run": _mean_of_a_run,
    "compare: levels": _levels(0.0),
    "compare: levels of groups that move": _levels(0.05),
    "compare: failures": _failures,
    "alerts: share of independent events": _shares,
    "jitter/server-reports: mean": _jitter,
}


if __name__ == "__main__":
    main()
