"""What a target can be held to, given what a look at it showed: each claim provable or not, why, and what would unlock it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import yaml

from harness.collect.naming import Translator
from harness.collect.series import base, is_recorded, metrics
from harness.measure import flavour
from harness.model import Lack, Names, Naming, Source, Target, value
from harness.survey import Look
from harness.vocabulary import TABLES

STAGES = ("stt", "llm", "tts")
_METRICS: Mapping[str, tuple[str, ...]] = {
    "turns": ("voice_agent_turns_total",),
    "tools": ("voice_agent_tool_calls_total",),
    "ttfw": ("voice_agent_ttfw_seconds",),
    "active": ("voice_agent_active_calls",),
    **{stage: (f"voice_agent_{stage}_latency_seconds",) for stage in STAGES},
    "rooms": ("livekit_room_total",),
    "participants": ("livekit_participant_total",),
}
"""What a quantity's claims read of an exporter, and of Prometheus' samples."""
_AGENT = tuple(ours for ours in metrics() if ours.startswith("voice_agent_") and not is_recorded(ours))
_SFU = ("livekit_room_total", "livekit_participant_total")
"""Of the media server's metrics those that are there before the first call."""
_TABLES = {
    "calls/rows": "calls",
    "calls/status": "calls",
    "calls/duration": "calls",
    "calls/realtime": "calls",
    "turns/rows": "transcripts",
    "tools/rows": "tool_executions",
}
_PANELS_OF_ROWS = ("calls", "tools", "history")
"""Quantities whose panels ask the call history; all others ask Prometheus."""
_RECORDS = {
    "ttfw": "voice_agent:ttfw_seconds:",
    **{stage: f"voice_agent:{stage}_latency_seconds:" for stage in STAGES},
    "turns": "voice_agent:turns:",
    "tools": "voice_agent:tool_calls:",
    "active": "voice_agent:active_calls:",
    "loss": "livekit_packet_loss_ratio",
    "jitter": "livekit_jitter_ms",
    "rtt": "livekit_rtt_mean_ms",
}
ALIASES: Mapping[str, str] = {
    "lk_agents_turn_e2e_latency_seconds": "voice_agent_ttfw_seconds",
}
"""Names by which agents that we know export what is ours: livekit-agents by OpenTelemetry, as Prometheus stores it. Its stages are of turns, ours of
each model call."""
_ADVICE: Mapping[tuple[Source, Lack], str] = {
    (Source.AGENT_EXPORTER, Lack.ABSENT): "give --agent-metrics URL; an agent without an exposition: attach telemetry/ (one line)",
    (Source.SFU_EXPORTER, Lack.ABSENT): "give --livekit-metrics URL (prometheus.port of livekit-server); LiveKit Cloud has none",
    (Source.PROMETHEUS, Lack.ABSENT): "give --prometheus URL, with its path prefix",
    (Source.RULES, Lack.ABSENT): "load deploy/monitoring/rules/recording.yml, on VictoriaMetrics by vmalert; or name yours under 'metrics'",
    (Source.ROWS, Lack.ABSENT): "give --supabase URL and SUPABASE_SERVICE_KEY; the schema comes with voxproof migrate",
    (Source.REALTIME, Lack.ABSENT): "give a call history whose tables Realtime publishes: voxproof migrate",
    (Source.AGENT_RULER, Lack.ABSENT): "only the reference agent notes what its stages really took: run without --target",
    (Source.TOOL_ENDPOINT, Lack.ABSENT): "only the reference agent's tools call an endpoint of ours: run without --target",
    (Source.AGENT_EXPORTER, Lack.FORBIDDEN): "name a credential: agent.bearer_env or agent.basic_env",
    (Source.SFU_EXPORTER, Lack.FORBIDDEN): "name a credential: livekit.basic_env (prometheus.username and password of livekit-server)",
    (Source.PROMETHEUS, Lack.FORBIDDEN): "name a credential: prometheus.bearer_env, or a tenant under prometheus.headers",
    (Source.RULES, Lack.FORBIDDEN): "ask for the right to read /api/v1/rules",
    (Source.ROWS, Lack.FORBIDDEN): "name a token that may read: supabase.token_env (docs/supabase.md)",
    (Source.SFU_API, Lack.FORBIDDEN): "check LIVEKIT_API_KEY and LIVEKIT_API_SECRET: they must belong to livekit.url",
}


@value
class Cover:
    """One claim at one target."""

    claim: str
    lack: Lack | None
    """None: it can be proven."""
    why: str
    """What it is read of, or why it cannot be."""
    unlock: str | None
    """What would make it provable. None: nothing is missing, or nothing would."""


@value
class Survey:
    """What a target was found to be."""

    looks: tuple[Look, ...]
    names: Names
    """Those of the target, what the looks taught of names, and what is not there."""
    unseen: tuple[str, ...] = ()
    """Metrics of ours that are not there yet, though others of the same exporter are: some begin with the first call."""

    @property
    def by_source(self) -> Mapping[Source, Look]:
        return {each.source: each for each in self.looks}


