"""Prometheus of the embedded stack: the shared configuration made fast, its targets, its start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from harness.errors import StackError
from harness.model import value
from harness.rules.scale import Change, scaled_config, scaled_duration, scaled_rules, to_ms
from harness.stack.livekit import answers
from harness.stack.ports import LOOPBACK
from harness.stack.supervise import Child, Command, Supervisor

_READY_S = 20.0
_SCRAPED_S = 15.0
_LOOKBACK = "5m"
"""Prometheus' default of --query.lookback-delta."""
_FLAGS = {"--rules.alert.resend-delay": "1m", "--rules.alert.for-grace-period": "10m", "--rules.alert.for-outage-tolerance": "1h"}
"""Durations of alerting that Prometheus takes as flags, with its defaults."""
# 5 s by default: the wait for the first scrape of a target. Hidden, and there since 2.x.
_DISCOVERY_RELOAD = "100ms"

Seed = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Changes a parsed rule file: the seam of the ``rules`` defects."""


@value
class Configuration:
    """What Prometheus runs with, and what that has otherwise than production."""

    main: dict[str, Any]
    rules: Mapping[str, dict[str, Any]]
    """By file name."""
    lookback: str
    flags: Mapping[str, str]
    """Durations of alerting, by flag."""
    changes: tuple[Change, ...]


def configuration(directory: Path, factor: float, *, seed: Seed = dict) -> Configuration:
    """The configuration below ``directory`` (``deploy/monitoring``) with production time divided by ``factor``."""
    main, changes = scaled_config(yaml.safe_load((directory / "prometheus.yml").read_text()), factor)
    rules = {
        path.name: scaled_rules(seed(yaml.safe_load(path.read_text())), factor) for path in sorted((directory / "rules").glob("*.yml"))
    }
    lookback = scaled_duration(_LOOKBACK, factor)
    flags = {flag: scaled_duration(default, factor) for flag, default in _FLAGS.items()}
    changes = (
        *changes,
        Change(setting="--query.lookback-delta", production=_LOOKBACK, here=lookback),
        *(Change(setting=flag, production=default, here=flags[flag]) for flag, default in _FLAGS.items()),
        Change(setting="every duration in rules/", production="as written", here=f"divided by {factor:g}"),
    )
    return Configuration(main=main, rules=rules, lookback=lookback, flags=flags, changes=changes)


def write(configuration: Configuration, directory: Path, targets: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Lays the configuration out below ``directory`` as ``deploy/monitoring`` is laid out; the path of the main file.

    targets: groups of targets by job, as ``file_sd`` takes them; see ``at``.
    """
    for name, rules in configuration.rules.items():
        _dump(directory / "rules" / name, rules)
    for job, groups in targets.items():
        write_targets(directory, job, groups)
    return _dump(directory / "prometheus.yml", configuration.main)


def rewrite_rules(configuration: Configuration, directory: Path, *, without: str | None) -> None:
    """The rule files anew, without the group of that name. Prometheus reads them when it is told to."""
    for name, rules in configuration.rules.items():
        kept = {**rules, "groups": [group for group in rules["groups"] if group["name"] != without]}
        path = directory / "rules" / name
        _dump(path.with_suffix(".partial"), kept).replace(path)


def write_targets(directory: Path, job: str, groups: Sequence[Mapping[str, Any]]) -> None:
    """Replaces the targets of a job; Prometheus notices by itself, and never reads half a file."""
    path = directory / "targets" / f"{job}.yml"
    partial = _dump(path.with_suffix(".partial"), [dict(group) for group in groups])
    partial.replace(path)


def at(*addresses: str, **labels: str) -> tuple[Mapping[str, Any], ...]:
    """One group of targets. labels: what all of them have."""
    return ({"targets": list(addresses), **({"labels": labels} if labels else {})},)


def start(supervisor: Supervisor, binary: Path, configuration: Configuration, *, config: Path, port: int) -> Child:
    """Starts the server and waits until it is ready; targets are scraped a little later, see ``wait_scraped``."""
    child = supervisor.start(
        Command(
            name="prometheus",
            argv=(
                str(binary),
                f"--config.file={config}",
                f"--storage.tsdb.path={supervisor.scratch / 'tsdb'}",
                "--storage.tsdb.retention.time=15d",
                f"--web.listen-address={LOOPBACK}:{port}",
                f"--query.lookback-delta={configuration.lookback}",
                *(f"{flag}={duration}" for flag, duration in configuration.flags.items()),
                f"--scrape.discovery-reload-interval={_DISCOVERY_RELOAD}",
                "--log.level=warn",
            ),
            env={"GOMAXPROCS": "2"},
            cwd=config.parent,
        )
    )
    with httpx.Client(timeout=1.0, trust_env=False) as client:
        supervisor.wait_ready(child, lambda: answers(client, f"http://{LOOPBACK}:{port}/-/ready"), timeout_s=_READY_S, port=port)
    return child


def wait_scraped(supervisor: Supervisor, child: Child, *, port: int, jobs: tuple[str, ...], scrape_s: float) -> None:
    """Returns when every job has been scraped with success; the first scrape comes within ``scrape_s``.

    Raises StackError naming the jobs that were not, with Prometheus' own words.
    """
    url = f"http://{LOOPBACK}:{port}/api/v1/targets"
    health: dict[str, str] = {}

    def are_up() -> bool:
        try:
            found = client.get(url).json()["data"]["activeTargets"]
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        health.update({target["labels"]["job"]: target["lastError"] or target["health"] for target in found})
        return all(health.get(job) == "up" for job in jobs)

    with httpx.Client(timeout=1.0, trust_env=False) as client:
        try:
            ready_s = child.ready_s
            supervisor.wait_ready(child, are_up, timeout_s=_SCRAPED_S + scrape_s)
            child.ready_s = ready_s
        except StackError as exc:
            if not child.is_alive():
                raise
            down = ", ".join(f"{job} ({health.get(job, 'not discovered')})" for job in jobs if health.get(job) != "up")
            raise StackError(f"prometheus does not scrape {down}") from exc


def seconds(duration: str) -> float:
    """A Prometheus duration in seconds."""
    return to_ms(duration) / 1000


def _dump(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
