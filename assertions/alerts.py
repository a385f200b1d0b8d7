"""Alert episodes on their way: fault -> stored samples -> pending -> firing -> delivery -> row -> end; each hop given what the hop before it said.

Sets of instants come from ``harness.rules.windows`` and ``delivery``; what happened at which hop from ``assertions.episodes``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from assertions.alert_lies import ended_silently, fired_late, never_fired, never_told, row_lost, samples_calm, started_late
from assertions.episodes import MS_S, WATCHDOG, Due, Story, Who, named, nearest
from assertions.facts import Facts
from assertions.ledger import Defect, Difference, Key, Kind, Range, Reading, Seen, Step, Thing, Tree, exactly
from assertions.words import plural
from harness.measure.series import Reader
from harness.model import REAL_FAULTS, Evidence, Gap, Light, Source, Status, UnixNs, Verdict
from harness.rules import delivery, real
from harness.rules.drills import BY_NAME, Fault
from harness.rules.real import Plan
from harness.rules.windows import Admitted, Window, whole

ROOT = "drilled"
SILENT = "alerts/silent"
_TABLES = frozenset({"alert_truth", "alert_states", "deliveries", "alerts_history"})
Parts = dict[Key, Thing]


def trees(facts: Facts) -> Iterator[Tree]:
    """One, if the run was a drill."""
    if facts.evidence.info.scenario.drill is None:
        return
    yield Tree(root=ROOT, truth=Reading(parts={}), steps=tuple(_steps(facts.evidence)), reads=_TABLES)


def verdicts(facts: Facts, reader: Reader) -> Iterator[Verdict]:
    """Whether what had to stay silent did, and whether that means anything."""
    info = facts.evidence.info
    if info.scenario.drill is None or not reader.rows.get("faults"):
        return
    story = Story.of(info, reader)
    yield _silence(story, reader)
    if story.plan is not None:
        yield _really(story, story.plan)


def _steps(evidence: Evidence) -> Iterator[Step]:
    hops: tuple[tuple[str, str, str, Source, Callable[[Story], Reading], Callable[[Story], Parts], Mapping[str, Defect]], ...] = (
        (
            "alerts/samples",
            ROOT,
            "expressions over the stored samples",
            Source.ALERTS,
            _samples_admitted,
            _samples_said,
            {"a level never reaches the samples": samples_calm(evidence)},
        ),
        (
            "alerts/pending",
            "alerts/samples",
            "ALERTS, pending",
            Source.ALERTS,
            _pending_admitted,
            _pending_said,
            {"a rule is one evaluation late": started_late(evidence), "a rule is never pending": never_fired},
        ),
        (
            "alerts/firing",
            "alerts/pending",
            "ALERTS, firing",
            Source.ALERTS,
            _firing_admitted,
            _firing_said,
            {"an alert fires one evaluation late": fired_late(evidence)},
        ),
        (
            "alerts/notified",
            "alerts/firing",
            "receiver's log",
            Source.RECEIVER,
            _notified_admitted,
            _notified_said,
            {"an episode is told to nobody": never_told},
        ),
        ("alerts/stored", "alerts/notified", "alerts_history", Source.ROWS, _stored_admitted, _stored_said, {"a row is lost": row_lost}),
        (
            "alerts/resolved",
            "alerts/stored",
            "end, delivery and row",
            Source.RECEIVER,
            _resolved_admitted,
            _resolved_said,
            {"an end is told to nobody": ended_silently},
        ),
    )
    info = evidence.info
    for claim, source, title, origin, admits, said, defects in hops:
        yield Step(
            claim=claim,
            source=source,
            title=title,
            admits=lambda _, reader, admits=admits: admits(Story.of(info, reader)),  # type: ignore[misc]
            read=lambda reader, origin=origin, said=said: _read(Story.of(info, reader), reader, origin, said),  # type: ignore[misc]
            defects=defects,
            show=lambda reading, claim=claim: _show(reading, claim),  # type: ignore[misc]
            explain=lambda difference, claim=claim: _explain(difference, claim),  # type: ignore[misc]
            would_catch=lambda admitted, _, claim=claim: _would_catch(admitted, claim, float(info.settings["evaluation_interval_s"])),  # type: ignore[misc]
        )


def _read(story: Story, reader: Reader, source: Source, said: Callable[[Story], Parts]) -> Seen:
    for each in (source, Source.FAULTS):
        if gap := reader.gap(each):
            return gap
        if not reader.is_read(each):
            return Gap(source=each, at=UnixNs(0), reason="was not read", request=str(each))
    return Reading(parts=said(story))


# Hop by hop: what it may say, and what it says. Keys: (what, alert, which).


def _key(what: str, who: Who, number: int) -> Key:
    return (what, named(who), str(number))


def _numbered(story: Story) -> Iterator[tuple[int, Due]]:
    """Due episodes with their number among those of their alert."""
    counts: dict[Who, int] = {}
    for due in story.due:
        counts[due.who] = counts.get(due.who, 0) + 1
        yield counts[due.who], due


def _samples_admitted(story: Story) -> Reading:
    parts: Parts = {}
    lacks: set[Key] = set()
    open_ = Counter[str]()
    for number, (fault, admitted) in enumerate(story.judged(), start=1):
        if isinstance(admitted, str):
            open_[admitted] += 1
            continue
        keys = [(what, _fault_name(fault.alert, fault.labels), str(number)) for what in ("true", "fires", "over")]
        for key, window in zip(keys, (admitted.pending, admitted.firing, admitted.resolved), strict=True):
            if window is not None:
                parts[key] = _range(window)
        if not admitted.must_fire:
            lacks.add(keys[1])
        if fault.ended is not None and admitted.firing is None:
            # One that is over before an evaluation was never seen.
            lacks.update((keys[0], keys[2]))
    because = ["phases of scrape and evaluation are not known beforehand"]
    because += [f"{plural(count, 'fault')} not judged: {why}" for why, count in open_.items()]
    return Reading(parts=parts, may_lack=frozenset(lacks), because=tuple(because))


def _samples_said(story: Story) -> Parts:
    parts: Parts = {}
    for number, (fault, admitted) in enumerate(story.judged(), start=1):
        if isinstance(admitted, str):
            continue
        found = [
            due
            for due in story.due
            if due.who[0] == fault.alert and fault.labels.items() <= dict(due.who[1]).items() and _is_of(due, fault, story)
        ]
        if not found:
            continue
        # A real level may pass the threshold for a moment before it stays beyond it.
        due = max(found, key=lambda due: _lasted_s(due, story)) if story.is_real(fault) else found[0]
        name = _fault_name(fault.alert, fault.labels)
        parts["true", name, str(number)] = _range(due.begin)
        if due.fires is not None and due.must_fire:
            parts["fires", name, str(number)] = _range(due.fires)
        if due.over is not None:
            parts["over", name, str(number)] = _range(due.over)
    return parts


def _lasted_s(due: Due, story: Story) -> float:
    return (story.until_s if due.over is None else due.over.latest_s) - due.begin.earliest_s


def _is_of(due: Due, fault: Fault, story: Story) -> bool:
    """It began while the fault lasted, or before its effect had gone."""
    ended_s = story.until_s if fault.ended is None else fault.ended.latest_s
    return fault.begun.earliest_s <= due.begin.earliest_s <= ended_s + 2 * story.cadence.evaluation_s


def _fault_name(alert: str, labels: Mapping[str, str]) -> str:
    return named((alert, tuple(sorted(labels.items()))))


def _pending_admitted(story: Story) -> Reading:
    parts: Parts = {("evaluated", "every rule", "1"): _about(story.cadence.evaluation_s)}
    lacks = set()
    wide = 0
    for number, due in _numbered(story):
        key = _key("pending", due.who, number)
        parts[key] = _range(due.begin)
        wide += due.begin.width_s > 0
        if not due.is_sure:
            lacks.add(key)
    because = [f"{len(parts) - 1 - wide} of {len(parts) - 1} instants are known to the evaluation"]
    if wide:
        because.append(f"{wide} rest on a sample that came less than {story.cadence.ingest_s:g} s, the longest scrape, before it")
    return Reading(parts=parts, may_lack=frozenset(lacks), because=tuple(because))


def _pending_said(story: Story) -> Parts:
    parts: Parts = {}
    if story.distance_s is not None:
        parts["evaluated", "every rule", "1"] = exactly(story.distance_s)
    matched = []
    for number, due in _numbered(story):
        found = story.states_of(due)
        matched += [(due.who, episode) for episode in found]
        if found:
            parts[_key("pending", due.who, number)] = exactly(found[0].pending_at_s)
    strays = [(who, episode) for who, episode in story.states if who[0] != WATCHDOG and (who, episode) not in matched]
    for number, (who, episode) in enumerate(strays, start=1):
        parts[_key("stray", who, number)] = exactly(episode.pending_at_s)
    return parts


def _firing_admitted(story: Story) -> Reading:
    parts: Parts = {}
    lacks = set()
    for number, due in _numbered(story):
        episode = story.state_of(due)
        if episode is None or due.is_loose:
            continue
        rule = story.rules[due.who[0]]
        fires_s = nearest(story.grid, episode.pending_at_s + whole(rule.for_s, story.cadence.evaluation_s))
        key = _key("firing", due.who, number)
        if due.over is None or fires_s < due.over.latest_s:
            parts[key] = _about(fires_s)
            if fires_s >= (story.grid[-1] + MS_S if due.over is None else due.over.earliest_s):
                lacks.add(key)
        if due.over is not None:
            parts[_key("over", due.who, number)] = _range(due.over)
            if not due.is_sure:
                lacks.add(_key("over", due.who, number))
    return Reading(parts=parts, may_lack=frozenset(lacks), because=("`for` in whole evaluations after the one that found it true",))


def _firing_said(story: Story) -> Parts:
    parts: Parts = {}
    for number, due in _numbered(story):
        episode = story.state_of(due)
        if episode is None or due.is_loose:
            continue
        if episode.firing_at_s is not None:
            parts[_key("firing", due.who, number)] = exactly(episode.firing_at_s)
        if episode.resolved_at_s is not None:
            parts[_key("over", due.who, number)] = exactly(episode.resolved_at_s)
    return parts


def _notified_admitted(story: Story) -> Reading:
    parts: Parts = {}
    lacks = set()
    emptied: dict[Who, float] = {}
    for number, (who, episode, fires_s) in enumerate(story.fired(), start=1):
        route = story.route[who[0]]
        fires = Window(earliest_s=fires_s, latest_s=fires_s)
        known = delivery.group(fires, emptied.get(who), route)
        key = _key("told", who, number)
        window = delivery.notified(fires, route, known=known)
        parts[key] = _range(window)
        if delivery.is_told(fires_s, episode.resolved_at_s, route, known=known) is not True or window.latest_s > story.until_s:
            lacks.add(key)
        ends = story.deliveries(who, fires_s, is_over=True)
        if ends:
            emptied[who] = ends[0].at_s
    post_s = next(iter(story.route.values())).post_s
    because = ("group_wait for a new group, a tick of group_interval for one that is there", f"two requests of at most {post_s:.2g} s each")
    return Reading(parts=parts, may_lack=frozenset(lacks), because=because)


def _notified_said(story: Story) -> Parts:
    parts: Parts = {}
    matched: set[tuple[Who, float]] = set()
    for number, (who, _, fires_s) in enumerate(story.fired(), start=1):
        found = story.deliveries(who, fires_s, is_over=False)
        if found:
            parts[_key("told", who, number)] = exactly(found[0].at_s)
        matched.update((who, round(told.starts_at_s, 2)) for told in (*found, *story.deliveries(who, fires_s, is_over=True)))
    strays = {(told.who, round(told.starts_at_s, 2)) for told in story.told if told.who[0] != WATCHDOG} - matched
    for number, (who, starts_at_s) in enumerate(sorted(strays), start=1):
        parts[_key("stray", who, number)] = exactly(starts_at_s)
    return parts


def _stored_admitted(story: Story) -> Reading:
    parts: Parts = {}
    lacks: set[Key] = set()
    for number, (who, _, fires_s) in enumerate(story.fired(), start=1):
        found = [told for over in (False, True) for told in story.deliveries(who, fires_s, is_over=over)]
        stored = [told.stored_at_s for told in found if told.stored_at_s is not None]
        if not found:
            continue
        labels = story.rules[who[0]].labels
        parts[_key("row", who, number)] = frozenset({f"{labels['severity']} {labels['service']}"})
        if stored:
            parts[_key("recorded", who, number)] = Range(lo=min(told.at_s for told in found) - MS_S, hi=min(stored) + MS_S)
            if story.is_heard:
                key = _key("heard", who, number)
                heard_by_s = story.heard_by_s(min(stored))
                parts[key] = Range(lo=min(told.at_s for told in found) - MS_S, hi=heard_by_s + MS_S)
                if heard_by_s > story.until_s:
                    lacks.add(key)
    because = ["written between the arrival of the delivery and our 2xx, by one clock"]
    if story.is_heard:
        because.append("Realtime tells changes in order: it tells the row before a canary that was written after it")
    return Reading(parts=parts, may_lack=frozenset(lacks), because=tuple(because))


def _stored_said(story: Story) -> Parts:
    parts: Parts = {}
    matched = []
    for number, (who, _, fires_s) in enumerate(story.fired(), start=1):
        row = story.row(who, fires_s)
        if row is None:
            continue
        matched.append(row)
        parts[_key("row", who, number)] = frozenset({f"{row.severity} {row.service}"})
        if story.deliveries(who, fires_s, is_over=False):
            parts[_key("recorded", who, number)] = exactly(row.recorded_at_s)
            if story.is_heard and row.heard_at_s is not None:
                parts[_key("heard", who, number)] = exactly(row.heard_at_s)
    strays = [row for row in story.kept if row.who[0] != WATCHDOG and row not in matched]
    for number, row in enumerate(strays, start=1):
        parts[_key("stray", row.who, number)] = exactly(row.starts_at_s)
    return parts


def _resolved_admitted(story: Story) -> Reading:
    parts: Parts = {}
    lacks = set()
    for number, (who, episode, fires_s) in enumerate(story.fired(), start=1):
        begun, over_s = story.deliveries(who, fires_s, is_over=False), episode.resolved_at_s
        if over_s is None or not begun or story.row(who, fires_s) is None:
            continue
        route = story.route[who[0]]
        told = Window(earliest_s=begun[0].at_s, latest_s=begun[0].at_s)
        window = delivery.resolution(Window(earliest_s=over_s, latest_s=over_s), route, told_at=told)
        keys = [_key(what, who, number) for what in ("end told", "end", "how")]
        parts.update(zip(keys, (_range(window), _about(over_s), frozenset({"resolved"})), strict=True))
        if window.latest_s > story.until_s:
            lacks.update(keys)
    because = ("the first tick of the group after the rule resolved", "the row's end is the evaluation that found it over")
    return Reading(parts=parts, may_lack=frozenset(lacks), because=because)


def _resolved_said(story: Story) -> Parts:
    parts: Parts = {}
    for number, (who, episode, fires_s) in enumerate(story.fired(), start=1):
        found, row = story.deliveries(who, fires_s, is_over=True), story.row(who, fires_s)
        if row is None or not story.deliveries(who, fires_s, is_over=False):
            continue
        # An end that is told of an alert that still fires counts, too.
        if found and (episode.resolved_at_s is not None or found[0].at_s < story.until_s):
            parts[_key("end told", who, number)] = exactly(found[0].at_s)
        if row.resolved_at_s is not None:
            parts[_key("end", who, number)] = exactly(row.resolved_at_s)
            parts[_key("how", who, number)] = frozenset({row.resolution or "not said"})
    return parts


def _silence(story: Story, reader: Reader) -> Verdict:
    """Levels just below and breaches that were too short, at the receiver and in the table; with the Watchdog as the control."""
    quiet = [
        fault
        for fault, admitted in zip(story.faults, story.admitted, strict=True)
        if not isinstance(admitted, str) and admitted.firing is None
    ]
    broken = []
    for number, fault in enumerate(story.faults, start=1):
        if fault not in quiet:
            continue
        until_s = story.until_s if fault.ended is None else fault.ended.latest_s + story.cadence.evaluation_s
        for what, instants in (
            ("fired", [(who, at) for who, _, at in story.fired()]),
            ("was told", [(each.who, each.starts_at_s) for each in story.told]),
        ):
            for who, at_s in instants:
                is_it = who[0] == fault.alert and fault.labels.items() <= dict(who[1]).items()
                if is_it and fault.begun.earliest_s <= at_s <= until_s:
                    broken.append(f"{named(who)} {what} at {at_s:.1f} s during '{fault.kind}' (fault {number})")
    doubt = _doubt(story, reader)
    status = Status.FAIL if broken else Status.INCONCLUSIVE if doubt or not quiet else Status.PASS
    beats = sum(told.who[0] == WATCHDOG for told in story.told)
    if broken:
        sentence = "; ".join(dict.fromkeys(broken))
    elif doubt:
        sentence = f"nothing was heard, which means nothing: {doubt}"
    elif not quiet:
        sentence = "nothing had to stay silent: the drill had no near misses"
    else:
        sentence = f"{len(quiet)} near misses stayed silent, while the Watchdog was delivered {beats} times and no notification failed"
    return Verdict(
        claim=SILENT,
        light=Light.MONITORING,
        status=status,
        hop="receiver and row, near misses",
        sentence=sentence,
        says=plural(len(dict.fromkeys(broken)), "alert"),
        may_say="0 alerts",
        would_catch="1 alert" if status is not Status.INCONCLUSIVE else "nothing",
        because=("a level below the threshold by the arithmetic's own margin", "a breach shorter than `for` at every phase"),
    )


def _really(story: Story, plan: Plan) -> Verdict:
    """Whether each fault that was to be real was so by ``/proc``, for long enough to be judged."""
    doubts = [f"{BY_NAME[name].alert}: {why}" for name, why in plan.refused.items()] + list(story.let_go)
    sure: dict[str, int] = dict.fromkeys(plan.subjects, 0)
    for number, (fault, admitted) in enumerate(story.judged(), start=1):
        if story.is_real(fault) and isinstance(admitted, str):
            doubts.append(f"{fault.alert} (fault {number}): {admitted}")
        elif story.is_real(fault) and isinstance(admitted, Admitted):
            sure[fault.subject] += admitted.must_fire
    doubts += [f"{BY_NAME[name].alert}: never above its threshold for as long as `for`" for name, count in sure.items() if not count]
    held = []
    for name, count in sure.items():
        alert = BY_NAME[name].alert
        copied = f" (a copy with a threshold of {plan.thresholds[alert]:g} %)" if alert in plan.thresholds else ""
        held.append(f"{alert}{copied} {plural(count, 'time')}")
    said = f"made to fire in earnest, by /proc: {', '.join(held) or 'none'}"
    return Verdict(
        claim=REAL_FAULTS,
        light=Light.MONITORING,
        status=Status.INCONCLUSIVE if doubts else Status.PASS,
        hop="processor, memory and disk",
        sentence="; ".join((*dict.fromkeys(doubts), said)),
        says=plural(sum(count > 0 for count in sure.values()), "alert"),
        may_say=plural(len(real.SUBJECTS), "alert"),
        would_catch="1 alert" if not doubts else "nothing",
        because=("what /proc said beside the exporter, at every phase of the scrapes",),
    )


def _doubt(story: Story, reader: Reader) -> str | None:
    """Why silence proves nothing. None: the control was positive all the time."""
    beats = [told for told in story.told if told.who[0] == WATCHDOG]
    if not beats:
        return "the Watchdog never reached the receiver"
    if not any(kept.who[0] == WATCHDOG for kept in story.kept):
        return "the Watchdog has no row"
    route = story.route[WATCHDOG]
    longest_s = route.repeat_interval_s + route.group_interval_s + 2 * route.post_s
    instants = [0.0, *(beat.at_s for beat in beats if beat.stored_at_s is not None), story.until_s]
    gap_s = max(after - before for before, after in itertools.pairwise(instants))
    if gap_s > longest_s:
        return f"the Watchdog was not stored for {gap_s:.0f} s, wanted every {longest_s:.0f} s at least"
    for row in reader.rows.get("controls", ()):
        if (failed := row.columns["last"] - row.columns["first"]) > 0:
            return f"{row.columns['metric']} grew by {failed:g}"
    return None


def _range(window: Window) -> Range:
    return Range(lo=window.earliest_s - MS_S, hi=window.latest_s + MS_S)


def _about(at_s: float) -> Range:
    """One instant, as texts with milliseconds tell it."""
    return Range(lo=at_s - MS_S, hi=at_s + MS_S)


_NOUNS = {
    "alerts/samples": ("true", "breach"),
    "alerts/pending": ("pending", "episode"),
    "alerts/firing": ("firing", "episode"),
    "alerts/notified": ("told", "delivery"),
    "alerts/stored": ("row", "row"),
    "alerts/resolved": ("end", "end"),
}


def _show(reading: Reading, claim: str) -> str:
    what, noun = _NOUNS[claim]
    count = sum(key[0] == what for key in reading.parts)
    strays = sum(key[0] == "stray" for key in reading.parts)
    words = {"delivery": f"{count} deliveries", "breach": f"{count} breaches"}.get(noun, "") if count != 1 else ""
    words = words or plural(count, noun)
    return words + (f" and {strays} more" if strays else "")


_SAID = {
    "true": "the stored samples of {who} were true",
    "fires": "the stored samples of {who} would fire",
    "pending": "{who} was pending",
    "firing": "{who} fired",
    "over": "{who} was over",
    "told": "{who} was told to the receiver",
    "end told": "the end of {who} was told to the receiver",
    "recorded": "the row of {who} was written",
    "heard": "the row of {who} was told by Realtime",
    "end": "the row of {who} ends",
    "row": "the row of {who}",
    "how": "the end of {who}",
    "evaluated": "{who} is evaluated",
}


def _explain(difference: Difference, claim: str) -> str:
    what, who, number = difference.key
    which = f" (episode {number})" if claim != "alerts/samples" else f" (fault {number})"
    if what == "stray":
        return f"{who} at {_at(difference.said)} has no cause at the hop before"
    if what == "evaluated":
        said = "never" if difference.said is None else f"every {_at(difference.said)}"
        return f"rules are evaluated {said}, must be every {_at(difference.admitted)}"
    subject = _SAID[what].format(who=who)
    if difference.kind is Kind.LACKS:
        return f"{subject.replace(' was ', ' never was ').replace(' fired', ' never fired')}{which}: due {_at(difference.admitted)}, nothing was said"
    if difference.kind is Kind.EXTRA:
        return f"{subject} at {_at(difference.said)}{which}, and must not have been"
    if isinstance(difference.said, frozenset):
        return f"{subject} is '{_at(difference.said)}'{which}, must be '{_at(difference.admitted)}'"
    return f"{subject} at {_at(difference.said)}{which}, may be {_at(difference.admitted)}"


def _at(thing: Thing | None) -> str:
    if isinstance(thing, Range):
        return f"{thing.lo:.2f} s" if thing.hi - thing.lo < 4 * MS_S else f"{thing.lo:.2f}-{thing.hi:.2f} s"
    return "nothing" if thing is None else " or ".join(sorted(thing))


def _would_catch(admitted: Reading, claim: str, evaluation_s: float) -> str:
    what, _ = _NOUNS[claim]
    if claim in ("alerts/pending", "alerts/firing"):
        return f"1 evaluation ({evaluation_s:g} s)"
    widths: Sequence[float] = [
        thing.hi - thing.lo for key, thing in admitted.parts.items() if key[0] in (what, f"{what} told") and isinstance(thing, Range)
    ]
    return "1 row" if not widths else f"{max(widths):.1f} s"
