"""What scenarios say of the callers' network: names and stages, and one sentence with file and line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import codec, profiles, scenario
from harness.errors import UsageError
from harness.model import Grade, Impairment, Scenario

GOOD = """\
summary: a test
agent: ref-agent
calls: 2
turns:
  - prompt: goodbye
requires: [calls/rows]
"""


def load(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD + text)
    return scenario.load(path, prompts={"goodbye": "thank you goodbye"}, claims=("calls/rows",))


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_without_the_key_nothing_is_impaired(tmp_path: Path) -> None:
    """And every call is decoded whole."""
    read = load(tmp_path, "")

    assert (read.impairment, read.impairments, read.grade) == (None, (), Grade.FULL)


def test_a_profile_is_named(tmp_path: Path) -> None:
    """Both directions of it."""
    read = load(tmp_path, "impairment: every-20th-lost\n")

    assert read.impairment == "every-20th-lost"
    assert read.impairments == (Impairment(direction="up", lose_every=20), Impairment(direction="down", lose_every=20))


def test_stages_are_written_out_and_follow_a_profile(tmp_path: Path) -> None:
    """In the order in which they stand."""
    read = load(
        tmp_path,
        "impairment:\n  profile: every-20th-lost\n  stages:\n    - {direction: up, from_s: 5, until_s: 6, jitter_s: 0.03, order: free}\n",
    )

    assert read.impairment == "every-20th-lost"
    assert read.impairments[2] == Impairment(direction="up", from_s=5, until_s=6, jitter_s=0.03, keeps_order=False)


def test_what_is_said_survives_being_stored(tmp_path: Path) -> None:
    """run.json and plans.jsonl hold it."""
    read = load(tmp_path, "impairment: outage-3s\ngrade: light\n")

    assert codec.from_json(Scenario, codec.to_json(read)) == read


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("impairment: good-wify\n", "bad.yaml:7: unknown impairment 'good-wify'; did you mean 'good-wifi'?"),
        ("impairment:\n  profile: xxxxxx\n", "bad.yaml:8: unknown impairment 'xxxxxx'; there are good-wifi, "),
        ("impairment: {}\n", "bad.yaml:7: impairment: names no profile and no stages; delete it, or name one of good-wifi, "),
        (
            "impairment:\n  stages:\n    - {direction: sideways}\n",
            "bad.yaml:9: impairment.stages[0].direction: wanted one of up, down, both",
        ),
        ("impairment:\n  stages:\n    - {direction: up}\n", "bad.yaml:9: this stage does nothing; give it a loss_ratio, "),
        ("impairment:\n  stages:\n    - {direction: up, loss: 1}\n", "bad.yaml:9: unknown key 'loss'; did you mean 'loss_ratio'?"),
        (
            "impairment:\n  stages:\n    - {direction: up, loss_ratio: 2}\n",
            "bad.yaml:9: impairment.stages[0].loss_ratio: wanted a number of",
        ),
        (
            "impairment:\n  stages:\n    - {direction: up, loss_ratio: 1, from_s: 3, until_s: 2}\n",
            "bad.yaml:9: until_s 2 is not after from_s 3",
        ),
        (
            "impairment:\n  stages:\n    - {direction: up, loss_ratio: 0.9, burst_packets: 2}\n",
            "bad.yaml:9: loss_ratio 0.9 cannot come in bursts of 2 packets; they must be at least 9 long",
        ),
        (
            "impairment:\n  stages:\n    - {direction: up, delay_s: 1, burst_packets: 2}\n",
            "bad.yaml:9: burst_packets needs a loss_ratio between 0 and 1",
        ),
        ("grade: heavy\n", "bad.yaml:7: grade: wanted one of full, light, got 'heavy'"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_line(tmp_path: Path, text: str, sentence: str) -> None:
    """What, where, got, wanted, next."""
    assert complaint(tmp_path, text).startswith(sentence)


def test_every_profile_says_what_it_is() -> None:
    """And is read without complaint."""
    assert len(profiles.known()) >= 8
