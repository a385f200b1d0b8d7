"""The ledger as every report lays it out: claims by quantity, what is wrong first, where to hear it, what repeats it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from harness.model import REAL_FAULTS, CallRecord, Evidence, Findings, Gap, Light, PlantedLie, Source, Status, Verdict, value
from reports.words import offset, quantity, since, word

METRIC_HOPS = ("exporter", "samples", "rule", "panel", "pixel")
"""Hops that a number passes one after the other; every other hop is read straight against the callers' truth."""
_AUDIO = re.compile(r"(?P<path>audio/[^#\s]+)(?:#t=(?P<at_s>\d+(?:\.\d+)?))?")


@value
class Group:
    """The verdicts on one quantity, in the order of their hops."""

    title: str
    verdicts: tuple[Verdict, ...]


@value
class Moment:
    """A place in a recording that shows what a claim is about."""

    path: str
    """Below the run directory."""
    at_s: float
    """Seconds from the recording's first sample."""


@value
class Step:
    """One hop on the way of a number, for the picture of where it went wrong."""

    name: str
    word: str
    says: str
    is_judged_here: bool


@value
class Loss:
    """A source that could not be read, for one reason; seconds are of the run."""

    source: Source
    reason: str
    is_blind: bool
    first_s: float
    last_s: float
    times: int
    request: str

    @property
    def when(self) -> str:
        """In words: never, at, or from and to."""
        if self.is_blind:
            return "ever"
        if self.times == 1:
            return f"at {offset(self.first_s)}"
        return f"from {offset(self.first_s)} to {offset(self.last_s)}, {self.times} times"


@value
class Run:
    """How a person names one run: on the command line, and as the folder its files are in; and what earlier runs say of it."""

    name: str
    folder: str
    since: Mapping[str, str] = field(default_factory=dict)
    """By claim that failed: since which run, and what changed then."""

    @staticmethod
    def of(evidence: Evidence, name: str | None, since: Mapping[str, str] | None = None) -> Run:
        """``name`` as it was typed, a path or an id. None: the run's id."""
        folder = (name or evidence.info.run_id).rstrip("/")
        return Run(name=folder, folder=folder if "/" in folder else f"reports/runs/{folder}", since=since or {})

    def explain(self, claim: str) -> str:
        """The command that shows how ``claim`` was judged."""
        return f"voxproof explain {self.name} {claim}"


def groups(verdicts: Iterable[Verdict]) -> tuple[Group, ...]:
    """By quantity, in the order in which quantities first appear; what the agent is held to stands under its own name."""
    by_title: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        title = "agent" if verdict.light is Light.AGENT else quantity(verdict.claim)
        by_title.setdefault(title, []).append(verdict)
    return tuple(Group(title=title, verdicts=tuple(found)) for title, found in by_title.items())


def of_light(findings: Findings, light: Light) -> tuple[Verdict, ...]:
    """The verdicts under one light."""
    return tuple(verdict for verdict in findings.verdicts if verdict.light is light)


def failed(findings: Findings) -> tuple[Verdict, ...]:
    """Every claim that failed."""
    return tuple(verdict for verdict in findings.verdicts if word(verdict) == "FAIL")


def is_required(evidence: Evidence, claim: str) -> bool:
    """The scenario must decide this claim; ``requires`` may hold patterns such as ``ttfw/*``."""
    return evidence.info.scenario.is_required(claim)


def undecided(findings: Findings) -> tuple[Verdict, ...]:
    """Every claim that could not be decided and is not blind."""
    return tuple(verdict for verdict in findings.verdicts if word(verdict) == "undecided")


def blind(findings: Findings) -> tuple[Verdict, ...]:
    """Every claim that this target can never show."""
    return tuple(verdict for verdict in findings.verdicts if verdict.blind is not None)


def unjudged(evidence: Evidence, findings: Findings) -> tuple[str, ...]:
    """What the scenario requires and no verdict speaks of. Whoever gave no panels has none that could lie."""
    claims = [verdict.claim for verdict in findings.verdicts]
    scenario = evidence.info.scenario
    required = tuple(each for each in scenario.requires if each != REAL_FAULTS or scenario.is_required(each))
    if not any(claim.endswith("/panel") for claim in claims):
        required = tuple(pattern for pattern in required if not pattern.endswith("/panel"))
    return tuple(pattern for pattern in required if not any(fnmatchcase(claim, pattern) for claim in claims))


