"""Raw samples -> what the recording rules wrote of them: each value recomputed at its own instant by the server's own arithmetic.

The rules that a run is held against are those that ship; they are recorded with it, as text, so that an old run is judged by the rules of its time.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath

import yaml

from assertions.deciding import NO_RATE, P90, needs
from assertions.facts import Facts, unread
from assertions.ledger import Defect, Difference, Key, Kind, Reading, Seen, Step, Thing
from assertions.recomputed import Engine, Stored
from assertions.words import span
from harness.measure.series import Reader, Timeline
from harness.model import Gap, Row, Source, UnixNs, value
from harness.rules.evaluate import Hidden, Labels, NotAnalysed, Vector
from harness.rules.scale import scaled_expression, to_ms

TABLE = "rule file"
"""Rows that hold the rules as text: columns ``file`` and ``text``."""
QUANTITIES: Mapping[str, tuple[str, ...]] = {
    "ttfw": ("voice_agent:ttfw_seconds:",),
    "stt": ("voice_agent:stt_latency_seconds:",),
    "llm": ("voice_agent:llm_latency_seconds:",),
    "tts": ("voice_agent:tts_latency_seconds:",),
    "turns": ("voice_agent:turns:",),
    "tools": ("voice_agent:tool_calls:",),
    "active": ("voice_agent:active_calls:",),
    "loss": ("livekit_packet_loss_ratio",),
    "jitter": ("livekit_jitter_ms",),
    "rtt": ("livekit_rtt_mean_ms",),
}
"""Beginnings of the names that the rules of a quantity write."""
WINDOW_S = 300.0
"""Longest window of the recording rules as shipped; a fast stack divides it by its time scale."""
P95 = "voice_agent:ttfw_seconds:p95"
_BEFORE = """groups:
- name: voice_agent
  rules:
  - {record: "voice_agent:ttfw_seconds:p95", expr: "histogram_quantile(0.95, sum by (le) (rate(voice_agent_ttfw_seconds_bucket[5m])))"}
  - {record: "voice_agent:ttfw_seconds:p50", expr: "histogram_quantile(0.5, sum by (le) (rate(voice_agent_ttfw_seconds_bucket[5m])))"}
  - record: voice_agent:ttfw_seconds:mean
    expr: sum(rate(voice_agent_ttfw_seconds_sum[5m])) / sum(rate(voice_agent_ttfw_seconds_count[5m]))
"""
"""What runs are held against that were recorded before they kept the rules."""
_TIE = 1e-12
"""A rank that is a whole number falls on either side of a bucket's edge by the rounding of rates."""
_ROUNDING = 2e-10
"""Sums over several series are rounded in an order that the engine does not promise."""
_KINDS = frozenset({"value", "evaluated"})
_P95 = "histogram_quantile(0.95,"
_RATE = re.compile(r"\brate\(\s*([^()\[\]]+?)\s*\[[^\]]*\]\s*\)")


@value
class Rule:
    """One recording rule, its durations those of the stack that ran it."""

    record: str
    expression: str
    quantity: str
    query_offset_s: float = 0.0
    """The rule looks this long before its evaluation, and what it records bears the instant at which it looked."""


def shipped(reader: Reader, facts: Facts) -> tuple[Rule, ...]:
    """The recording rules that the run is held against."""
    factor = facts.setting("time_scale", 1.0)
    texts = [str(row.columns["text"]) for row in reader.rows.get(TABLE, ())] or [_BEFORE]
    return tuple(rule for text in texts for rule in _rules(text, factor, facts.setting("rule_query_offset_s", 0.0)))


@functools.lru_cache(maxsize=64)
def _rules(text: str, factor: float, query_offset_s: float) -> tuple[Rule, ...]:
    """query_offset_s: of groups that have none of their own, as it is where the rules run."""
    document = yaml.safe_load(text) or {}
    found = (
        (rule, to_ms(str(group["query_offset"])) / 1000 / factor if "query_offset" in group else query_offset_s)
        for group in document.get("groups", ())
        for rule in group.get("rules", ())
        if "record" in rule
    )
    return tuple(
        Rule(record=record, expression=scaled_expression(str(rule["expr"]), factor), quantity=quantity, query_offset_s=offset_s)
        for rule, offset_s in found
        for record in (str(rule["record"]),)
        for quantity, beginnings in QUANTITIES.items()
        if record.startswith(beginnings)
    )


