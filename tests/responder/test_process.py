"""The responder as a process."""

from __future__ import annotations

import asyncio

import pytest

from fixtures.responder import __main__ as responder
from harness.errors import UsageError


def test_a_delay_that_it_cannot_keep_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of speech is known 0.4 s after it, so nothing can be said before."""
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.setenv(name, "ws://127.0.0.1:9")
    monkeypatch.setenv("RESPONDER_DELAY_S", "0.2")

    with pytest.raises(UsageError, match=r"RESPONDER_DELAY_S is 0\.2; .* the least delay is 0\.5"):
        asyncio.run(responder._serve())