def outcome(evidence: Evidence, findings: Findings) -> Status:
    """What the run shows as a whole. A run that ended early shows nothing by what it did not get to."""
    if findings.status is Status.PASS and evidence.info.interrupted is not None:
        return Status.INCONCLUSIVE
    return findings.status


def exit_code(evidence: Evidence, findings: Findings) -> int:
    """0, 1 or 3, as the command line ends."""
    return {Status.PASS: 0, Status.FAIL: 1, Status.INCONCLUSIVE: 3}[outcome(evidence, findings)]


def light_status(evidence: Evidence, findings: Findings, light: Light) -> Status:
    """What one light shows: the worst of what failed under it and of what the scenario requires of it."""
    shown = [verdict for verdict in of_light(findings, light) if verdict.blind is None]
    counted = [verdict for verdict in shown if verdict.status is Status.FAIL or is_required(evidence, verdict.claim)]
    return Status.worst(verdict.status for verdict in counted or shown)


def moments(verdict: Verdict) -> tuple[Moment, ...]:
    """Where it can be heard: the entries of a verdict's evidence that point into recordings."""
    found = (_AUDIO.fullmatch(entry) for entry in verdict.evidence)
    return tuple(Moment(path=match["path"], at_s=float(match["at_s"] or 0.0)) for match in found if match)


def requests(verdict: Verdict) -> tuple[str, ...]:
    """What finds the evidence of a verdict again, recordings aside."""
    return tuple(entry for entry in verdict.evidence if not _AUDIO.fullmatch(entry))


def is_address(request: str) -> bool:
    """A request is a URL; anything else in a verdict's evidence is a path."""
    return urlsplit(request).scheme in ("http", "https")


def path_of(findings: Findings, verdict: Verdict) -> tuple[Step, ...]:
    """The hops from the callers to the last one that passed the number on, with the one that ``verdict`` judges."""
    first, _, hop = verdict.claim.partition("/")
    along = [verdict]
    if hop in METRIC_HOPS:
        same = [one for one in findings.verdicts if one.claim.partition("/")[0] == first]
        along = [one for one in same if one.claim.partition("/")[2] in METRIC_HOPS]
    truth = Step(name="callers", word="truth", says=verdict.may_say if along[0] is verdict else along[0].may_say, is_judged_here=False)
    return (
        truth,
        *(Step(name=one.hop, word=word(one), says=one.says, is_judged_here=one is verdict) for one in along),
    )


def planted_sentence(planted: tuple[PlantedLie, ...]) -> str:
    """What the negative control showed: ``6 caught, 6 at the right hop``."""
    caught = sum(lie.is_caught for lie in planted)
    localised = sum(lie.is_localised for lie in planted)
    return f"{caught} caught, {localised} at the right hop"


def control(planted: tuple[PlantedLie, ...]) -> str:
    """``ok``; ``not localised``: every lie turned its own hop red, one turned others red too; ``NOT SHOWN``: one was not caught, or none planted."""
    if not planted or not all(lie.is_caught for lie in planted):
        return "NOT SHOWN"
    return "ok" if all(lie.is_localised for lie in planted) else "not localised"


def losses(evidence: Evidence) -> tuple[Loss, ...]:
    """What was not read: gaps of one source for one reason are one loss, in the order in which they began."""
    found: dict[tuple[Source, str, bool], list[Gap]] = {}
    for gap in sorted(evidence.gaps, key=lambda gap: gap.at):
        found.setdefault((gap.source, gap.reason, gap.is_blind), []).append(gap)
    start = evidence.info.started_at
    return tuple(
        Loss(
            source=source,
            reason=reason,
            is_blind=is_blind,
            first_s=since(start, gaps[0].at),
            last_s=since(start, gaps[-1].at),
            times=len(gaps),
            request=gaps[0].request,
        )
        for (source, reason, is_blind), gaps in found.items()
    )


def call_of(evidence: Evidence, path: str) -> CallRecord | None:
    """The call whose recording is at ``path``."""
    return next((record for record in evidence.records if record.audio == path), None)
