"""Whether our own measurement can be trusted; on the callers' own evidence only, never because two numbers differ."""

from __future__ import annotations

from assertions.facts import JITTER_BUFFER_S, is_stuttered
from harness.model import Evidence, GeneratorHealth, Ruler

PACING_P99_MS = 10.0
"""A generator that sends later than this cannot vouch for when it spoke: half a packet."""
LOOP_P99_MS = 250.0
"""A caller that learns of a pause later than this does not answer like a person, and its ears may have forgotten the beginning (0.9 s)."""
CPU_RATIO = 0.9
"""Of a core: a caller process has one interpreter, and no more than that."""
VOID_RATIO = 0.5
"""Void turns widen what is admitted, each by its own lateness, while that is no more than a receiver's jitter buffer hides. With more than this share
of turns beyond that, or in a doubt that has no measure, nothing stands for the run."""


def straightness(evidence: Evidence) -> Ruler:
    """Pacing, the event loop, CPU, drops, clock and void turns against their limits."""
    turns = [turn for record in evidence.records for turn in record.turns]
    void = sum(turn.void is not None for turn in turns)
    jerky = sum(is_stuttered(turn, evidence.health) for turn in turns)
    last: dict[str, GeneratorHealth] = {line.process: line for line in evidence.health}
    p99 = max((line.pacing_p99_ms for line in last.values()), default=None)
    return Ruler(
        is_straight=(bent := _bent(last, p99, jerky, len(turns))) is None,
        bent=bent,
        pacing_p99_ms=p99,
        void_turns=void,
        turns=len(turns),
    )


def _bent(last: dict[str, GeneratorHealth], p99: float | None, jerky: int, turns: int) -> str | None:
    """The first limit that does not hold. None: all hold."""
    if p99 is None:
        return "no caller process said how punctual it was"
    if p99 > PACING_P99_MS:
        return f"packets left {p99:.1f} ms late at p99, limit {PACING_P99_MS:g} ms"
    if (loop_ms := max((line.loop_p99_ms for line in last.values() if line.loop_p99_ms is not None), default=0.0)) > LOOP_P99_MS:
        return f"callers came to decide {loop_ms:.0f} ms late at p99, limit {LOOP_P99_MS:g} ms"
    if (cpu := max((line.cpu_s / line.wall_s for line in last.values() if line.wall_s), default=0.0)) > CPU_RATIO:
        return f"a caller process used {cpu:.0%} of a core, limit {CPU_RATIO:.0%}"
    if drops := sum(line.receive_drops for line in last.values()):
        return f"the kernel dropped {drops} datagrams at our sockets, limit 0"
    if steps := sum(line.clock_steps for line in last.values()):
        return f"the wall clock stepped {steps} times while calls were in progress, limit 0"
    if jerky > VOID_RATIO * turns:
        return f"{jerky} of {turns} turns are void by more than {JITTER_BUFFER_S * 1000:.0f} ms, or by what has no measure, limit {VOID_RATIO:.0%}"
    return None
