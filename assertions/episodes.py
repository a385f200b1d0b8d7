"""What each hop says of alerts, put together as episodes: what the stored samples make of the rules, states, deliveries, rows. Seconds of the run."""

from __future__ import annotations

import bisect
import collections
import datetime as dt
import itertools
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from assertions.realtime import LATE_S
from harness import codec
from harness.measure.delivery import PROOFS, Canary, told_by
from harness.measure.series import Reader
from harness.model import RunInfo, Source, value
from harness.rules import real
from harness.rules.alerts import AlertRule, Episode, Phase, episodes
from harness.rules.delivery import Route
from harness.rules.drills import BY_NAME, Fault
from harness.rules.evaluate import Labels
from harness.rules.real import Plan, Watched
from harness.rules.scale import to_ms
from harness.rules.windows import Admitted, Cadence, Window, whole

WATCHDOG = "Watchdog"
POST_S = 0.5
"""Of drills that were recorded before they measured it: longest time of a request between two servers of one machine."""
MS_S = 0.0015
"""Instants that travel as text with milliseconds."""
SPOILED = "a scrape of its target failed meanwhile, on a busy machine for its lateness"
_UNSCRAPED = ("down", "flapping", "vanished")
"""Faults that are failed scrapes themselves."""
_WINDOW_SCRAPES = 20
_OWN = ("alertname", "alertstate")
Who = tuple[str, Labels]
"""An alert and the labels that its expression yields."""


@value
class Due:
    """An episode that the rule's own text makes of the stored samples."""

    who: Who
    begin: Window
    """The first evaluation that finds it true. More than one instant: a sample came so close before it that it may have been seen or not."""
    fires: Window | None
    over: Window | None
    """None: it lasted to the end."""
    must_fire: bool
    """False beside a window: whether it fires depends on such samples."""
    is_sure: bool
    """False: only if such a sample was seen, or only if it was not."""
    is_loose: bool = False
    """It may have been several: each time such a sample decides whether the next one continues the last."""

    @property
    def name(self) -> str:
        return named(self.who)


@value
class Told:
    """One alert of one delivery."""

    who: Who
    at_s: float
    stored_at_s: float | None
    is_over: bool
    starts_at_s: float
    ends_at_s: float


@value
class Kept:
    """A row."""

    who: Who
    starts_at_s: float
    resolved_at_s: float | None
    resolution: str | None
    recorded_at_s: float
    severity: str
    service: str
    heard_at_s: float | None = None
    """When Realtime told of it. None: never."""


