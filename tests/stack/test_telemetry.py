"""What the telemetry leaves of real calls: whole, in order and once, whatever its database and its process go through."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import rundir
from harness.errors import StackError
from harness.load.pool import CallerPool
from harness.model import CallOutcome, CallPlan, CallRecord, Target, TurnPlan, value
from harness.stack.embedded import up
from harness.stack.home import home_dir
from harness.stack.proxy import Proxy
from tests.stack.workers import Database, Faults, Rows, Series, Worker

pytestmark = pytest.mark.stack

GREETING = "Hello, how can I help?"
TURNS = {
    "opening-hours": TurnPlan(prompt="opening-hours", text="what are your opening hours", reply="We are open from nine to five."),
    "weather": TurnPlan(
        prompt="weather",
        text="what is the weather in london today",
        reply="The weather is sunny in London. Can I help with more?",
        tool="lookup_weather",
        tool_arguments={"city": "London"},
    ),
    "goodbye": TurnPlan(prompt="goodbye", text="thank you goodbye", reply="Goodbye."),
}
PROCESS, SHAKY, LATE, GONE, KILLED, CRASHED = "process", "shaky", "late", "gone", "killed", "crashed"


def plan(call_id: str, index: int, worker: str, *prompts: str) -> CallPlan:
    return CallPlan(
        call_id=call_id,
        index=index,
        room=f"room-{call_id}",
        identity=f"caller-{index}",
        phone_number=f"+447700900{index:03d}",
        agent_name=worker,
        due_s=0,
        turns=tuple(TURNS[prompt] for prompt in prompts),
        seed=index,
        greeting=GREETING,
    )


PLANS = {
    each.call_id: each
    for each in (
        plan(PROCESS, 1, "processes", "opening-hours", "weather", "goodbye"),
        plan(SHAKY, 2, "threads", "weather", "goodbye"),
        plan(LATE, 3, "threads", "opening-hours"),
        plan(GONE, 4, "threads", "goodbye"),
        plan(KILLED, 5, "mortal", "weather", "opening-hours"),
        plan(CRASHED, 6, "processes", "opening-hours"),
    )
}


@value
class Scene:
    """Six calls that were made at the same time, and what is left of them."""

    records: Mapping[str, CallRecord]
    rows: Mapping[str, Rows]
    rows_at_the_kill: Rows
    ended_dead: list[str]
    before: Mapping[str, Series]
    """By worker, before the first call."""
    after: Mapping[str, Series]
    drained_s: Mapping[str, float]
    logs: Mapping[str, str]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with up(home=home_dir(), logs=tmp_path_factory.mktemp("stack"), progress=lambda _line: None, with_agent=False) as stack:
        yield stack.target


@pytest.fixture(scope="module")
def scene(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    directory = tmp_path_factory.mktemp("telemetry")
    faults = Faults(shaky=SHAKY, late=LATE, gone=GONE)
    assert target.supabase_url is not None
    with ExitStack() as exits:
        database = Database(target, exits)
        proxy = Proxy(target.supabase_url, faults)
        exits.callback(proxy.close)
        workers = {
            each.name: each
            for each in (
                Worker("processes", target, directory, exits, AGENT_EXECUTOR="process", PROMETHEUS_MULTIPROC_DIR=str(directory / "new")),
                Worker("threads", target, directory, exits, supabase_url=f"http://{proxy.address}"),
                Worker("mortal", target, directory, exits),
            )
        }
        pool = exits.enter_context(ThreadPoolExecutor())
        list(pool.map(Worker.start, workers.values()))
        before = {name: worker.series() for name, worker in workers.items()}

        run_dir = directory / "run"
        (run_dir / "logs").mkdir(parents=True)
        env = {
            "LIVEKIT_URL": target.livekit_url,
            "LIVEKIT_API_KEY": target.livekit_api_key,
            "LIVEKIT_API_SECRET": target.livekit_api_secret,
        }
        callers = exits.enter_context(CallerPool(run_dir=run_dir, processes=1, env=env))
        callers.wait_ready(20)
        calls = {call_id: pool.submit(callers.place, each) for call_id, each in PLANS.items()}
        database.rows_when(CRASHED, lambda rows: len(rows.transcripts) == 1, timeout_s=30)
        os.kill(workers["processes"].job_pid(PLANS[CRASHED].room), signal.SIGKILL)
        _wait_for_turns(run_dir, KILLED, 2)
        workers["mortal"].end(number=signal.SIGKILL)
        rows_at_the_kill = database.rows(KILLED)
        faults.is_back.set()
        for call_id in (PROCESS, SHAKY, LATE, GONE):
            calls[call_id].result(timeout=60)
        callers.stop()
        rows = {call_id: database.rows_when(call_id, _are_whole) for call_id in (PROCESS, SHAKY, LATE)}
        after = {name: _settled(workers[name]) for name in ("processes", "threads")}
        drained_s = {name: workers[name].end() for name in ("processes", "threads")}
        ended_dead = database.end_dead_calls("1 second")
        return Scene(
            records={record.plan.call_id: record for record in rundir.read_records(run_dir, tuple(PLANS.values()))},
            rows={**rows, **{call_id: database.rows(call_id) for call_id in (GONE, KILLED, CRASHED)}},
            rows_at_the_kill=rows_at_the_kill,
            ended_dead=ended_dead,
            before=before,
            after=after,
            drained_s=drained_s,
            logs={name: worker.log.read_text() for name, worker in workers.items()},
        )


def test_the_calls_went_well(scene: Scene) -> None:
    """Nothing that the database does disturbs a conversation; only the two whose agents were killed did not come to their end."""
    completed = {call_id for call_id, record in scene.records.items() if record.outcome is CallOutcome.COMPLETED}

    assert completed == {PROCESS, SHAKY, LATE, GONE}


@pytest.mark.parametrize("call_id", [PROCESS, SHAKY, LATE])
def test_every_turn_is_a_row_once_and_in_order(scene: Scene, call_id: str) -> None:
    """Also if each write fails at first and its second answer is lost, and if the database comes only after the beginning."""
    rows = scene.rows[call_id].transcripts

    assert scene.rows[call_id].said == _script(PLANS[call_id].turns)
    assert sorted(rows, key=lambda row: row["timestamp"]) == list(rows)


def test_a_turn_begins_when_it_was_spoken(scene: Scene) -> None:
    """Its timestamp is no later than its last word, where the row itself is written after it; a busy machine's VAD is given that long."""
    stamps = [_ns(row["timestamp"]) for row in scene.rows[PROCESS].transcripts[1:]]
    spoken = [
        span
        for turn in scene.records[PROCESS].turns
        for span in ((turn.user_speech_started_at, turn.user_speech_ended_at), (turn.first_word_at, turn.agent_speech_ended_at))
    ]

    assert [
        first is not None and last is not None and first - 0.6e9 < stamp < last for stamp, (first, last) in zip(stamps, spoken, strict=True)
    ] == [True] * 6


