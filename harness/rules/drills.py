"""A drill: which levels are held when, so that every alert must fire, or must not; and what then became of each, as the driver wrote it down.

Instants are counted in scrapes, so that one plan serves every time scale.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping

from harness.model import Drill, value
from harness.rules.alerts import AlertRule
from harness.rules.margins import gauge_edges, rate_edges
from harness.rules.windows import Admitted, Cadence, Crossing, Window, admitted, lasting, whole

WARM_UP = 24
"""Until the windows are full."""
HELD = 46
"""How long a breach is held: the slowest alert needs 19 to fill its window, 20 of `for`, and two phases."""
CALM = 28
"""Between two breaches: the slowest window empties, and the end is told."""
_BELOW = 46
_CYCLE = HELD + CALM + 2
_READ_S = 0.25
"""Longest time that may pass between a sample's stamp and the reading of its counter, for the margins of levels: much, so that they err outwards."""


@value
class Subject:
    """One thing that can be made bad, and the alert that must notice."""

    name: str
    alert: str
    labels: Mapping[str, str]
    """Of the alert, as far as they tell it from others of its name. ``{endpoint}`` and ``{certificate}`` are put in by the driver."""
    calm: float | None = None
    """The level in peace, in the unit of the rule's comparison. None: it is no level, it happens or it does not."""
    threshold: float | None = None
    grave: tuple[float, float] = (0.0, 0.0)
    """Levels of a breach that is no near miss."""
    span_scrapes: int = 0
    """Between the first and the last sample of the rule's window. 0: the last sample is compared."""
    lag: Window | None = None
    """In scrapes, where there is no level: from the deed until the samples show it."""
    fade: Window | None = None
    """And back."""
    needs_calls: bool = False


def _scrapes(earliest: float, latest: float) -> Window:
    return Window(earliest_s=earliest, latest_s=latest)


SUBJECTS: tuple[Subject, ...] = (
    Subject(
        name="cpu",
        alert="HostCpuHigh",
        labels={"instance": "host-a"},
        calm=10,
        threshold=80,
        grave=(88, 100),
        span_scrapes=19,
    ),
    Subject(name="memory", alert="HostMemoryHigh", labels={"instance": "host-a"}, calm=30, threshold=85, grave=(90, 99)),
    Subject(name="disk", alert="HostDiskFull", labels={"instance": "host-a", "mountpoint": "/"}, calm=30, threshold=80, grave=(85, 99)),
    Subject(name="down", alert="TargetDown", labels={"instance": "host-b"}, calm=0, threshold=0.5, grave=(1, 1)),
    Subject(
        name="flapping",
        alert="TargetFlapping",
        labels={"instance": "host-c"},
        # Down, down, down, up: the fourth change is the eighth scrape. Back: the window forgets them one by one.
        lag=_scrapes(7, 8),
        fade=_scrapes(0, 20),
    ),
    Subject(
        name="vanished",
        alert="TargetVanished",
        labels={"job": "blackbox"},
        # Prometheus waits two scrapes and a tenth before it calls the last samples of a target stale.
        lag=_scrapes(0, 4),
        fade=_scrapes(0, 1),
    ),
    Subject(name="probe", alert="ProbeFailed", labels={"instance": "{endpoint}"}, calm=0, threshold=0.5, grave=(1, 1)),
    Subject(
        name="certificate", alert="CertificateExpiring", labels={"instance": "{certificate}"}, calm=-60, threshold=-14, grave=(-10, -10)
    ),
    Subject(name="sip", alert="SipErrorsHigh", labels={"instance": "sip"}, calm=0, threshold=20, grave=(40, 90), span_scrapes=19),
)
CALLED: tuple[Subject, ...] = (
    # The media server looks at a stream every 5 s, and the mean of the window has to pass 1 %: two or three looks.
    Subject(
        name="loss",
        alert="PacketLossHigh",
        labels={"direction": "incoming"},
        lag=_scrapes(0, 16),
        fade=_scrapes(0, 27),
        needs_calls=True,
    ),
    # One slow reply is more than a twentieth of those of the window.
    Subject(name="slow", alert="AgentSlow", labels={}, lag=_scrapes(0, 2), fade=_scrapes(0, 21), needs_calls=True),
    Subject(name="empty", alert="AgentScrapeEmpty", labels={}, lag=_scrapes(0, 1), fade=_scrapes(0, 1), needs_calls=True),
    # The last value is seen for as long as the lookback, unless it is marked as stale.
    Subject(name="silent", alert="RecordingRuleSilent", labels={}, lag=_scrapes(0, 21), fade=_scrapes(0, 3), needs_calls=True),
)
BY_NAME = {subject.name: subject for subject in (*SUBJECTS, *CALLED)}
UNSTEADY = ("cpu", "memory")
"""Those whose level cannot be held to a hair where it is real: others use the machine, too. No near misses, no reset of the kernel's counters."""


@value
class Deed:
    """One thing that the driver does."""

    at_scrapes: float
    subject: str
    kind: str
    """``breach``, ``below`` or ``spike``, which begin; ``back``, which ends it; ``restart``."""
    level: float | None


@value
class CallDeed:
    """A call that makes something bad, or without which something could not be."""

    due_scrapes: float
    is_slow: bool
    """To the slow agent, with packets lost on the way up meanwhile; else to the other one."""
    turns: int


LOST_EVERY = 20
LOSS_FROM_S, LOSS_UNTIL_S = 6.0, 44.0


