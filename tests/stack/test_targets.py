"""``voxproof run --target`` on stacks of others: other names and units, other people's calls, less access than ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness import rundir
from harness.measure.calibration import REFERENCE
from harness.stack.embedded import RunningStack, up
from harness.stack.home import home_dir
from tests.stack import foreign

ROOT = Path(__file__).parents[2]
SCENARIO = """\
summary: one call whose turns use a tool
agent: ref-agent
greeting: Hello, how can I help?
calls: 1
answer_timeout_s: 5
turns:
  - prompt: weather
    reply: The weather is sunny in London. Can I help with more?
    tool: {name: lookup_weather, arguments: {city: London}}
  - prompt: goodbye
    reply: Goodbye.
requires: [calls/*, turns/*, tools/*, ttfw/*, sfu/*]
"""

SHORT = SCENARIO.replace("ttfw/*", "ttfw/exporter, ttfw/samples")
"""The same without a wait for the rules' window."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with up(home=home_dir(), logs=tmp_path_factory.mktemp("logs"), progress=lambda _: None) as running:
        yield running


@pytest.fixture(scope="module")
def renamed(stack: RunningStack) -> Iterator[tuple[str, foreign.Lie]]:
    with foreign.renamed(stack) as found:
        yield found


class Run:
    """One run of the command, and what it said."""

    def __init__(self, directory: Path, target: Path, environ: Mapping[str, str], *, scenario: str = SCENARIO) -> None:
        # Names without directories: a run may be kept as a fixture.
        (directory / "mini.yaml").write_text(scenario)
        (directory / "calibration.json").write_text(REFERENCE.read_text())
        (directory / "target.yaml").write_text(target.read_text())
        command = (
            *(sys.executable, "-m", "harness.cli", "run", "mini.yaml"),
            "--target",
            "target.yaml",
            "--calibration",
            "calibration.json",
        )
        done = subprocess.run(
            command, cwd=directory, env={**os.environ, **environ}, capture_output=True, text=True, timeout=200, check=False
        )
        self.code, self.said = done.returncode, done.stdout + done.stderr
        assert self.code in (0, 1, 3), self.said
        self.path = rundir.find("latest", directory / rundir.RUNS)
        self.info: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        self.verdicts: dict[str, Any] = {each["claim"]: each for each in json.loads((self.path / "verdicts.json").read_text())["verdicts"]}

    def statuses(self, wanted: str) -> set[str]:
        return {claim for claim, verdict in self.verdicts.items() if verdict["status"] == wanted}


@pytest.mark.stack
def test_init_looks_at_a_real_stack(tmp_path: Path, stack: RunningStack) -> None:
    """Everything but the agent's own stages and tools can be proven there; the file is written, and no credential is in it."""
    target = stack.target
    environ = {**os.environ, "LIVEKIT_URL": target.livekit_url, **foreign.environment(target)}
    given = (
        *("--prometheus", str(target.prometheus_url), "--supabase", str(target.supabase_url)),
        *("--agent-metrics", str(target.agent_metrics_url), "--livekit-metrics", str(target.sfu_metrics_url)),
    )
    command = (sys.executable, "-m", "harness.cli", "init", "--json", *given)
    looked = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)

    assert looked.returncode == 0, looked.stderr
    missing = {each["claim"] for each in json.loads(looked.stdout)["coverage"] if each["lack"] is not None}
    assert {claim for claim in missing if not claim.startswith(("stt/", "llm/", "tts/"))} == {"tools/endpoint"}
    written = (tmp_path / "target.yaml").read_text()
    assert not [secret for secret in foreign.environment(target).values() if secret in written]


@pytest.mark.stack
def test_a_stack_that_calls_everything_otherwise_is_judged_like_ours(
    tmp_path: Path, stack: RunningStack, renamed: tuple[str, foreign.Lie]
) -> None:
    """Metrics in milliseconds, other labels, rules, tables and columns: every claim is decided, and the request says what was asked."""
    target, environ = foreign.target_file(tmp_path, stack.target, agent={"metrics_url": renamed[0]}, **foreign.NAMED)
    run = Run(tmp_path, target, environ)

    assert run.code == 0, run.said
    requests = {row["request"] for row in map(json.loads, (run.path / "observations" / "rows.jsonl").read_text().splitlines())}
    assert any("/rest/v1/utterances?" in request and "conversation=in.(vp-" in request for request in requests)


@pytest.mark.soak
def test_other_peoples_calls_make_no_counter_wrong(tmp_path: Path, stack: RunningStack, renamed: tuple[str, foreign.Lie]) -> None:
    """Two harnesses that know nothing of each other: each is the other's stranger. Rows are proven by call id, counters are undecided.

    Afterwards each removes what it left, and nothing of the other's.
    """
    target, environ = foreign.target_file(
        tmp_path, stack.target, agent={"metrics_url": renamed[0]}, **{**foreign.NAMED, "exclusive": False, "tables": None}
    )
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    with ThreadPoolExecutor(2) as pool:
        mine.mkdir()
        theirs.mkdir()
        runs = list(pool.map(lambda directory: Run(directory, target, environ, scenario=SHORT), (mine, theirs)))

    for run in runs:
        assert run.code == 3, run.said
        assert run.statuses("fail") == set()
        assert {"calls/rows", "calls/status", "turns/rows", "tools/rows"} <= run.statuses("pass"), run.said
        assert run.verdicts["turns/exporter"]["status"] == "inconclusive"
        assert "others' calls ran beside ours" in run.verdicts["turns/exporter"]["sentence"]
    assert _cleaned(mine, target, environ) == {"calls": 1, "transcripts": 5, "tool_executions": 1}
    assert _cleaned(mine, target, environ, "--yes") == {"calls": 1, "transcripts": 5, "tool_executions": 1}
    assert _cleaned(mine, target, environ) == {"calls": 0, "transcripts": 0, "tool_executions": 0}
    assert _cleaned(theirs, target, environ) == {"calls": 1, "transcripts": 5, "tool_executions": 1}


def _cleaned(directory: Path, target: Path, environ: Mapping[str, str], *arguments: str) -> dict[str, int]:
    """What `voxproof cleanup` says it would remove, or has removed."""
    command = (sys.executable, "-m", "harness.cli", "cleanup", "latest", "--target", str(target), "--json", *arguments)
    done = subprocess.run(command, cwd=directory, env={**os.environ, **environ}, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    rows: dict[str, int] = json.loads(done.stdout)["rows"]
    return rows


@pytest.mark.soak
def test_a_lie_under_another_name_is_red_at_its_hop(tmp_path: Path, stack: RunningStack, renamed: tuple[str, foreign.Lie]) -> None:
    """The team's exporter tells a third too much: its histogram in milliseconds is blamed, what passes it on is not."""
    target, environ = foreign.target_file(tmp_path, stack.target, agent={"metrics_url": renamed[0]}, **foreign.NAMED)
    renamed[1].by = 2.0
    try:
        run = Run(tmp_path, target, environ)
    finally:
        renamed[1].by = None

    assert run.code == 1, run.said
    assert run.statuses("fail") == {"ttfw/exporter"}
    assert run.verdicts["ttfw/samples"]["is_faithful"]