def learned(target: Target, looks: Sequence[Look]) -> Survey:
    """The target's names, with what is known by another one, and what is not there at all."""
    by_source = {each.source: each for each in looks}
    names = target.names
    found = {name for source in (Source.AGENT_EXPORTER, Source.SFU_EXPORTER, Source.PROMETHEUS) for name in _things(by_source, source)}
    renamed = dict(names.metrics)
    for alias, ours in ALIASES.items():
        if alias in found and ours not in found and ours not in renamed:
            renamed[ours] = Naming(name=alias)
    theirs = {ours: naming.name for ours, naming in renamed.items()}
    lacking = dict(names.lacking)
    unseen: list[str] = []
    for family in (_AGENT, _SFU):
        missing = [ours for ours in family if ours not in lacking and not _is_there(theirs.get(ours, ours), found)]
        read = [source for source in _sources_of(family[0]) if _answers(by_source, source)]
        if len(missing) < len(family):
            unseen += missing
        elif read:
            lacking |= {ours: f"{Lack.ABSENT}: {_and(read)} has no series {theirs.get(ours, ours)}" for ours in missing}
    if (rows := by_source.get(Source.ROWS)) is not None and rows.lack is None:
        translator = Translator(names)
        for table in ("calls", "transcripts", "tool_executions"):
            if table not in lacking and translator.table(table) not in rows.things:
                lacking[table] = f"{Lack.ABSENT}: the project has no table {translator.table(table)}"
    learned_names = Names(metrics=renamed, tables=names.tables, lacking=lacking, match=names.match)
    return Survey(looks=tuple(looks), names=learned_names, unseen=tuple(unseen))


def coverage(survey: Survey, claims: Mapping[str, tuple[Source, ...]]) -> tuple[Cover, ...]:
    """Every claim on the monitoring, provable or not. Drills of alerts break what they judge: our own stack only."""
    return tuple(_cover(claim, sources, survey) for claim, sources in claims.items() if not claim.startswith(("slo/", "alerts/")))


def text(covers: Sequence[Cover], survey: Survey) -> str:
    """Quantity by hop: what can be proven, what cannot and why, and what would unlock it; last, whose arithmetic the numbers are."""
    quantities = dict.fromkeys(each.claim.partition("/")[0] for each in covers)
    rows = [(quantity, *_row([each for each in covers if each.claim.startswith(f"{quantity}/")])) for quantity in quantities]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [
        f"{name:<{widths[0]}}  {provable:<{widths[1]}}  {rest}".rstrip()
        for name, provable, rest in (("", "provable", "not provable"), *rows)
    ]
    lines.append(f"provable: {sum(each.lack is None for each in covers)} of {len(covers)} claims")
    reasons: dict[tuple[str, str | None], list[str]] = {}
    for each in covers:
        if each.lack is not None:
            reasons.setdefault((f"{each.lack}: {each.why}", each.unlock), []).append(each.claim)
    for (why, unlock), claims in reasons.items():
        lines += [f"{', '.join(claims)}", f"  {why}", *([f"  unlock: {unlock}"] if unlock else [])]
    late = sorted({each.why.partition("; ")[2] for each in covers if each.lack is None and "; " in each.why})
    engines = [f"{each.source}: {flavour.described(each.engine)}" for each in survey.looks if each.engine]
    return "\n".join((*lines, *late, *engines))


def _row(covers: Sequence[Cover]) -> tuple[str, str]:
    hops = [(each.claim.partition("/")[2], each.lack) for each in covers]
    provable = ", ".join(hop for hop, lack in hops if lack is None)
    return provable, ", ".join(f"{hop} ({lack})" for hop, lack in hops if lack is not None)


def target_yaml(target: Target, survey: Survey) -> str:
    """The file that says all of it. Credentials are named by their variables."""
    sections: dict[str, Any] = {"name": target.name, "livekit": {"url": target.livekit_url}}
    if target.sfu_metrics_url:
        sections["livekit"]["metrics_url"] = target.sfu_metrics_url
    if target.agent_metrics_url:
        sections["agent"] = {"metrics_url": target.agent_metrics_url}
    if target.prometheus_url:
        sections["prometheus"] = {"url": target.prometheus_url}
    if target.supabase_url:
        token = {"token_env": "SUPABASE_JUDGE_TOKEN"} if target.supabase_token else {}
        sections["supabase"] = {"url": target.supabase_url, **token}
    metrics_of, tables_of = _named(survey.names)
    sections |= {"metrics": metrics_of} if metrics_of else {}
    sections |= {"tables": tables_of} if tables_of else {}
    for lack in Lack:
        found = {str(each.source): each.reason for each in survey.looks if each.lack is lack and each.source is not Source.SFU_API}
        found |= {"rules": _no_rules(survey)} if lack is Lack.ABSENT and _has_no_rules(survey) else {}
        sections |= {str(lack): found} if found else {}
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=120)


