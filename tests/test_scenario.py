"""Scenario files: what is read, and one sentence with file and line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import scenario
from harness.errors import UsageError
from harness.model import Scenario, TurnPlan

PROMPTS = {"weather": "what is the weather in london today", "goodbye": "thank you goodbye"}
CLAIMS = ("calls/rows", "calls/status", "ttfw/exporter", "ttfw/rule")
KEYS = (
    "summary, seed, agent, greeting, calls, arrival, answer_timeout_s, impairment, grade, panels, peers, turns, drill, rounds, hang_up, "
    "word_error_ratio, "
    "requires, slo, knee"
)
GOOD = """\
summary: a test
agent: ref-agent
calls: 2
turns:
  - prompt: goodbye
requires: [calls/rows]
"""


def load(tmp_path: Path, text: str, seed: int | None = None) -> Scenario:
    path = tmp_path / "burst.yaml"
    path.write_text(text)
    return scenario.load(path, prompts=PROMPTS, claims=CLAIMS, seed=seed)


def complaint(tmp_path: Path, text: str) -> str:
    """The sentence, its file name without the directory."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_minimal_file_is_enough(tmp_path: Path) -> None:
    """Name, seed, arrival and timeout have defaults; the words come from the prompt."""
    read = load(tmp_path, GOOD)

    assert (read.name, read.seed, read.arrival, read.answer_timeout_s) == ("burst", 0, {"model": "at-once"}, 10.0)
    assert read.turns == (TurnPlan(prompt="goodbye", text="thank you goodbye"),)


def test_the_command_line_overrides_the_seed(tmp_path: Path) -> None:
    """--seed wins over the file."""
    assert load(tmp_path, GOOD + "seed: 7\n", seed=8).seed == 8


def test_a_tool_turn_carries_name_and_arguments(tmp_path: Path) -> None:
    """What the agent must call, with what."""
    text = GOOD.replace("prompt: goodbye", "{prompt: weather, tool: {name: lookup_weather, arguments: {city: London}}}")

    (turn,) = load(tmp_path, text.replace("- {", "- {")).turns

    assert (turn.tool, turn.tool_arguments) == ("lookup_weather", {"city": "London"})


