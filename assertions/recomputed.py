"""What Prometheus must have calculated of what it stored: a run's samples as a database, asked by the server's own arithmetic."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence

import promql_parser as pp

from assertions.facts import Facts
from harness.measure import flavour
from harness.measure.flavour import Flavour
from harness.measure.series import Reader, Timeline
from harness.model import Source, UnixNs, value
from harness.rules.evaluate import Evaluator, Hidden, NotAnalysed, Series, Vector

_MS = 1_000_000
Family = tuple[Timeline, ...]
"""Series of one name."""
_NONE: Mapping[str, Family] = {}


@value
class Asked:
    """The names that an expression reads."""

    at_once: frozenset[str]
    """As instant vectors: their staleness matters."""
    over_time: frozenset[str]

    @property
    def names(self) -> frozenset[str]:
        return self.at_once | self.over_time


def asked(expression: str) -> Asked:
    """What ``expression`` reads. Nothing of text that is no PromQL."""
    at_once: set[str] = set()
    over_time: set[str] = set()

    def visit(node: pp.Expr) -> bool:
        if isinstance(node, pp.MatrixSelector) and node.vector_selector.name:
            over_time.add(str(node.vector_selector.name))
        elif isinstance(node, pp.VectorSelector) and node.name:
            at_once.add(str(node.name))
        return True

    try:
        pp.walk(pp.parse(expression), visit)
    except ValueError:
        return Asked(at_once=frozenset(), over_time=frozenset())
    return Asked(at_once=frozenset(at_once), over_time=frozenset(over_time))


class Engine:
    """The arithmetic of a run's server. What was calculated of series that a copy of the observations shares is not calculated again."""

    def __init__(self, facts: Facts) -> None:
        settings = facts.evidence.info.settings
        self.flavour: Flavour | None = flavour.of(settings)
        self.server = flavour.server(settings)
        self._lookback_s = facts.setting("lookback_s", 300.0)
        self._scrape_ns = round(1e9 * facts.setting("scrape_interval_s", 15.0))
        self._evaluation_ns = round(1e9 * facts.setting("evaluation_interval_s", 15.0))
        self._asked: dict[str, Asked] = {}

    def asked(self, expression: str) -> Asked:
        """As `asked`."""
        if expression not in self._asked:
            self._asked[expression] = asked(expression)
        return self._asked[expression]

    def stored(self, expression: str, reader: Reader) -> Stored:
        """The series that ``expression`` reads: one object for one set of series. Raises NotAnalysed for a server that is not known."""
        if self.flavour is None:
            msg = f"the arithmetic of {self.server}"
            raise NotAnalysed(msg)
        found = self.asked(expression)
        names = sorted(found.names)
        families = [(reader.series(Source.PROMETHEUS, name), reader.series(Source.RULES, name)) for name in names]
        ups = reader.series(Source.PROMETHEUS, "up") if found.at_once else ()
        all_rules = reader.all_of(Source.RULES) if any(recorded for _, recorded in families) else _NONE
        return reader.once(self._store, found.at_once, found.names, ups, all_rules, *(family for pair in families for family in pair))

    def _store(
        self, at_once: frozenset[str], names: frozenset[str], ups: Family, all_rules: Mapping[str, Family], *families: Family
    ) -> Stored:
        """families: of each name, in their order, what was scraped and what was recorded."""
        assert self.flavour is not None
        evaluated = sorted({at for family in all_rules.values() for each in family for at, _ in each.samples})
        database = {
            name: (
                *(_series(each, ups if name in at_once else ()) for each in scraped),
                *(_recorded(each, evaluated, self._evaluation_ns) for each in recorded),
            )
            for name, scraped, recorded in zip(sorted(names), families[::2], families[1::2], strict=True)
        }
        targets: dict[tuple[str, str], list[UnixNs]] = {}
        for timeline in (each for scraped in families[::2] for each in scraped):
            if len(timeline.samples) > len(targets.get(owner(timeline), ())):
                targets[owner(timeline)] = [at for at, _ in timeline.samples]
        evaluator = Evaluator(database, lookback_s=self._lookback_s, flavour=self.flavour)
        return Stored(evaluator, targets, self._scrape_ns)

    def vector(self, expression: str, reader: Reader, at: UnixNs) -> Vector:
        """The value at ``at``. Raises NotAnalysed for an expression, or a server, whose arithmetic is not known."""
        return self.stored(expression, reader).vector(expression, at)


