"""The receiver on real parts: one row an episode whatever is repeated, reordered, killed or lost; a 2xx only once it is stored."""

from __future__ import annotations

import itertools
import json
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from harness.clock import Clock
from harness.stack import alerting, ports
from harness.stack.backend import SERVICES, Backend, up_database
from harness.stack.embedded import RunningStack, up
from harness.stack.home import home_dir
from harness.stack.supervise import Supervisor

pytestmark = pytest.mark.stack

TOKEN = "t" * 16
NEVER = "0001-01-01T00:00:00Z"


def silent(_: str) -> None:
    """Progress that nobody reads."""


def until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """PostgreSQL, PostgREST and the gateway."""
    with up_database(home=home_dir(), logs=tmp_path_factory.mktemp("backend"), progress=silent) as running:
        yield running


class Deliveries:
    """A receiver, what it is sent, and what it left."""

    def __init__(self, backend: Backend, url: str, log: Path, client: httpx.Client) -> None:
        self.backend, self.url, self.log, self.client = backend, url, log, client

    def send(self, *alerts: Mapping[str, Any], token: str = TOKEN) -> int:
        """The status of one notification."""
        body = {"version": "4", "groupKey": "g", "alerts": alerts}
        return self.client.post(self.url, json=body, headers={"authorization": f"Bearer {token}"}).status_code

    def rows(self, fingerprint: str) -> list[dict[str, Any]]:
        """Of one alert, by their beginning."""
        query = "select * from public.alerts_history where fingerprint = %s order by starts_at"
        with psycopg.connect(self.backend.dsn, row_factory=dict_row) as connection:
            return connection.execute(query, (fingerprint,)).fetchall()

    def story(self, fingerprint: str) -> list[tuple[int, int | None, str | None, int | None]]:
        """Beginning, end, how it ended, and the beginning of the episode that it continues; minutes."""
        rows = self.rows(fingerprint)
        begins = {row["id"]: row["starts_at"].minute for row in rows}
        return [
            (begins[row["id"]], row["resolved_at"] and row["resolved_at"].minute, row["resolution"], begins.get(row["continues"]))
            for row in rows
        ]


@pytest.fixture(scope="module")
def deliveries(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deliveries]:
    """A receiver that asks no Prometheus."""
    logs = tmp_path_factory.mktemp("receiver")
    port = ports.free(("receiver",))["receiver"]
    with Supervisor(logs=logs, clock=Clock.start()) as supervisor:
        alerting.start_receiver(supervisor, SERVICES, port=port, supabase=(backend.url, backend.keys.service), token=TOKEN, prometheus="")
        with httpx.Client(trust_env=False, timeout=20) as client:
            yield Deliveries(backend, f"http://127.0.0.1:{port}/", logs / alerting.RECEIVER_LOG, client)


def told(fingerprint: str, begins: int, ends: int | None = None) -> dict[str, Any]:
    """One alert of a notification; minutes of one hour."""
    return {
        "status": "firing" if ends is None else "resolved",
        "fingerprint": fingerprint,
        "startsAt": f"2026-11-26T10:{begins:02}:00Z",
        "endsAt": NEVER if ends is None else f"2026-11-26T10:{ends:02}:00Z",
        "labels": {"alertname": "X", "severity": "warning", "service": "host"},
        "annotations": {"summary": "x is high"},
    }


def test_an_episode_is_one_row(deliveries: Deliveries) -> None:
    """Opened, told again, closed, told again; no change of the row but the end."""
    name = uuid.uuid4().hex
    for alert in (told(name, 1), told(name, 1), told(name, 1, 5), told(name, 1, 5)):
        assert deliveries.send(alert) == 200

    (row,) = deliveries.rows(name)
    assert (row["severity"], row["service"], row["message"], row["acknowledged"]) == ("warning", "host", "x is high", False)
    assert row["triggered_at"] == row["starts_at"]
    assert deliveries.story(name) == [(1, 5, "resolved", None)]


def test_a_merged_episode_is_shown_as_what_it_is(deliveries: Deliveries) -> None:
    """It ended and fired again between two ticks: the first end was never told, the first row is closed all the same."""
    name = uuid.uuid4().hex
    for alert in (told(name, 1), told(name, 6, 9)):
        deliveries.send(alert)

    assert deliveries.story(name) == [(1, 6, "superseded", None), (6, 9, "resolved", 1)]