def definition(file: str, text: str, at: UnixNs) -> Row:
    """The line of a run that keeps a rule file."""
    return Row(source=Source.RULES, table=TABLE, columns={"file": PurePath(file).name, "text": text}, at=at, request=PurePath(file).name)


def quantities(rules: Sequence[Rule], reader: Reader, engine: Engine) -> tuple[str, ...]:
    """The quantities of which something but zeros was stored or recorded, in their order."""
    there = {
        rule.quantity
        for rule in rules
        if _has_numbers(reader.series(Source.RULES, rule.record))
        or any(_has_numbers(reader.series(Source.PROMETHEUS, name)) for name in engine.asked(rule.expression).names)
    }
    return tuple(quantity for quantity in QUANTITIES if quantity in there)


def _has_numbers(timelines: Sequence[Timeline]) -> bool:
    return any(number and not math.isnan(number) for timeline in timelines for _, number in timeline.samples)


def step(quantity: str, source: str, rules: Sequence[Rule], reader: Reader, engine: Engine, facts: Facts) -> Step:
    """The claim ``QUANTITY/rule``. rules: all of the run."""
    ours = tuple(rule for rule in rules if rule.quantity == quantity)
    hop = _Hop(quantity, ours, engine, facts)
    defects = hop.defects()
    short = [rule.record.rpartition(":")[2] for rule in ours]
    window_s = WINDOW_S / facts.setting("time_scale", 1.0)
    return Step(
        claim=f"{quantity}/rule",
        source=source,
        title=f"rules {quantity} {', '.join(short)}" if ":" in ours[0].record else f"rule {ours[0].record}",
        admits=lambda _, reader: hop.recomputed(reader),
        read=hop.said,
        defects=defects,
        show=hop.show,
        explain=hop.explain,
        would_catch=lambda admitted, said: "any change" if admitted.parts else "nothing",
        needs=needs(quantity, defects, [rule.expression for rule in ours], window_s, reader, engine),
    )


def reads(rules: Sequence[Rule], quantity: str, engine: Engine) -> frozenset[str]:
    """Names that the step of a quantity reads."""
    ours = [rule for rule in rules if rule.quantity == quantity]
    return frozenset({rule.record for rule in ours}).union(*(engine.asked(rule.expression).names for rule in ours))


def retold(reader: Reader, touched: frozenset[str], rules: Sequence[Rule], engine: Engine, facts: Facts) -> Reader:
    """A copy in which the rules say what follows from the raw samples called ``touched``."""
    for rule in rules:
        if not engine.asked(rule.expression).names & touched or not reader.series(Source.RULES, rule.record):
            continue
        try:
            told = _told(reader, rule, rule.expression, engine, facts)
        except NotAnalysed:
            continue
        reader = _saying(reader, rule, told)
    return reader


def false_instants(reader: Reader, rules: Sequence[Rule], names: frozenset[str], engine: Engine, facts: Facts) -> frozenset[UnixNs]:
    """Instants at which a rule called one of ``names`` said what it may not say, or was silent where it must speak."""
    found: set[UnixNs] = set()
    for rule in rules:
        if rule.record not in names:
            continue
        try:
            stored = engine.stored(rule.expression, reader)
        except NotAnalysed:
            continue
        instants = tuple(_instants(reader, [each for each in rules if each.quantity == rule.quantity], facts))
        found |= _false(_Same(reader.series(Source.RULES, rule.record)), rule, stored, instants, facts.since)
    return frozenset(found)


class _Same:
    """Series by identity: copies of the observations share those that they do not change."""

    def __init__(self, series: tuple[Timeline, ...]) -> None:
        self.series = series

    def __hash__(self) -> int:
        return id(self.series)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.series is other.series


