"""When Alertmanager may tell the receiver, and when the row may be stored: sets of instants, from those of the rule's state.

A new group is flushed ``group_wait`` after its first alert and then every ``group_interval``; whatever changes between two ticks is told at the
second. A group that a resolution emptied goes on ticking until it is collected (before Alertmanager 0.32 once in every maintenance interval,
30 s by default and not part of the route; since then at once), and an alert that fires meanwhile waits for a tick instead of ``group_wait``.
"""

from __future__ import annotations

import enum
import math

from harness.model import value
from harness.rules.windows import Window, whole


@value
class Route:
    """What the routing tree and the command line give one alert, in seconds."""

    group_wait_s: float = 30.0
    group_interval_s: float = 300.0
    repeat_interval_s: float = 14400.0
    maintenance_s: float = 30.0
    """--dispatch.maintenance-interval; 0 where an emptied group is collected at once."""
    post_s: float = 0.0
    """Longest time of either request: an evaluation's until Alertmanager has the alert, a flush's until the receiver has logged it."""
    store_s: float = 0.0
    """Longest time from the receiver's log to the row."""


class Group(enum.StrEnum):
    """What is known of the alert's group at the instant at which it fires."""

    NEW = "new"
    TICKING = "ticking"
    EITHER = "either"


def group(fires: Window, emptied_at_s: float | None, route: Route) -> Group:
    """Whether the group of an alert that fires exists already.

    emptied_at_s: when the notification of its last resolution was sent. None: it never had an alert. For a group with other alerts in it say
    ``Group.TICKING``.
    """
    if emptied_at_s is None or fires.earliest_s > emptied_at_s + route.maintenance_s + route.post_s:
        return Group.NEW
    return Group.TICKING if fires.latest_s <= emptied_at_s else Group.EITHER


def notified(fires: Window, route: Route, *, known: Group = Group.EITHER, ticked_at_s: float | None = None) -> Window:
    """Arrival of the firing notification, for an alert that goes on firing until then.

    ticked_at_s: any flush of the group, where it is ticking. None: its phase is not known.
    """
    reached = fires.later(0.0, route.post_s)
    new = reached.later(route.group_wait_s)
    ticking = reached.later(0.0, route.group_interval_s)
    if ticked_at_s is not None:
        ticking = _tick(reached, Window(earliest_s=ticked_at_s, latest_s=ticked_at_s), route.group_interval_s, after=False)
    match known:
        case Group.NEW:
            flushed = new
        case Group.TICKING:
            flushed = ticking
        case Group.EITHER:
            flushed = Window(
                earliest_s=min(new.earliest_s, ticking.earliest_s),
                latest_s=max(new.latest_s, ticking.latest_s),
            )
    return flushed.later(0.0, route.post_s)


def is_told(firing_at_s: float, resolved_at_s: float | None, route: Route, *, known: Group = Group.NEW) -> bool | None:
    """Whether an episode reaches the receiver at all. None: the phase of the group's ticks decides.

    One that is over at the flush that would have told it is never sent.
    """
    if resolved_at_s is None:
        return True
    fires = Window(earliest_s=firing_at_s, latest_s=firing_at_s)
    flushed = notified(fires, route, known=known)
    if resolved_at_s > flushed.latest_s:
        return True
    return False if resolved_at_s + route.post_s < flushed.earliest_s else None


def resolution(resolves: Window, route: Route, *, told_at: Window | None = None) -> Window:
    """Arrival of the resolved notification: the first tick at or after the rule resolved, and after the one that told the firing.

    told_at: when the firing notification arrived. One instant if it was seen; None if it is not known.
    """
    reached = resolves.later(0.0, route.post_s)
    if told_at is None:
        return reached.later(0.0, route.group_interval_s + route.post_s)
    ticked = Window(earliest_s=told_at.earliest_s - route.post_s, latest_s=told_at.latest_s)
    return _tick(reached, ticked, route.group_interval_s, after=True).later(0.0, route.post_s)


def stored(arrives: Window, route: Route) -> Window:
    """Instant of the row."""
    return arrives.later(0.0, route.store_s)


def are_merged(resolved_at_s: float, fires_again_at_s: float, told_at_s: float, route: Route) -> bool:
    """Two episodes with no tick of the group between them: the first one's end and the second one's beginning are never told."""
    told = Window(earliest_s=told_at_s, latest_s=told_at_s)
    resolved = Window(earliest_s=resolved_at_s, latest_s=resolved_at_s)
    return _tick(resolved, told, route.group_interval_s, after=True).earliest_s >= fires_again_at_s


def sends(firing_at_s: float, until_s: float, evaluation_s: float, resend_delay_s: float = 60.0) -> tuple[float, ...]:
    """Evaluations at which Prometheus sends a firing alert: the first, then each that is *later* than the delay after the last one."""
    every_s = math.floor(resend_delay_s / evaluation_s + 1 + 1e-9) * evaluation_s
    return tuple(firing_at_s + every_s * count for count in range(max(0, math.floor((until_s - firing_at_s) / every_s + 1e-9)) + 1))


def expires_after_s(evaluation_s: float, resend_delay_s: float = 60.0) -> float:
    """From the last send to the instant at which Alertmanager takes the alert for resolved, if nothing is sent any more."""
    return 4 * max(evaluation_s, resend_delay_s)


def timed_out(silent: Window, route: Route, evaluation_s: float, resend_delay_s: float = 60.0) -> Window:
    """Arrival of a resolved notification that is false: Prometheus fell silent at ``silent`` while the alert fired."""
    every_s = whole(resend_delay_s + evaluation_s * 1e-6, evaluation_s)
    last = Window(earliest_s=silent.earliest_s - every_s, latest_s=silent.latest_s)
    return resolution(last.later(expires_after_s(evaluation_s, resend_delay_s)), route)


def _tick(seen: Window, ticked: Window, interval_s: float, *, after: bool) -> Window:
    """The first tick at or after an instant of ``seen``, if one tick was in ``ticked``. after: and a later one than that."""
    least = 1 if after else -math.inf

    def ticks(at_s: float) -> Window:
        early, late = (max(least, math.ceil((at_s - tick_s) / interval_s - 1e-9)) for tick_s in (ticked.earliest_s, ticked.latest_s))
        first, last = ticked.earliest_s + early * interval_s, ticked.latest_s + late * interval_s
        if early == late:
            return Window(earliest_s=first, latest_s=last)
        # Some instant of ``ticked`` puts a tick on ``at_s``, and the one just before it misses it by an interval.
        return Window(earliest_s=min(at_s, last), latest_s=max(at_s + interval_s, last))

    return Window(earliest_s=ticks(seen.earliest_s).earliest_s, latest_s=ticks(seen.latest_s).latest_s)