@value
class Story:
    """One drill as its hops tell it."""

    rules: Mapping[str, AlertRule]
    cadence: Cadence
    route: Mapping[str, Route]
    """By alert."""
    grid: tuple[float, ...]
    """Evaluations, as the Watchdog shows them."""
    distance_s: float | None
    """Between two of them. None: there is no Watchdog."""
    faults: tuple[Fault, ...]
    admitted: tuple[Admitted | str, ...]
    """What each fault admits; of one that was real and is not known well enough, why."""
    plan: Plan | None
    """What was to be real. None: nothing."""
    let_go: tuple[str, ...]
    """Real faults that ended too soon, and why."""
    due: tuple[Due, ...]
    states: tuple[tuple[Who, Episode], ...]
    told: tuple[Told, ...]
    kept: tuple[Kept, ...]
    missed: tuple[tuple[Mapping[str, str], float], ...]
    """Scrapes that failed, by the labels of their target."""
    is_heard: bool
    """A listener of Realtime was there all the time."""
    canaries: tuple[tuple[float, float], ...]
    """Rows of our own that it heard, too: just before each was written, and when it was heard. Empty: they were not recorded."""
    until_s: float

    @staticmethod
    def of(info: RunInfo, reader: Reader) -> Story:
        """Of what a reader says. Every step asks for it, so the last ones are kept."""
        for known, of_run, story in _KEPT:
            if known is reader and of_run is info:
                return story
        _KEPT.append((reader, info, Story._made(info, reader)))
        return _KEPT[-1][2]

    @staticmethod
    def _made(info: RunInfo, reader: Reader) -> Story:
        start_s = info.started_at / 1e9
        alerting = info.settings["alerting"]
        rules = {rule.name: rule for rule in (codec.from_json(AlertRule, each) for each in alerting["rules"])}
        interval_s = float(info.settings["evaluation_interval_s"])
        latency_s = next((float(row.columns["latency_s"]) for row in reader.rows.get("ingest", ())), 0.0)
        until_s = ((info.load_ended_at or info.started_at) - info.started_at) / 1e9
        beats = _beats(reader, start_s)
        distance_s = statistics.median(b - a for a, b in itertools.pairwise(beats)) if len(beats) > 1 else None
        is_regular = distance_s is not None and abs(distance_s - interval_s) < MS_S
        grid = beats if is_regular else _regular(reader, beats, start_s, until_s, interval_s)
        states = tuple(_states(reader, rules, grid if is_regular else beats, start_s))
        # What began before the drill is nobody's: a rule that has just been loaded writes no ALERTS at its first evaluations.
        before = {(who, episode.firing_at_s) for who, episode in states if episode.pending_at_s < 0}

        def is_ours(who: Who, starts_at_s: float) -> bool:
            is_known = any(who == other and at_s is not None and abs(at_s - starts_at_s) < MS_S for other, at_s in before)
            return who[0] == WATCHDOG or (starts_at_s >= 0 and not is_known)

        cadence = Cadence(scrape_s=float(info.settings["scrape_interval_s"]), evaluation_s=interval_s, ingest_s=latency_s)
        faults = tuple(_faults(reader, start_s))
        plan = None if alerting.get("real") is None else codec.from_json(Plan, alerting["real"])
        watched = _watched(reader, start_s)

        def admitted(fault: Fault) -> Admitted | str:
            rule = rules[fault.alert]
            if plan is None or fault.subject not in plan.subjects:
                return fault.admits(rule, cadence)
            return real.admitted(fault, rule, watched[fault.subject], grid, cadence) if fault.subject in watched else "nothing was watched"

        return Story(
            rules=rules,
            cadence=cadence,
            route={name: _route(rule, alerting, _post_s(reader)) for name, rule in rules.items()},
            grid=grid,
            distance_s=distance_s,
            faults=faults,
            admitted=tuple(admitted(fault) for fault in faults),
            plan=plan,
            let_go=tuple(f"{row.columns['subject']}: {row.columns['reason']}" for row in reader.rows.get("unreal", ())),
            due=tuple(due for due in _due(reader, rules, grid, start_s) if due.begin.earliest_s >= 0),
            states=tuple((who, episode) for who, episode in states if who[0] == WATCHDOG or episode.pending_at_s >= 0),
            told=tuple(told for told in _told(reader, rules, start_s) if is_ours(told.who, told.starts_at_s)),
            kept=tuple(kept for kept in _kept(reader, rules, start_s) if is_ours(kept.who, kept.starts_at_s)),
            missed=tuple(
                (row.columns["labels"], float(at) - start_s) for row in reader.rows.get("missed", ()) for at in row.columns["at_s"]
            ),
            is_heard=reader.is_read(Source.REALTIME) and reader.gap(Source.REALTIME) is None,
            canaries=tuple(_canaries(reader, start_s)),
            until_s=until_s,
        )

    def heard_by_s(self, stored_s: float) -> float:
        """The latest instant at which Realtime may tell a row that was stored then: changes come in order, so before a canary that was written later.

        The end of the drill if none was.
        """
        if not self.canaries:
            return stored_s + LATE_S
        return next((heard_s for written_s, heard_s in self.canaries if written_s >= stored_s + MS_S), self.until_s + MS_S)

    def is_real(self, fault: Fault) -> bool:
        """Done in earnest, not scripted."""
        return self.plan is not None and fault.subject in self.plan.subjects

    def states_of(self, due: Due) -> list[Episode]:
        """Episodes of ``ALERTS`` that answer to a due one: of those that overlap it the one that begins nearest, or all if it is loose."""
        last_s = float("inf") if due.over is None else due.over.latest_s

        def overlaps(episode: Episode) -> bool:
            over_s = float("inf") if episode.resolved_at_s is None else episode.resolved_at_s
            return episode.pending_at_s <= last_s and over_s >= due.begin.earliest_s

        found = [episode for who, episode in self.states if who == due.who and overlaps(episode)]
        return found if due.is_loose else sorted(found, key=lambda episode: abs(episode.pending_at_s - due.begin.earliest_s))[:1]

    def state_of(self, due: Due) -> Episode | None:
        """The first of them. None: there is none."""
        return next(iter(self.states_of(due)), None)

    def is_spoiled(self, fault: Fault) -> bool:
        """A scrape of what it acted on failed meanwhile, though it was not the one to fail: what the samples then show is not its doing."""
        if fault.subject in _UNSCRAPED:
            return False
        until_s = self.until_s if fault.ended is None else fault.ended.latest_s
        jobs = ("voice-agent", "livekit") if BY_NAME[fault.subject].needs_calls else ()
        reach_s = _WINDOW_SCRAPES * self.cadence.scrape_s
        return any(
            fault.begun.earliest_s - reach_s <= at_s <= until_s + reach_s
            and (labels.get("job") in jobs if jobs else labels.get("instance") == fault.labels.get("instance"))
            for labels, at_s in self.missed
        )

    def judged(self) -> Iterator[tuple[Fault, Admitted | str]]:
        """Each fault with what it admits, or why it is not judged."""
        for fault, admitted in zip(self.faults, self.admitted, strict=True):
            yield fault, SPOILED if self.is_spoiled(fault) else admitted

    def fired(self) -> Iterator[tuple[Who, Episode, float]]:
        """Episodes of ``ALERTS`` that fired, with the instant at which they did."""
        for who, episode in self.states:
            if who[0] != WATCHDOG and episode.firing_at_s is not None:
                yield who, episode, episode.firing_at_s

    def deliveries(self, who: Who, starts_at_s: float, *, is_over: bool) -> list[Told]:
        """Of one episode, in order."""
        return [told for told in self.told if told.who == who and told.is_over is is_over and abs(told.starts_at_s - starts_at_s) < MS_S]

    def row(self, who: Who, starts_at_s: float) -> Kept | None:
        return next((kept for kept in self.kept if kept.who == who and abs(kept.starts_at_s - starts_at_s) < MS_S), None)