STORIES: Sequence[tuple[tuple[int, int | None], ...]] = (
    ((1, None), (1, 4), (6, None), (6, 9)),
    ((1, None), (6, None), (6, 9), (12, None)),
    ((1, None), (1, 4), (6, None), (12, None), (12, 15)),
)


@pytest.mark.parametrize("story", STORIES, ids=["two episodes", "a merged one and an open one", "the middle one merged"])
def test_order_and_repetition_leave_no_trace(deliveries: Deliveries, story: tuple[tuple[int, int | None], ...]) -> None:
    """Every tried disorder of the same notifications, some told twice, leaves the same rows as the right order."""
    right = uuid.uuid4().hex
    for begins, ends in story:
        deliveries.send(told(right, begins, ends))
    dice = random.Random(7)
    disorders = [order for order in itertools.permutations(story) if order != story]

    for order in dice.sample(disorders, k=min(6, len(disorders))):
        name = uuid.uuid4().hex
        for begins, ends in (*order, dice.choice(order)):
            assert deliveries.send(told(name, begins, ends)) == 200
        assert deliveries.story(name) == deliveries.story(right), order


def test_a_notification_is_stored_whole_or_not_at_all(deliveries: Deliveries) -> None:
    """One alert that the table cannot take leaves none of its neighbours behind, and no 2xx."""
    good, bad = uuid.uuid4().hex, uuid.uuid4().hex

    assert deliveries.send(told(good, 1), {**told(bad, 1), "startsAt": "99999-01-01T00:00:00Z"}) in (400, 503)
    assert deliveries.rows(good) == []


def test_only_alertmanager_may_write(deliveries: Deliveries) -> None:
    """Without its token nothing is stored."""
    name = uuid.uuid4().hex

    assert deliveries.send(told(name, 1), token="wrong") == 401
    assert deliveries.rows(name) == []


def test_an_outage_of_the_database_is_no_success(deliveries: Deliveries) -> None:
    """503 while it is stopped, so that Alertmanager tells it again; stored once when it is back; both are in the log."""
    name = uuid.uuid4().hex
    with psycopg.connect(deliveries.backend.dsn, autocommit=True) as connection:
        # The table is held, as a migration or a long transaction would, and the statement gives up.
        connection.execute("alter role authenticator set statement_timeout = '300ms'")
        connection.execute("notify pgrst, 'reload config'")
        with connection.transaction():
            connection.execute("lock table public.alerts_history in access exclusive mode")
            during = deliveries.send(told(name, 1))
        connection.execute("alter role authenticator reset statement_timeout")
        connection.execute("notify pgrst, 'reload config'")
    after = deliveries.send(told(name, 1))

    assert (during, after) == (503, 200)
    assert deliveries.story(name) == [(1, None, None, None)]
    lines = [json.loads(line) for line in deliveries.log.read_text().splitlines()]
    assert [line["error"] is None for line in lines if line["alerts"][0]["fingerprint"] == name] == [False, True]


def stored(stack: RunningStack) -> list[dict[str, Any]]:
    """Rows of TargetDown."""
    with psycopg.connect(stack.database.dsn(), row_factory=dict_row) as connection:
        rows = connection.execute("select * from public.alerts_history order by starts_at").fetchall()
    return [row for row in rows if row["labels"]["alertname"] == "TargetDown"]


def test_deaths_on_the_way_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Alertmanager, then PostgREST and the receiver are killed while a real alert fires and ends: one row, opened once, closed once."""
    with up(home=home_dir(), logs=tmp_path, progress=silent, with_agent=False) as stack:
        stack.end("node_exporter", number=signal.SIGKILL)
        stack.end("receiver", number=signal.SIGKILL)
        time.sleep(7)
        stack.start("receiver")
        assert until(lambda: len(stored(stack)) == 1, 8)
        stack.end("alertmanager", number=signal.SIGKILL)
        stack.start("alertmanager")
        stack.end("postgrest", number=signal.SIGKILL)
        stack.start("node_exporter")
        time.sleep(3)
        stack.start("postgrest")

        assert until(lambda: stored(stack)[0]["resolved_at"] is not None, 25), stored(stack)
        (row,) = stored(stack)
        # An Alertmanager that was killed has forgotten that it told the beginning, so it may not tell the end.
        assert row["resolution"] in ("resolved", "swept")
