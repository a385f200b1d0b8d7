"""The command line: exit codes, sentences instead of tracebacks, results on stdout, JSON everywhere."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from harness import cli, scenario
from harness.rundir import RunDir
from tests.fakes.evidence import healthy

SCENARIO = """\
summary: a test
agent: ref-agent
calls: 1
turns:
  - prompt: goodbye
requires: [calls/rows]
"""
CREDENTIALS = {"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 32, "SUPABASE_SERVICE_KEY": "service"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into the checkout, and no cache of this machine is looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXPROOF_HOME", str(tmp_path / "home"))
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command says, once its exit code is known to be 2 and stdout to be empty."""
    code = cli.main(arguments)
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert "Traceback" not in said.err
    return said.err.partition("voxproof: ")[2].rstrip("\n")


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def recorded() -> RunDir:
    evidence = healthy()[0]
    run = RunDir.create()
    run.write_info(evidence.info)
    run.write_plans(evidence.plans)
    return run


def test_an_unknown_key_is_named_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """And the nearest known one; nothing is started."""
    said = complaint(capsys, "run", write("burst.yaml", SCENARIO + "arival: at-once\n"))

    assert said == "burst.yaml:7: unknown key 'arival'; did you mean 'arrival'?"


def test_a_wrong_type_is_named_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Wanted and got."""
    assert complaint(capsys, "run", write("burst.yaml", SCENARIO.replace("calls: 1", "calls: many"))).startswith(
        "burst.yaml:3: calls: wanted"
    )


def test_a_missing_prompt_is_named_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the prompts that there are."""
    said = complaint(capsys, "run", write("burst.yaml", SCENARIO.replace("prompt: goodbye", "prompt: farewell")))

    assert said.startswith("burst.yaml:5: no prompt 'farewell' in fixtures/audio; there are ")


def test_a_plan_that_cannot_decide_what_it_requires_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Time to first word without a turn: nothing will be said."""
    text = SCENARIO.replace("\n  - prompt: goodbye", " []").replace("[calls/rows]", "['ttfw/*']")

    assert complaint(capsys, "run", write("burst.yaml", text)).startswith("burst.yaml: this plan cannot decide what it requires:\n  ttfw/")


def test_an_unknown_scenario_lists_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence is the next step."""
    said = complaint(capsys, "run", "smok")

    assert said.startswith("no scenario 'smok': there is no such file, and our own are ")
    assert "smoke" in said.rpartition(" are ")[2].split(", ")


@pytest.mark.parametrize("flag", ["-u", "-r"])
def test_users_and_rate_are_refused(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    """The scenario says how many calls are placed, and when."""
    assert complaint(capsys, "run", "smoke", flag, "10").startswith("-u and -r are refused")


def test_only_a_search_for_the_knee_can_be_aborted_on_breach(capsys: pytest.CaptureFixture[str]) -> None:
    """Other scenarios are judged when they are over."""
    assert complaint(capsys, "run", "smoke", "--abort-on-breach").startswith("--abort-on-breach: ")


def test_an_unknown_defect_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything starts."""
    assert "ttfw-in-ms" in complaint(capsys, "run", "smoke", "--defect", "ttfw-in-s")


def test_no_defect_is_seeded_into_a_stack_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of theirs is disturbed."""
    assert complaint(capsys, "run", "smoke", "--target", write("t.yaml", target(9)), "--defect", "ttfw-in-ms").startswith("--defect breaks")


def test_an_unreachable_target_is_refused_before_the_first_call(capsys: pytest.CaptureFixture[str]) -> None:
    """URL and next step; no run directory is left behind."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        said = complaint(capsys, "run", write("burst.yaml", SCENARIO), "--target", write("t.yaml", target(port)))

    assert said.startswith(f"target 't': ws://127.0.0.1:{port} did not answer")
    assert not Path("reports").exists()


@pytest.mark.parametrize("verb", [("check",), ("report",), ("explain", "ttfw/rule")])
def test_a_run_that_is_not_there_is_a_sentence(capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]) -> None:
    """With how to make one."""
    said = complaint(capsys, verb[0], "zzzz", *verb[1:])

    assert said == (
        "no run 'zzzz': neither a directory with a run.json nor a run id; there is none below reports/runs; make one: voxproof run smoke"
    )


def test_a_run_that_died_before_its_load_can_still_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was placed: it is not green."""
    run = recorded()

    assert cli.main(["check", run.run_id]) in (1, 3)
    assert f"run {healthy()[0].info.run_id}" in capsys.readouterr().out


def test_check_repeats_the_same_bytes() -> None:
    """Judging is a function of the run directory."""
    run = recorded()
    cli.main(["check", run.run_id])
    first = (run.path / "verdicts.json").read_bytes()
    (run.path / "verdicts.json").unlink()
    cli.main(["check", run.run_id])

    assert (run.path / "verdicts.json").read_bytes() == first


def test_json_goes_to_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """One document, with the exit code in it."""
    code = cli.main(["check", recorded().run_id, "--json"])

    assert json.loads(capsys.readouterr().out)["exit_code"] == code


def test_report_writes_three_files(capsys: pytest.CaptureFixture[str]) -> None:
    """And prints where."""
    run = recorded()
    cli.main(["report", run.run_id])

    assert capsys.readouterr().out.split() == [str(run.path / name) for name in ("report.html", "junit.xml", "summary.md")]
    assert all((run.path / name).stat().st_size for name in ("report.html", "junit.xml", "summary.md"))


def test_two_runs_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """A claim that fails now is exit code 1, and the same run twice is 0."""
    healthy, lying = (str(Path(__file__).parents[1] / "fixtures/runs" / name) for name in ("healthy", "lying-agent"))

    assert (cli.main(["compare", healthy, lying]), cli.main(["compare", healthy, healthy])) == (1, 0)
    assert "ttfw/exporter         ok -> FAIL" in capsys.readouterr().out


def test_a_newer_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """By its schema number."""
    run = recorded()
    path = run.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 9}))

    assert "written by schema 9; this harness reads up to 1" in complaint(capsys, "check", run.run_id)