@functools.lru_cache(maxsize=512)
def _false(recorded: _Same, rule: Rule, stored: Stored, instants: tuple[UnixNs, ...], since: UnixNs) -> frozenset[UnixNs]:
    try:
        admitted, may_lack = _values(rule, stored, instants)
    except NotAnalysed:
        return frozenset()
    said = _said(recorded.series, rule, since)
    return frozenset(
        UnixNs(int(key[2]))
        for key in admitted.keys() | said.keys()
        if (key not in said and key not in may_lack) or (key in said and not said[key] & admitted.get(key, frozenset()))
    )


def _said(recorded: Sequence[Timeline], rule: Rule, since: UnixNs) -> dict[Key, frozenset[str]]:
    parts: dict[Key, frozenset[str]] = {}
    for timeline in recorded:
        labels = labelled(tuple(timeline.labels.items()))
        for at, number in timeline.samples:
            if at > since:
                parts["value", rule.record, str(at), labels] = frozenset({digits(number)})
    return parts


_Told = Mapping[UnixNs, Mapping[str, float]]
"""By instant, the values by labels."""


def _told(reader: Reader, rule: Rule, expression: str, engine: Engine, facts: Facts) -> _Told:
    """What ``expression`` is at each instant at which the rule was evaluated."""
    stored = engine.stored(expression, reader)
    return {
        at: {labelled(labels): number for labels, number in stored.vector(expression, at).items()}
        for at in _instants(reader, (rule,), facts)
    }


def _saying(reader: Reader, rule: Rule, told: _Told) -> Reader:
    """A copy in which the rule said that."""

    def change(timeline: Timeline) -> Timeline:
        labels = labelled(tuple(timeline.labels.items()))
        return timeline.changed(lambda at, number: told[at].get(labels) if at in told else number)

    return reader.with_series(Source.RULES, rule.record, change)


