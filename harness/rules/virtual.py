"""Bracketed promtool cases from any alerting rule: silent one evaluation before, firing at the predicted one, and the edges around it.

The evaluator of `harness.rules.evaluate` and the state machine of `harness.rules.alerts` predict the instants; promtool, the real engine, must
agree at every one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import promql_parser as pp

from harness.model import value
from harness.rules.alerts import AlertRule, phases
from harness.rules.drivers import Step, steps
from harness.rules.evaluate import Database, NotAnalysed, Series
from harness.rules.inputs import STEP_S, Input, Level, Timeline, database, grid, widest_s

MARGIN = 1e-3
"""Relative distance of "just below" and "just above" from the level at which the expression turns."""
_TESTS_A_FILE = 3
"""Files are what promtools beside each other share out."""
_RULES_A_TEST = 12
_NEVER_LONGER_S = 8 * 3600.0


@value
class Case:
    """One promtool test: input levels before and after a step, and at which instants how many alerts fire."""

    rule: str
    name: str
    """``step``, ``calm``, ``just below``, ``just above``, ``at the threshold``, ``spike``, ``absent``, ``stale``, ``NaN``, ``reset``, ``arm 2``."""
    inputs: tuple[tuple[str, str], ...]
    """Each series and its samples, as promtool writes them."""
    expected: tuple[tuple[float, int], ...]
    """(instant in seconds, number of firing alerts)."""
    says: str


@value
class Proof:
    """What can be shown of one rule in virtual time."""

    rule: AlertRule
    driver: str | None
    """The selector that decides. None: none was found, or the rule cannot be analysed."""
    threshold: float | None
    """The driver's level at which the expression turns. None: its presence decides, or it is always true."""
    fires_after_s: float | None
    """From the step of the input to the first firing evaluation, on the 15 s grid."""
    cases: tuple[Case, ...]
    not_shown: str | None = None
    """Why nothing could be shown."""


def prove(rule: AlertRule) -> Proof:
    """The cases that bracket one rule."""
    try:
        return _proof(rule)
    except NotAnalysed as exc:
        return _nothing(rule, f"it uses {exc}")


def promtool_files(proofs: Sequence[Proof]) -> dict[str, dict[str, Any]]:
    """Files for ``promtool test rules``, by name: rules as they were written, and their cases.

    A promtool test costs some 20 ms before anything is evaluated, so rules that share no metric share tests: the first case of each, then the
    second of each.
    """
    files: dict[str, dict[str, Any]] = {}
    for number, together in enumerate(_strangers([proof for proof in proofs if proof.cases])):
        rules = f"rules-{number}.yml"
        files[rules] = {"groups": [{"name": f"g{place}", "rules": [dict(each.rule.text)]} for place, each in enumerate(together)]}
        rounds = itertools.zip_longest(*([(proof.rule, case) for case in proof.cases] for proof in together))
        tests = [_promtool_test([entry for entry in entries if entry is not None]) for entries in rounds]
        for start in range(0, len(tests), _TESTS_A_FILE):
            files[f"test-{number}-{start}.yml"] = {
                "rule_files": [rules],
                "evaluation_interval": f"{together[0].rule.interval_s:g}s",
                "tests": tests[start : start + _TESTS_A_FILE],
            }
    return files


def _strangers(proofs: Sequence[Proof]) -> list[list[Proof]]:
    """Rules put together so that none feeds a metric that another one reads, all are evaluated alike, and none waits long for another."""
    found: list[tuple[set[str], list[Proof]]] = []
    for proof in sorted(proofs, key=_lasts_s):
        # What a rule is fed is what it reads; two alerts of one name cannot be told apart, and ALERTS is everybody's.
        names = {proof.rule.name, *(named.split("{")[0] for case in proof.cases for named, _ in case.inputs)}
        fits = (entry for entry in found if _fit(entry, names, proof))
        taken, together = next(fits, (None, None))
        if taken is None or together is None:
            found.append((names, [proof]))
        else:
            taken |= names
            together.append(proof)
    return [together for _, together in found]


def _fit(entry: tuple[set[str], list[Proof]], names: set[str], proof: Proof) -> bool:
    taken, together = entry
    return (
        len(together) < _RULES_A_TEST
        and not taken & names
        and "ALERTS" not in taken | names
        and together[0].rule.interval_s == proof.rule.interval_s
        and _lasts_s(proof) <= 1.5 * _lasts_s(together[0])
    )


def _lasts_s(proof: Proof) -> float:
    return max(at_s for case in proof.cases for at_s, _ in case.expected)


def _nothing(rule: AlertRule, why: str) -> Proof:
    return Proof(rule=rule, driver=None, threshold=None, fires_after_s=None, cases=(), not_shown=why)


def _proof(rule: AlertRule) -> Proof:
    tree = pp.parse(rule.expression)
    found = steps(tree)
    if not found:
        return _nothing(rule, "no single input was found that turns it")
    step, widest = found[0], widest_s(tree)
    breach_s = grid(rule.for_s + widest + 300.0)
    if breach_s > _NEVER_LONGER_S:
        return _nothing(rule, f"`for` and windows last longer than the {_NEVER_LONGER_S / 3600:g} h that a case may take")
    timeline = Timeline(calm_s=grid(max(widest, 60.0) + 60.0), breach_s=breach_s)
    fires_at = _first_firing(rule, database(step.calm, step.breach, timeline), timeline.end_s)
    if fires_at is None:
        return _nothing(rule, "the step never made it fire")
    others = (
        _case(rule, f"arm {number}", each.calm, each.breach, timeline, f"{each.driver} alone makes it fire")
        for number, each in enumerate(found[1:], start=2)
    )
    return Proof(
        rule=rule,
        driver=str(step.driver) if step.driver else None,
        threshold=step.threshold,
        fires_after_s=fires_at - timeline.calm_s if step.driver else fires_at,
        cases=(*_cases(rule, step, timeline), *others),
    )


