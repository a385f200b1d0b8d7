"""What the responder understands, by the length of what it hears."""

from __future__ import annotations

import itertools

import pytest

from fixtures.responder.script import LENGTH_S, Script
from harness.caller.prompts import load_prompts


@pytest.fixture(scope="module")
def script() -> Script:
    return Script.load()


@pytest.mark.parametrize("name", load_prompts())
def test_a_prompt_is_known_by_its_length(script: Script, name: str) -> None:
    """Within a tenth of a second either way: what a codec and a network make of its end."""
    prompt = load_prompts()[name]
    lasts_s = (prompt.last_speech_sample - prompt.first_speech_sample) / 48_000

    for off_s in (-0.1, 0.0, 0.1):
        line = script.understood(lasts_s + off_s)
        assert line is not None
        assert line.hears == prompt.text


def test_two_prompts_are_never_confused(script: Script) -> None:
    """Their lengths differ by more than twice what is allowed."""
    lengths_s = sorted(line.lasts_s for line in script.lines)

    assert min(later - earlier for earlier, later in itertools.pairwise(lengths_s)) > 2 * LENGTH_S


def test_what_is_no_prompt_is_not_understood(script: Script) -> None:
    """A cough."""
    assert script.understood(0.2) is None


def test_everything_it_says_is_recorded(script: Script) -> None:
    """And a reply with a tool's answer in it says the answer."""
    words = {script.greeting, script.not_understood, *(line.says for line in script.lines)}

    assert words == set(script.clips)
    assert "The weather is sunny in London. Can I help with more?" in words
