"""The pytest plugin: fixtures ``stack``, ``run`` and ``evidence`` for a team's own assertions on what callers heard and what the monitoring said.

pytest --voxproof-scenario nightly --voxproof-target target.yaml     new calls on a stack of your own
pytest --voxproof-scenario smoke                                     new calls on the embedded stack
pytest --voxproof-run reports/runs/k3f9                              a recorded run, judged again, offline

Nothing of voxproof is imported before a fixture is asked for: pytest loads this module in every project that has voxproof installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.model import Evidence
    from harness.run import Finished, Stack

_RUN = pytest.StashKey["Finished"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Every option is also an ini key with underscores; the command line wins."""
    group = parser.getgroup("voxproof", "voxproof: calls to a voice agent, and what its monitoring says of them")
    for name, metavar, says in (
        ("scenario", "NAME", "the scenario that the fixture 'run' places: a file, or a name of: voxproof list scenarios"),
        ("target", "FILE", "target.yaml of a stack that runs already; without it the embedded stack is started"),
        ("run", "RUN", "a recorded run that the fixture 'run' judges again, instead of placing calls"),
    ):
        group.addoption(f"--voxproof-{name}", metavar=metavar, help=says)
        parser.addini(f"voxproof_{name}", says)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack under test, with its addresses in ``stack.target``: the given target, or an embedded one that is gone at the end."""
    from harness.run import stack_of

    with stack_of(_order(request.config), logs=tmp_path_factory.mktemp("voxproof-logs"), progress=_progress(request.config)) as found:
        yield found


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> Finished:
    """The judged run: ``run.exit_code``, ``run.verdict("ttfw/rule")``, ``run.findings``. Its reports are on disk."""
    from harness import rundir
    from harness.run import judge
    from harness.run import run as place

    if (recorded := _option(request.config, "run")) is not None:
        finished = judge(rundir.find(recorded))
    else:
        finished = place(_order(request.config), progress=_progress(request.config), stack=request.getfixturevalue("stack"))
    request.config.stash[_RUN] = finished
    return finished


@pytest.fixture(scope="session")
def evidence(run: Finished) -> Evidence:
    """What was recorded: plans, calls as they happened, every observation."""
    return run.evidence


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table of the run, as ``voxproof run`` prints it."""
    finished = config.stash.get(_RUN, None)
    if finished is None:
        return
    from reports import terminal

    terminalreporter.section("voxproof")
    table = terminal.table(finished.evidence, finished.findings, run=finished.name, since=finished.since)
    terminalreporter.write_line(table.rstrip("\n"))


def _option(config: pytest.Config, name: str) -> str | None:
    given = config.getoption(f"--voxproof-{name}") or config.getini(f"voxproof_{name}")
    return str(given) if given else None


def _order(config: pytest.Config) -> Any:
    from harness.errors import UsageError
    from harness.verbs.running import order

    scenario = _option(config, "scenario")
    if scenario is None:
        raise UsageError("say which calls to place, --voxproof-scenario NAME, or which run to judge, --voxproof-run RUN")
    return order(scenario, target_path=_option(config, "target"), argv=("pytest", *config.invocation_params.args))


def _progress(config: pytest.Config) -> Any:
    from harness.verbs.output import Progress

    capture = config.pluginmanager.getplugin("capturemanager")
    say = Progress()

    def progress(sentence: str) -> None:
        with capture.global_and_fixture_disabled():
            say(sentence)

    return progress