class Stored:
    """Some series as Prometheus stored them."""

    def __init__(self, evaluator: Evaluator, targets: Mapping[tuple[str, str], list[UnixNs]], scrape_ns: int) -> None:
        """targets: when each was scraped."""
        self._evaluator, self._targets, self._scrape_ns = evaluator, targets, scrape_ns
        self._bounds = sorted(
            {float(text) for each in evaluator.database.values() for one in each for name, text in one.labels if name == "le"}
        )

    def is_edge(self, number: float) -> bool:
        """It is the bound of a bucket, but for rounding."""
        place = bisect.bisect_left(self._bounds, number * (1 - 1e-9) if number > 0 else number)
        return place < len(self._bounds) and self._bounds[place] <= number + abs(number) * 1e-9

    def vector(self, expression: str, at: UnixNs, hidden: Hidden | None = None) -> Vector:
        """The value at ``at``. Raises NotAnalysed."""
        return self._evaluator.vector(expression, round(at / _MS) / 1000, hidden=hidden)

    def not_yet_stored(self, at: UnixNs, looked_at: UnixNs) -> Iterator[Hidden]:
        """Every set of targets whose last scrape before ``at`` may still have been under way at ``looked_at``; the empty one first.

        A sample bears the instant at which its scrape began. All of a scrape is stored at once.
        """
        yield {}
        fresh = []
        for target, scrapes in self._targets.items():
            index = bisect.bisect_right(scrapes, at)
            if index and looked_at - scrapes[index - 1] < self._scrape_ns:
                fresh.append((target, scrapes[index - 1] // _MS))
        fresh = fresh[:_MOST_TARGETS]
        for chosen in range(1, 2 ** len(fresh)):
            yield dict(target for place, target in enumerate(fresh) if chosen >> place & 1)


_MOST_TARGETS = 6


def owner(timeline: Timeline) -> tuple[str, str]:
    """Job and instance: what is scraped together."""
    return timeline.labels.get("job", ""), timeline.labels.get("instance", "")


def _series(timeline: Timeline, ups: tuple[Timeline, ...]) -> Series:
    """As it was stored: a scrape at which it was not there any more left a marker."""
    samples: list[tuple[UnixNs, float | None]] = list(timeline.samples)
    for up in ups:
        if up.labels != timeline.labels and owner(up) == owner(timeline) and samples:
            there = {at for at, _ in timeline.samples}
            samples += [(at, None) for at, _ in up.samples if at > timeline.samples[0][0] and at not in there]
            samples.sort(key=lambda sample: sample[0])
    return _stored(timeline, samples)


def _recorded(timeline: Timeline, evaluated: Sequence[UnixNs], interval_ns: int) -> Series:
    """What a rule wrote: where its group was evaluated and it said nothing, it left a marker. What was evaluated in step with it is of its group."""
    there = dict(timeline.samples)
    if not there:
        return _stored(timeline, [])
    first = timeline.samples[0][0]
    instants = (at for at in evaluated if at >= first and (at - first) % interval_ns == 0)
    return _stored(timeline, [(at, there.get(at)) for at in sorted({*there, *instants})])


def _stored(timeline: Timeline, samples: list[tuple[UnixNs, float | None]]) -> Series:
    labels: Mapping[str, str] = {**timeline.labels, "__name__": timeline.name}
    return Series(labels=tuple(sorted(labels.items())), at_s=[at / 1e9 for at, _ in samples], values=[number for _, number in samples])
