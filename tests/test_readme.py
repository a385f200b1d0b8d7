"""The README tells the truth about the command line and shows what a run really prints.

``UPDATE_README=1 pytest tests/test_readme.py`` writes the picture anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
LYING_AGENT = ROOT / "fixtures" / "runs" / "lying-agent"
WIDTH = 110
PICTURE = re.compile(r"(?<=\$ voxproof check fixtures/runs/lying-agent\n```\n\n```text\n).*?(?=```)", re.DOTALL)


def commands() -> Iterator[tuple[str, ...]]:
    """Every voxproof command that a user document shows, as arguments; ``/`` in prose separates nothing here."""
    for path in (README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for shown in re.findall(r"(?:^\$ |`)(voxproof [a-z][^`\n]*)", path.read_text(), re.MULTILINE):
            yield tuple(shlex.split(shown)[1:])


def help_of(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    """What ``voxproof VERB --help`` prints, in one line."""
    with pytest.raises(SystemExit):
        cli.main([*verb, "--help"])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", sorted(set(commands())), ids=" ".join)
def test_every_command_that_is_shown_exists(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """With its options: a verb's help knows each of them."""
    verb = arguments[:2] if arguments[0] == "stack" else arguments[:1]
    told = help_of(verb, capsys)

    assert told.startswith(f"usage: voxproof {' '.join(verb)}")
    assert [option for option in arguments if option.startswith("--") and option not in told] == []


def rows_of(heading: str) -> list[list[str]]:
    """Cells of the first table below ``heading`` whose header begins with it."""
    text = README.read_text()
    table = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


@pytest.mark.parametrize("row", rows_of("command"), ids=lambda row: row[0])
def test_help_says_what_the_readme_says(row: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The same sentence, the same example."""
    verb, does, example = tuple(row[0].strip("`").split()[1:]), row[1], row[2].strip("`")
    told = help_of(verb, capsys)

    assert example in told
    if verb[0] != "stack":
        assert does.split(":")[0].lower() in told.lower()


def test_every_verb_is_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    """No command is left for users to find by chance."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    verbs = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)

    assert [verb for verb in verbs if f"`voxproof {verb}" not in README.read_text()] == []


def test_exit_codes_are_the_ones_that_help_prints() -> None:
    """0 to 3, and 70."""
    assert [row[0] for row in rows_of("exit code")] == re.findall(r"\b(\d+) [a-z]", cli.EXIT_CODES)


def test_every_link_leads_to_a_file() -> None:
    """In the README and in docs."""
    broken = []
    for path in (README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            if not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")

    assert broken == []


def test_the_scenario_page_knows_every_key() -> None:
    """As the JSON Schema has them."""
    schema = json.loads((ROOT / "scenarios" / "schema.json").read_text())
    page = (ROOT / "docs" / "scenarios.md").read_text()

    assert [key for key in schema["properties"] if f"| `{key}` |" not in page] == []


@pytest.mark.skipif(not LYING_AGENT.is_dir(), reason="fixtures/runs/lying-agent is not recorded yet")
def test_the_picture_is_what_the_command_prints() -> None:
    """Character for character."""
    from harness.run import judge
    from reports import terminal

    finished = judge(LYING_AGENT)
    printed = terminal.table(finished.evidence, finished.findings, run="fixtures/runs/lying-agent", width=WIDTH)
    text = README.read_text()
    if os.environ.get("UPDATE_README"):
        README.write_text(PICTURE.sub(lambda _: printed, text))
        text = README.read_text()
    shown = PICTURE.search(text)

    assert shown is not None
    assert shown[0] == printed