@pytest.mark.parametrize("what", ["claims", "scenarios", "mutants"])
def test_what_there_is_can_be_listed(capsys: pytest.CaptureFixture[str], what: str) -> None:
    """As text and as JSON, the same names."""
    assert cli.main(["list", what]) == 0
    text = capsys.readouterr().out
    assert cli.main(["list", what, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)

    assert listed
    assert all(entry["name"] in text and entry["says"] in text for entry in listed)


def test_no_stack_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3: nothing is known."""
    assert cli.main(["stack", "status"]) == 3
    assert capsys.readouterr().out == "no stack is up; start one: voxproof stack up\n"


def test_output_that_is_not_a_terminal_has_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs stay readable."""
    cli.main(["check", recorded().run_id])

    assert "\x1b[" not in capsys.readouterr().out


def test_an_interrupt_before_the_first_call_is_a_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3, no traceback."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scenario, "find", interrupted)

    assert cli.main(["run", "smoke"]) == 3
    assert capsys.readouterr().err == "voxproof: interrupted before anything could be judged\n"


def test_what_a_target_may_cost_is_said_before_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the calls that --max-calls leaves; even a target that then turns out not to answer."""
    write("t.yaml", target(9) + "prices: {per_call: 0.5, currency: EUR}\n")

    code = cli.main(["run", write("burst.yaml", SCENARIO.replace("calls: 1", "calls: 40")), "--target", "t.yaml", "--max-calls", "2"])

    assert code == 2
    said = capsys.readouterr().err
    assert "before t is called: 2 calls, at most 2.7 agent minutes, at most 1.00 EUR by the target's prices" in said
    assert said.index("before t is called") < said.index("voxproof: ")


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5"])
def test_a_limit_that_is_no_number_of_calls_is_refused(capsys: pytest.CaptureFixture[str], limit: str) -> None:
    """Nothing is placed by mistake."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "smoke", f"--max-calls={limit}"])

    assert ended.value.code == 2
    assert f"wanted a whole number of at least 1, got '{limit}'" in capsys.readouterr().err


def test_a_bug_of_ours_is_no_verdict(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 70, never 1, which would blame the stack; the traceback is kept."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(scenario, "find", broken)

    assert cli.main(["run", "smoke"]) == 70
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" in said.err
    assert said.err.endswith("voxproof: this is a bug of voxproof, not a verdict: exit code 70\n")


def target(port: int) -> str:
    blind = ", ".join(f"{source}: not here" for source in ("agent-exporter", "sfu-exporter", "prometheus", "rules", "sfu-api"))
    return f'livekit: {{url: "ws://127.0.0.1:{port}"}}\nsupabase: {{url: "http://127.0.0.1:{port}"}}\nblind: {{{blind}}}\n'


def test_init_begins_with_livekits_variables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one that is missing is named."""
    monkeypatch.delenv("LIVEKIT_URL", raising=False)

    assert "LIVEKIT_URL is not set: a look begins with LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET" in complaint(capsys, "init")


def test_init_replaces_no_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Somebody may have edited it."""
    (tmp_path / "target.yaml").write_text("name: mine\n")

    assert "target.yaml is there already; --force replaces it" in complaint(capsys, "init")


def test_init_writes_what_it_could_not_see(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers: every source has its reason, and the file loads."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound and not listening: refused
        monkeypatch.setenv("LIVEKIT_URL", f"ws://127.0.0.1:{holder.getsockname()[1]}")
        code = cli.main(["init", "--json", "--prometheus", f"http://127.0.0.1:{holder.getsockname()[1]}"])
    said = json.loads(capsys.readouterr().out)
    written = (tmp_path / "target.yaml").read_text()

    assert code == 0
    assert {each["claim"] for each in said["coverage"] if each["lack"] is None} == {
        *("calls/answered", "load/knee", "loss/server-reports", "jitter/server-reports")  # on our own callers' wire
    }
    assert "  prometheus: 'did not answer: " in written
    assert CREDENTIALS["LIVEKIT_API_SECRET"] not in written


def test_cleanup_after_a_run_is_for_targets(capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded stack is thrown away as a whole."""
    assert "--cleanup is for a target" in complaint(capsys, "run", "smoke", "--cleanup")