@value
class Fault:
    """A level that was held, or a thing that happened, from when until when. Seconds since the epoch; a window: the deed took so long."""

    subject: str
    alert: str
    labels: Mapping[str, str]
    kind: str
    begun: Window
    ended: Window | None
    """None: it still lasted when the drill ended."""
    level: float | None

    def admits(self, rule: AlertRule, cadence: Cadence) -> Admitted:
        """Instants at which the rule's state may change because of it."""
        subject = BY_NAME[self.subject]
        if self.kind == "below":
            return Admitted(pending=None, firing=None, must_fire=False, resolved=None)
        if subject.lag is not None and subject.fade is not None:
            return _happened(self, subject.lag, subject.fade, rule, cadence)
        assert subject.calm is not None
        assert subject.threshold is not None
        assert self.level is not None
        crossing = Crossing(at=self.begun, back=self.ended, before=subject.calm, after=self.level, threshold=subject.threshold)
        return admitted(rule, crossing, cadence)


def plan(drill: Drill, seed: int, *, without: Collection[str] = ()) -> tuple[Deed, ...]:
    """Every deed, in order. without: subjects that are left alone."""
    deeds = (deed for deed in _deeds(drill, random.Random(seed)) if deed.subject not in without)
    return tuple(sorted(deeds, key=lambda deed: deed.at_scrapes))


def calls(drill: Drill) -> tuple[CallDeed, ...]:
    """Two a cycle: a slow one that loses packets while everything is bad, and one while the agents' exporters are mute."""
    if not drill.calls:
        return ()
    starts = [_first_cycle(drill) + cycle * _CYCLE for cycle in range(drill.cycles)]
    pairs = [
        (CallDeed(due_scrapes=at - 8, is_slow=True, turns=6), CallDeed(due_scrapes=at + HELD - 6, is_slow=False, turns=6)) for at in starts
    ]
    return tuple(each for pair in pairs for each in pair)


def length_scrapes(drill: Drill) -> float:
    """From the start of the drill until everything has come to rest."""
    return _first_cycle(drill) + drill.cycles * _CYCLE


def edges(subject: Subject) -> tuple[float, float]:
    """The level that must never fire, and the one that always must: from the arithmetic."""
    assert subject.threshold is not None
    if subject.span_scrapes:
        # Of the share that is left: 20 of 100 idle.
        found = rate_edges(100 - subject.threshold, subject.span_scrapes, read_s=_READ_S, grain=1e-6)
        assert found.never is not None
        assert found.always is not None
        return 100 - found.always, 100 - found.never
    level = gauge_edges("100 * (1 - a / b) > 1", subject.threshold, grain=1e-3)
    assert level.never is not None
    assert level.always is not None
    return level.never, level.always


def _first_cycle(drill: Drill) -> float:
    return WARM_UP + (_BELOW + CALM + 22 if drill.near_misses else 0)


def _deeds(drill: Drill, dice: random.Random) -> Iterator[Deed]:
    unsteady = UNSTEADY if drill.real_faults else ()
    leveled = [subject for subject in SUBJECTS if subject.grave[0] < subject.grave[1] and subject.name not in unsteady]
    if drill.near_misses:
        for subject in leveled:
            yield from _pair(subject, "below", WARM_UP, _BELOW, edges(subject)[0])
        spikes_at = WARM_UP + _BELOW + CALM
        # For as long as no phases can make `for` out of it.
        for name, held in (("memory", 17.5), ("disk", 17.5), ("down", 1.7), ("probe", 1.7)):
            yield from _pair(BY_NAME[name], "spike", spikes_at, held, None if name in unsteady else BY_NAME[name].grave[1])
    for cycle in range(drill.cycles):
        at = _first_cycle(drill) + cycle * _CYCLE
        for subject in SUBJECTS:
            grave = subject.calm is not None and subject.name not in unsteady
            is_near = subject in leveled and cycle % 2 == 1
            level = edges(subject)[1] if is_near else dice.uniform(*subject.grave) if grave else None
            begin = at + dice.uniform(0, 1)
            yield from _pair(subject, "breach", begin, HELD + dice.uniform(0, 1), level)
        if drill.calls:
            yield from _pair(BY_NAME["silent"], "breach", at + 16, 24, None)
            yield from _pair(BY_NAME["empty"], "breach", at + HELD + 3, 15, None)
        if cycle % 3 == 2 and not unsteady:
            yield Deed(at_scrapes=at + HELD - 8, subject="cpu", kind="restart", level=None)


def _pair(subject: Subject, kind: str, at: float, held: float, level: float | None) -> Iterator[Deed]:
    yield Deed(at_scrapes=at, subject=subject.name, kind=kind, level=level)
    yield Deed(at_scrapes=at + held, subject=subject.name, kind="back", level=subject.calm)


def _happened(fault: Fault, lag: Window, fade: Window, rule: AlertRule, cadence: Cadence) -> Admitted:
    """What ``admitted`` says of a crossing, for what has no level."""
    tail_s = cadence.ingest_s + cadence.evaluation_s + 1.0  # a second for the discovery to notice a file
    pending = fault.begun.later(lag.earliest_s * cadence.scrape_s, (lag.latest_s + 1) * cadence.scrape_s + tail_s)
    wait_s = whole(rule.for_s, cadence.evaluation_s)
    if fault.ended is None:
        return Admitted(pending=pending, firing=pending.later(wait_s), must_fire=True, resolved=None)
    resolved = fault.ended.later(fade.earliest_s * cadence.scrape_s, (fade.latest_s + 1) * cadence.scrape_s + tail_s)
    is_sure = resolved.earliest_s - pending.latest_s >= lasting(wait_s, cadence)[1]
    return Admitted(pending=pending, firing=pending.later(wait_s), must_fire=is_sure, resolved=resolved)