@pytest.mark.parametrize("call_id", [PROCESS, SHAKY])
def test_a_tool_call_is_a_row(scene: Scene, call_id: str) -> None:
    """Its latency is the tool's 50 ms, on a machine that is busy."""
    (row,) = scene.rows[call_id].tool_executions

    assert {name: row[name] for name in ("tool_name", "parameters", "result", "success")} == {
        "tool_name": "lookup_weather",
        "parameters": {"city": "London"},
        "result": {"output": "sunny in London"},
        "success": True,
    }
    assert 50 <= row["latency_ms"] < 250


@pytest.mark.parametrize("call_id", [PROCESS, SHAKY, LATE])
def test_a_call_is_one_closed_row(scene: Scene, call_id: str) -> None:
    """It ends at the instant at which the caller left, not when the session had been closed."""
    row, record = scene.rows[call_id].call, scene.records[call_id]

    assert {name: row[name] for name in ("phone_number", "direction", "status", "room_name", "agent_version")} == {
        "phone_number": record.plan.phone_number,
        "direction": "inbound",
        "status": "completed",
        "room_name": record.plan.room,
        "agent_version": "reference-1",
    }
    assert record.left_at is not None
    assert -0.1e9 < _ns(row["end_time"]) - record.left_at < 0.5e9
    assert row["duration_seconds"] == round((_ns(row["end_time"]) - _ns(row["start_time"])) / 1e9)


@pytest.mark.parametrize("worker", ["processes", "threads"])
def test_counters_stand_at_zero_before_the_first_call(scene: Scene, worker: str) -> None:
    """Or `increase()` would not see their first step."""
    assert {
        **_of(scene.before[worker], "voice_agent_turns_total"),
        **_of(scene.before[worker], "voice_agent_tool_calls_total"),
        **_of(scene.before[worker], "voice_agent_ttfw_seconds_count"),
    } == {"user": 0, "assistant": 0, "lookup_weather true": 0, "lookup_weather false": 0, "": 0}


