"""The reference agent's script against prompts and scenarios."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.stack.home import home_dir
from harness.stack.provision import obtain

REPOSITORY = Path(__file__).parents[2]
AGENT = REPOSITORY / "fixtures" / "agent"
SCRIPT = yaml.safe_load((AGENT / "script.yaml").read_text())
LINES = {line["hears"]: line for line in SCRIPT["lines"]}
PROMPTS = yaml.safe_load((REPOSITORY / "fixtures" / "audio" / "prompts.yaml").read_text())["prompts"]
SCENARIOS = {path.name: yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "scenarios").glob("*.yaml"))}


def test_the_agent_understands_every_prompt() -> None:
    """In the words in which it was recorded."""
    assert {prompt["text"] for prompt in PROMPTS.values()} <= set(LINES)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_the_agent_answers_as_scenarios_expect(scenario: dict[str, Any]) -> None:
    """The reply's first words, and the tool where one is expected."""
    for turn in scenario.get("turns", ()):
        line = LINES[PROMPTS[turn["prompt"]]["text"]]
        assert turn["reply"] == line["says"].format(output="sunny in London")
        assert turn.get("tool") == ({"name": line["tool"], "arguments": line["arguments"]} if "tool" in line else None)


def test_what_is_not_understood_has_words_of_its_own() -> None:
    """Empty, it would be no turn for livekit-agents; among the lines, it would be understood."""
    assert SCRIPT["unintelligible"]
    assert SCRIPT["unintelligible"] not in LINES


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_line_is_words_of_the_recognisers_dictionary(line: dict[str, str]) -> None:
    """Small letters and spaces: anything else has a meaning in a JSGF grammar."""
    assert all(letter == " " or "a" <= letter <= "z" for letter in line["hears"])


@pytest.mark.stack
def test_the_agent_understands_its_own_script() -> None:
    """Spoken by its voice, without a server; other sentences are not taken for one of its lines."""
    python = obtain("agent-python", home=home_dir(), progress=lambda _: None).path
    done = subprocess.run([python, "selfcheck.py"], cwd=AGENT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
