"""Migrations on real PostgreSQL: from nothing, from each earlier version, twice, at once; and drift, found."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from harness import cli
from harness.clock import Clock
from harness.errors import EnvironmentFault, StackError
from harness.stack import database, migrations, ports
from harness.stack.backend import SERVICES
from harness.stack.home import home_dir
from harness.stack.migrations import FILES, SCHEMA, compared
from harness.stack.provision import obtain
from harness.stack.supervise import Supervisor

NAMES = tuple(path.name for path in FILES)
ROLES = SERVICES / "gateway" / "roles.sql"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """PostgreSQL with the roles that a Supabase project has; a connection string."""
    binaries = obtain("postgres", home=home_dir(), progress=lambda _line: None).path
    base = database.Database(port=ports.free(("postgres",))["postgres"], superuser_password="a", service_password="b")
    with Supervisor(logs=tmp_path_factory.mktemp("postgres"), clock=Clock.start()) as supervisor:
        database.start(supervisor, binaries, base)
        migrations.migrate(base.dsn(), (ROLES,), replace={":service_password": "'b'"})
        yield base.dsn()


@pytest.fixture
def project(server: str) -> Iterator[str]:
    """A database of its own as a new project has it: schema, no tables."""
    name = f"project_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    yield server.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)".encode())


def facts(dsn: str) -> str:
    """The catalog as ``schema.txt`` has it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return "".join(f"{fact}\n" for fact in migrations.catalog(connection))


