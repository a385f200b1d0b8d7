"""What every quantity needs of a run: who really called, what was said in which order, and the run's window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.measure.series import Reader
from harness.measure.stalls import Stall, longest_s, stalled_s, stalls
from harness.model import CallOutcome, CallRecord, Evidence, Gap, GeneratorHealth, Source, TurnRecord, UnixNs, value

AS_PLANNED = frozenset({CallOutcome.COMPLETED, CallOutcome.HUNG_UP})
"""Calls that our caller ended, when it was to end them."""
WHOLE = frozenset({*AS_PLANNED, CallOutcome.SILENT, CallOutcome.AGENT_LEFT, CallOutcome.NO_AGENT})
"""Calls that we saw from beginning to end. Of the others it is not known what the stack should say."""
EMBEDDED = "embedded"
USER, ASSISTANT = "user", "assistant"
TORN_S = 0.25
"""The shortest silence that ends an utterance for an agent's voice detection (silero in livekit-agents): a stall as long makes two of one."""
JITTER_BUFFER_S = 0.04
"""The least that a WebRTC receiver holds back: packets that are late by no more are played as if on time."""


@value
class Line:
    """One thing that was said, or may have been."""

    call_id: str
    turn: int
    """0: the greeting."""
    role: str
    text: str | None
    """None: any words will do."""
    is_sure: bool
    """False: the stack may know of it or not."""
    over_at: UnixNs | None = None
    """It had been said by then. None: we do not know by when."""
    cut_from: str | None = None
    """What the agent was saying when the caller talked it down: its row holds the beginning of it. None: it was said to the end."""
    heard_s: float | None = None
    """How long that was heard."""


@value
class Facts:
    """One run as we ourselves saw it: nothing here was said by the stack."""

    evidence: Evidence
    lines: tuple[Line, ...]
    """Everything that was said in all calls, in the order of each conversation."""
    lines_of: Mapping[str, tuple[Line, ...]]
    """The same by call id."""
    indices: Mapping[str, int]
    """Number of a call by its id: ``call-1`` in sentences."""
    stalls: tuple[Stall, ...]
    """When the way to the agent stood still, by the callers' round trips."""
    others: str | None = None
    """Why counters may hold others' calls as well as ours. None: they do not."""

    @staticmethod
    def of(evidence: Evidence) -> Facts:
        """The facts of ``evidence``."""
        found = stalls(evidence.records)
        by_call = {record.plan.call_id: lines(record, evidence.health, found) for record in evidence.records}
        return Facts(
            evidence=evidence,
            lines=tuple(line for found in by_call.values() for line in found),
            lines_of=by_call,
            indices={plan.call_id: plan.index for plan in evidence.plans},
            stalls=found,
        )

    @property
    def records(self) -> tuple[CallRecord, ...]:
        return self.evidence.records

    @property
    def since(self) -> UnixNs:
        """The instant before which nothing that is counted happened."""
        return self.evidence.info.load_started_at or self.evidence.info.started_at

    @property
    def is_ours(self) -> bool:
        """The stack is the embedded one: nobody else uses it, and its clock is ours."""
        return self.evidence.info.target == EMBEDDED

    @property
    def is_alone(self) -> bool:
        """Nobody else uses the agent: it is ours, or its owner says so."""
        return self.is_ours or bool(self.evidence.info.settings.get("exclusive"))

    def named(self, call_id: str) -> str:
        """``call-1``, or the id of a call that is not ours."""
        index = self.indices.get(call_id)
        return call_id if index is None else f"call-{index}"

    def moment(self, at: int) -> str:
        """An instant for people: ``31.2 s into the run``."""
        return f"{(at - self.evidence.info.started_at) / 1e9:.1f} s into the run"

    def setting(self, name: str, default: float) -> float:
        """A number of the run's settings."""
        return float(self.evidence.info.settings.get(name, default))


