"""What would decide a run in which a hop could have hidden a defect: longer, other calls, other buckets, another server."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from assertions.facts import unread
from assertions.recomputed import Engine
from harness.measure import flavour
from harness.measure.series import Reader
from harness.model import Source, UnixNs
from harness.rules.evaluate import NotAnalysed

NO_RATE, SINCE_START = "no rate: of all time", "since the process started"
"""Defects that show once a window has forgotten something."""
P90 = "p90 for p95"
"""A defect that shows where the two ranks lie in two buckets."""
_MOVES: Mapping[str, str] = {
    "ttfw": "turns that the agent answers",
    "stt": "turns that the agent hears",
    "llm": "turns that the agent answers",
    "tts": "turns that the agent answers",
    "turns": "calls with turns",
    "tools": "turns that call a tool",
    "loss": "a network that loses packets (impairment: lossy-2pct-jitter-30ms)",
    "jitter": "a network that jitters (impairment: lossy-2pct-jitter-30ms)",
    "rtt": "a network with round trips of 1 ms and more (impairment: 4g)",
    "sip": "telephone calls that end badly",
    "targets": "a target that answers its scrapes",
    "history": "two alerts or more in the history (voxproof run alerts)",
}
"""What makes a quantity show anything but zeros. Of others: calls."""

_ANSWERED = "turns that the agent answers, in calls that are heard to their end by callers that are on time"
_TOOLS = "turns that call a tool and are answered, in calls that are heard to their end"
_CLAIMS: Mapping[str, str] = {
    **dict.fromkeys(("calls/rows", "calls/status", "calls/duration"), "calls that an agent joins and that come to their end"),
    "calls/realtime": "calls that begin and end while the subscription is proven to deliver",
    "active/exporter": "calls that last longer than two of our polls, on an agent that nobody else calls",
    "turns/rows": _ANSWERED,
    "turns/exporter": _ANSWERED,
    **dict.fromkeys(("tools/endpoint", "tools/rows", "tools/exporter"), _TOOLS),
    "ttfw/exporter": f"more {_ANSWERED}; a calibration of this agent that is less wide (voxproof calibrate)",
    **dict.fromkeys(("stt/exporter", "llm/exporter", "tts/exporter"), "more turns, on a machine that is less busy"),
    **dict.fromkeys(("sfu/rooms", "sfu/participants"), "calls that last longer than two of our polls"),
    **dict.fromkeys(("loss/server-reports", "loss/exporter"), "calls of ten seconds or more, on a media server of this machine"),
    "availability/samples": "targets that we can poll ourselves, for several scrapes",
    **dict.fromkeys(("pipeline/scrapes", "pipeline/rules"), "a longer run, on a machine that is less busy"),
    "pipeline/clock": "a server that answers in less time than a scrape",
    "pipeline/rows": "calls whose rows are written while their clock is known (rpc server_now)",
}
_SAMPLES = "calls that move it both early and late in the load"
"""Of raw samples, which may be missing, or end, wherever nothing moves."""


def usual(claim: str) -> str:
    """What would decide a claim whose own step does not say more of it. Empty: nothing is known."""
    return _CLAIMS.get(claim, _SAMPLES if claim.endswith("/samples") else "")


def needs(
    quantity: str, defects: Collection[str], expressions: Collection[str], window_s: float | None, reader: Reader, engine: Engine
) -> str:
    """What would decide the claim. expressions: those that must be recomputed. window_s: the longest of what is shown, None without one."""
    if expressions:
        if unread(reader, Source.PROMETHEUS, "voice_agent") or not reader.all_of(Source.PROMETHEUS):
            return "Prometheus' raw samples of the run"
        if engine.flavour is None:
            return f"a server whose arithmetic was measured ({flavour.MEASURED}), not {engine.server}"
        if unknown := next(_not_recomputed(expressions, reader, engine), None):
            return unknown
    return "; ".join(dict.fromkeys(_of(quantity, defects, window_s)))


def _not_recomputed(expressions: Collection[str], reader: Reader, engine: Engine) -> Iterator[str]:
    last = max((timeline.samples[-1][0] for timeline in reader.series(Source.PROMETHEUS, "up") if timeline.samples), default=UnixNs(0))
    for expression in expressions:
        try:
            engine.vector(expression, reader, last)
        except NotAnalysed as exc:
            yield f"an expression without {exc}"


def _of(quantity: str, defects: Collection[str], window_s: float | None) -> Iterator[str]:
    yield _MOVES.get(quantity, "calls")
    if {NO_RATE, SINCE_START} & set(defects) and window_s is not None:
        yield f"calls over more than the {window_s:g} s of its window, so that it forgets some"
    if P90 in defects:
        yield "more turns or finer buckets, so that p90 and p95 lie in two of them"
