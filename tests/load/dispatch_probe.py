"""Hands four plans to a load with two users and says what became of them. A script: importing locust patches the process."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import gevent  # type: ignore[import-untyped]

from harness.load.locustfile import Load
from tests.fakes.evidence import healthy


class NoPool:
    """Callers, none of which ever places a call."""

    def finish(self, timeout_s: float) -> None:
        self.is_finished = True


def main() -> None:
    plan = healthy()[0].plans[0]
    pool, load = NoPool(), Load()
    load.pool = pool  # type: ignore[assignment]
    load.idle = 2
    due_s = {"a": 0.0, "b": 0.0, "c": 0.05, "d": 60.0}
    plans = tuple(replace(plan, call_id=name, due_s=seconds) for name, seconds in due_s.items())
    with tempfile.TemporaryDirectory() as directory:
        stop = Path(directory) / "stop"
        dispatching = gevent.spawn(load.dispatch, plans, users=2, begin_at_s=time.monotonic(), stop=stop)
        gevent.sleep(0.2)
        handed = [load.due.get_nowait().call_id for _ in range(load.due.qsize())]
        stop.touch()
        gevent.sleep(0.5)
        waiting, load.left = load.left, 0
        dispatching.join(5)
    sys.stdout.write(json.dumps({"handed": handed, "dropped": load.dropped, "waiting": waiting, "finished": pool.is_finished}))


if __name__ == "__main__":
    main()
