"""``doctor``, ``migrate``: what is there, what is missing, and the schema of the call history."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import harness
from harness import codec
from harness.errors import EnvironmentFault, UsageError
from harness.verbs import targets
from harness.verbs.output import columns, home, print_result

DATABASE_URL = "VOXPROOF_DATABASE_URL"


def doctor(options: argparse.Namespace) -> int:
    if options.callers:
        from harness.verbs import capacity

        return capacity.callers(options)
    from harness.stack.provision import inventory

    stock = inventory(home())
    rows = [_part_row(part) for part in stock]
    lines = [columns(rows)]
    lines += [reason for part in stock if part.found for reason in part.found.rejected]
    lines.append(f"{os.cpu_count()} cores · python {sys.version.split()[0]} · voxproof {harness.__version__} · cache {home()}")
    covered: dict[str, Any] = {}
    if options.target:
        from harness import coverage, survey, target

        their = target.load(Path(options.target), os.environ)
        target.reach(their)
        lines.append(
            f"target {their.name}: every source answers" + "".join(f"\n  blind to {name}: {why}" for name, why in their.blind.items())
        )
        covered, table = targets.covered(coverage.learned(their, survey.look(their)))
        lines.append(table)
    drifted = _drift()
    if drifted is not None:
        lines += drifted or ["the call history's schema is as the migrations made it"]
    print_result(options, {"parts": codec.to_json(stock), "cores": os.cpu_count(), "drift": drifted, **covered}, "\n".join(lines))
    return 0 if all(part.found for part in stock) and not drifted else 3


def migrate(options: argparse.Namespace) -> int:
    migrations = _migrations()
    ran = migrations.migrate(_database())
    print_result(options, {"ran": list(ran)}, "\n".join(ran) or "nothing to run: the database has every migration")
    return 0


def _part_row(part: Any) -> tuple[str, ...]:
    if part.found is None:
        return part.name, f"missing, wanted {part.pin}", "", part.missing or ""
    return part.name, part.found.version, str(part.found.origin), str(part.found.path)


def _drift() -> list[str] | None:
    """How the database of the environment differs from what the migrations make. None: no database is named."""
    if not os.environ.get(DATABASE_URL):
        return None
    return list(_migrations().drift(_database()).sentences)


def _database() -> str:
    dsn = os.environ.get(DATABASE_URL)
    if not dsn:
        raise UsageError(
            f"{DATABASE_URL} is not set: export the connection string of the project's database; docs/supabase.md says where it is"
        )
    return dsn


def _migrations() -> Any:
    try:
        from harness.stack import migrations
    except ImportError as exc:
        raise EnvironmentFault(f"no {exc.name} here: install voxproof with its extra, voxproof[stack]") from exc
    return migrations