def _cases(rule: AlertRule, step: Step, timeline: Timeline) -> Iterator[Case]:
    calm_s, end_s = timeline.calm_s, timeline.end_s
    yield _case(rule, "step", step.calm, step.breach, timeline, "silent one evaluation before, firing at the predicted one")
    if step.driver is None:
        return
    yield _case(rule, "calm", step.calm, step.calm, timeline, "never fires")
    if rule.for_s > rule.interval_s:
        short_s = grid(rule.for_s - rule.interval_s)
        spike = Timeline(calm_s=calm_s, breach_s=short_s, back_s=end_s - calm_s - short_s)
        yield _case(rule, "spike", step.calm, step.breach, spike, "shorter than `for`: never fires, unless the window keeps it alive")
    stale = Timeline(calm_s=calm_s, breach_s=timeline.breach_s, stale_at_s=end_s - 120.0)
    yield _case(rule, "stale", step.calm, step.breach, stale, "the series end with a staleness marker")
    absent = dict.fromkeys(step.breach)
    yield _case(rule, "absent", absent, absent, timeline, "no input series at all")
    if step.threshold is None:
        return
    for name, level in _around(step.driver, step.threshold):
        held = {**step.breach, step.driver: level}
        yield _case(rule, name, step.calm, held, timeline, f"{step.driver} held {name}: {level!r}")
    if not step.driver.is_counter:
        yield _case(rule, "NaN", step.calm, {**step.breach, step.driver: math.nan}, timeline, f"{step.driver} is not a number")
    else:
        reset = Timeline(calm_s=calm_s, breach_s=timeline.breach_s, reset_at_s=calm_s + grid(timeline.breach_s / 2))
        yield _case(rule, "reset", step.calm, step.breach, reset, "the counter restarts in the middle of the breach")


def _around(driver: Input, threshold: float) -> Iterator[tuple[str, float]]:
    """Levels just on either side of the threshold, and on it where it is exactly representable."""
    away = max(abs(threshold) * MARGIN, 1e-6)
    yield "just below", threshold - away
    yield "just above", threshold + away
    # A counter's level is exact where every step of it is a whole number.
    if threshold == round(threshold, 6) if not driver.is_counter else (driver.bounds or (threshold * STEP_S).is_integer()):
        yield "at the threshold", threshold


def _first_firing(rule: AlertRule, samples: Database, end_s: float) -> float | None:
    return next((phase.at_s for phase in phases(rule, samples, 0.0, end_s) if phase.state == "firing"), None)


def _case(rule: AlertRule, name: str, calm: Mapping[Input, Level], breach: Mapping[Input, Level], timeline: Timeline, says: str) -> Case:
    samples, end_s = database(calm, breach, timeline), timeline.end_s
    firing: dict[float, int] = {}
    for phase in phases(rule, samples, 0.0, end_s):
        firing[phase.at_s] = firing.get(phase.at_s, 0) + (phase.state == "firing")
    instants = [step * rule.interval_s for step in range(round(end_s / rule.interval_s) + 1)]
    turns = {0.0, instants[-1]}
    for before, after in itertools.pairwise(instants):
        if firing.get(before, 0) != firing.get(after, 0):
            turns |= {before, after}
    written = tuple((_text(found), _values(found, end_s)) for entries in samples.values() for found in entries if found.at_s)
    expected = tuple((at_s, firing.get(at_s, 0)) for at_s in sorted(turns))
    return Case(rule=rule.name, name=name, inputs=written, expected=expected, says=says)


def _text(found: Series) -> str:
    labels = dict(found.labels)
    return str(Input(metric=labels.pop("__name__"), labels=tuple(labels.items()), is_counter=False))


def _values(found: Series, end_s: float) -> str:
    """promtool's notation: runs of one value are folded."""
    by_instant = dict(zip(found.at_s, found.values, strict=True))
    ticks = [_number(by_instant[tick * STEP_S]) if tick * STEP_S in by_instant else "_" for tick in range(round(end_s / STEP_S) + 1)]
    parts = []
    for text, run in itertools.groupby(ticks):
        length = len(list(run))
        folds = length > 1 and text[-1].isdigit()
        parts.append(f"{text}x{length - 1}" if folds else " ".join([text] * length))
    return " ".join(parts)


def _number(number: float | None) -> str:
    return "stale" if number is None else "NaN" if math.isnan(number) else repr(float(number))


def _promtool_test(entries: Sequence[tuple[AlertRule, Case]]) -> dict[str, Any]:
    return {
        "name": "; ".join(f"{rule.name}: {case.name}" for rule, case in entries),
        "interval": f"{STEP_S:g}s",
        "input_series": [{"series": named, "values": values} for _, case in entries for named, values in case.inputs],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{rule.name}", alertstate="firing"}}) or vector(0)',
                "eval_time": f"{round(at_s)}s",
                "exp_samples": [{"labels": "{}", "value": count}],
            }
            for rule, case in entries
            for at_s, count in case.expected
        ],
    }
