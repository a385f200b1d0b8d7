"""What can be said of someone's alerts against their own Prometheus, read-only: which can never fire, which did, and how often.

*Never* is said of what the rule's text excludes (`harness.rules.bounds`, a label that changes with the value) and of what the server's stored window
shows: a series that is not there, matchers that leave nothing, sides of an operator that have no labels in common, a signal that does not live as
long as ``for``. The second kind holds for that window only, and says so.
"""

from __future__ import annotations

import difflib
import enum
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import promql_parser as pp

from harness.model import value
from harness.rules.alerts import AlertRule, Episode, episodes, machine
from harness.rules.bounds import impossible, is_certain
from harness.rules.evaluate import Labels
from harness.rules.queries import queries
from harness.rules.tree import bare, seconds, selectors, walked

Points = tuple[tuple[float, float], ...]
"""(seconds, value), ascending."""
Matrix = Mapping[Labels, Points]


class Unanswered(Exception):
    """The server was asked and did not answer; the message says why."""


class Server(Protocol):
    """The stored window of one Prometheus, from `start_s` to `end_s`."""

    @property
    def start_s(self) -> float: ...

    @property
    def end_s(self) -> float: ...

    def matching(self, selector: str) -> Sequence[Mapping[str, str]]:
        """Labels of the series that match, or of some of them. Empty if there was none in the window. Raises Unanswered."""

    def over_time(self, expression: str, step_s: float) -> Matrix:
        """The expression at every step of the window. Raises Unanswered."""


class Outlook(enum.StrEnum):
    """What became of a rule."""

    NEVER = "never"
    """It cannot fire: by its text, or by what the server has."""
    FIRED = "fired"
    PENDED = "pended"
    """It was true, and never as long as ``for``."""
    SILENT = "silent"
    """Nothing forbids it, and it was not true once."""
    UNKNOWN = "not analysed"


@value
class Prospect:
    """What was found out about one rule."""

    rule: AlertRule
    outlook: Outlook
    reasons: tuple[str, ...] = ()
    """Why never, or why not analysed."""
    remarks: tuple[str, ...] = ()
    """What else a reader should know."""
    firings: int = 0
    """Episodes that fired within the window."""
    fired_s: float = 0.0
    """Altogether."""
    longest_true_s: float | None = None
    """The longest that the expression held without a break. None: it never did, or was not asked."""


def prospect(rule: AlertRule, server: Server, names: frozenset[str], *, step_s: float) -> Prospect:
    """One rule against the stored window.

    names: of all metrics of the window. step_s: at which the history is replayed; the rule's own interval, or a multiple where that is too fine.
    """
    tree = pp.parse(rule.expression)
    try:
        reasons = tuple(dict.fromkeys((*_by_text(rule, tree, server), *_by_series(tree, server, names))))
        if reasons:
            return Prospect(rule=rule, outlook=Outlook.NEVER, reasons=reasons)
        return _replayed(rule, tree, server, step_s)
    except Unanswered as exc:
        return Prospect(rule=rule, outlook=Outlook.UNKNOWN, reasons=(str(exc),))