_KEPT: collections.deque[tuple[Reader, RunInfo, Story]] = collections.deque(maxlen=2)


def named(who: Who) -> str:
    """``HostDiskFull{instance=host-a}``: the labels that tell an alert from its likes."""
    labels = dict(who[1])
    shown = ",".join(f"{name}={labels[name]}" for name in ("instance", "mountpoint", "direction") if name in labels)
    return f"{who[0]}{{{shown}}}" if shown else f"{who[0]}{{job={labels['job']}}}" if "job" in labels else who[0]


def _beats(reader: Reader, start_s: float) -> tuple[float, ...]:
    found = [
        round(float(at) - start_s, 3)
        for row in reader.rows.get("alert_states", ())
        if row.columns["labels"].get("alertname") == WATCHDOG
        for at in row.columns["at_s"]
    ]
    return tuple(sorted(found))


def _regular(reader: Reader, beats: Sequence[float], start_s: float, until_s: float, step_s: float) -> tuple[float, ...]:
    """Evaluations as they should have been: the phase is any that is known."""
    asked = [float(at) for row in reader.rows.get("alert_truth", ()) for at in row.columns["at_s"][:1]]
    phase_s = beats[0] if beats else round(asked[0] - start_s, 3) if asked else 0.0
    first = phase_s % step_s
    return tuple(round(first + step * step_s, 3) for step in range(int(max(0.0, until_s - first) / step_s) + 1))


def _faults(reader: Reader, start_s: float) -> Iterator[Fault]:
    for row in reader.rows.get("faults", ()):
        fault: Fault = codec.from_json(Fault, row.columns)
        ended = None if fault.ended is None else fault.ended.later(-start_s)
        yield Fault(
            subject=fault.subject,
            alert=fault.alert,
            labels=fault.labels,
            kind=fault.kind,
            begun=fault.begun.later(-start_s),
            ended=ended,
            level=fault.level,
        )


