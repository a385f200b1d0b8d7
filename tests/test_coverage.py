"""What a look at a stack says of what can be proven there; the looks are recorded of the real one (``fixtures/looks/record.py``)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness import codec, coverage, target
from harness.check import CLAIMS
from harness.coverage import Cover, Survey
from harness.model import Lack, Naming, Source, Target
from harness.survey import Look
from tests.fakes import targets

LOOKS = Path(__file__).parents[1] / "fixtures" / "looks"
ENVIRON = {"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "secret", "SUPABASE_SERVICE_KEY": "service", "SUPABASE_JUDGE_TOKEN": "token"}
BARE = """\
name: theirs
livekit:
  url: ws://theirs.example
supabase:
  url: http://theirs.example
absent:
  agent-exporter: no address was given
  sfu-exporter: no address was given
  prometheus: no address was given
  rules: no address was given
forbidden:
  rows: /rest/v1/calls answered 401
"""


def looks(name: str, *changes: Look) -> tuple[Look, ...]:
    """Recorded looks. changes: those that are otherwise."""
    recorded = codec.from_json(tuple[Look, ...], json.loads((LOOKS / f"{name}.json").read_text()))
    changed = {each.source: each for each in changes}
    return tuple(changed.get(each.source, each) for each in recorded)


def theirs(*, url: str | None = "http://theirs.example") -> Target:
    """A target of which nothing is known but its addresses."""
    return targets.target(
        prometheus_url=url,
        agent_metrics_url=url,
        sfu_metrics_url=url,
        supabase_url="http://theirs.example",
        supabase_key="service",
    )


def only(source: Source, *changes: Look, names: Mapping[str, tuple[str, ...]]) -> Look:
    """The recorded look at a source, as if just these things were there."""
    (found,) = (each for each in looks("whole", *changes) if each.source is source)
    return dataclasses.replace(found, things=names)


def covers(survey: Survey) -> dict[str, Cover]:
    return {each.claim: each for each in coverage.coverage(survey, CLAIMS)}


def test_a_whole_stack_can_be_held_to_everything_but_the_agents_own_stages() -> None:
    """Only the reference agent keeps a ruler of them, and has tools that call an endpoint of ours."""
    found = covers(coverage.learned(theirs(), looks("whole")))

    assert {claim for claim, cover in found.items() if cover.lack is not None} == {
        *("stt/exporter", "llm/exporter", "tts/exporter"),
        "tools/endpoint",
    }


def test_a_bare_stack_is_written_down_with_its_reasons() -> None:
    """LiveKit's three variables and a key that may not read: what is missing stands in the file, and it loads."""
    survey = coverage.learned(theirs(url=None), looks("bare"))
    text = coverage.target_yaml(theirs(url=None), survey)

    assert text == BARE
    assert target.read(text, file="target.yaml", environ=ENVIRON).lacks["rows"] is Lack.FORBIDDEN


def test_the_map_tells_what_would_unlock_what() -> None:
    """Quantity by hop, then each reason once, with its next step."""
    survey = coverage.learned(theirs(url=None), looks("bare"))
    told = coverage.text(coverage.coverage(survey, CLAIMS), survey)

    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert lines[1].startswith("calls answered rows (forbidden), status (forbidden)")
    assert any(line.startswith("turns rows (forbidden), exporter (absent), samples (absent)") for line in lines)
    assert "  forbidden: rows: /rest/v1/calls answered 401\n  unlock: name a token that may read: supabase.token_env" in told


def test_the_file_of_a_whole_stack_loads_and_says_the_same() -> None:
    """Looked at again by the file, the map is the same."""
    survey = coverage.learned(theirs(), looks("whole"))
    again = target.read(coverage.target_yaml(theirs(), survey), file="target.yaml", environ=ENVIRON)

    assert covers(coverage.learned(again, looks("whole"))) == covers(survey)


def test_an_agent_with_only_opentelemetry_is_known_by_its_names() -> None:
    """livekit-agents' own histogram is TTFW; what it does not count is absent."""
    things = {
        "lk_agents_turn_e2e_latency_seconds": ("histogram",),
        "livekit_room_total": ("gauge",),
        "livekit_participant_total": ("gauge",),
    }
    nothing = Look(source=Source.AGENT_EXPORTER, request="", lack=Lack.ABSENT, reason="no address was given", things={})
    survey = coverage.learned(theirs(), looks("whole", only(Source.PROMETHEUS, names=things), nothing))

    assert survey.names.metrics == {"voice_agent_ttfw_seconds": Naming(name="lk_agents_turn_e2e_latency_seconds")}
    assert covers(survey)["ttfw/samples"].lack is None


def test_an_exporter_without_any_series_of_ours_is_no_source() -> None:
    """Green and empty: the PROCESS executor without its directory, or other names; both are said."""
    nothing = {"python_info": ("gauge",)}
    changed = (only(Source.AGENT_EXPORTER, names=nothing), only(Source.PROMETHEUS, names=nothing))
    cover = covers(coverage.learned(theirs(), looks("whole", *changed)))["turns/exporter"]

    assert (cover.lack, cover.why) == (Lack.ABSENT, "agent-exporter and prometheus has no series voice_agent_turns_total")
    assert cover.unlock is not None
    assert "PROMETHEUS_MULTIPROC_DIR" in cover.unlock


def test_a_series_that_begins_with_the_first_call_is_not_absent() -> None:
    """Others of its exporter are there: it is said that it is not there yet, and its claims stay provable."""
    exporter, prometheus = (
        only(source, names={"voice_agent_turns_total": ("counter",)}) for source in (Source.AGENT_EXPORTER, Source.PROMETHEUS)
    )
    cover = covers(coverage.learned(theirs(), looks("whole", exporter, prometheus)))["tools/exporter"]

    assert (cover.lack, cover.why) == (None, "http://theirs.example/metrics; voice_agent_tool_calls_total is not there yet")


@pytest.mark.parametrize(
    ("things", "why"), [({}, "it has no recording rule at all"), ({"team:x": ("1",)}, "none of its 1 recording rules is known to us")]
)
def test_a_server_without_rules_of_ours_has_none(things: Mapping[str, tuple[str, ...]], why: str) -> None:
    """As VictoriaMetrics without vmalert."""
    survey = coverage.learned(theirs(), looks("whole", only(Source.RULES, names=things)))

    assert covers(survey)["ttfw/rule"].lack is Lack.ABSENT
    assert f"absent:\n  rules: {why}\n" in coverage.target_yaml(theirs(), survey)


def test_rules_on_a_server_that_was_never_measured_cannot_be_proven() -> None:
    """It is told by its name, with what would unlock it."""
    (prometheus,) = (each for each in looks("whole") if each.source is Source.PROMETHEUS)
    mimir = dataclasses.replace(prometheus, engine={"prometheus_flavour": "mimir", "prometheus_version": "2.15.0"})
    survey = coverage.learned(theirs(), looks("whole", mimir))
    found = covers(survey)

    assert (found["ttfw/rule"].lack, found["ttfw/samples"].lack) == (Lack.BLIND, None)
    assert coverage.text(tuple(found.values()), survey).endswith("\nprometheus: Mimir 2.15.0, whose arithmetic was never measured")