class _Hop:
    """What the rules of one quantity said, and what they may have said."""

    def __init__(self, quantity: str, rules: Sequence[Rule], engine: Engine, facts: Facts) -> None:
        self._quantity, self._rules, self._engine, self._facts = quantity, rules, engine, facts

    def said(self, reader: Reader) -> Seen:
        if gap := unread(reader, Source.RULES):
            return gap
        if not self._facts.is_ours and not any(reader.series(Source.RULES, rule.record) for rule in self._rules):
            reason = f"this stack records no {self._rules[0].record}"
            return Gap(source=Source.RULES, at=UnixNs(0), reason=reason, request="", is_blind=True)
        parts: dict[Key, Thing] = {}
        for rule in self._rules:
            parts.update(_said(reader.series(Source.RULES, rule.record), rule, self._facts.since))
        instants, scrapes = _instants(reader, self._rules, self._facts), self._scrapes(reader)
        patience_s = 3 * self._interval_s() + max(rule.query_offset_s for rule in self._rules)
        is_late = not instants or (scrapes and scrapes[-1] - instants[-1] > 1e9 * patience_s)
        if scrapes:
            parts["evaluated",] = frozenset({"not to the end" if is_late and self._has_values(reader, scrapes[-1]) else "to the end"})
        return Reading(parts=parts)

    def recomputed(self, reader: Reader) -> Reading:
        """What each rule must have said at each instant at which one of them was evaluated."""
        if unread(reader, Source.PROMETHEUS, "voice_agent"):
            return Reading(parts={}, may_add=_KINDS, because=("without the raw samples nothing is known of the window",))
        if self._engine.flavour is None:
            return Reading(parts={}, may_add=_KINDS, because=(f"the arithmetic of {self._engine.server} was never measured",))
        scrapes = self._scrapes(reader)
        if not scrapes:
            return Reading(parts={}, may_add=frozenset({"evaluated"}), because=("without samples there is nothing to record",))
        parts: dict[Key, Thing] = {("evaluated",): frozenset({"to the end"})}
        may_lack: set[Key] = set()
        unknown = ""
        instants = tuple(_instants(reader, self._rules, self._facts) or scrapes)
        for rule in self._rules:
            try:
                found, lacking = _values(rule, self._engine.stored(rule.expression, reader), instants)
                parts.update(found)
                may_lack |= lacking
            except NotAnalysed as exc:
                unknown = f"{rule.record} uses {exc}, which is not recomputed"
        because = [
            f"recomputed from the raw samples of the window before each evaluation, by the arithmetic of {self._engine.flavour.name}",
            "a scrape may not have been stored yet when the rule looked, for as long as one scrape may take",
            *([unknown] if unknown else []),
        ]
        return Reading(
            parts=parts, may_lack=frozenset(may_lack), may_add=frozenset({"value"}) if unknown else frozenset(), because=tuple(because)
        )

    def _has_values(self, reader: Reader, at: UnixNs) -> bool:
        """By the raw samples a rule of ours had something to say at ``at``."""
        try:
            return self._engine.flavour is None or any(self._engine.vector(rule.expression, reader, at) for rule in self._rules)
        except NotAnalysed:
            return True

    def _interval_s(self) -> float:
        return max(self._facts.setting("evaluation_interval_s", 15.0), self._facts.setting("scrape_interval_s", 15.0))

    def _scrapes(self, reader: Reader) -> Sequence[UnixNs]:
        """Instants at which the series that the rules read were scraped."""
        names = {name for rule in self._rules for name in self._engine.asked(rule.expression).names}
        # Of an instance that is gone the samples end; one that is still scraped tells the instants.
        last = (max(found, key=_ended_at) for name in sorted(names) if (found := reader.series(Source.PROMETHEUS, name)))
        return sorted({at for timeline in last for at, _ in timeline.samples if at > self._facts.since})

    def defects(self) -> Mapping[str, Defect]:
        found: dict[str, Callable[[str], str]] = {"in another unit": lambda text: f"1000 * ({text})"}
        if any(_RATE.search(rule.expression) for rule in self._rules):
            found[NO_RATE] = lambda text: _RATE.sub(r"\1", text)
        if any(_P95 in rule.expression for rule in self._rules):
            found[P90] = lambda text: text.replace(_P95, "histogram_quantile(0.9,")
        return {name: self._lying(change) for name, change in found.items()}

    def _lying(self, change: Callable[[str], str]) -> Defect:
        """The first rule of which it makes a difference says what its expression, changed, would."""

        def defect(reader: Reader) -> Reader | None:
            lie = None
            for rule in self._rules:
                changed, timelines = change(rule.expression), reader.series(Source.RULES, rule.record)
                found = (number for each in timelines for at, number in each.samples if at > self._facts.since)
                if changed == rule.expression or not any(math.isfinite(number) and number for number in found):
                    continue
                try:
                    lie = _saying(reader, rule, _told(reader, rule, changed, self._engine, self._facts))
                except NotAnalysed:
                    continue
                honest = _said(timelines, rule, self._facts.since)
                if _said(lie.series(Source.RULES, rule.record), rule, self._facts.since) != honest:
                    return lie
            return lie

        return defect

    def show(self, reading: Reading) -> str:
        """The last value that is a number, of the first rule that has one."""
        for rule in self._rules:
            found = [thing for key, thing in reading.parts.items() if key[:2] == ("value", rule.record) and isinstance(thing, frozenset)]
            for thing in reversed(found):
                numbers = sorted({f"{float(text):.2f}" for text in thing if text != "NaN"})
                if numbers:
                    return " or ".join(numbers) + _unit(rule)
        return "no value" if reading.parts else "any value"

    def explain(self, difference: Difference) -> str:
        if difference.key[0] == "evaluated":
            return "the rules were not evaluated to the end of the run"
        _, name, at, labels = difference.key
        (rule,) = (each for each in self._rules if each.record == name)
        place, split = self._facts.moment(int(at)), f" for {labels}" if labels else ""
        match difference.kind:
            case Kind.LACKS:
                return f"the rule {name} has no value{split} {place}, where the raw samples give {_words(difference.admitted, rule)}"
            case Kind.EXTRA if labels:
                return f"the rule {name} says {_words(difference.said, rule)}{split} {place}; the raw samples give no such line"
            case Kind.EXTRA:
                return f"the rule {name} says {_words(difference.said, rule)} {place}, where its window holds no samples to say it of"
            case Kind.OTHER:
                said, of_it = _words(difference.said, rule), _words(difference.admitted, rule)
                return f"the rule {name} says {said}{split} {place}; of its window it is {of_it}"