def _watched(reader: Reader, start_s: float) -> Mapping[str, Watched]:
    """By subject, on the clock of the run."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in reader.rows.get("watched", ()):
        part = codec.from_json(Watched, {name: row.columns[name] for name in ("at_s", "values")})
        found.setdefault(row.columns["subject"], []).extend(
            (at - start_s, number) for at, number in zip(part.at_s, part.values, strict=True)
        )
    return {
        name: Watched(at_s=tuple(at for at, _ in points), values=tuple(number for _, number in points)) for name, points in found.items()
    }


def _canaries(reader: Reader, start_s: float) -> Iterator[tuple[float, float]]:
    for told in map(told_by, reader.rows.get(PROOFS, ())):
        if isinstance(told, Canary) and told.heard_at is not None:
            yield told.written_at / 1e9 - start_s, told.heard_at / 1e9 - start_s


def _due(reader: Reader, rules: Mapping[str, AlertRule], grid: Sequence[float], start_s: float) -> Iterator[Due]:
    """By every evaluation that may have found it true, with the sample that came just before it or without."""
    true: dict[Who, dict[bool, set[float]]] = {}
    for row in reader.rows.get("alert_truth", ()):
        columns = row.columns
        who = (str(columns["alert"]), _identity(columns["labels"]))
        found = true.setdefault(who, {True: set(), False: set()})[columns["shift_s"] == 0]
        found.update(round(float(at) - start_s, 3) for at in columns["at_s"])
    after = dict(zip(grid, (*grid[1:], None), strict=True))
    for who, seen in true.items():
        if who[0] == WATCHDOG:
            continue
        sure = seen[True] & seen[False]
        for run in _runs(seen[True] | seen[False], grid):
            yield _of_run(who, run, list(_runs(sure & set(run), grid)), after, rules[who[0]])


def _runs(true: set[float], grid: Sequence[float]) -> Iterator[tuple[float, ...]]:
    """Evaluations in a row."""
    for is_true, found in itertools.groupby(grid, key=lambda at_s: at_s in true):
        if is_true:
            yield tuple(found)


def _of_run(
    who: Who, run: tuple[float, ...], cores: Sequence[tuple[float, ...]], after: Mapping[float, float | None], rule: AlertRule
) -> Due:
    """cores: the parts of the run that are true either way. With none it may not have been, with several it may have been several."""
    wait_s, kept_s = (whole(each, rule.interval_s) for each in (rule.for_s, rule.keep_firing_for_s))
    begins = (run[0], cores[0][0] if len(cores) == 1 else run[-1])
    ends = (after[cores[0][-1]] if len(cores) == 1 else after[run[0]], after[run[-1]])
    can_fire = run[0] + wait_s <= run[-1] + MS_S
    return Due(
        who=who,
        begin=Window(earliest_s=begins[0], latest_s=begins[1]),
        fires=Window(earliest_s=begins[0] + wait_s, latest_s=begins[1] + wait_s) if can_fire else None,
        over=None if ends[0] is None or ends[1] is None else Window(earliest_s=ends[0], latest_s=ends[1] + (kept_s if can_fire else 0.0)),
        must_fire=len(cores) == 1 and cores[0][0] + wait_s <= cores[0][-1] + MS_S,
        is_sure=len(cores) == 1,
        is_loose=len(cores) > 1,
    )


def _states(reader: Reader, rules: Mapping[str, AlertRule], grid: Sequence[float], start_s: float) -> Iterator[tuple[Who, Episode]]:
    phases: dict[Who, list[Phase]] = {}
    known = set(grid)
    for row in reader.rows.get("alert_states", ()):
        labels = row.columns["labels"]
        who = _who(labels, rules)
        for at in row.columns["at_s"]:
            at_s = round(float(at) - start_s, 3)
            if at_s in known:
                phases.setdefault(who, []).append(Phase(at_s=at_s, labels=who[1], state=labels["alertstate"]))
    for who, found in phases.items():
        for episode in episodes(sorted(found, key=lambda phase: phase.at_s), grid):
            yield who, episode


def _told(reader: Reader, rules: Mapping[str, AlertRule], start_s: float) -> Iterator[Told]:
    for row in sorted(reader.rows.get("deliveries", ()), key=lambda row: int(row.columns["at"])):
        stored_at = row.columns["stored_at"]
        for alert in row.columns["alerts"]:
            yield Told(
                who=_who(alert["labels"], rules),
                at_s=int(row.columns["at"]) / 1e9 - start_s,
                stored_at_s=None if stored_at is None else int(stored_at) / 1e9 - start_s,
                is_over=alert["status"] == "resolved",
                starts_at_s=instant_s(alert["startsAt"]) - start_s,
                ends_at_s=instant_s(alert["endsAt"]) - start_s,
            )


def _kept(reader: Reader, rules: Mapping[str, AlertRule], start_s: float) -> Iterator[Kept]:
    heard = {row.columns["id"]: row.at / 1e9 - start_s for row in reversed(reader.rows.get("heard", ()))}
    for row in reader.rows.get("alerts_history", ()):
        columns = row.columns
        if columns.get("labels") is None:
            continue
        resolved_at = columns["resolved_at"]
        yield Kept(
            who=_who(columns["labels"], rules),
            starts_at_s=instant_s(columns["starts_at"]) - start_s,
            resolved_at_s=None if resolved_at is None else instant_s(resolved_at) - start_s,
            resolution=columns["resolution"],
            recorded_at_s=instant_s(columns["recorded_at"]) - start_s,
            severity=columns["severity"],
            service=columns["service"],
            heard_at_s=heard.get(columns["id"]),
        )


def instant_s(text: str) -> float:
    """RFC 3339 in seconds since the epoch; to the microsecond. Alertmanager's zero, year 1, is 0."""
    head, dot, tail = text.partition(".")
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        text = f"{head}.{digits[:6]:0<6}{tail[len(digits) :]}"
    return max(0.0, dt.datetime.fromisoformat(text).timestamp()) if not text.startswith("0001") else 0.0