def _named(names: Names) -> tuple[dict[str, Any], dict[str, Any]]:
    told: dict[str, dict[str, Any]] = {"metrics": {}, "tables": {}}
    for ours, naming in names.metrics.items():
        scale = {"scale": naming.scale} if naming.scale != 1.0 else {}
        labels = {"labels": dict(naming.labels)} if naming.labels else {}
        told["metrics"][ours] = {"name": naming.name, **scale, **labels} if scale or labels else naming.name
    for ours, reason in names.lacking.items():
        lack, _, why = reason.partition(": ")
        told["tables" if ours in TABLES else "metrics"][ours] = {lack: why}
    return told["metrics"], told["tables"]


def _cover(claim: str, sources: tuple[Source, ...], survey: Survey) -> Cover:
    by_source = survey.by_source
    for source in sources:
        look = by_source.get(source)
        if source is Source.AGENT_RULER:
            return Cover(
                claim=claim, lack=Lack.ABSENT, why="an agent of others keeps no ruler of its stages", unlock=_ADVICE[source, Lack.ABSENT]
            )
        if source is Source.TOOL_ENDPOINT:
            why = "the tools of others call another endpoint than ours"
            return Cover(claim=claim, lack=Lack.ABSENT, why=why, unlock=_ADVICE[source, Lack.ABSENT])
        if source is Source.REALTIME and look is None:
            look = by_source.get(Source.ROWS)
        if source is Source.PANELS:
            look = by_source.get(Source.ROWS if claim.partition("/")[0] in _PANELS_OF_ROWS else Source.PROMETHEUS)
        if look is not None and look.lack is not None:
            unlock = _ADVICE.get((look.source, look.lack))
            return Cover(claim=claim, lack=look.lack, why=f"{look.source}: {look.reason}", unlock=unlock)
    for ours in _needs(claim):
        if (reason := survey.names.lacking.get(ours)) is not None:
            lack, _, why = reason.partition(": ")
            return Cover(claim=claim, lack=Lack(lack), why=why, unlock=_other_name(ours))
    if Source.RULES in sources and not _has_rule(claim.partition("/")[0], survey):
        return Cover(claim=claim, lack=Lack.ABSENT, why="no recording rule of it", unlock=_ADVICE[Source.RULES, Lack.ABSENT])
    engine = by_source.get(Source.PROMETHEUS)
    if Source.RULES in sources and engine is not None and engine.engine and flavour.of(engine.engine) is None:
        why = f"{flavour.described(engine.engine)}: what its rules must say is not known"
        return Cover(claim=claim, lack=Lack.BLIND, why=why, unlock=f"let the rules be evaluated by one that was: {flavour.MEASURED}")
    asked = " and ".join(dict.fromkeys(by_source[source].request for source in sources if source in by_source)) or "our own callers"
    late = [ours for ours in _needs(claim) if ours in survey.unseen]
    return Cover(claim=claim, lack=None, why=asked + "".join(f"; {ours} is not there yet" for ours in late), unlock=None)


def _needs(claim: str) -> tuple[str, ...]:
    quantity, _, hop = claim.partition("/")
    if claim in _TABLES:
        return (_TABLES[claim],)
    return _METRICS.get(hop if quantity == "sfu" else quantity, ()) if hop != "answered" else ()


def _other_name(ours: str) -> str:
    process = "; or the agent runs under the PROCESS executor without PROMETHEUS_MULTIPROC_DIR" if ours.startswith("voice_agent_") else ""
    return f"if it is called otherwise there, say so under {_section(ours)}: {ours}{process}"


def _section(ours: str) -> str:
    return "tables" if ours in TABLES else "metrics"


def _has_rule(quantity: str, survey: Survey) -> bool:
    names = Translator(survey.names)
    rules = survey.by_source.get(Source.RULES)
    told = (names.series(rule, {}, 0.0) for rule in (rules.things if rules else ()))
    return any(each is not None and each[0].startswith(_RECORDS.get(quantity, f"voice_agent:{quantity}")) for each in told)


def _has_no_rules(survey: Survey) -> bool:
    rules = survey.by_source.get(Source.RULES)
    return rules is not None and rules.lack is None and not any(_has_rule(quantity, survey) for quantity in _RECORDS)


def _no_rules(survey: Survey) -> str:
    rules = survey.by_source[Source.RULES]
    return "it has no recording rule at all" if not rules.things else f"none of its {len(rules.things)} recording rules is known to us"


def _things(by_source: Mapping[Source, Look], source: Source) -> Iterator[str]:
    if source in by_source:
        yield from by_source[source].things


def _is_there(theirs: str, found: Collection[str]) -> bool:
    return bool({theirs, base(theirs), f"{theirs}_total"} & set(found))


def _answers(by_source: Mapping[Source, Look], source: Source) -> bool:
    return source in by_source and by_source[source].lack is None


def _sources_of(ours: str) -> tuple[Source, ...]:
    return (Source.SFU_EXPORTER if ours.startswith("livekit_") else Source.AGENT_EXPORTER, Source.PROMETHEUS)


def _and(sources: Sequence[Source]) -> str:
    return " and ".join(str(source) for source in sources)