@functools.lru_cache(maxsize=256)
def _values(rule: Rule, stored: Stored, instants: tuple[UnixNs, ...]) -> tuple[Mapping[Key, frozenset[str]], frozenset[Key]]:
    """By key every value that the rule may say, and the keys at which it may say nothing."""
    parts: dict[Key, frozenset[str]] = {}
    may_lack: set[Key] = set()
    for at in instants:
        looked_at = UnixNs(at + round(1e9 * rule.query_offset_s))
        views = [view for hidden in stored.not_yet_stored(at, looked_at) for view in _views(rule.expression, stored, at, hidden)]
        admitted: dict[Labels, set[str]] = {}
        for view in views:
            for labels, number in view.items():
                admitted.setdefault(labels, set()).update(roundings(number))
        for labels, found in admitted.items():
            key = ("value", rule.record, str(at), labelled(labels))
            parts[key] = frozenset(found)
            if any(labels not in view for view in views):
                may_lack.add(key)
    return parts, frozenset(may_lack)


def _ended_at(timeline: Timeline) -> int:
    return timeline.samples[-1][0] if timeline.samples else 0


def digits(number: float) -> str:
    """A value as it is compared: nine digits, or ``NaN``."""
    return "NaN" if math.isnan(number) else f"{number:.9g}"


def _views(expression: str, stored: Stored, at: UnixNs, hidden: Hidden) -> Iterator[Vector]:
    """The value, and what a rank on the edge of a bucket may make of it."""
    found = stored.vector(expression, at, hidden)
    yield found
    if any(stored.is_edge(number) for number in found.values()):
        for text in _around(expression):
            yield stored.vector(text, at, hidden)


@functools.lru_cache(maxsize=1024)
def _around(expression: str) -> tuple[str, ...]:
    """The same quantile of a rank that is a hair lower, and higher. Empty: it is no quantile."""
    found = re.match(r"histogram_quantile\(\s*([\d.]+)\s*,", expression)
    if found is None:
        return ()
    share = float(found[1])
    return tuple(f"histogram_quantile({share * by!r},{expression[found.end() :]}" for by in (1 - _TIE, 1 + _TIE))


@functools.lru_cache(maxsize=65536)
def roundings(number: float) -> frozenset[str]:
    """A value as it may be rounded."""
    return frozenset(digits(number * by) for by in (1 - _ROUNDING, 1.0, 1 + _ROUNDING))


@functools.lru_cache(maxsize=65536)
def labelled(labels: Labels) -> str:
    """A label set as it is compared: without the name."""
    return ",".join(f"{name}={text}" for name, text in sorted(labels) if name != "__name__")


def _instants(reader: Reader, rules: Sequence[Rule], facts: Facts) -> Sequence[UnixNs]:
    """Instants at which any of the rules was evaluated."""
    return _evaluated(tuple(_Same(reader.series(Source.RULES, rule.record)) for rule in rules), facts.since)


@functools.lru_cache(maxsize=512)
def _evaluated(families: tuple[_Same, ...], since: UnixNs) -> tuple[UnixNs, ...]:
    return tuple(sorted({at for family in families for timeline in family.series for at, _ in timeline.samples if at > since}))


def _unit(rule: Rule) -> str:
    endings = {"_seconds": " s", "_ms": " ms", "per_minute": "/min"}
    record = rule.record.rpartition(":")[0] if "_seconds:" in rule.record else rule.record
    return next((unit for ending, unit in endings.items() if record.endswith(ending)), "")


def _words(thing: Thing | None, rule: Rule) -> str:
    numbers = sorted({text if text == "NaN" else f"{float(text):.3f}" for text in thing}) if isinstance(thing, frozenset) else []
    return " or ".join(numbers) + _unit(rule) if numbers else span(thing)