def change(dsn: str, statement: str) -> None:
    """One statement by whoever owns the database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_numbers_are_in_a_row() -> None:
    """A gap would be a migration that somebody has and we lost."""
    assert [name[:4] for name in NAMES] == [f"{number:04}" for number in range(1, len(NAMES) + 1)]


@pytest.mark.stack
def test_up_from_nothing(project: str) -> None:
    """Everything runs, and makes what ``schema.txt`` says: python -m harness.stack.backend writes it anew."""
    assert migrations.migrate(project) == NAMES
    assert facts(project) == SCHEMA.read_text()
    assert migrations.drift(project).sentences == ()


@pytest.mark.stack
@pytest.mark.parametrize("version", range(1, len(NAMES)))
def test_up_from_an_earlier_version(project: str, version: int) -> None:
    """Only what is new runs, the rows stay, and the result is the same."""
    migrations.migrate(project, FILES[:version])
    change(project, "insert into calls (call_id, phone_number, status) values ('vp-kept', '1', 'completed')")

    assert migrations.migrate(project) == NAMES[version:]
    assert facts(project) == SCHEMA.read_text()
    with psycopg.connect(project) as connection:
        assert connection.execute("select call_id from calls").fetchall() == [("vp-kept",)]


@pytest.mark.stack
def test_a_second_time_does_nothing(project: str) -> None:
    """Neither to the schema nor to the ledger."""
    migrations.migrate(project)

    assert migrations.migrate(project) == ()
    assert facts(project) == SCHEMA.read_text()


@pytest.mark.stack
def test_four_at_once(project: str) -> None:
    """Each migration runs once, whoever gets there first."""
    with ThreadPoolExecutor(4) as pool:
        ran = list(pool.map(lambda _: migrations.migrate(project), range(4)))

    assert sorted(name for each in ran for name in each) == list(NAMES)
    assert facts(project) == SCHEMA.read_text()


@pytest.mark.stack
def test_a_publication_that_is_there_is_kept(project: str) -> None:
    """A project has published tables of its own, and perhaps one of ours by hand."""
    migrations.migrate(project, FILES[:1])
    change(project, "create table mine (id int primary key); create publication supabase_realtime for table mine, calls")
    migrations.migrate(project)

    with psycopg.connect(project) as connection:
        found = connection.execute("select tablename::text from pg_publication_tables where pubname = 'supabase_realtime' order by 1")
        assert [name for (name,) in found] == ["alerts_history", "calls", "mine", "realtime_canary"]


@pytest.mark.stack
def test_a_migration_that_fails_leaves_nothing(project: str, tmp_path: Path) -> None:
    """It is named with its cause, and what ran before it stays."""
    shutil.copy(FILES[0], tmp_path)
    (tmp_path / "0002_wrong.sql").write_text("create table half (id int); select no_such_function();")
    files = sorted(tmp_path.glob("*.sql"))

    with pytest.raises(StackError, match=r"0002_wrong\.sql: function no_such_function\(\) does not exist"):
        migrations.migrate(project, files)
    with psycopg.connect(project) as connection:
        assert connection.execute("select name from voxproof.migrations").fetchall() == [(NAMES[0],)]
        assert connection.execute("select to_regclass('half')").fetchone() == (None,)


@pytest.mark.stack
def test_a_migration_that_was_changed_is_refused(project: str, tmp_path: Path) -> None:
    """What ran in a project and what is written would differ for ever."""
    migrations.migrate(project)
    changed = tmp_path / NAMES[0]
    changed.write_text(FILES[0].read_text() + "-- a thought afterwards\n")

    with pytest.raises(StackError, match=rf"{NAMES[0]} changed after it was run; write a new migration instead"):
        migrations.migrate(project, (changed,))


DRIFTS = (
    ("grant select on calls to anon", "unexpected: calls grant SELECT to anon"),
    ("alter table transcripts disable row level security", "missing: transcripts row security on"),
    ("create policy open on calls for insert to anon with check (true)", "unexpected: calls policy open INSERT to anon using  check true"),
    ("alter publication supabase_realtime drop table alerts_history", "missing: alerts_history published by supabase_realtime"),
    ("alter publication supabase_realtime add table transcripts", "unexpected: transcripts published by supabase_realtime"),
    ("alter table calls replica identity default", "missing: calls replica identity f"),
    (
        "drop index calls_start_time_idx",
        "missing: calls index CREATE INDEX calls_start_time_idx ON public.calls USING btree (start_time DESC)",
    ),
    (
        "alter table calls alter column recorded_at drop default",
        "missing: calls column recorded_at timestamp with time zone not null default",
    ),
    ("grant execute on function end_dead_calls(interval) to public", "unexpected: public.end_dead_calls(interval) grant EXECUTE to public"),
    ("alter table calls drop column agent_version", "missing: calls column agent_version text"),
    ("delete from voxproof.migrations where name like '0003%'", "0003_retention.sql was never run: voxproof migrate"),
    ("insert into voxproof.migrations values ('9999_new.sql', 'x')", "9999_new.sql is of a newer voxproof than this one"),
)


@pytest.mark.stack
@pytest.mark.parametrize(("statement", "sentence"), DRIFTS, ids=[statement for statement, _ in DRIFTS])
def test_drift_is_found(project: str, statement: str, sentence: str) -> None:
    """Whatever somebody changed by hand is named."""
    migrations.migrate(project)
    change(project, statement)

    assert [each for each in migrations.drift(project).sentences if each.startswith(sentence)] != []


@pytest.mark.stack
def test_a_column_of_their_own_is_no_drift(project: str) -> None:
    """Tables may grow."""
    migrations.migrate(project)
    change(project, "alter table calls add column campaign text; create index on calls (campaign)")

    assert migrations.drift(project).sentences == ()


@pytest.mark.stack
def test_the_command_migrates(project: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With nothing but a connection string in the environment; the doctor is content then."""
    monkeypatch.setenv("VOXPROOF_DATABASE_URL", project)

    assert cli.main(["migrate"]) == 0
    assert capsys.readouterr().out.split() == list(NAMES)
    assert cli.main(["migrate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ran"] == []
    cli.main(["doctor"])
    assert "the call history's schema is as the migrations made it" in capsys.readouterr().out


@pytest.mark.stack
def test_the_doctor_names_drift(project: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And does not call the machine healthy."""
    migrations.migrate(project)
    change(project, "grant select on calls to anon")
    monkeypatch.setenv("VOXPROOF_DATABASE_URL", project)

    assert cli.main(["doctor"]) == 3
    assert "unexpected: calls grant SELECT to anon" in capsys.readouterr().out


def test_the_command_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A connection string, in the environment and nowhere else."""
    monkeypatch.delenv("VOXPROOF_DATABASE_URL", raising=False)

    assert cli.main(["migrate"]) == 2
    assert "VOXPROOF_DATABASE_URL" in capsys.readouterr().err


def test_nobody_there_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the password is not repeated."""
    with pytest.raises(EnvironmentFault) as caught:
        migrations.migrate("postgres://someone:a-password@127.0.0.1:1/postgres")
    assert "a-password" not in str(caught.value)


def test_what_was_never_run_is_said_once() -> None:
    """Facts and ledger are compared apart."""
    found = compared({}, {"0001_x.sql": "a"}, ("calls row security on",), ())

    assert found.sentences == ("0001_x.sql was never run: voxproof migrate", "missing: calls row security on")
