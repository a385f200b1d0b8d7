"""The alerts of a drill on one clock, as drawings: signal and threshold, what the rule said, what was told and stored; admitted instants shaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

from assertions.episodes import MS_S, WATCHDOG, Story, Who, named
from harness.measure.series import Reader
from harness.model import Evidence, value
from harness.rules import delivery
from harness.rules.drills import SUBJECTS, Fault
from harness.rules.windows import Admitted, Window
from reports.words import plural

WIDTH, LEFT, RIGHT = 1000, 120, 14
_SIGNAL_TOP, _SIGNAL_HEIGHT = 14, 52
_MOST_POINTS = 600
_LEAST_WIDTH = 1.6
"""Of a shaded set: an instant must still be seen."""
_STEPS_S = (5, 10, 15, 30, 60, 120, 300, 600)


@value
class Box:
    """A stretch of one lane."""

    lane: str
    """``fault``, ``rule``, ``told`` or ``row``."""
    kind: str
    """``breach``, ``below``, ``spike``, ``pending``, ``firing``, ``open`` or ``may``: an admitted set."""
    x: float
    width: float
    title: str


Place = Callable[[float], float]
Boxing = Callable[[str, str, Window, str], Box]


@value
class Tick:
    """An instant in one lane."""

    lane: str
    kind: str
    """``begin`` or ``end``."""
    x: float
    title: str


@value
class Drawing:
    """One alert of one series."""

    name: str
    told: str
    path: str | None
    """The signal, as an SVG path."""
    threshold_y: float | None
    threshold: str
    low: str
    high: str
    boxes: tuple[Box, ...]
    ticks: tuple[Tick, ...]
    axis: tuple[tuple[float, str], ...]


def drawings(evidence: Evidence) -> tuple[Drawing, ...]:
    """Those that a fault was aimed at first, then whatever else fired. Empty for a run that was no drill."""
    if evidence.info.scenario.drill is None:
        return ()
    reader = Reader.of(evidence)
    if not reader.rows.get("faults"):
        return ()
    story = Story.of(evidence.info, reader)
    seen = list(dict.fromkeys(who for who, _ in story.states if who[0] != WATCHDOG))
    aimed = {fault.alert: fault.labels for fault in story.faults}
    missing = [
        (alert, tuple(sorted(labels.items()))) for alert, labels in aimed.items() if not any(_is(who, alert, labels) for who in seen)
    ]
    chosen = [who for who in (*seen, *missing) if who[0] in aimed and _is(who, who[0], aimed[who[0]])]
    others = [who for who, episode, _ in story.fired() if who not in chosen]
    return tuple(_drawing(who, story, reader, evidence) for who in (*chosen, *dict.fromkeys(others)))


def _is(who: Who, alert: str, labels: Mapping[str, str]) -> bool:
    return who[0] == alert and labels.items() <= dict(who[1]).items()


def _drawing(who: Who, story: Story, reader: Reader, evidence: Evidence) -> Drawing:
    scale = (WIDTH - LEFT - RIGHT) / max(story.until_s, 1.0)

    def x(at_s: float) -> float:
        return round(LEFT + min(max(at_s, 0.0), story.until_s) * scale, 2)

    def box(lane: str, kind: str, window: Window, title: str) -> Box:
        start = x(window.earliest_s)
        return Box(lane=lane, kind=kind, x=start, width=round(max(x(window.latest_s) - start, _LEAST_WIDTH), 2), title=title)

    faults = [
        (fault, admitted)
        for fault, admitted in zip(story.faults, story.admitted, strict=True)
        if fault.alert == who[0] and fault.labels.items() <= dict(who[1]).items()
    ]
    boxes = [*_faults(faults, story, box), *_rule(who, story, box), *_delivered(who, story, box)]
    ticks = list(_ticks(who, story, x))
    path, threshold_y, threshold, low, high = _signal(who, reader, evidence, x)
    fired = sum(other == who for other, _, _ in story.fired())
    return Drawing(
        name=named(who),
        told=f"{plural(len(faults), 'fault')}, fired {plural(fired, 'time')}"
        if faults
        else f"fired {plural(fired, 'time')}, by no doing of ours",
        path=path,
        threshold_y=threshold_y,
        threshold=threshold,
        low=low,
        high=high,
        boxes=tuple(boxes),
        ticks=tuple(ticks),
        axis=tuple((x(at_s), f"{at_s:.0f} s") for at_s in _axis(story.until_s)),
    )


def _faults(faults: Iterable[tuple[Fault, Admitted | str]], story: Story, box: Boxing) -> Iterator[Box]:
    for fault, admitted in faults:
        end_s = story.until_s if fault.ended is None else fault.ended.latest_s
        level = "" if fault.level is None else f" at {fault.level:.5g}"
        title = f"{fault.kind}{level}, {fault.begun.earliest_s:.2f} to {end_s:.2f} s"
        yield box("fault", fault.kind, Window(earliest_s=fault.begun.earliest_s, latest_s=end_s), title)
        if isinstance(admitted, str):
            continue
        for name, window in (("pending", admitted.pending), ("firing", admitted.firing), ("over", admitted.resolved)):
            if window is not None and (name != "firing" or admitted.must_fire):
                yield box("rule", "may", window, f"{name}: {window.earliest_s:.2f} to {window.latest_s:.2f} s, given the fault alone")


def _rule(who: Who, story: Story, box: Boxing) -> Iterator[Box]:
    for other, episode in story.states:
        if other != who:
            continue
        end_s = story.until_s if episode.resolved_at_s is None else episode.resolved_at_s
        fires_s = end_s if episode.firing_at_s is None else episode.firing_at_s
        title = f"pending at {episode.pending_at_s:.2f} s"
        yield box("rule", "pending", Window(earliest_s=episode.pending_at_s, latest_s=fires_s), title)
        if episode.firing_at_s is not None:
            yield box("rule", "firing", Window(earliest_s=fires_s, latest_s=end_s), f"firing {fires_s:.2f} to {end_s:.2f} s")


def _delivered(who: Who, story: Story, box: Boxing) -> Iterator[Box]:
    for other, episode, fires_s in story.fired():
        if other != who:
            continue
        route = story.route[who[0]]
        window = delivery.notified(Window(earliest_s=fires_s, latest_s=fires_s), route, known=delivery.Group.NEW)
        yield box("told", "may", window, f"told: {window.earliest_s:.2f} to {window.latest_s:.2f} s")
        begun = story.deliveries(who, fires_s, is_over=False)
        if begun and episode.resolved_at_s is not None:
            told = Window(earliest_s=begun[0].at_s, latest_s=begun[0].at_s)
            window = delivery.resolution(Window(earliest_s=episode.resolved_at_s, latest_s=episode.resolved_at_s), route, told_at=told)
            yield box("told", "may", window, f"end told: {window.earliest_s:.2f} to {window.latest_s:.2f} s")
        row = story.row(who, fires_s)
        if row is not None:
            end_s = story.until_s if row.resolved_at_s is None else row.resolved_at_s
            title = f"row: {row.starts_at_s:.2f} to {end_s:.2f} s, {row.resolution or 'open'}, written {row.recorded_at_s:.2f} s"
            yield box("row", "open", Window(earliest_s=row.starts_at_s, latest_s=end_s), title)


def _ticks(who: Who, story: Story, x: Place) -> Iterator[Tick]:
    for told in story.told:
        if told.who == who:
            kind, what = ("end", "end told") if told.is_over else ("begin", "told")
            stored = "not stored" if told.stored_at_s is None else f"stored {(told.stored_at_s - told.at_s) * 1000:.0f} ms later"
            yield Tick(lane="told", kind=kind, x=x(told.at_s), title=f"{what} at {told.at_s:.2f} s, {stored}")
    for kept in story.kept:
        if kept.who == who:
            yield Tick(lane="row", kind="begin", x=x(kept.recorded_at_s), title=f"row written at {kept.recorded_at_s:.2f} s")


def _signal(who: Who, reader: Reader, evidence: Evidence, x: Place) -> tuple[str | None, float | None, str, str, str]:
    """Path, height of the threshold with its words, and the range of the values."""
    start_s = evidence.info.started_at / 1e9
    points: list[tuple[float, float]] = []
    for row in reader.rows.get("signals", ()):
        labels = row.columns["labels"]
        if row.columns["alert"] == who[0] and labels.items() <= dict(who[1]).items():
            points += [(float(at) - start_s, float(number)) for at, number in zip(row.columns["at_s"], row.columns["values"], strict=True)]
    points = [point for point in sorted(points) if point[0] >= 0 and point[1] == point[1]]
    if not points:
        return None, None, "", "", ""
    levels = [subject.threshold for subject in SUBJECTS if subject.alert == who[0] and subject.grave[0] < subject.grave[1]]
    threshold = levels[0] if levels else None
    numbers = [number for _, number in points] + ([threshold] if threshold is not None else [])
    low, high = min(numbers), max(numbers)
    span = (high - low) or 1.0

    def y(number: float) -> float:
        return round(_SIGNAL_TOP + _SIGNAL_HEIGHT * (1 - (number - low) / span), 1)

    every = max(1, len(points) // _MOST_POINTS)
    kept = points[::every]
    gaps = {after for before, after in pairwise(kept) if after[0] - before[0] > 3 * every * max(1.0, _step_s(points)) + MS_S}
    path = "".join(f"{'M' if index == 0 or point in gaps else 'L'}{x(point[0])} {y(point[1])}" for index, point in enumerate(kept))
    shown = "" if threshold is None else f"{threshold:g}"
    return path, None if threshold is None else y(threshold), shown, f"{low:.4g}", f"{high:.4g}"


def _step_s(points: list[tuple[float, float]]) -> float:
    return min((after[0] - before[0] for before, after in pairwise(points)), default=1.0)


def _axis(until_s: float) -> Iterator[float]:
    step_s = next((step for step in _STEPS_S if until_s / step <= 14), _STEPS_S[-1])
    at_s = 0.0
    while at_s <= until_s:
        yield at_s
        at_s += step_s