def test_patterns_in_requires_name_the_claims_they_match(tmp_path: Path) -> None:
    """ttfw/* is every claim on TTFW; nothing is listed twice."""
    assert load(tmp_path, GOOD.replace("[calls/rows]", "['ttfw/*', calls/rows, 'calls/*']")).requires == (
        "ttfw/exporter",
        "ttfw/rule",
        "calls/rows",
        "calls/status",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "arival: at-once\n", "burst.yaml:7: unknown key 'arival'; did you mean 'arrival'?"),
        (GOOD.replace("calls: 2", "calls: two"), "burst.yaml:3: calls: wanted a whole number of at least 1, got 'two'"),
        (GOOD.replace("calls: 2", "calls: 0"), "burst.yaml:3: calls: wanted a whole number of at least 1, got '0'"),
        (GOOD.replace("calls: 2", "calls: true"), "burst.yaml:3: calls: wanted a whole number of at least 1, got 'true'"),
        (GOOD.replace("calls: 2", "calls: 2.5"), "burst.yaml:3: calls: wanted a whole number of at least 1, got '2.5'"),
        (GOOD.replace("calls: 2", "calls: [2]"), "burst.yaml:3: calls: wanted a whole number of at least 1, got a list"),
        (GOOD.replace("agent: ref-agent\n", ""), "burst.yaml:1: key 'agent' is missing: name under which the agent takes dispatches"),
        (GOOD.replace("ref-agent", "''"), "burst.yaml:2: agent: wanted a text, got ''"),
        (GOOD.replace("  - prompt: goodbye", "  - prmpt: goodbye"), "burst.yaml:5: unknown key 'prmpt'; did you mean 'prompt'?"),
        (
            GOOD.replace("prompt: goodbye", "prompt: farewell"),
            "burst.yaml:5: no prompt 'farewell' in fixtures/audio; there are weather, goodbye",
        ),
        (GOOD.replace("\n  - prompt: goodbye", " goodbye"), "burst.yaml:4: turns: wanted a list, got 'goodbye'"),
        (GOOD + "calls: 3\n", "burst.yaml:7: key 'calls' stands here twice; delete one"),
        (GOOD + "arrival: later\n", "burst.yaml:7: arrival: wanted one of at-once, got 'later'"),
        (GOOD + "arrival: {model: constant}\n", "burst.yaml:7: arrival: model constant needs calls_per_s"),
        (
            GOOD + "arrival: {model: at-once, calls_per_s: 2}\n",
            "burst.yaml:7: arrival: model at-once takes no calls_per_s; delete it, or use another model",
        ),
        (GOOD + "arrival:\n  model: spike\n  calls_per_s: 1\n  at_s: 3\n", "burst.yaml:7: arrival: model spike needs peak_per_s and for_s"),
        (
            GOOD + "arrival:\n  model: poisson\n  calls_per_s: 1\n  over_s: 3\n",
            "burst.yaml:10: arrival: model poisson takes no over_s; delete it, or use another model",
        ),
        (
            GOOD.replace("[calls/rows]", "[calls/rowz]"),
            "burst.yaml:6: requires 'calls/rowz', which no claim is called; see: voxproof list claims",
        ),
        (
            GOOD.replace("[calls/rows]", "[]"),
            "burst.yaml:6: requires nothing, so the run could decide nothing; name a claim (voxproof list claims)",
        ),
        (GOOD + "slo: {answered_ratio: 95}\n", "burst.yaml:7: slo.answered_ratio: wanted a number of at least 0 and at most 1, got '95'"),
        (
            GOOD + "slo: {ttfw_p95_s: 2}\nknee: {}\n",
            "burst.yaml:8: knee: wanted the arrival model step, which says what load is tried when, got at-once",
        ),
        (
            GOOD + "arrival: {model: step, calls_per_s: 1, add_per_s: 1, every_s: 20}\nknee: {on_breach: abort}\n",
            "burst.yaml:8: knee: slo sets no limit, so none can break; set one",
        ),
        (
            "",
            f"burst.yaml:1: the file is empty; wanted the keys {KEYS}",
        ),
        ("calls: [1\n", "burst.yaml:2: not YAML: expected ',' or ']', but got '<stream end>'"),
        (
            "- a\n",
            f"burst.yaml:1: wanted a mapping with the keys {KEYS}, got a list",
        ),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    """What, where, got, wanted."""
    assert complaint(tmp_path, text) == said


RECORDED = GOOD + "arrival: {model: recorded, file: times.txt}\n"


def test_recorded_times_come_from_the_file_beside_the_scenario(tmp_path: Path) -> None:
    """Comments and empty lines are no times."""
    (tmp_path / "times.txt").write_text("# of Monday\n1700000000.5\n\n1700000003\n")

    assert load(tmp_path, RECORDED).arrival["times_s"] == [1700000000.5, 1700000003.0]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ("1\nnan\n", "times.txt:2: wanted a time in seconds, got 'nan'"),
        ("1\nnoon\n", "times.txt:2: wanted a time in seconds, got 'noon'"),
        ("1\n", "burst.yaml:3: calls: wanted at most the 1 times in times.txt, got 2"),
    ],
)
def test_recorded_times_that_cannot_be_used_are_named(tmp_path: Path, times: str, said: str) -> None:
    """With file and line."""
    (tmp_path / "times.txt").write_text(times)

    assert complaint(tmp_path, RECORDED) == said


def test_a_missing_file_of_times_is_named(tmp_path: Path) -> None:
    """Where the scenario names it."""
    assert complaint(tmp_path, RECORDED).startswith("burst.yaml:7: arrival.file: times.txt cannot be read")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 end in a sentence, not in a traceback."""
    (tmp_path / "burst.yaml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(UsageError, match="cannot be read"):
        scenario.load(tmp_path / "burst.yaml", prompts=PROMPTS, claims=CLAIMS)


def test_an_unknown_scenario_is_told_from_ours() -> None:
    """The sentence lists what there is."""
    with pytest.raises(UsageError, match=r"no scenario 'smok': there is no such file, and our own are .*smoke"):
        scenario.find("smok")


def test_the_committed_schema_is_current() -> None:
    """scenarios/schema.json is what `python -m harness.scenario` prints."""
    assert (scenario.SCENARIOS / "schema.json").read_text() == scenario.schema()


def test_the_schema_knows_every_key() -> None:
    """Editors mark what the reader refuses."""
    written = json.loads(scenario.schema())

    assert set(written["properties"]) == set(scenario.SHAPE.keys)
    assert written["additionalProperties"] is False
