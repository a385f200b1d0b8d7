"""Hands three plans to a load with two users and says what became of them. A script: importing locust patches the process."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import gevent  # type: ignore[import-untyped]

from harness.load.locustfile import Load
from tests.fakes.evidence import healthy


class NoPool:
    """Two callers, none of which ever places a call."""

    capacity = 2

    def finish(self, timeout_s: float) -> None:
        self.is_finished = True


def main() -> None:
    plan = healthy()[0].plans[0]
    pool = NoPool()
    load = Load(tuple(replace(plan, call_id=name, due_s=due_s) for name, due_s in (("a", 0.0), ("b", 0.0), ("c", 0.05))), pool)  # type: ignore[arg-type]
    load.idle = 2
    dispatching = gevent.spawn(load.dispatch)
    gevent.sleep(0.2)
    handed = [load.due.get_nowait().call_id for _ in range(load.due.qsize())]
    waiting = load.left
    load.left = 0
    dispatching.join(5)
    sys.stdout.write(json.dumps({"handed": handed, "dropped": load.dropped, "waiting": waiting, "finished": pool.is_finished}))


if __name__ == "__main__":
    main()
