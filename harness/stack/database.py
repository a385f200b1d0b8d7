"""PostgreSQL for throw-away data: made, started and migrated."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg

from harness.errors import EnvironmentFault
from harness.model import value
from harness.stack import migrations
from harness.stack.ports import LOOPBACK
from harness.stack.supervise import Child, Command, Supervisor

SUPERUSER = "postgres"
AUTHENTICATOR = "authenticator"
AUTH_ADMIN = "supabase_auth_admin"
REPLICATION_ADMIN = "supabase_replication_admin"
_READY_S = 30.0
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    # TCP with passwords only: no socket file, hence no limit on the length of its path.
    "unix_socket_directories": "",
    # Realtime reads a logical slot.
    "wal_level": "logical",
    "max_replication_slots": "10",
    "max_connections": "60",
    # Throw-away data. It flatters the lag of writes, so reports print it.
    "fsync": "off",
    "full_page_writes": "off",
    # Commits are written at once, which costs nothing without fsync: a slot tells only what is in the log, and the log's writer may sleep 0.2 s.
    "synchronous_commit": "on",
    # A polled slot logs three lines a poll at LOG, which ranks above ERROR.
    "log_min_messages": "fatal",
    "timezone": "UTC",
}


@value
class Database:
    """Where it is and how to get in."""

    port: int
    superuser_password: str
    service_password: str
    """Of every other role that may log in."""

    def dsn(self, user: str = SUPERUSER) -> str:
        """A connection string; it holds the password."""
        password = self.superuser_password if user == SUPERUSER else self.service_password
        return f"postgres://{user}:{password}@{LOOPBACK}:{self.port}/postgres"


def start(supervisor: Supervisor, binaries: Path, database: Database) -> Child:
    """Makes an empty cluster below the scratch directory and starts it; under another account if we are root, which PostgreSQL refuses."""
    account = _account()
    home = supervisor.scratch / "postgres"
    home.mkdir(mode=0o700)
    password = home / "password"
    password.touch(mode=0o600)
    password.write_text(database.superuser_password)
    if account:
        shutil.chown(home, account)
        shutil.chown(password, account)
    data = home / "data"
    _make_cluster(binaries / "initdb", data, password, account)
    settings = {**_SETTINGS, "port": str(database.port)}
    child = supervisor.start(
        Command(
            name="postgres",
            argv=(
                str(binaries / "postgres"),
                "-D",
                str(data),
                *(word for key, text in settings.items() for word in ("-c", f"{key}={text}")),
            ),
            env={},
            cwd=home,
            user=account,
            # Fast, then immediate shutdown: SIGKILL alone would leave its own children.
            signals=(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
        )
    )
    supervisor.wait_ready(child, lambda: _accepts(database), timeout_s=_READY_S, port=database.port)
    return child


def migrate(database: Database, *, roles: Path) -> tuple[str, ...]:
    """Runs the roles that a Supabase project begins with, then every migration; the names it ran. Raises StackError."""
    password = f"'{database.service_password}'"
    return migrations.migrate(database.dsn(), (roles, *migrations.FILES), replace={":service_password": password})


def seed(database: Database, statements: Sequence[str]) -> None:
    """Runs what a defect does to a database that was just migrated."""
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _make_cluster(initdb: Path, data: Path, password: Path, account: str | None) -> None:
    made = subprocess.run(
        [
            *(str(initdb), "-D", str(data), "-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={password}"),
            *("--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C"),
        ],
        user=account,
        group=pwd.getpwnam(account).pw_gid if account else None,
        extra_groups=[] if account else None,
        env={},
        cwd=data.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        check=False,
    )
    if made.returncode != 0:
        said = made.stdout.decode(errors="replace").strip().splitlines()[-4:]
        raise EnvironmentFault(f"{initdb} failed with exit code {made.returncode}: {' / '.join(said)}")


def _accepts(database: Database) -> bool:
    try:
        psycopg.connect(database.dsn(), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _account() -> str | None:
    """Whom to run as. None: ourselves."""
    if os.geteuid() != 0:
        return None
    for name in (SUPERUSER, "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise EnvironmentFault(
        "PostgreSQL refuses to run as root, and there is no account 'postgres' or 'nobody' to run it as; run as another user"
    )