@pytest.mark.parametrize("worker", ["processes", "threads"])
def test_the_exporter_counts_what_was_said(scene: Scene, worker: str) -> None:
    """Every turn by role, greetings included; TTFW of every user turn and of no greeting; every tool call; no call left, killed ones included."""
    plans = [each for each in PLANS.values() if each.agent_name == worker]
    answered = [turn for each in plans if each.call_id != CRASHED for turn in each.turns]
    turns, tools = len(answered), sum(turn.tool is not None for turn in answered)
    after = scene.after[worker]

    assert _of(after, "voice_agent_turns_total") == {"user": turns, "assistant": turns + len(plans)}
    assert _of(after, "voice_agent_tool_calls_total") == {"lookup_weather true": tools, "lookup_weather false": 0}
    assert _of(after, "voice_agent_ttfw_seconds_count") == {"": turns}
    assert _of(after, "voice_agent_stt_latency_seconds_count") == {"": turns}
    assert _of(after, "voice_agent_llm_latency_seconds_count") == {"": turns + tools}
    assert _of(after, "voice_agent_active_calls") == {"": 0}
    assert _of(after, "voice_agent_telemetry_errors_total") == {"": 0}


def test_rows_that_no_database_ever_took_are_counted_and_logged(scene: Scene) -> None:
    """The call itself went on to its end; each loss has its line, and the exporter has their number."""
    assert scene.rows[GONE] == Rows(calls=(), transcripts=(), tool_executions=())
    assert _of(scene.after["threads"], "voice_agent_rows_lost_total") == {"calls": 2, "transcripts": 3, "tool_executions": 0}
    assert [line.count("is lost") for line in scene.logs["threads"].splitlines() if "is lost" in line and GONE in line] == [1] * 5


def test_a_killed_worker_takes_no_line_with_it(scene: Scene) -> None:
    """All that had been said when it died is in the database at that very instant, and the call looks alive."""
    assert scene.rows_at_the_kill.said[:3] == _script(PLANS[KILLED].turns[:1])
    assert [row["tool_name"] for row in scene.rows_at_the_kill.tool_executions] == ["lookup_weather"]
    assert scene.rows_at_the_kill.call["status"] == "active"


def test_a_dead_job_s_call_is_ended(scene: Scene) -> None:
    """Failed, at its last heartbeat; calls that ended by themselves are left alone."""
    rows = [scene.rows[call_id].call for call_id in (CRASHED, KILLED)]

    assert sorted(scene.ended_dead) == [CRASHED, KILLED]
    assert [(row["status"], row["end_time"]) for row in rows] == [("failed", row["heartbeat_at"]) for row in rows]


def test_a_worker_without_calls_ends_when_asked(scene: Scene) -> None:
    """It need not be killed, which would come after four seconds; on an idle machine it takes half a second."""
    assert {name: seconds < 4 for name, seconds in scene.drained_s.items()} == {"processes": True, "threads": True}


def test_a_worker_whose_metrics_would_be_lost_does_not_start(target: Target, tmp_path: Path) -> None:
    """Under the PROCESS executor without the directory: it exits, and the last words say what to set."""
    with ExitStack() as exits:
        worker = Worker("forgetful", target, tmp_path, exits, AGENT_EXECUTOR="process")

        with pytest.raises(StackError, match=r"agent died \(exit code 1\)"):
            worker.start()
        assert "PROMETHEUS_MULTIPROC_DIR is not set" in worker.log.read_text().splitlines()[-1]


def _script(turns: tuple[TurnPlan, ...]) -> list[tuple[str, str | None]]:
    return [("assistant", GREETING), *(line for turn in turns for line in (("user", turn.text), ("assistant", turn.reply)))]


def _are_whole(rows: Rows) -> bool:
    return bool(rows.calls) and rows.call["status"] != "active"


def _wait_for_turns(run_dir: Path, call_id: str, turns: int, *, timeout_s: float = 60) -> None:
    """Returns when the caller has spoken that many."""
    until = time.monotonic() + timeout_s
    while sum(len(record.turns) for record in rundir.read_records(run_dir, (PLANS[call_id],))) < turns:
        assert time.monotonic() < until, f"call {call_id} did not reach turn {turns}"
        time.sleep(0.05)


def _settled(worker: Worker) -> Series:
    """Its exporter when no call is in progress and rows have been given up, or as it is after fifteen seconds."""
    until = time.monotonic() + 15
    lost = 5 if worker.name == "threads" else 0
    while True:
        found = worker.series()
        is_quiet = _of(found, "voice_agent_active_calls") == {"": 0} and sum(_of(found, "voice_agent_rows_lost_total").values()) >= lost
        if is_quiet or time.monotonic() > until:
            return found
        time.sleep(0.1)


def _of(series: Series, name: str) -> dict[str, float]:
    """One metric's samples by the values of their labels."""
    return {" ".join(text for _, text in reversed(labels)): number for (found, labels), number in series.items() if found == name}


def _ns(text: str) -> int:
    """Nanoseconds since the epoch of a row's timestamp."""
    return round(dt.datetime.fromisoformat(text).timestamp() * 1e9)
