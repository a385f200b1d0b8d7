"""The run directory: what is written is read back, a partial run can still be read, a broken one is named."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness import codec, rundir
from harness.errors import UsageError
from harness.model import CallOutcome, Evidence, Gap, Poll, Sample, Source, UnixNs
from harness.rundir import RunDir
from tests.fakes.evidence import healthy

POLL = Poll(source=Source.PROMETHEUS, at=UnixNs(3), took_s=0.1, count=1, request="http://p/")
SAMPLE = Sample(source=Source.PROMETHEUS, name="up", labels={"job": "a"}, value=1.0, at=UnixNs(2), request="http://p/")
GAP = Gap(source=Source.ROWS, at=UnixNs(4), reason="answered 500", request="http://s/")


def evidence() -> Evidence:
    return healthy()[0]


def written(tmp_path: Path) -> RunDir:
    run = RunDir.create(tmp_path)
    run.write_info(evidence().info)
    run.write_plans(evidence().plans)
    return run


def test_run_ids_are_short_and_new(tmp_path: Path) -> None:
    """Two runs never share a directory."""
    assert len({RunDir.create(tmp_path).run_id for _ in range(20)}) == 20


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Plans, observations and gaps come back as the values they were."""
    run = written(tmp_path)
    run.observe(Source.PROMETHEUS, (POLL, SAMPLE))
    run.observe(Source.ROWS, (GAP,))

    read = rundir.read_evidence(run.path)

    assert (read.info, read.plans, read.observations, read.gaps) == (evidence().info, evidence().plans, (POLL, SAMPLE), (GAP,))


def test_a_run_without_calls_is_read_as_dropped_calls(tmp_path: Path) -> None:
    """A run that died before its load has records all the same."""
    read = rundir.read_evidence(written(tmp_path).path)

    assert {record.outcome for record in read.records} == {CallOutcome.DROPPED}


def test_plans_that_a_breach_left_out_are_no_dropped_calls(tmp_path: Path) -> None:
    """The run was asked to place no more: what was due later says nothing of the generator."""
    run = written(tmp_path)
    run.write_plans(replace(plan, due_s=10.0 * plan.index) for plan in evidence().plans)
    run.write_info(replace(evidence().info, stopped_after_s=20.0))

    assert [record.plan.index for record in rundir.read_evidence(run.path).records] == [1, 2]


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    """The writer was killed in the middle of a line."""
    run = written(tmp_path)
    run.observe(Source.PROMETHEUS, (POLL, SAMPLE))
    path = run.observations / "prometheus.jsonl"
    path.write_text(path.read_text() + codec.line(SAMPLE)[:40])

    assert rundir.read_evidence(run.path).observations == (POLL, SAMPLE)


def test_packed_observations_are_read(tmp_path: Path) -> None:
    """Kept runs are large, and alike from line to line."""
    run = written(tmp_path)
    run.observe(Source.PROMETHEUS, (POLL, SAMPLE))
    path = run.observations / "prometheus.jsonl"
    path.with_name("prometheus.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()

    assert rundir.read_evidence(run.path).observations == (POLL, SAMPLE)


def test_the_last_health_line_of_a_process_counts(tmp_path: Path) -> None:
    """Callers write one every few seconds."""
    run = written(tmp_path)
    (first, *_) = evidence().health
    last = codec.from_json(type(first), {**codec.to_json(first), "ticks": first.ticks + 1})
    codec.write_lines(run.path / "generator.jsonl", (first, last))

    assert rundir.read_evidence(run.path).health == (last,)


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    """An old harness does not misread a new run."""
    run = written(tmp_path)
    path = run.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))

    with pytest.raises(UsageError, match=r"run.json: written by schema 99; this harness reads up to 1"):
        rundir.read_evidence(run.path)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema": 1}', '{"schema": 1, "run_id": 3}'])
def test_a_broken_run_json_is_a_sentence(tmp_path: Path, content: str) -> None:
    """No traceback for a file that is not a record."""
    (tmp_path / "run.json").write_text(content)

    with pytest.raises(UsageError, match=r"run\.json"):
        rundir.read_evidence(tmp_path)


def test_a_run_is_found_by_path_by_id_and_as_the_latest(tmp_path: Path) -> None:
    """Three ways to name the same directory."""
    run = written(tmp_path)

    assert {rundir.find(name, tmp_path) for name in (str(run.path), run.run_id, "latest")} == {run.path}


def test_an_unknown_run_names_the_next_step(tmp_path: Path) -> None:
    """The sentence says how to get one."""
    with pytest.raises(UsageError, match=r"no run 'zzzz'.*voxproof run smoke"):
        rundir.find("zzzz", tmp_path)


def test_text_that_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    """Checking a recorded run again touches no file of it."""
    run = written(tmp_path)
    run.write_text("summary.md", "same")
    before = (run.path / "summary.md").stat().st_mtime_ns

    run.write_text("summary.md", "same")

    assert (run.path / "summary.md").stat().st_mtime_ns == before
