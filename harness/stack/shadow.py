"""A Prometheus beside someone's own: it runs their rules on what it was given or follows, and has no Alertmanager, so that nobody is paged."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from harness.errors import StackError
from harness.model import value
from harness.rules.evaluate import Labels
from harness.stack import ports
from harness.stack.livekit import answers
from harness.stack.ports import LOOPBACK
from harness.stack.supervise import Command, Supervisor

_READY_S = 30.0
_NAME = "shadow"
_JOB = "voxproof-shadow"


@value
class Followed:
    """A Prometheus whose series are scraped as they come, by federation: reading only."""

    url: str
    selectors: tuple[str, ...]
    interval_s: float


def start(
    supervisor: Supervisor,
    *,
    server: Path,
    promtool: Path,
    rules: Sequence[Path] = (),
    history: Iterable[tuple[Labels, Sequence[tuple[float, float]]]] = (),
    follows: Followed | None = None,
    evaluation_s: float = 15.0,
) -> str:
    """Starts it and returns its URL once it answers; it ends with ``supervisor``.

    history: series with their (seconds, value) samples, there from the beginning. Raises StackError for rules or samples that Prometheus refuses.
    """
    place = supervisor.scratch / _NAME
    place.mkdir()
    _backfill(place, promtool, history)
    config = place / "prometheus.yml"
    config.write_text(yaml.safe_dump(configuration(rules, follows, evaluation_s)))
    checked = subprocess.run([str(promtool), "check", "config", str(config)], capture_output=True, text=True, check=False)
    if checked.returncode == 1:
        raise StackError(f"prometheus refuses the rules: {checked.stderr.strip()}")
    port = ports.free((_NAME,))[_NAME]
    command = Command(
        name=_NAME,
        argv=(
            str(server),
            f"--config.file={config}",
            f"--storage.tsdb.path={place / 'data'}",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address={LOOPBACK}:{port}",
            # 5 s by default: the wait for the first scrape. Hidden, and there since 2.x.
            "--scrape.discovery-reload-interval=100ms",
            "--log.level=warn",
        ),
        env={"GOMAXPROCS": "2"},
        cwd=place,
    )
    child = supervisor.start(command)
    url = f"http://{LOOPBACK}:{port}"
    with httpx.Client(timeout=1.0, trust_env=False) as client:
        supervisor.wait_ready(child, lambda: answers(client, f"{url}/-/ready"), timeout_s=_READY_S, port=port)
    return url


def configuration(rules: Sequence[Path], follows: Followed | None, evaluation_s: float) -> dict[str, Any]:
    """What it runs with: rules, at most one source, and no ``alerting`` section."""
    found: dict[str, Any] = {
        "global": {"evaluation_interval": f"{round(evaluation_s * 1000)}ms"},
        "rule_files": [str(path.resolve()) for path in rules],
    }
    if follows is not None:
        source = httpx.URL(follows.url)
        job = {
            "job_name": _JOB,
            "honor_labels": True,
            "scheme": source.scheme,
            "metrics_path": f"{source.path.rstrip('/')}/federate",
            "params": {"match[]": list(follows.selectors)},
            "scrape_interval": f"{round(follows.interval_s * 1000)}ms",
            "scrape_timeout": f"{round(min(10.0, follows.interval_s) * 1000)}ms",
            # What had no job there has none here.
            "metric_relabel_configs": [{"source_labels": ["job"], "regex": _JOB, "target_label": "job", "replacement": ""}],
            "static_configs": [{"targets": [source.netloc.decode()]}],
        }
        found["scrape_configs"] = [job]
    return found


def _backfill(place: Path, promtool: Path, history: Iterable[tuple[Labels, Sequence[tuple[float, float]]]]) -> None:
    by_name: dict[str, list[str]] = {}
    for labels, samples in history:
        name = dict(labels)["__name__"]
        text = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels if key != "__name__")
        by_name.setdefault(name, []).extend(f"{name}{{{text}}} {number!r} {at_s:.3f}\n" for at_s, number in samples)
    if not by_name:
        return
    text_file = place / "history.txt"
    with text_file.open("w") as out:
        for name, lines in by_name.items():
            out.write(f"# TYPE {name} unknown\n")
            out.writelines(lines)
        out.write("# EOF\n")
    command = [str(promtool), "tsdb", "create-blocks-from", "openmetrics", str(text_file), str(place / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"prometheus refuses the samples: {(done.stderr or done.stdout).strip()[-500:]}")


def _escaped(said: str) -> str:
    return said.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
