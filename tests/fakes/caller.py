"""A caller process that places no call: it answers each plan by what the plan's room asks for. Run as a script."""

from __future__ import annotations

import json
import signal
import sys
import time


def main() -> None:
    say("not a record")
    if "--deaf" in sys.argv:
        sys.exit("no network here")
    say(json.dumps({"ready": True}))
    for line in sys.stdin:
        plan = json.loads(line)
        if plan["room"] == "die":
            sys.exit(3)
        if plan["room"] == "hang":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            say(json.dumps({"hanging": True}))
            while True:
                time.sleep(60)
        say(json.dumps({"call_id": plan["call_id"], "outcome": "completed", "ttfw_s": [1.5]}))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