def strays(rule: AlertRule, served: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """In what the rule that a server runs is not the one of the file.

    served: the groups of its /api/v1/rules. An alert's name may stand there more than once; one that is as written is enough.
    """
    named = [entry for group in served for entry in group["rules"] if entry.get("type") == "alerting" and entry["name"] == rule.name]
    if not named:
        yield "this server does not run it: its group is not loaded"
        return
    wanted = _normal(rule.expression), rule.for_s
    alike = [entry for entry in named if (_normal(entry["query"]), float(entry.get("duration", 0))) == wanted]
    if not alike:
        entry = named[0]
        yield f"this server runs it otherwise: {entry['query']} for {float(entry.get('duration', 0)):g} s"
    for entry in alike or named:
        if entry.get("health") == "err":
            yield f"this server cannot evaluate it: {entry.get('lastError', 'no reason given')}"


def _normal(expression: str) -> tuple[str, ...]:
    """What two texts of one expression have in common: a server prints matchers in order of their labels."""
    try:
        tree = pp.parse(expression)
    except ValueError:
        return (expression,)
    matchers = (sorted(map(_matcher, _vector(node).matchers.matchers)) for node, _ in selectors(tree))
    return (re.sub(r"\{[^{}]*\}", "", str(tree)), *(", ".join(each) for each in matchers))


def _by_text(rule: AlertRule, tree: pp.Expr, server: Server) -> Iterator[str]:
    for name, template in rule.labels.items():
        if rule.for_s and re.search(r"\$value|\.Value\b", template):
            yield f"label {name} changes with the value: each evaluation is a new alert, and `for` begins again"
    excluded = {selector_text(_vector(node)): why for node, _ in selectors(tree) if (why := _excludes_all(_vector(node))) is not None}
    if excluded and _is_empty(tree, frozenset(excluded)):
        yield from excluded.values()
    for found in impossible(tree, lambda call: _last_bound(call, server)):
        yield f"{found.text}: {found.why}"


def _excludes_all(selector: pp.VectorSelector) -> str | None:
    """Matchers that no label passes. None: some do."""
    wanted: dict[str, set[str]] = {}
    for matcher in selector.matchers.matchers:
        if str(matcher.op) in ("MatchOp.NotRe", "!~") and matcher.value in (".*", "(.*)", "^.*$", ".*|"):
            return f"{_matcher(matcher)} excludes every series"
        if str(matcher.op) in ("MatchOp.Equal", "="):
            wanted.setdefault(matcher.name, set()).add(matcher.value)
    for name, texts in wanted.items():
        if len(texts) > 1:
            return f"{name} cannot be {' and '.join(sorted(texts))} at once"
        for matcher in selector.matchers.matchers:
            if matcher.name == name and not _lets(matcher, next(iter(texts))):
                return f'{name}="{next(iter(texts))}" is excluded by {_matcher(matcher)}'
    return None


def _lets(matcher: pp.Matcher, text: str) -> bool:
    try:
        match str(matcher.op):
            case "MatchOp.NotEqual":
                return text != matcher.value
            case "MatchOp.Re":
                return re.fullmatch(matcher.value, text) is not None
            case "MatchOp.NotRe":
                return re.fullmatch(matcher.value, text) is None
    except re.error:
        return True
    return True


def _last_bound(call: pp.Call, server: Server) -> float | None:
    """The largest finite ``le`` of the buckets below a histogram_quantile."""
    bounds: set[float] = set()
    for node, _ in selectors(call.args[1]):
        for labels in server.matching(selector_text(_vector(node))):
            text = labels.get("le", "")
            bounds |= {float(text)} if re.fullmatch(r"[\d.eE+-]+", text) else set()
    return max(bounds, default=None)


def _by_series(tree: pp.Expr, server: Server, names: frozenset[str]) -> Iterator[str]:
    """Why the expression is empty for want of series. Nothing if it is not."""
    missing: dict[str, str] = {}
    for node, _ in selectors(tree):
        selector = _vector(node)
        text = selector_text(selector)
        if text not in missing and (why := _why_none(selector, server, names)) is not None:
            missing[text] = why
    if missing and _is_empty(tree, frozenset(missing)):
        yield from missing.values()


def _why_none(selector: pp.VectorSelector, server: Server, names: frozenset[str]) -> str | None:
    """Why the selector has no series. None: it has."""
    text = selector_text(selector)
    if selector.name is not None and selector.name not in names:
        near = difflib.get_close_matches(selector.name, names, n=1, cutoff=0.7)
        return f"no series {selector.name}" + (f"; did you mean {near[0]}?" if near else "")
    if server.matching(text):
        return None
    if selector.name is None:
        return f"no series {text}"
    culprits = [
        _matcher(matcher)
        for matcher in selector.matchers.matchers
        if matcher.name != "__name__" and not server.matching(f"{selector.name}{{{_matcher(matcher)}}}")
    ]
    if culprits:
        return f"{selector.name} has series, and none with {', '.join(culprits)}"
    return f"{selector.name} has series, and none that matches all of {text.removeprefix(selector.name)}"


def _is_empty(node: pp.Expr, missing: frozenset[str]) -> bool:
    """Whether the expression yields nothing while these selectors have no series."""
    node = bare(node)
    match node:
        case pp.VectorSelector():
            return selector_text(node) in missing
        case pp.MatrixSelector():
            return selector_text(node.vector_selector) in missing
        case pp.AggregateExpr() | pp.UnaryExpr() | pp.SubqueryExpr():
            return _is_empty(node.expr, missing)
        case pp.Call():
            if node.func.name in ("absent", "absent_over_time", "vector", "time", "scalar"):
                return False
            return any(_is_empty(argument, missing) for argument in node.args)
        case pp.BinaryExpr():
            left, right = _is_empty(node.lhs, missing), _is_empty(node.rhs, missing)
            match str(node.op):
                case "or":
                    return left and right
                case "unless":
                    return left
            return left or right
    return False


def _replayed(rule: AlertRule, tree: pp.Expr, server: Server, step_s: float) -> Prospect:
    """The state machine over what the expression was."""
    found = server.over_time(rule.expression, step_s)
    instants = tuple(server.start_s + step_s * step for step in range(int((server.end_s - server.start_s) / step_s + 1e-6) + 1))
    true_at: dict[float, list[Labels]] = {}
    for labels, points in found.items():
        for at_s, _ in points:
            true_at.setdefault(round(at_s, 3), []).append(labels)
    results = [(at_s, true_at.get(round(at_s, 3), ())) for at_s in instants]
    told = episodes(machine(rule, results), instants)
    longest = max((_lasted(one, server.end_s) for one in told), default=None)
    fired = [one for one in told if one.firing_at_s is not None]
    remarks = list(_remarks(rule, tree, told, server, step_s))
    if not told:
        joined = _never_joined(tree, server, step_s)
        if joined is not None:
            return Prospect(rule=rule, outlook=Outlook.NEVER, reasons=(joined,), remarks=tuple(remarks))
        remarks += _nearest(tree, server, step_s)
        return Prospect(rule=rule, outlook=Outlook.SILENT, remarks=tuple(remarks))
    if not fired:
        lives = _longest_life(tree, server, step_s)
        if lives is not None and lives < rule.for_s:
            reason = f"`for` is {rule.for_s:g} s, and no series of its signal lived longer than {lives:g} s"
            return Prospect(rule=rule, outlook=Outlook.NEVER, reasons=(reason,), remarks=tuple(remarks), longest_true_s=longest)
        return Prospect(rule=rule, outlook=Outlook.PENDED, remarks=tuple(remarks), longest_true_s=longest)
    lasted = sum((server.end_s if one.resolved_at_s is None else one.resolved_at_s) - (one.firing_at_s or 0.0) for one in fired)
    return Prospect(rule=rule, outlook=Outlook.FIRED, remarks=tuple(remarks), firings=len(fired), fired_s=lasted, longest_true_s=longest)


def _lasted(one: Episode, end_s: float) -> float:
    return (end_s if one.resolved_at_s is None else one.resolved_at_s) - one.pending_at_s


def _remarks(rule: AlertRule, tree: pp.Expr, told: Sequence[Episode], server: Server, step_s: float) -> Iterator[str]:
    if is_certain(tree):
        yield "true for every value that it can be given: it fires as soon as there is a series"
    if step_s > rule.interval_s:
        yield f"replayed every {step_s:g} s, evaluated every {rule.interval_s:g} s: shorter breaches are not seen"
    if told and all(_lasted(one, server.end_s) >= server.end_s - server.start_s - 2 * step_s for one in told):
        yield "true during the whole window"


def _nearest(tree: pp.Expr, server: Server, step_s: float) -> Iterator[str]:
    """How near the value came to the threshold it is compared with."""
    node = bare(tree)
    if not isinstance(node, pp.BinaryExpr) or str(node.op) not in (">", ">=", "<", "<=") or not _is_printable(node):
        return
    threshold = bare(node.rhs)
    if not isinstance(threshold, pp.NumberLiteral):
        return
    values = [number for points in server.over_time(str(node.lhs), step_s).values() for _, number in points if number == number]
    if values:
        extreme = max(values) if ">" in str(node.op) else min(values)
        yield f"nearest {extreme:.4g}, threshold {float(threshold.val):g}"


def _never_joined(tree: pp.Expr, server: Server, step_s: float) -> str | None:
    """Both sides of an operator have results, and no labels in common. None: they match, or there is no such operator."""
    for node in walked(tree):
        if not isinstance(node, pp.BinaryExpr) or str(node.op) not in ("+", "-", "*", "/") or not _is_printable(node):
            continue
        sides = [server.over_time(str(side), step_s) for side in (node.lhs, node.rhs) if list(selectors(side))]
        if len(sides) == 2 and all(sides) and not server.over_time(str(node), step_s):
            left, right = (dict(next(iter(side))) for side in sides)
            differing = sorted(name for name in left.keys() | right.keys() if name != "__name__" and left.get(name) != right.get(name))
            return f"both sides of {node.op} have results and none with the same labels; they differ in {', '.join(differing[:4])}"
    return None


def _longest_life(tree: pp.Expr, server: Server, step_s: float) -> float | None:
    """The longest that any series of the signal was there without a break, if each of them came and went within the window."""
    lives: list[float] = []
    for node, _ in selectors(tree):
        for points in server.over_time(selector_text(_vector(node)), step_s).values():
            if points[0][0] <= server.start_s + step_s or points[-1][0] >= server.end_s - step_s:
                return None
            breaks = [-1, *(at for at, (a, b) in enumerate(itertools.pairwise(points)) if b[0] - a[0] > 1.5 * step_s), len(points) - 1]
            window_s = seconds(node.range) if isinstance(node, pp.MatrixSelector) else 0.0
            lives += [points[last][0] - points[first + 1][0] + step_s + window_s for first, last in itertools.pairwise(breaks)]
    return max(lives, default=None)


def selector_texts(path: Path) -> Iterator[str]:
    """Every selector of a rule file, those of recording rules included."""
    for query in queries(path):
        for node, _ in selectors(pp.parse(query.expression)):
            yield selector_text(_vector(node))


def selector_text(node: pp.VectorSelector) -> str:
    """The selector without its offset, for a server."""
    matchers = ", ".join(_matcher(matcher) for matcher in node.matchers.matchers if not (node.name and matcher.name == "__name__"))
    return f"{node.name or ''}{{{matchers}}}" if matchers else f"{node.name}"


def _matcher(matcher: pp.Matcher) -> str:
    signs = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}
    text = matcher.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{matcher.name}{signs.get(str(matcher.op), str(matcher.op))}"{text}"'


def _vector(node: pp.VectorSelector | pp.MatrixSelector) -> pp.VectorSelector:
    return node.vector_selector if isinstance(node, pp.MatrixSelector) else node


def _is_printable(node: pp.Expr) -> bool:
    """Whether promql-parser prints what it read: it loses a subquery's colon, fractions of a second, and what is escaped in a string."""
    for each in walked(node):
        if isinstance(each, pp.SubqueryExpr | pp.StringLiteral):
            return False
        if isinstance(each, pp.MatrixSelector) and seconds(each.range) % 1:
            return False
        if isinstance(each, pp.VectorSelector) and any(set(matcher.value) & set('\\"\n') for matcher in each.matchers.matchers):
            return False
    return True
