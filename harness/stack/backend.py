"""The Supabase side of the embedded stack alone: PostgreSQL, PostgREST and the gateway, for tests and figures of the call history.

``python -m harness.stack.backend > deploy/monitoring/supabase/schema.txt`` writes down what the migrations make.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from harness.clock import Clock
from harness.model import value
from harness.stack import database, migrations, ports, supabase
from harness.stack.home import home_dir
from harness.stack.ports import LOOPBACK
from harness.stack.provision import obtain
from harness.stack.supervise import Supervisor

SERVICES = Path(__file__).resolve().parents[2] / "deploy" / "services"


@value
class Backend:
    """Where it is, and every way in."""

    url: str
    keys: supabase.Keys
    dsn: str
    """Of the superuser."""
    pids: dict[str, int]


@contextmanager
def up_database(*, home: Path, logs: Path, progress: Callable[[str], None], reuse_s: float = 10.0) -> Iterator[Backend]:
    """Starts the three, migrated, and ends them. Raises as ``harness.stack.embedded.up`` does."""
    binaries = {name: obtain(name, home=home, progress=progress).path for name in ("postgres", "postgrest")}
    port = ports.free(("postgres", "postgrest", "gateway"))
    keys = supabase.Keys.signed(secrets.token_urlsafe(32))
    base = database.Database(
        port=port["postgres"], superuser_password=secrets.token_urlsafe(16), service_password=secrets.token_urlsafe(16)
    )
    with Supervisor(logs=logs, clock=Clock.start()) as supervisor:
        database.start(supervisor, binaries["postgres"], base)
        database.migrate(base, roles=SERVICES / "gateway" / "roles.sql")
        supabase.start_postgrest(supervisor, binaries["postgrest"], port=port["postgrest"], database=base, keys=keys)
        supabase.start_gateway(
            supervisor, SERVICES, port=port["gateway"], postgrest_port=port["postgrest"], database=base, keys=keys, reuse_s=reuse_s
        )
        pids = {child.name: child.pid for child in supervisor.children}
        yield Backend(url=f"http://{LOOPBACK}:{port['gateway']}", keys=keys, dsn=base.dsn(), pids=pids)


def main() -> None:
    """Facts on stdout, a line each."""
    with (
        tempfile.TemporaryDirectory() as logs,
        up_database(home=home_dir(), logs=Path(logs), progress=lambda _: None) as backend,
        psycopg.connect(backend.dsn, autocommit=True) as connection,
    ):
        facts = migrations.catalog(connection)
    sys.stdout.write("".join(f"{fact}\n" for fact in facts))


if __name__ == "__main__":
    main()