def _who(labels: Mapping[str, str], rules: Mapping[str, AlertRule]) -> Who:
    """Without what the rule adds."""
    name = labels.get("alertname", "")
    added = rules[name].labels if name in rules else {}
    return name, _identity({key: text for key, text in labels.items() if key not in _OWN and key not in added})


def _identity(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted((key, text) for key, text in labels.items() if key != "__name__"))


def _full(who: Who, rules: Mapping[str, AlertRule]) -> dict[str, str]:
    added = rules[who[0]].labels if who[0] in rules else {}
    return {**dict(who[1]), **added, "alertname": who[0]}


def _matches(labels: Mapping[str, str], matcher: str) -> bool:
    found = re.fullmatch(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"?(.*?)"?\s*', matcher)
    if found is None:
        return False
    text = labels.get(found[1], "")
    is_equal = re.fullmatch(found[3], text) is not None if "~" in found[2] else text == found[3]
    return not is_equal if "!" in found[2] else is_equal


def _post_s(reader: Reader) -> float:
    """The longest that any request took by its sender's own clock, and the longest that anything waited for its turn on this machine."""
    requests, stalls = (next(iter(reader.rows.get(table, ())), None) for table in ("ingest", "stalls"))
    if requests is None or stalls is None:
        return POST_S
    return max(float(requests.columns["sent_s"]), float(requests.columns["notified_s"])) + float(stalls.columns["longest_s"])


def _route(rule: AlertRule, alerting: Mapping[str, Any], post_s: float) -> Route:
    """The first route below the root that takes it, or the root itself."""
    labels = _full((rule.name, ()), {rule.name: rule})
    root = alerting["alertmanager"]["route"]
    below = [each for each in root.get("routes", ()) if all(_matches(labels, matcher) for matcher in each.get("matchers", ()))]
    chosen = {**root, **(below[0] if below else {})}
    return Route(
        group_wait_s=to_ms(str(chosen["group_wait"])) / 1000,
        group_interval_s=to_ms(str(chosen["group_interval"])) / 1000,
        repeat_interval_s=to_ms(str(chosen["repeat_interval"])) / 1000,
        maintenance_s=float(alerting["maintenance_s"]),
        post_s=post_s,
    )


def nearest(grid: Sequence[float], at_s: float) -> float:
    """The evaluation at or after an instant; the instant itself beyond the last."""
    index = bisect.bisect_left(grid, at_s - MS_S)
    return grid[index] if index < len(grid) else at_s