def lines(record: CallRecord, health: Sequence[GeneratorHealth], found_stalls: Sequence[Stall] = ()) -> tuple[Line, ...]:
    """What was said in one call.

    The user's line is sure once its reply was heard: the agent answers nothing that it has not taken in. The agent's own line is written when it has
    been spoken to the end, so it is sure once the agent was heard again, or the caller hung up in peace. The words of a turn in which our own
    media stuttered for longer than a jitter buffer holds, or the way stood still, are not sure; nor, after ``TORN_S`` of that, that it was one turn.
    """
    if record.placed_at is None or record.outcome is CallOutcome.NO_AGENT:
        return ()
    found: list[Line] = []
    is_whole = record.outcome in WHOLE
    is_complete = record.outcome is CallOutcome.COMPLETED
    heard = [turn.index for turn in record.turns if turn.first_word_at is not None]
    last_heard = max(heard, default=0)
    spoken = {turn.index: turn for turn in record.turns}

    def add(turn: int, role: str, text: str | None, over_at: UnixNs | None, *, is_sure: bool) -> None:
        text = text if is_sure else None
        is_cut = role == ASSISTANT and turn in record.talked_over
        heard_at = record.greeted_at if turn == 0 else spoken[turn].first_word_at if turn in spoken else None
        heard_s = (over_at - heard_at) / 1e9 if is_cut and over_at is not None and heard_at is not None else None
        found.append(
            Line(
                call_id=record.plan.call_id,
                turn=turn,
                role=role,
                text=None if is_cut else text,
                is_sure=is_sure,
                over_at=over_at,
                cut_from=text if is_cut else None,
                heard_s=heard_s,
            )
        )

    if record.greeted_at is not None or record.plan.greeting is not None or not is_whole:
        is_sure = record.greeted_at is not None and (is_complete or (is_whole and last_heard > 0))
        # The caller speaks when the greeting is over.
        first_at = record.turns[0].user_speech_started_at if record.turns else record.left_at
        add(0, ASSISTANT, record.plan.greeting, first_at, is_sure=is_sure)
    for index, plan in enumerate(record.plan.turns, start=1):
        turn = spoken.get(index)
        if turn is None and is_whole:
            if record.outcome is CallOutcome.HUNG_UP:  # in the middle of a sentence, perhaps: who knows what was taken in of it
                add(index, USER, None, None, is_sure=False)
                add(index, ASSISTANT, None, None, is_sure=False)
            break
        is_heard = is_whole and turn is not None and turn.first_word_at is not None
        still_s = 0.0 if turn is None else stalled_s(turn, found_stalls)
        is_garbled = turn is None or is_stuttered(turn, health) or still_s > JITTER_BUFFER_S
        is_torn = turn is not None and longest_s(turn, found_stalls) > TORN_S
        is_spoken = is_heard and not is_torn and (is_complete or index < last_heard)
        answered_at, over_at = (turn.first_word_at, turn.agent_speech_ended_at) if turn is not None else (None, None)
        add(index, USER, None if is_garbled else plan.text, answered_at, is_sure=is_heard)
        add(index, ASSISTANT, None if is_garbled else plan.reply, over_at, is_sure=is_spoken)
        if is_torn:
            add(index, USER, None, None, is_sure=False)
            add(index, ASSISTANT, None, None, is_sure=False)
    return tuple(found)


def is_stuttered(turn: TurnRecord, health: Sequence[GeneratorHealth]) -> bool:
    """What the agent heard of this turn may not be what was said."""
    if turn.void is None:
        return False
    late = late_s(turn, health)
    return late is None or late > JITTER_BUFFER_S


def late_s(turn: TurnRecord, health: Sequence[GeneratorHealth]) -> float | None:
    """How late our media threads ran at most while the turn was measured. None: they did not, so something else makes a void turn void.

    Ticks are absolute: one that is late makes no other late, and no packet is later than the latest of them.
    """
    until = max(turn.user_speech_ended_at, turn.first_word_at or turn.user_speech_ended_at)
    late = [(end - start) / 1e9 for line in health for start, end in line.late if start <= until and end >= turn.user_speech_started_at]
    return max(late, default=None)


def rowless(reader: Reader, facts: Facts) -> frozenset[str]:
    """Our calls without a row in ``calls``, although that table was read: no line and no tool call can be stored of them, nor stay."""
    if unread(reader, Source.ROWS, "/calls?"):
        return frozenset()
    return frozenset(facts.indices) - {str(row.columns.get("call_id")) for row in reader.rows.get("calls", ())}


def unread(reader: Reader, source: Source, mark: str = "") -> Gap | None:
    """The Gap of a source that was never read, or that was lost before the end. None: it was read to the end."""
    if gap := reader.gap(source, mark):
        return gap
    if not reader.is_read(source, mark):
        return Gap(source=source, at=UnixNs(0), reason="it was never read", request="")
    return None
