"""When lateness of our own voids a turn."""

from __future__ import annotations

import pytest

from harness.measure.void import void_reason
from harness.model import TurnRecord, UnixNs

MS = 1_000_000


def turn(first_word_at: int | None) -> TurnRecord:
    """Spoken from 1000 to 3000 ms."""
    return TurnRecord(
        index=1,
        prompt="weather",
        text="weather",
        user_speech_started_at=UnixNs(1000 * MS),
        user_speech_ended_at=UnixNs(3000 * MS),
        first_word_at=None if first_word_at is None else UnixNs(first_word_at * MS),
        agent_speech_ended_at=None,
    )


@pytest.mark.parametrize(
    ("first_word_at", "late", "is_void"),
    [
        (4000, (3500, 3520), True),
        (4000, (980, 1000), True),
        (4000, (4000, 4020), True),
        (4000, (900, 999), False),
        (4000, (4001, 4020), False),
        (2500, (2900, 2920), True),
        (None, (2900, 2920), True),
        (None, (3001, 3020), False),
    ],
)
def test_lateness_between_the_prompt_and_the_first_word_voids(first_word_at: int | None, late: tuple[int, int], *, is_void: bool) -> None:
    """Both ends inclusive; an unheard turn counts to the end of the prompt, a talked-over one too."""
    start, end = late

    reason = void_reason(turn(first_word_at), [(UnixNs(start * MS), UnixNs(end * MS))])

    assert (reason is not None) == is_void
